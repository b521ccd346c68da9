"""Which row of a table is behind a row on the wire, up to something that keys do not change.

`match` compares *signatures*. With the values themselves as the signature, it reads traffic
with a keyed table; with their sorted absolute values, it reads keyed traffic with the plain
table, because a signed permutation changes neither.

A model that adds positions sends sums, so a row is compared with every row of the table plus
the vector of its position. A request begins at position 0 or where an earlier one ended.
Norms do not change either, and cost one matrix product: they leave few candidates to sort.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.claims import UNKNOWN, Rows, Tokens
from triparty.developer.audit.knowledge import Table

Signature = Callable[[Rows], Rows]

TOLERANCE = 1e-3  # of the row's norm; above what bf16 rounding on the wire adds
_LEAST_CANDIDATES = 64
_BEGINNINGS = 16  # sessions that may be open at once


def as_is(rows: Rows) -> Rows:
    """The values themselves."""
    return rows


def sorted_values(rows: Rows) -> Rows:
    """The absolute values of each row in order."""
    return np.sort(np.abs(rows), axis=-1)


def match(traffic: Sequence[Rows], table: Table, signature: Signature) -> Tokens:
    """The token behind each row of each request, where exactly one has its signature.

    Args:
        traffic: (T, D) each.
        table: the candidates.
        signature: what the key does not change.
    """
    reader = _Reader(table, signature)
    return Tokens(tuple(reader.read(rows) for rows in traffic))


class _Reader:
    """Reads requests one after another and remembers where sessions have got to."""

    def __init__(self, table: Table, signature: Signature) -> None:
        self._table, self._signature = table, signature
        self._squares = np.einsum("vd,vd->v", table.rows, table.rows)
        self._next: list[int] = []
        self._seen: dict[bytes, int] = {}

    def read(self, rows: Rows) -> NDArray[np.int64]:
        if self._table.positions is None:
            return np.array([self._repeated(row) for row in rows], np.int64)
        for start in [*reversed(self._next[-_BEGINNINGS:]), 0]:
            if self._token(rows[0], start) != UNKNOWN:
                return self._continued(rows, start)
        return np.full(len(rows), UNKNOWN, np.int64)

    def _continued(self, rows: Rows, start: int) -> NDArray[np.int64]:
        if start in self._next:
            self._next.remove(start)
        self._next.append(start + len(rows))
        return np.array([self._token(row, start + i) for i, row in enumerate(rows)], np.int64)

    def _repeated(self, row: Rows) -> int:
        """A token's row is always the same, so a row seen before is read already."""
        known = row.tobytes()
        if known not in self._seen:
            self._seen[known] = self._token(row, 0)
        return self._seen[known]

    def _token(self, row: Rows, position: int) -> int:
        """The only token whose signature is near enough, or UNKNOWN."""
        rows, positions = self._table.rows, self._table.positions
        squares = self._squares
        if positions is not None:
            if position >= len(positions):
                return UNKNOWN
            placed = positions[position]
            squares = squares + 2 * (rows @ placed) + placed @ placed
        candidates = _near(squares, float(row @ row))
        possible = rows[candidates]
        if positions is not None:
            possible = possible + positions[position]
        distances = np.linalg.norm(self._signature(possible) - self._signature(row), axis=-1)
        near = candidates[distances <= TOLERANCE * float(np.linalg.norm(row))]
        return int(near[0]) if len(near) == 1 else UNKNOWN


def _near(squares: NDArray[np.float32], square: float) -> NDArray[np.int64]:
    """The rows whose squared norm is near enough to be the row's, and some more."""
    gaps = np.abs(squares - square)
    within = np.flatnonzero(gaps <= 4 * TOLERANCE * square)
    if len(within) >= _LEAST_CANDIDATES or len(gaps) <= _LEAST_CANDIDATES:
        return within if len(within) >= _LEAST_CANDIDATES else np.arange(len(gaps))
    return np.argpartition(gaps, _LEAST_CANDIDATES)[:_LEAST_CANDIDATES]
