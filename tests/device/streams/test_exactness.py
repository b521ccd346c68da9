"""The law of gating: what comes out is bit-identical to full decoding, and all asked for comes.

A decoder does not warn when a reference is missing: H.264 conceals it, H.265 drops the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from gated_decoding import (
    DENSITIES,
    Outcome,
    Stream,
    full_decode,
    gated_decode,
    open_stream,
    random_gate,
)
from silent_reordering import without_usability
from video_encodings import BY_NAME, ENCODINGS, Encodings

from triparty.device.streams.packets import Entry, Picture, PictureType
from triparty.device.streams.reachability import Unreachable

NAMES = [one.name for one in ENCODINGS]
CLIPS = ("bottle-detection", "car-detection", "one-by-one-person-detection")

Load = Callable[[str], tuple[Stream, dict[int, str]]]


@pytest.fixture(scope="module")
def load(encodings: Encodings) -> Load:
    """Streams with their full decode, by name."""
    loaded: dict[str, tuple[Stream, dict[int, str]]] = {}

    def one(name: str) -> tuple[Stream, dict[int, str]]:
        if name not in loaded:
            stream = open_stream(encodings.path(name))
            loaded[name] = stream, full_decode(stream)
        return loaded[name]

    return one


def _check(stream: Stream, full: dict[int, str], seed: int, density: float) -> Outcome:
    count = len(stream.packets)
    start = 0 if seed % 4 else count // 3
    outcome = gated_decode(stream, random_gate(seed, density, count), start)
    case = f"seed {seed}, density {density}, from {start}"
    if stream.whole_from is None or start == 0:
        assert outcome.differing(full) == [], case
        assert outcome.lost == [], case
    assert (outcome.surplus, outcome.failures) == (0, 0), case
    return outcome


@pytest.mark.parametrize("name", NAMES)
def test_gated_frames_are_those_of_full_decoding(name: str, load: Load) -> None:
    stream, full = load(name)
    assert len(full) == BY_NAME[name].frames
    outcomes = [
        _check(stream, full, seed, density)
        for seed, density in enumerate((0.1, 0.3, 0.7, 0.1, 0.05, 0.5))
    ]
    assert sum(len(outcome.frames) for outcome in outcomes) > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_gated_frames_are_those_of_full_decoding_for_many_gates(name: str, load: Load) -> None:
    stream, full = load(name)
    for seed in range(40):
        for density in DENSITIES:
            _check(stream, full, seed, density)


@pytest.mark.slow
@pytest.mark.parametrize("clip", CLIPS)
def test_gated_frames_of_real_clips_are_those_of_full_decoding(clips: Path, clip: str) -> None:
    stream = open_stream(clips / f"{clip}.mp4")
    full = full_decode(stream)
    assert stream.whole_from is None
    for seed, density in enumerate((*DENSITIES, *DENSITIES)):
        _check(stream, full, seed, density)


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_asked_for_comes_out(name: str, load: Load) -> None:
    """Asking for every packet is full decoding."""
    stream, full = load(name)
    outcome = gated_decode(stream, range(len(stream.packets)))
    assert outcome.frames == full


@pytest.mark.parametrize("name", NAMES)
def test_a_sparse_gate_decodes_less_unless_the_stream_is_ungateable(
    name: str, load: Load
) -> None:
    stream, _ = load(name)
    assert (stream.whole_from is not None) is BY_NAME[name].ungateable
    count = len(stream.packets)
    wants: list[int | None] = [None] * count
    wants[-1] = count - 1
    fed = gated_decode(stream, wants).fed
    assert fed == count if BY_NAME[name].ungateable else fed <= count


@pytest.mark.parametrize("name", ["h264-main-b", "h264-b-pyramid", "h264-open-gop-mp4"])
def test_a_stream_that_hides_its_reordering_loses_nothing_if_the_container_knows(
    name: str, load: Load
) -> None:
    stream, full = load(name)
    silent = without_usability(stream)
    lost = 0
    for seed in range(8):
        wants = random_gate(seed, 0.5, len(silent.packets))
        outcome = gated_decode(silent, wants, reorders=True)
        assert outcome.differing(full) == []
        assert outcome.lost == []
        alone = gated_decode(silent, wants)
        assert alone.differing(full) == []
        lost += len(alone.lost)
    assert lost > 0 or name != "h264-b-pyramid"


def _gates_over(stream: Stream, full: dict[int, str]) -> tuple[int, int]:
    """Frames that differ and frames that are lost (or refused bytes), over several gates."""
    differing = lost = 0
    for seed in range(9):
        wants = random_gate(seed, 0.25, len(stream.packets))
        outcome = gated_decode(stream, wants)
        differing += len(outcome.differing(full))
        lost += len(outcome.lost) + outcome.failures
    return differing, lost


def _without_b_references(picture: Picture) -> Picture:
    return replace(picture, reference=picture.reference and picture.type != PictureType.B)


def _all_entries_clean(picture: Picture) -> Picture:
    return replace(picture, entry=Entry.CLEAN if picture.entry else Entry.NONE, leading=False)


@pytest.mark.parametrize("name", ["h264-b-pyramid", "h265-closed"])
def test_control_b_pictures_of_a_pyramid_are_needed(name: str, load: Load) -> None:
    stream, full = load(name)
    assert _gates_over(stream, full) == (0, 0)
    differing, lost = _gates_over(stream.with_pictures(_without_b_references), full)
    assert differing + lost > 0


@pytest.mark.parametrize("name", ["h264-open-gop", "h264-open-gop-mp4", "h265-open", "mpeg4-b"])
def test_control_leading_pictures_of_an_open_entry_must_be_withheld(
    name: str, load: Load
) -> None:
    stream, full = load(name)
    assert any(one.picture.entry is Entry.OPEN for one in stream.packets)
    assert any(one.picture.leading for one in stream.packets)
    assert _gates_over(stream, full) == (0, 0)
    differing, lost = _gates_over(stream.with_pictures(_all_entries_clean), full)
    assert differing + lost > 0


def test_leading_pictures_are_refused_after_a_start_and_come_when_going_through(
    load: Load,
) -> None:
    stream, full = load("h265-open")
    leading = next(one.number for one in stream.packets if one.picture.leading)
    wants: list[int | None] = [None] * len(stream.packets)
    wants[leading] = leading
    assert leading in gated_decode(stream, wants).frames
    entry = max(n for n in range(leading) if stream.packets[n].picture.entry)
    wants[entry] = entry
    outcome = gated_decode(stream, wants)
    assert outcome.refused == {Unreachable.LEADING: 1}
    assert outcome.frames[entry] == full[entry]


def test_control_keyframe_flags_of_intra_refresh_are_no_entries(load: Load) -> None:
    stream, full = load("h264-intra-refresh")
    assert stream.whole_from is not None
    assert sum(one.data.is_keyframe for one in stream.packets) > 1
    packets = [
        replace(one, picture=Picture(PictureType.P, True, Entry.CLEAN))
        if one.data.is_keyframe
        else one
        for one in stream.packets
    ]
    trusting = replace(stream, packets=tuple(packets), whole_from=None)
    differing, lost = _gates_over(trusting, full)
    assert differing + lost > 0


@pytest.mark.parametrize("name", ["h264-baseline", "h265-raw", "vp9-altref", "av1", "mpeg4"])
def test_control_one_reference_left_out_shows(name: str, load: Load) -> None:
    """The law is no tautology: the fingerprints tell when a reference is missing."""
    stream, full = load(name)
    victim = next(
        one.number for one in stream.packets if one.picture.reference and not one.picture.entry
    )

    packets = list(stream.packets)
    needless = Picture(packets[victim].picture.type, False, reads=0, writes=0)
    packets[victim] = replace(packets[victim], picture=needless)
    wrong = replace(stream, packets=tuple(packets))
    differing, lost = _gates_over(wrong, full)
    assert differing + lost > 0
