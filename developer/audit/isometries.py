"""Fits an isometry to pairs of rows, and finds what is behind a row under a fitted one.

Few pairs give the isometry on the subspace that they span (orthogonal Procrustes by SVD);
what is outside of it still has a length, which any isometry keeps. More rows are read with
that, they give more pairs, and so on, as in the iterative closest point method of point clouds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.claims import UNKNOWN, Matrix, Rows
from triparty.developer.audit.knowledge import Table
from triparty.developer.audit.lengths import squares

Ids = NDArray[np.int64]

AMBIGUOUS = 0.5
"""A row is read surely if the second best is at least twice as far (squared) as the best."""
LARGEST_DEVIATION = 0.5
"""Of a row's own length: a row further than that from what it should be is not read."""
_LEAST_AGREED = 0.3
_NOISIER = 2.5  # than assumed, at most
_ROUNDING = 1e-3
_ROUNDS = 24
_PATIENCE = 3  # rounds in which no more rows agree than before
_ENOUGH = 64  # dimensions in which rows are told apart without looking beside them
_LEAST = 1e-10
_DROWNED = 16.0  # of the energy of noise, where a direction's own is less


@dataclass(frozen=True, eq=False)
class Isometry:
    """A partial isometry: plain coordinates to keyed ones, on the subspace that is known.

    Attributes:
        plain: (d, r) orthonormal columns.
        keyed: (D, r) orthonormal columns; `plain @ keyed.T` is the key.
    """

    plain: Matrix
    keyed: Matrix

    @property
    def key(self) -> Matrix:
        """(d, D) the key as far as it is known."""
        return self.plain @ self.keyed.T


@dataclass(frozen=True, eq=False)
class Puzzle:
    """Rows that are to be read together.

    Attributes:
        rows: (n, D) float32.
        places: (n,) the place of each row; None where a row does not depend on it.
        table: what can be behind a row.
    """

    rows: Rows
    places: Ids | None
    table: Table

    def behind(self, which: Ids, tokens: Ids) -> Matrix:
        """(m, d) what some rows would be in the plain if these tokens were behind them."""
        plain = self.table.rows[tokens].astype(np.float64)
        if self.places is None or self.table.positions is None:
            return plain
        return plain + self.table.positions[self.places[which]]


@dataclass(frozen=True, eq=False)
class Reading:
    """What is behind each row under some isometry.

    Attributes:
        tokens: (n,) the best.
        best: (n,) its squared distance.
        second: (n,) that of the second best.
    """

    tokens: Ids
    best: Matrix
    second: Matrix


@dataclass(frozen=True, eq=False)
class Fit:
    """An isometry and the rows that agree with it.

    Attributes:
        isometry: fitted to them.
        tokens: (n,) of each row, `UNKNOWN` where none is sure.
        noise: share of a row's length by which rows deviate.
    """

    isometry: Isometry
    tokens: Ids
    noise: float

    @property
    def agreed(self) -> float:
        """Share of rows that are read surely."""
        return float((self.tokens != UNKNOWN).mean())

    def holds(self, noise: float) -> bool:
        """Whether enough rows agree, and not much worse than such noise explains."""
        return self.agreed >= _LEAST_AGREED and self.noise <= _NOISIER * noise + _ROUNDING


def nearest_rotation(cross: Matrix) -> Matrix:
    """The matrix with orthonormal rows nearest to a matrix (d, D) (orthogonal Procrustes)."""
    left, _, right = np.linalg.svd(cross, full_matrices=False)
    return np.asarray(left @ right)


def procrustes(plain: Matrix, keyed: Matrix, *, noise: float = 0.0) -> Isometry:
    """The isometry that brings plain rows nearest to keyed ones.

    Args:
        plain: (m, d).
        keyed: (m, D), D >= d.
        noise: share of a row's length that is noise: directions that it drowns are left open.
    """
    left, values, right = np.linalg.svd(plain.T @ keyed, full_matrices=False)
    drowned = _DROWNED * noise**2 * float(squares(plain).mean()) if len(plain) else 0.0
    known = values > max(drowned, _LEAST * float(values[0]))
    return Isometry(left[:, known], right[known].T)


