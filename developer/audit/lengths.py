"""Lengths of rows, which no isometry changes, and how exactly a wire keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.claims import Matrix, Rows
from triparty.developer.audit.knowledge import Table

Ids = NDArray[np.int64]

_BLOCK = 4096
_CACHED_VALUES = 1 << 25
_NEXT = 64


@dataclass(frozen=True, eq=False)
class _Ranked:
    """The squared lengths of all tokens at one place, shortest first, and whose they are."""

    squares: Matrix
    tokens: Ids


@dataclass(frozen=True, eq=False)
class Lengths:
    """The squared lengths of everything that a table can send.

    Attributes:
        table: rows, and positions that are added to them.
    """

    table: Table
    _cache: dict[int | None, _Ranked] = field(default_factory=dict)

    def nearest(self, found: Matrix, places: Ids | None) -> tuple[Ids, Matrix]:
        """The tokens (n,) whose squared lengths are nearest, and by how much they are off."""
        tokens, gaps = np.empty(len(found), np.int64), np.empty(len(found))
        for where, ranked in self._by_place(places, len(found)):
            right = np.clip(np.searchsorted(ranked.squares, found[where]), 1, None)
            sides = np.stack([right - 1, np.minimum(right, len(ranked.squares) - 1)])
            off = np.abs(ranked.squares[sides] - found[where])
            side = np.argmin(off, axis=0), np.arange(off.shape[1])
            tokens[where], gaps[where] = ranked.tokens[sides[side]], off[side]
        return tokens, gaps

    def within(self, least: float, most: float, place: int | None) -> Ids:
        """The tokens whose squared length at a place is in a range, shortest first."""
        ranked = self._ranked(place)
        first, last = np.searchsorted(ranked.squares, [least, most])
        return ranked.tokens[first:last]

    def _by_place(self, places: Ids | None, count: int) -> list[tuple[Ids, _Ranked]]:
        if self.table.positions is None or places is None:
            return [(np.arange(count), self._ranked(None))]
        return [(np.flatnonzero(places == p), self._ranked(int(p))) for p in np.unique(places)]

    def _ranked(self, place: int | None) -> _Ranked:
        if place not in self._cache:
            if len(self._cache) * len(self.table.rows) > _CACHED_VALUES:
                self._cache.clear()
            self._fill(place)
        return self._cache[place]

    def _fill(self, place: int | None) -> None:
        """Ranks all tokens at a place and at the next ones, which will be asked for soon."""
        positions = self.table.positions
        if positions is None or place is None:
            self._cache[None] = _rank(squares(self.table.rows))
            return
        added = positions[place : place + _NEXT].astype(np.float64)
        values = np.empty((len(added), len(self.table.rows)))
        for start in range(0, len(self.table.rows), _BLOCK):
            block = self.table.rows[start : start + _BLOCK].astype(np.float64)
            own = np.einsum("vd,vd->v", block, block)
            values[:, start : start + _BLOCK] = own + 2 * added @ block.T
        values += squares(added)[:, None]
        self._cache.update({place + i: _rank(row) for i, row in enumerate(values)})


def _rank(values: Matrix) -> _Ranked:
    order = np.argsort(values, kind="stable")
    return _Ranked(values[order], order)


def squares(rows: Rows | Matrix) -> Matrix:
    """(n,) the squared lengths in float64 of rows, in blocks."""
    result = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK].astype(np.float64)
        result[start : start + _BLOCK] = np.einsum("nd,nd->n", block, block)
    return result


def precision(rows: Rows) -> float:
    """The relative rounding of values, as their own bits show it: 2^-24, 2^-12 or 2^-9."""
    if not (rows.view(np.uint32) & 0xFFFF).any():
        return 2.0**-9
    with np.errstate(over="ignore"):
        halves = rows.astype(np.float16).astype(np.float32)
    return 2.0**-12 if np.array_equal(halves, rows) else 2.0**-24
