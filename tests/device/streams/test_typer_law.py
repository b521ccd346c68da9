"""Gated decoding is exact by what the typer says, for structures that cameras rarely send."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from gated_decoding import full_decode, gated_decode, open_stream, random_gate
from video_encodings import X265_QUIET, Encoding, encode

from triparty.device.streams.headers.vp9 import STATE
from triparty.device.streams.packets import Entry, Picture


def _x264(name: str, suffix: str, parameters: str) -> Encoding:
    common = "threads=1:keyint=12:min-keyint=12:scenecut=0"
    options = {"preset": "veryfast", "x264-params": f"{common}:{parameters}"}
    return Encoding(name, "libx264", suffix, options)


def _x265(name: str, parameters: str) -> Encoding:
    options = {"preset": "medium", "x265-params": f"{X265_QUIET}:{parameters}"}
    return Encoding(name, "libx265", "mkv", options)


def _vp9(name: str, **options: str) -> Encoding:
    common = {"deadline": "realtime", "cpu-used": "8", "crf": "34", "b": "0", "g": "20"}
    changed = {key.replace("_", "-"): value for key, value in options.items()}
    return Encoding(name, "libvpx-vp9", "webm", common | {"lag-in-frames": "0"} | changed)


def _av1(name: str, suffix: str, parameters: str) -> Encoding:
    options = {"preset": "12", "crf": "40", "g": "20", "svtav1-params": f"lp=1:{parameters}"}
    return Encoding(name, "libsvtav1", suffix, options)


LAYERS = (
    "ts_number_layers=3:ts_target_bitrate=100,200,400:ts_rate_decimator=4,2,1:"
    "ts_periodicity=4:ts_layer_id=0,2,1,2:ts_layering_mode=3"
)
VARIANTS = (
    _x264("h264-fields-in-frames", "mp4", "tff=1:bframes=2:b-pyramid=normal:ref=3"),
    _x264("h264-deep-open", "ts", "bframes=8:b-adapt=0:b-pyramid=normal:ref=8:open-gop=1"),
    _x264("h264-open-slices", "mp4", "bframes=3:slices=3:b-pyramid=strict:open-gop=1"),
    _x264("h264-stamped", "ts", "aud=1:nal-hrd=vbr:vbv-bufsize=300:vbv-maxrate=300:bframes=2"),
    _x265("h265-radl", "keyint=12:bframes=3:radl=2:open-gop=0:b-adapt=0"),
    _x265("h265-layers-open", "keyint=16:bframes=3:temporal-layers=2:b-adapt=0:open-gop=1"),
    _x265("h265-repeated", "keyint=16:bframes=3:repeat-headers=1:aud=1:hash=1:open-gop=1"),
    _vp9("vp9-layers", error_resilient="1", ts_parameters=LAYERS),
    _vp9("vp9-chained", error_resilient="0", aq_mode="3"),
    _vp9("vp9-parallel", error_resilient="0", frame_parallel="1"),
    _av1("av1-forward-keys", "mp4", "irefresh-type=1"),
    _av1("av1-switch", "mkv", "sframe-dist=8:pred-struct=1"),
    _av1("av1-grain", "obu", "film-grain=10:hierarchical-levels=3"),
    Encoding("mpeg4-avi", "mpeg4", "avi", {"g": "12", "bf": "2", "b": "200k"}),
    Encoding("mpeg4-quarters", "mpeg4", "ts", {"g": "12", "bf": "1", "flags": "+qpel+mv4"}),
    Encoding("mpeg4-fields", "mpeg4", "mp4", {"g": "12", "bf": "0", "flags": "+ildct+ilme"}),
)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda one: one.name)
def test_gated_frames_are_those_of_full_decoding(
    variant: Encoding, clips: Path, tmp_path: Path
) -> None:
    encode(variant, clips, tmp_path / variant.filename)
    stream = open_stream(tmp_path / variant.filename)
    full = full_decode(stream)
    assert len(full) == len(stream.packets) == variant.frames
    assert stream.whole_from is None
    fed = 0
    for seed in range(6):
        start = 0 if seed % 3 else len(stream.packets) // 3
        gate = random_gate(seed, (0.05, 0.2, 0.5)[seed // 2], len(stream.packets))
        outcome = gated_decode(stream, gate, start)
        assert outcome.differing(full) == []
        assert (outcome.lost, outcome.surplus, outcome.failures) == ([], 0, 0)
        fed += outcome.fed
    assert 0 < fed < 6 * len(stream.packets)


@pytest.mark.parametrize("layers", ["vp9-layers", "av1-forward-keys"])
def test_slots_let_more_be_left_out_than_reference_flags_do(
    layers: str, clips: Path, tmp_path: Path
) -> None:
    """One late frame takes only the pictures that it is made of."""
    variant = next(one for one in VARIANTS if one.name == layers)
    encode(variant, clips, tmp_path / variant.filename)
    stream = open_stream(tmp_path / variant.filename)
    last = len(stream.packets) - 1
    entry = max(n for n in range(last) if stream.packets[n].picture.entry is Entry.CLEAN)
    wants: list[int | None] = [None] * (last + 1)
    wants[last] = last
    flagged = [one.picture.reference for one in stream.packets[entry:last]]
    outcome = gated_decode(stream, wants)
    assert outcome.frames[last] == full_decode(stream)[last]
    assert outcome.fed <= sum(flagged)
    assert outcome.fed < (last - entry) * 2 / 3


def test_control_vp9_carries_more_than_its_slots(clips: Path, tmp_path: Path) -> None:
    """Layers that share probabilities: pictures that write no slot are needed by the next."""
    two_layers = (
        "ts_number_layers=2:ts_target_bitrate=100,400:ts_rate_decimator=2,1:"
        "ts_periodicity=2:ts_layer_id=0,1:ts_layering_mode=2"
    )
    variant = _vp9("vp9-shared", error_resilient="0", ts_parameters=two_layers)
    encode(variant, clips, tmp_path / variant.filename)
    stream = open_stream(tmp_path / variant.filename)
    full = full_decode(stream)

    def slots_alone(picture: Picture) -> Picture:
        reads, writes = picture.reads or 0, picture.writes or 0
        return replace(picture, reads=reads & ~STATE, writes=writes & ~STATE)

    forgetful = stream.with_pictures(slots_alone)
    assert any(one.picture.writes == 0 for one in forgetful.packets)
    wrong = 0
    for seed in range(6):
        gate = random_gate(seed, 0.2, len(stream.packets))
        assert gated_decode(stream, gate).differing(full) == []
        outcome = gated_decode(forgetful, gate)
        wrong += len(outcome.differing(full)) + len(outcome.lost) + outcome.failures
    assert wrong > 0
