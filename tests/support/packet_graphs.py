"""Random streams of packets, and a decoder of pure arithmetic that shows what each one needs.

A picture's "pixels" are a nested tuple of its number and the pixels of everything that it may
refer to, in the worst case that its headers allow. So pixels are equal exactly when every
needed reference was decoded, exactly, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from triparty.device.streams.packets import Entry, Packet, Picture, PictureType

SLOTS = 4
Pixels = Any


def packet(number: int, picture: Picture, size: int = 100) -> Packet:
    return Packet(number, size, number, number / 25, number / 25, picture)


def trailing(reference: bool = True) -> Picture:
    return Picture(PictureType.P, reference)


def leading(reference: bool = False) -> Picture:
    return Picture(PictureType.B, reference, leading=True)


def entry(kind: Entry = Entry.CLEAN) -> Picture:
    return Picture(PictureType.I, True, kind)


def slotted(reads: int, writes: int, shown: bool = True) -> Picture:
    return Picture(PictureType.P, bool(writes), reads=reads, writes=writes, shown=shown)


def slotted_entry() -> Picture:
    every = (1 << SLOTS) - 1
    return Picture(PictureType.I, True, Entry.CLEAN, reads=0, writes=every)


def silent_pictures() -> st.SearchStrategy[list[Picture]]:
    """Streams of codecs whose headers do not say what is read."""
    kinds = st.sampled_from(
        [
            entry(),
            entry(Entry.OPEN),
            *[leading()] * 2,
            *[leading(reference=True)] * 2,
            *[trailing()] * 4,
            *[trailing(reference=False)] * 3,
        ]
    )
    return st.lists(kinds, min_size=1, max_size=40).map(_follow_standard)


def slotted_pictures() -> st.SearchStrategy[list[Picture]]:
    """Streams of codecs whose headers name the slots."""
    mask = st.integers(0, (1 << SLOTS) - 1)
    inter = st.builds(slotted, mask, mask, st.sampled_from([True, True, True, False]))
    kinds = st.one_of(*[inter] * 8, st.just(slotted_entry()))
    return st.lists(kinds, min_size=1, max_size=40)


def _follow_standard(pictures: list[Picture]) -> list[Picture]:
    """Leading pictures come right after an open entry; elsewhere they are trailing ones."""
    kept = []
    may_lead = False
    for picture in pictures:
        if picture.entry:
            may_lead = picture.entry is Entry.OPEN
        elif not picture.leading:
            may_lead = False
        is_stray = picture.leading and not may_lead
        kept.append(trailing(picture.reference) if is_stray else picture)
    return kept


@dataclass
class ArithmeticDecoder:
    """A decoder that fails nobody: with references missing the pixels are just others."""

    slots: list[Pixels] = field(default_factory=lambda: [None] * SLOTS)
    group: tuple[Pixels, ...] = ()
    before: tuple[Pixels, ...] = ()
    leaders: tuple[Pixels, ...] = ()

    def restart(self) -> None:
        self.__init__()  # type: ignore[misc]

    def feed(self, one: Packet) -> Pixels:
        picture = one.picture
        if picture.reads is not None:
            return self._feed_slots(one.number, picture)
        if picture.entry:
            pixels: Pixels = (one.number,)
            # After a clean entry nothing is left of what came before.
            self.before = self.group if picture.entry is Entry.OPEN else ()
            self.group, self.leaders = (pixels,), ()
        elif picture.leading:
            pixels = (one.number, self.before, self.group, self.leaders)
            if picture.reference:
                self.leaders = (*self.leaders, pixels)
        else:
            pixels = (one.number, self.group)
            if picture.reference:
                self.group = (*self.group, pixels)
        return pixels

    def _feed_slots(self, number: int, picture: Picture) -> Pixels:
        assert picture.reads is not None
        assert picture.writes is not None
        if picture.entry:
            self.slots = [(number,)] * SLOTS
            return (number,)
        read = [self.slots[n] for n in range(SLOTS) if picture.reads >> n & 1]
        pixels = (number, *read)
        for n in range(SLOTS):
            if picture.writes >> n & 1:
                self.slots[n] = pixels
        return pixels

    def copy(self) -> ArithmeticDecoder:
        return ArithmeticDecoder(list(self.slots), self.group, self.before, self.leaders)


def rubbish() -> ArithmeticDecoder:
    """A decoder that has failed."""
    junk: Pixels = ("rubbish",)
    return ArithmeticDecoder([junk] * SLOTS, (junk,), (junk,), (junk,))


def full_decode(packets: Iterable[Packet], missing: Sequence[int] = ()) -> dict[int, Pixels]:
    """Pixels of all pictures; of those that a missing packet spoils, none."""
    decoder = ArithmeticDecoder()
    found: dict[int, Pixels] = {}
    is_whole = False
    for one in packets:
        if one.number in missing:
            is_whole = False
            continue
        if one.picture.entry and not is_whole:
            decoder.restart()
            is_whole, spoils_leading = True, True
        elif one.picture.entry:
            spoils_leading = False
        pixels = decoder.feed(one)
        if is_whole and not (one.picture.leading and spoils_leading):
            found[one.number] = pixels
    return found
