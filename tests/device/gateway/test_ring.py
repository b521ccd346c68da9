"""The ring holds whole groups, as far back as asked, within its bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from triparty.device.gateway.ring import Ring
from triparty.device.streams.packets import Entry, Packet, Picture, PictureType


def packet(number: int, *, entry: Entry = Entry.NONE, size: int = 10, leading: bool = False):  # type: ignore[no-untyped-def]
    kind = PictureType.I if entry else PictureType.P
    picture = Picture(kind, True, entry, leading=leading)
    return Packet(number, size, number, number * 1.0, number * 1.0, picture)


def numbers(packets: list[Packet]) -> list[int]:
    return [each.number for each in packets]


def test_packets_before_the_first_entry_are_of_no_use() -> None:
    ring = Ring(100, 1000)
    for number in range(3):
        ring.add(packet(number))
    assert len(ring) == ring.held_bytes == 0
    assert ring.since(0) == []


def test_a_clip_begins_at_the_entry_before() -> None:
    ring = Ring(100, 10_000)
    for number in range(20):
        ring.add(packet(number, entry=Entry.CLEAN if number % 5 == 0 else Entry.NONE))
    assert numbers(ring.since(12)) == list(range(10, 20))
    assert numbers(ring.since(10)) == list(range(10, 20))
    assert numbers(ring.since(-5)) == list(range(20))
    assert numbers(ring.since(99)) == list(range(15, 20))


def test_leading_pictures_of_the_first_entry_are_left_out() -> None:
    ring = Ring(100, 10_000)
    for number in range(12):
        entry = Entry.OPEN if number % 6 == 0 else Entry.NONE
        ring.add(packet(number, entry=entry, leading=number % 6 in (1, 2)))
    assert numbers(ring.since(0)) == [0, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert numbers(ring.since(7)) == [6, 9, 10, 11]


def test_a_group_too_long_is_given_up_until_the_next_entry() -> None:
    ring = Ring(100, 55)
    for number in range(8):
        ring.add(packet(number, entry=Entry.CLEAN if number == 0 else Entry.NONE))
    assert ring.held_bytes == 0
    ring.add(packet(8, entry=Entry.CLEAN))
    assert numbers(ring.since(0)) == [8]


@given(
    entries=st.lists(st.booleans(), min_size=1, max_size=80),
    seconds=st.integers(0, 30),
    limit=st.integers(10, 400),
    back=st.integers(0, 30),
)
def test_the_ring_keeps_its_bounds_and_its_promise(
    entries: list[bool], seconds: int, limit: int, back: int
) -> None:
    ring = Ring(seconds, limit)
    for number, entry in enumerate(entries):
        ring.add(packet(number, entry=Entry.CLEAN if entry else Entry.NONE))
        assert ring.held_bytes <= limit
        assert ring.held_bytes == 10 * len(ring)
    last = len(entries) - 1
    got = numbers(ring.since(last - min(back, seconds)))
    starts = [n for n, entry in enumerate(entries) if entry]
    best = max((n for n in starts if n <= last - min(back, seconds)), default=None)
    best = min(starts, default=None) if best is None else best
    if best is not None and 10 * (last - best + 1) <= limit - 10 * seconds:
        assert got == list(range(best, last + 1))
    if got:
        assert entries[got[0]]
        assert got == list(range(got[0], last + 1))
