"""One stream says the same in every packaging, with its parameter sets anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typed_streams import Compressed, compressed, read, typed
from video_encodings import BY_NAME, Encodings, encode

from triparty.common.errors import PacketError
from triparty.device.streams.headers.units import units
from triparty.device.streams.packets import Picture
from triparty.device.streams.typer import Typer

FILTERS = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
PREFIXED = ("h264-main-b", "h264-b-pyramid", "h264-open-gop-mp4", "h265-closed", "h265-open")
START = b"\0\0\0\1"


def _annex_b(encodings: Encodings, name: str) -> Compressed:
    path = encodings.path(name)
    return compressed(path, FILTERS[BY_NAME[name].codec])


@pytest.mark.parametrize("name", PREFIXED)
def test_prefixed_and_annex_b_agree(name: str, encodings: Encodings) -> None:
    prefixed = compressed(encodings.path(name))
    annex_b = _annex_b(encodings, name)
    assert prefixed.packets[5][:4] != START
    assert annex_b.packets[0].startswith(START)
    assert prefixed.typed() == annex_b.typed()


@pytest.mark.parametrize("name", PREFIXED)
def test_parameter_sets_may_be_in_extradata_alone(name: str, encodings: Encodings) -> None:
    annex_b = _annex_b(encodings, name)
    split = [list(units(packet, 0)) for packet in annex_b.packets]
    sets = b"".join(START + unit for unit in split[0] if _is_set(annex_b.codec, unit))
    stripped = [
        b"".join(START + unit for unit in one if not _is_set(annex_b.codec, unit))
        for one in split
    ]
    assert typed(annex_b.codec, sets, stripped) == annex_b.typed()
    with pytest.raises(PacketError, match="has not arrived"):
        typed(annex_b.codec, None, stripped)


def _is_set(codec: str, unit: bytes) -> bool:
    return unit[0] & 31 in (7, 8) if codec == "h264" else unit[0] >> 1 in (32, 33, 34)


@pytest.mark.parametrize("length_size", [1, 2, 3])
@pytest.mark.parametrize("name", ["h264-main-b", "h265-closed"])
def test_lengths_may_have_any_size(name: str, length_size: int, encodings: Encodings) -> None:
    stream = compressed(encodings.path(name))
    extradata = bytearray(stream.extradata or b"")
    place = 4 if stream.codec == "h264" else 21
    extradata[place] = extradata[place] & 0xFC | (length_size - 1)
    limit = 256**length_size - 1
    repacked = [
        b"".join(
            len(unit[:limit]).to_bytes(length_size, "big") + unit[:limit]
            for unit in units(packet, 4)
        )
        for packet in stream.packets
    ]
    assert typed(stream.codec, bytes(extradata), repacked) == stream.typed()


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_parameter_sets_may_change_in_band(
    codec: str, clips: Path, tmp_path: Path, encodings: Encodings
) -> None:
    """Two streams one after the other, whose sets have the same numbers and differ."""
    first, second = {
        "h264": ("h264-b-raw", "h264-b-transport"),
        "hevc": ("h265-raw", "h265-open-transport"),
    }[codec]
    other = replace(BY_NAME[second], name="other", width=320, height=192)
    encode(other, clips, tmp_path / other.filename)
    one = compressed(encodings.path(first))
    two = compressed(tmp_path / other.filename)
    both = Compressed(codec, None, one.packets + two.packets + one.packets)
    apart = typed(codec, None, one.packets), typed(codec, None, two.packets)
    assert both.typed() == apart[0] + apart[1] + apart[0]
    reading = read(both)
    assert len(reading.letters) == len(both.packets)
    assert reading.mismatches == 0


def test_longer_start_codes_and_padding_change_nothing(encodings: Encodings) -> None:
    stream = compressed(encodings.path("h264-b-transport"))
    padded = [b"\0\0\0\0" + packet + b"\0\0\0" for packet in stream.packets]
    assert typed("h264", stream.extradata, padded) == stream.typed()


@pytest.mark.parametrize("name", ["h264-main-b", "h265-closed"])
def test_empty_units_change_nothing(name: str, encodings: Encodings) -> None:
    stream = compressed(encodings.path(name))
    padded = [b"\0\0\0\0" + packet for packet in stream.packets]
    assert typed(stream.codec, stream.extradata, padded) == stream.typed()


def test_bytes_and_views_agree(encodings: Encodings) -> None:
    for name in ("h264-open-gop", "h265-open", "vp9-altref", "av1", "mpeg4-b", "mjpeg"):
        stream = compressed(encodings.path(name))
        typer = Typer.of(stream.codec, stream.extradata)
        plain: list[Picture] = [typer.read(packet) for packet in stream.packets]
        assert plain == stream.typed()


def test_a_late_start_says_the_same_from_the_next_entry_on(encodings: Encodings) -> None:
    for name in ("h264-open-gop", "h265-open", "vp9-realtime", "av1", "mpeg4-b"):
        stream = compressed(encodings.path(name))
        whole = stream.typed()
        entries = [n for n, one in enumerate(whole) if one.entry]
        late = typed(stream.codec, stream.extradata, stream.packets[entries[1] :])
        again = [replace(one, reference=True, shown=True) for one in late]
        assert again == [
            replace(one, reference=True, shown=True) for one in whole[entries[1] :]
        ]
