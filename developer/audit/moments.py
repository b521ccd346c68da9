"""A first key between plain rows and keyed ones, from moments alone.

Any isometry keeps variances along axes, and skewness up to the sign of an axis; one that
permutes keeps the moments of each coordinate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.claims import Matrix

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Weighed:
    """Rows (N, D) that count for as much as their weights (N,), which add up to 1."""

    rows: Matrix
    weights: Vector

    @classmethod
    def evenly(cls, rows: Matrix) -> Weighed:
        """Rows that all count for the same."""
        return cls(rows, np.full(len(rows), 1 / len(rows)))


def by_axes(plain: Weighed, keyed: Weighed, turned: NDArray[np.bool_]) -> Matrix:
    """(d, D) principal axes of plain rows on those of keyed ones, signs by mean and skewness.

    Args:
        plain: (n, d).
        keyed: (N, D), D >= d.
        turned: (d,) axes whose sign is to be the other one: skewness may be wrong.
    """
    centre, axes, plain_size, plain_skew = _moments(plain)
    keyed_centre, keyed_axes, keyed_size, keyed_skew = _moments(keyed)
    width = plain.rows.shape[1]
    keyed_axes, keyed_skew = keyed_axes[:, :width], keyed_skew[:width]
    means = (centre @ axes) * (keyed_centre @ keyed_axes)
    signs = plain_skew * keyed_skew + 2 * means / np.sqrt(plain_size * keyed_size[:width])
    signs = np.where((signs < 0) ^ turned, -1.0, 1.0)
    return np.asarray((axes * signs) @ keyed_axes.T)


def _moments(some: Weighed) -> tuple[Vector, Matrix, Vector, Vector]:
    """Mean, principal axes from the largest on, variances on them, skewness on them."""
    mean = some.weights @ some.rows
    centred = some.rows - mean
    sizes, axes = np.linalg.eigh((centred * some.weights[:, None]).T @ centred)
    sizes, axes = np.maximum(sizes[::-1], 1e-12), axes[:, ::-1]
    skewness = some.weights @ (centred @ axes) ** 3 / sizes**1.5
    return mean, axes, sizes, skewness


def by_coordinates(plain: Weighed, keyed: Weighed) -> Matrix:
    """(d, D) how alike moments of coordinates are, with the sign under which they are."""
    mine, its = _coordinate_moments(plain), _coordinate_moments(keyed)
    scale = mine.std(axis=1, keepdims=True) + 1e-12
    odd = np.array([[-1.0], [1.0], [-1.0]])
    straight = np.linalg.norm((mine / scale)[:, :, None] - (its / scale)[:, None], axis=0)
    turned = np.linalg.norm((mine / scale)[:, :, None] - (odd * its / scale)[:, None], axis=0)
    likeness = 1 / (1e-9 + np.minimum(straight, turned))
    return np.asarray(np.where(straight <= turned, likeness, -likeness))


def _coordinate_moments(some: Weighed) -> Matrix:
    """(3, D) mean, deviation and cube root of the third central moment."""
    mean = some.weights @ some.rows
    centred = some.rows - mean
    moments = [mean, np.sqrt(some.weights @ centred**2), np.cbrt(some.weights @ centred**3)]
    return np.stack(moments)
