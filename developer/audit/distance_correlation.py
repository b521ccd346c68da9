"""Distance correlation of Szekely, Rizzo and Bakirov (2007), and why it says little here.

Two samples of points are compared by the distances between their points, each matrix of
distances centred by its row, column and grand means. The correlation is 0, for large samples,
exactly if both are independent, and 1 if one is a scaled and turned copy of the other. The
plain estimate is biased: that of n independent pairs of numbers is about 1.7 / sqrt(n). The
bias-corrected one (Szekely and Rizzo 2013) estimates its square and is 0 in the mean.

The thesis (4.4.3, 4.6.2) takes low correlation of plain and keyed values as a sign of privacy:
0.062 for parameters, 0.14 at a width of 128 falling to 0.017 at 8192 for data. That course is
the bias's: the points are the d coordinates of a row, a coordinate and the one that takes its
place are independent, and the figure is what any d independent pairs have. With rows as points
it is 1 under every key here, because neither permutations nor rotations change a distance. An
attack that sorts rows reads all tokens at a correlation of 0.02: low correlation is not
security.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_BLOCK = 512  # points whose distances are in memory at once


def of_points(first: Values, second: Values, *, corrected: bool = False) -> float:
    """Distance correlation of two samples of n points each, paired.

    Args:
        first: (n, p).
        second: (n, q).
        corrected: whether to estimate its square without bias; that may be below 0.

    Returns:
        0 to 1; 0 if all points of a sample are one.

    Raises:
        ValueError: the samples are not of one length, or too short: 2 points, 4 if corrected.
    """
    count = len(first)
    if len(second) != count or count < (4 if corrected else 2):
        raise ValueError(
            f"expected two samples of one length, at least {4 if corrected else 2}, "
            f"got {count} and {len(second)} points"
        )
    covariance = _covariances(first, second, corrected=corrected)
    scale = covariance[0, 0] * covariance[1, 1]
    if scale <= 0:
        return 0.0
    ratio = float(covariance[0, 1] / np.sqrt(scale))
    return ratio if corrected else float(np.sqrt(max(ratio, 0.0)))


def of_coordinates(plain: Values, keyed: Values, *, corrected: bool = False) -> float:
    """As the thesis has it: the coordinates of rows are the points, in the mean over rows.

    Args:
        plain: (m, d) rows of data, or a matrix of parameters.
        keyed: (m, d) the same under a key.
        corrected: see `of_points`.
    """
    pairs = zip(plain, keyed, strict=True)
    return float(
        np.mean([of_points(a[:, None], b[:, None], corrected=corrected) for a, b in pairs])
    )


def _covariances(first: Values, second: Values, *, corrected: bool) -> Values:
    """(2, 2) squared distance covariances of both samples with both."""
    count = len(first)
    products, sums = np.zeros((2, 2)), np.empty((2, count))
    for start in range(0, count, _BLOCK):
        block = np.stack([_distances(points, start) for points in (first, second)])
        products += np.einsum("aij,bij->ab", block, block)
        sums[:, start : start + _BLOCK] = block.sum(axis=-1)
    by_row, totals = sums @ sums.T, sums.sum(axis=-1)
    whole = np.outer(totals, totals)
    if not corrected:
        made: Values = products / count**2 + whole / count**4 - 2 * by_row / count**3
        return made
    less = products - 2 * by_row / (count - 2) + whole / ((count - 1) * (count - 2))
    unbiased: Values = less / (count * (count - 3))
    return unbiased


def _distances(points: Values, start: int) -> Values:
    """(b, n) distances of a block of points to all."""
    block = points[start : start + _BLOCK]
    if points.shape[1] == 1:
        return np.abs(block - points.T)
    squares = np.einsum("np,np->n", points, points)
    found = squares[start : start + _BLOCK, None] + squares - 2 * block @ points.T
    found[np.arange(len(block)), start + np.arange(len(block))] = 0.0
    distances: Values = np.sqrt(np.maximum(found, 0.0))
    return distances
