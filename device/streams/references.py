"""`References`: who wrote last what a picture may read."""

from __future__ import annotations

from collections.abc import Iterator

from triparty.device.streams.reachability import Unreachable

ALL_SLOTS = -1
"""The mask of a picture whose headers do not say what it reads or writes."""


class Writer:
    """A picture whose slots have not been written over since.

    Attributes:
        number: of its packet.
        slots: that it wrote last, as a mask.
        dead: why it can never be decoded; None if it can, or was.
    """

    __slots__ = ("dead", "number", "slots")

    def __init__(self, number: int, slots: int, dead: Unreachable | None) -> None:
        """Keeps its arguments."""
        self.number = number
        self.slots = slots
        self.dead = dead


class References:
    """The writers of all slots at one point of a stream.

    Args:
        writers: of what was written so far.
    """

    def __init__(self, *writers: Writer) -> None:
        """Begins with nobody, or with some."""
        self._writers = list(writers)

    def __iter__(self) -> Iterator[Writer]:
        """The writers, oldest first."""
        return iter(self._writers)

    def write(
        self, number: int, slots: int, *, dead: Unreachable | None, over_all: bool
    ) -> None:
        """Notes a picture that writes slots.

        Args:
            number: of its packet.
            slots: mask of what it writes, or may write.
            dead: why it can never be decoded; None if it can.
            over_all: what was in these slots is needed by nobody any more: it is overwritten
                for certain, or whoever reads the new picture needs what that one needs.
        """
        if over_all:
            if slots == ALL_SLOTS:
                self._writers.clear()
            else:
                for writer in self._writers:
                    writer.slots &= ~slots
                self._writers = [writer for writer in self._writers if writer.slots]
        self._writers.append(Writer(number, slots, dead))
