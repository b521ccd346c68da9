"""Sizes of packets, made comparable: a running scale and a short history per stream.

A size in bytes says nothing by itself: the same camera sends large pictures of an empty road
in the rain and small ones of a full one at night. Sizes enter as log(1 + bytes), less the
running median of the stream's pictures of that type, over their running spread.
"""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from triparty.device.gate.columns import PerStream
from triparty.device.gate.policy import Column, Rows
from triparty.device.streams.packets import PictureType

Kinds = NDArray[np.int8]
_TYPES: Final = len(PictureType)
_INDEPENDENT: Final = np.int8(PictureType.I)
_SPREAD_OF_NORMAL: Final = 1.4826  # standard deviation / median absolute deviation
_FIRST_SPREAD: Final = 0.2
LIMIT: Final = 8.0


class RunningScale(PerStream):
    """Running median and median absolute deviation per stream and picture type.

    Both are followed in steps (Robbins and Monro, 1951): up or down by a share of the spread
    that falls as 1/n to `rate`, so that a camera whose bit rate changes is followed, too. A
    step does not depend on how far off a value is, so that outliers move nothing.

    Args:
        rate: smallest share; 0.02 follows a change within some 100 pictures of its type.
        smallest: spread below which deviations are noise, in the unit of the values.
    """

    fills: ClassVar = {"_median": 0.0, "_spread": _FIRST_SPREAD, "_count": 0.0}

    def __init__(self, *, rate: float = 0.02, smallest: float = 0.02) -> None:
        """Has seen nothing."""
        self._rate, self._smallest = rate, smallest
        self._median: Column = np.zeros((0, _TYPES))
        self._spread: Column = np.zeros((0, _TYPES))
        self._count: Column = np.zeros((0, _TYPES))

    def score(self, stream: Rows, kind: Kinds, value: Column) -> Column:
        """How far each value is from what was usual before it, in spreads; then takes it in.

        Args:
            stream: (n,) rows, each once.
            kind: (n,) `PictureType`.
            value: (n,).

        Returns:
            (n,) from -8 to 8; 0 for the first value of a stream and type.
        """
        place = stream * _TYPES + (kind - 1)
        medians, spreads, counts = (
            array.reshape(-1) for array in (self._median, self._spread, self._count)
        )
        count, spread = counts[place], spreads[place]
        off = np.where(count > 0, value - medians[place], 0.0)
        rate = np.maximum(1.0 / (count + 2.0), self._rate)
        medians[place] = value - off + 2.0 * rate * spread * np.sign(off)
        moved = spread * np.exp(rate * np.sign(np.abs(off) - spread))
        spreads[place] = np.where(count > 0, np.maximum(moved, self._smallest), spread)
        counts[place] = count + 1.0
        score: Column = off / (_SPREAD_OF_NORMAL * spread)
        return np.minimum(np.maximum(score, -LIMIT), LIMIT)


class SizeWindows(PerStream):
    """The last sizes of independent and of predicted pictures: views 1 and 2 (thesis 2.4.2).

    Args:
        window: w, sizes a view.
    """

    fills: ClassVar = {"_sizes": 0.0}

    def __init__(self, *, window: int = 5) -> None:
        """Has seen nothing: every size is the usual one."""
        self._window = window
        self._sizes: Column = np.zeros((0, 2, window))

    def push(self, stream: Rows, kind: Kinds, score: Column) -> None:
        """Appends scored sizes, (n,) each, of n different streams."""
        flat = self._sizes.reshape(-1, self._window)
        view = stream * 2 + (kind != _INDEPENDENT)
        flat[view, :-1] = flat[view, 1:]
        flat[view, -1] = score

    def independent(self, stream: Rows) -> Column:
        """(n, w) view 1, the newest last."""
        sizes: Column = self._sizes[stream, 0]
        return sizes

    def predicted(self, stream: Rows) -> Column:
        """(n, w) view 2, the newest last."""
        sizes: Column = self._sizes[stream, 1]
        return sizes


def waves(stream: Rows) -> list[Rows]:
    """Places in a round's packets, grouped so that no stream comes twice in a group.

    The first group has the first packet of every stream, and so on, each in the order given.
    """
    if not len(stream):
        return []
    order = np.argsort(stream, kind="stable")
    ordered = stream[order]
    begins = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    if begins.all():
        return [np.arange(len(stream))]
    first = np.maximum.accumulate(np.where(begins, np.arange(len(stream)), 0))
    turn = np.empty(len(stream), np.int64)
    turn[order] = np.arange(len(stream)) - first
    return [np.flatnonzero(turn == number) for number in range(int(turn.max()) + 1)]
