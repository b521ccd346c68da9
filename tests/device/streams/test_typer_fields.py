"""Header fields are those that FFmpeg's own reader of headers finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typed_streams import compressed, traced
from video_encodings import ENCODINGS, Encodings

from triparty.device.streams.headers.av1 import short_references
from triparty.device.streams.headers.vp9 import STATE
from triparty.device.streams.packets import Entry

Fields = Mapping[str, Sequence[int]]
ALL = 0xFF


def _of(codec: str) -> list[str]:
    return [one.name for one in ENCODINGS if one.codec == codec]


@pytest.mark.parametrize("name", _of("h264"))
def test_h264_fields(name: str, encodings: Encodings) -> None:
    path = encodings.path(name)
    base = 26
    for fields, picture in zip(traced(path), compressed(path).typed(), strict=True):
        if "pic_init_qp_minus26" in fields:
            base = 26 + fields["pic_init_qp_minus26"][0]
        assert picture.slice_qp == base + fields["slice_qp_delta"][0]
        assert picture.reference is any(_slices(fields))
        assert (picture.entry is Entry.CLEAN) is ("idr_pic_id" in fields)


@pytest.mark.parametrize("name", _of("hevc"))
def test_h265_fields(name: str, encodings: Encodings) -> None:
    path = encodings.path(name)
    quantisers = 0
    for fields, picture in zip(traced(path), compressed(path).typed(), strict=True):
        assert picture.temporal_id == fields["nuh_temporal_id_plus1"][-1] - 1
        if picture.slice_qp is not None:
            quantisers += 1
            assert picture.slice_qp == 26 + fields["slice_qp_delta"][0]
    assert quantisers > 0


@pytest.mark.parametrize("name", _of("vp9"))
def test_vp9_slots(name: str, encodings: Encodings) -> None:
    path = encodings.path(name)
    for fields, picture in zip(traced(path), compressed(path).typed(), strict=True):
        reads, writes = _slots(fields, count=3)
        chained = reads and not all(fields["error_resilient_mode"])
        assert picture.reads == reads | (STATE if chained else 0)
        assert picture.writes == writes | STATE
        assert picture.slice_qp == fields["base_q_idx"][-1]


@pytest.mark.parametrize("name", _of("av1"))
def test_av1_slots(name: str, encodings: Encodings) -> None:
    path = encodings.path(name)
    several = 0
    for fields, picture in zip(traced(path), compressed(path).typed(), strict=True):
        assert (picture.reads, picture.writes) == _slots(fields, count=7)
        several += len(fields["show_existing_frame"]) > 1
        assert picture.shown
    assert several > 0 or name != "av1"


def _slices(fields: Fields) -> list[int]:
    """`nal_ref_idc` of a packet's slices."""
    units = zip(fields["nal_unit_type"], fields["nal_ref_idc"], strict=True)
    return [needed for kind, needed in units if kind in (1, 5)]


def _slots(fields: Fields, count: int) -> tuple[int, int]:
    """Slots that a packet reads from before it, and writes."""
    reads = writes = 0
    refreshes = iter(fields.get("refresh_frame_flags", ()))
    existing = iter(fields.get("frame_to_show_map_idx", ()))
    types = iter(fields["frame_type"])
    places = [iter(fields.get(f"ref_frame_idx[{n}]", ())) for n in range(count)]
    for shows_existing in fields["show_existing_frame"]:
        if shows_existing:
            reads |= 1 << next(existing) & ~writes
            continue
        inter = next(types) == 1
        if inter:
            wanted = sum({1 << next(place) for place in places})
            reads |= wanted & ~writes
        writes |= next(refreshes) if inter else ALL
    return reads, writes


def _short_references_by_the_letter(
    hints: list[int], order: int, bits: int, last: int, golden: int
) -> int:
    """AV1 specification 7.8, step by step."""
    middle = 1 << (bits - 1)

    def distance(a: int, b: int) -> int:
        difference = a - b
        return (difference & (middle - 1)) - (difference & middle)

    shifted = [middle + distance(hint, order) for hint in hints]
    index = [-1] * 8
    used = [False] * 8
    index[1], index[4] = last, golden
    used[last] = used[golden] = True

    def find(wants_later: bool, wants_greatest: bool) -> int:
        found, best = -1, 0
        for slot in range(8):
            hint = shifted[slot]
            if used[slot] or (hint >= middle) is not wants_later:
                continue
            if found < 0 or (hint >= best if wants_greatest else hint < best):
                found, best = slot, hint
        return found

    for name, wants_greatest in ((7, True), (5, False), (6, False)):
        slot = find(True, wants_greatest)
        if slot >= 0:
            index[name], used[slot] = slot, True
    for name in (2, 3, 5, 6, 7):
        if index[name] < 0:
            slot = find(False, True)
            if slot >= 0:
                index[name], used[slot] = slot, True
    earliest = min(range(8), key=lambda slot: (shifted[slot], slot))
    return sum({1 << (slot if slot >= 0 else earliest) for slot in index[1:]})


@given(
    bits=st.integers(1, 8),
    hints=st.lists(st.integers(0, 255), min_size=8, max_size=8),
    order=st.integers(0, 255),
    last=st.integers(0, 7),
    golden=st.integers(0, 7),
)
def test_av1_short_references(
    bits: int, hints: list[int], order: int, last: int, golden: int
) -> None:
    turn = 1 << bits
    hints = [hint % turn for hint in hints]
    expected = _short_references_by_the_letter(hints, order % turn, bits, last, golden)
    assert short_references(hints, order % turn, bits, last, golden) == expected