class Reader:
    """Finds the nearest rows of a table under an isometry."""

    def __init__(self, table: Table, isometry: Isometry) -> None:
        """Turns the table once for all rows."""
        self._table, self._isometry = table, isometry
        self._inside = isometry.plain.astype(np.float32)
        self._spanned = table.rows @ self._inside
        self._within = squares(self._spanned).astype(np.float32)
        # What is outside of the span helps only while the span is small.
        rank, width = isometry.plain.shape[1], isometry.plain.shape[0]
        self._is_narrow = rank < min(_ENOUGH, width)
        rows = table.rows if self._is_narrow else table.rows[:0]
        self._squares: Rows = squares(rows).astype(np.float32)

    def read(self, rows: Rows, places: Ids | None) -> Reading:
        """The best and the second best token of each row."""
        seen = rows @ self._isometry.keyed.astype(np.float32)
        added = None
        if self._table.positions is not None and places is not None:
            added = self._table.positions[places]
            seen = seen - added @ self._inside
        distances = seen @ self._spanned.T
        distances *= -2
        distances += self._within
        if self._is_narrow:
            distances += self._beside(rows, added)
        count = np.arange(len(rows))
        tokens = np.argmin(distances, axis=1)
        best = self._distances(rows, added, tokens)
        distances[count, tokens] = np.inf
        return Reading(tokens, best, self._distances(rows, added, np.argmin(distances, axis=1)))

    def _distances(self, rows: Rows, added: Rows | None, tokens: Ids) -> Matrix:
        """(n,) the squared distances to some tokens, without the rounding of differences."""
        plain = self._table.rows[tokens].astype(np.float64)
        plain = plain if added is None else plain + added
        keyed = rows.astype(np.float64)
        spanned, seen = plain @ self._isometry.plain, keyed @ self._isometry.keyed
        inside = squares(spanned - seen)
        if not self._is_narrow:
            return inside
        whole, own = squares(plain) - squares(spanned), squares(keyed) - squares(seen)
        beside = np.sqrt(np.maximum(whole, 0)) - np.sqrt(np.maximum(own, 0))
        distances: Matrix = inside + beside**2
        return distances

    def _beside(self, rows: Rows, added: Rows | None) -> Rows:
        """(n, V) squared differences of length outside of the span."""
        whole, spanned = self._squares, self._within
        if added is not None:
            within = added @ self._inside
            whole = whole + 2 * added @ self._table.rows.T + _column(added)
            spanned = spanned + 2 * within @ self._spanned.T + _column(within)
        own = _column(rows) - _column(rows @ self._isometry.keyed.astype(np.float32))
        gaps: Rows = np.sqrt(np.maximum(whole - spanned, 0)) - np.sqrt(np.maximum(own, 0))
        return gaps**2


def _column(rows: Rows) -> Rows:
    """(n, 1) squared lengths."""
    return squares(rows).astype(np.float32)[:, None]


def grown(puzzle: Puzzle, start: Isometry, *, noise: float) -> Fit:
    """Reads as many rows as agree, beginning with what a few pairs give.

    Args:
        puzzle: the rows.
        start: fitted to a few pairs.
        noise: share of a row's length by which rows deviate, as far as is known.
    """
    paired = np.full(len(puzzle.rows), UNKNOWN, np.int64)
    lengths = squares(puzzle.rows)
    isometry, measured, counts = start, noise, [0]
    for _ in range(_ROUNDS):
        reading = Reader(puzzle.table, isometry).read(puzzle.rows, puzzle.places)
        off = reading.best / lengths
        sure = (reading.best <= AMBIGUOUS * reading.second) & (off <= LARGEST_DEVIATION**2)
        counts.append(int(sure.sum()))
        before, paired = paired, np.where(sure, reading.tokens, UNKNOWN)
        if not sure.any():
            break
        measured = float(np.sqrt(np.median(off[sure])))
        isometry = fitted(puzzle, np.flatnonzero(sure), paired[sure], min(noise, measured))
        if np.array_equal(before, paired) or max(counts) <= max(counts[:-_PATIENCE], default=0):
            break
    return Fit(isometry, paired, measured)


def fitted(puzzle: Puzzle, which: Ids, tokens: Ids, noise: float) -> Isometry:
    """The isometry that brings some tokens nearest to some rows."""
    keyed = puzzle.rows[which].astype(np.float64)
    return procrustes(puzzle.behind(which, tokens), keyed, noise=noise)
