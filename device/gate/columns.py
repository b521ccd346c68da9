"""State that is kept per stream, as arrays whose first axis is the stream's row."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from triparty.device.gate.policy import Rows


class PerStream:
    """Arrays with a row a stream, that grow together and forget a stream together.

    A subclass names its arrays in `fills`, with the value that a new stream begins with, and
    makes each of them with zero rows.
    """

    fills: ClassVar[dict[str, float]]

    def grow(self, rows: int) -> None:
        """Makes room for streams up to row `rows - 1`; those that are there do not change."""
        for name, fill in self.fills.items():
            array = getattr(self, name)
            missing = max(0, rows - len(array))
            added = np.full((missing, *array.shape[1:]), fill, array.dtype)
            setattr(self, name, np.concatenate([array, added]))

    def forget(self, rows: Rows) -> None:
        """Puts streams back to what a new one begins with."""
        for name, fill in self.fills.items():
            getattr(self, name)[rows] = fill


class Roster:
    """Hands out rows; those of streams that left are used again, the lowest first."""

    def __init__(self) -> None:
        """Nobody is here."""
        self._free: list[int] = []
        self.size = 0

    def join(self, count: int) -> Rows:
        """Rows for so many new streams; `size` is then above all of them."""
        self._free.sort(reverse=True)
        again = [self._free.pop() for _ in range(min(count, len(self._free)))]
        fresh = range(self.size, self.size + count - len(again))
        self.size += len(fresh)
        return np.array([*again, *fresh], np.int64)

    def leave(self, stream: int) -> None:
        """Takes a row back.

        Raises:
            KeyError: nobody has it.
        """
        if not 0 <= stream < self.size or stream in self._free:
            raise KeyError(f"no stream has row {stream}")
        self._free.append(stream)
