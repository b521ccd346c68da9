"""One packet that holds several coded pictures: hidden ones and the one that is shown."""

from __future__ import annotations

from collections.abc import Iterable
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


def together(coded: Iterable[Coded]) -> tuple[Picture, int]:
    """What a packet says as a whole, and how many pictures it shows.

    Slots that an earlier picture of the packet wrote are not read from outside.

    Raises:
        PacketError: there is no picture.
    """
    reads = writes = shows = 0
    first = last = None
    for one in coded:
        reads |= one.reads & ~writes
        writes |= one.writes
        shows += one.shown
        first = first or one
        if one.shown or last is None or not last.shown:
            last = one
    if first is None or last is None:
        raise PacketError("a packet holds no picture")
    entry = Entry.CLEAN if first.clean else Entry.NONE
    return (
        picture(
            last.type,
            writes != 0,
            entry,
            False,
            0,
            last.qp,
            reads,
            writes,
            last.shown,
        ),
        shows,
    )
