"""One packet that holds several coded pictures: hidden ones and the one that is shown."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from triparty.common.errors import PacketError
from triparty.device.streams.headers.picture import picture
from triparty.device.streams.packets import Entry, Picture, PictureType

SEVERAL_SHOWN = "several shown pictures in one packet"


class Coded(NamedTuple):
    """One coded picture of a packet.

    Attributes:
        type: its type.
        shown: whether the decoder outputs it.
        clean: whether it needs nothing and clears all slots.
        reads: slots read.
        writes: slots written.
        qp: its quantiser, None where it is not read.
    """

    type: PictureType
    shown: bool
    clean: bool
    reads: int
    writes: int
    qp: int | None = None


@lru_cache(maxsize=4096)
def named_slots(fields: int, count: int, width: int) -> int:
    """The slots that fields of a header name, as a mask.

    Args:
        fields: the fields as one number; each ends with the three bits of a slot.
        count: how many fields.
        width: bits of a field.
    """
    return sum({1 << (fields >> place * width & 7) for place in range(count)})


def together(coded: Sequence[Coded]) -> tuple[Picture, int]:
    """What a packet says as a whole, and how many pictures it shows.

    Slots that an earlier picture of the packet wrote are not read from outside.

    Raises:
        PacketError: there is no picture.
    """
    if not coded:
        raise PacketError("a packet holds no picture")
    said, shows = coded[-1], 0
    reads = writes = 0
    for one in coded:
        reads |= one.reads & ~writes
        writes |= one.writes
        if one.shown:
            said, shows = one, shows + 1
    entry = Entry.CLEAN if coded[0].clean else Entry.NONE
    shown = shows > 0
    whole = picture(said.type, writes != 0, entry, False, 0, said.qp, reads, writes, shown)
    return whole, shows
