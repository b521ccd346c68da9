"""Which column of one matrix is which of another: assignment by similarity."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.claims import UNKNOWN, Matrix
from triparty.developer.audit.reading import Neurons

MAX_ASSIGNED = 4096
"""Up to how many columns the best assignment is computed; beyond, mutual neighbours pair up."""

MAX_PLACED = 512
"""Up to how many tokens the same is done: their points are alike, which takes longer."""

_BLOCK = 1024


class Pairs(NamedTuple):
    """Columns of two matrices that are taken to be the same.

    Attributes:
        first: (m,) places in the first matrix, rising.
        second: (m,) places in the second.
        signs: (m,) 1 or -1: whether the two have opposite signs in scaled matrices.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    signs: NDArray[np.float64]


def assigned(similarity: Matrix) -> NDArray[np.int64]:
    """(n,) for each row the column that the best one-to-one assignment gives it."""
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    columns: NDArray[np.int64] = linear_sum_assignment(similarity, maximize=True)[1]
    return columns


def paired(first: Neurons, second: Neurons, key: Matrix) -> Pairs:
    """Which neuron of a layer is which of the same layer under another key.

    Args:
        first: of the base.
        second: of the hosted model.
        key: (d, D) of the residual, as far as it is known.
    """
    as_is = _directions(first, second, key, scaled=False)
    scaled = _directions(first, second, key, scaled=True)
    count = second.count

    def similar(rows: slice) -> Matrix:
        made = as_is[0][:, rows].T @ as_is[1]
        return made + np.abs(scaled[0][:, rows].T @ scaled[1])

    if count <= MAX_ASSIGNED:
        left, right = np.arange(count), assigned(similar(slice(None)))
    else:
        left, right = _mutual(similar, count)
    signs = np.sign(np.einsum("dn,dn->n", scaled[0][:, left], scaled[1][:, right]))
    return Pairs(left, right, np.where(signs < 0, -1.0, 1.0))


def nearest(rows: Matrix, candidates: Matrix) -> tuple[NDArray[np.int64], Matrix]:
    """For each row the candidate at the least distance, and by how much it is the nearest.

    Args:
        rows: (n, k).
        candidates: (m, k), at least two. Memory is that of a block of rows by all of them.
    """
    best, lead = np.empty(len(rows), np.int64), np.empty(len(rows))
    squares = 0.5 * np.einsum("mk,mk->m", candidates, candidates)
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        similar = rows[block] @ candidates.T - squares
        best[block] = similar.argmax(axis=1)
        highest = np.partition(similar, -2, axis=1)[:, -2:]
        lead[block] = highest[:, 1] - highest[:, 0]
    return best, lead


def placed(rows: Matrix, candidates: Matrix) -> NDArray[np.int64]:
    """(n,) for each row its place among candidates: one to one, unless too many."""
    if len(rows) != len(candidates) or len(rows) > MAX_PLACED:
        return nearest(rows, candidates)[0]
    squares = np.einsum("mk,mk->m", candidates, candidates)
    return assigned(2 * rows @ candidates.T - squares)


def _mutual(
    similar: Callable[[slice], Matrix], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs each of which is the other's nearest, a block of the similarities at a time."""
    forth = np.full(count, UNKNOWN)
    back, highest = np.full(count, UNKNOWN), np.full(count, -np.inf)
    for start in range(0, count, _BLOCK):
        block = similar(slice(start, start + _BLOCK))
        forth[start : start + len(block)] = block.argmax(axis=1)
        best = block.argmax(axis=0)
        values = block[best, np.arange(count)]
        back = np.where(values > highest, start + best, back)
        highest = np.maximum(highest, values)
    left = np.flatnonzero(back[forth] == np.arange(count))
    return left, forth[left]


def _directions(
    first: Neurons, second: Neurons, key: Matrix, *, scaled: bool
) -> tuple[Matrix, Matrix]:
    """Columns of length one of all matrices that are scaled, or of all that are not."""
    sides = zip(first.sides, second.sides, strict=True)
    chosen = [(a, b) for a, b in sides if a.scaled is scaled]
    left = [unit(key.T @ side.matrix) for side, _ in chosen]
    right = [unit(side.matrix) for _, side in chosen]
    if not chosen:
        return np.zeros((1, first.count)), np.zeros((1, second.count))
    return np.vstack(left), np.vstack(right)


def unit(matrix: Matrix, axis: int = 0) -> Matrix:
    """The columns of a matrix (or its rows), each of length one; zeros stay."""
    norms = np.linalg.norm(matrix, axis=axis, keepdims=True)
    made: Matrix = matrix / np.where(norms > 0, norms, 1.0)
    return made
