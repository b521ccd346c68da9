"""Takes noise from rows: rows of one token are near each other, and their average is nearer."""

from __future__ import annotations

import numpy as np

from triparty.developer.audit.claims import Matrix, Rows
from triparty.developer.audit.lengths import squares

MOST_COMPARED = 4096
_SAME = 2.0  # of the usual squared distance to the nearest row
_FARTHEST = 0.5  # squared, of the usual squared length


def averaged(rows: Rows, *, most: int) -> Rows:
    """The different rows, most frequent ones first; each the average of its nearly equal ones.

    Args:
        rows: (N, D), of which the first `MOST_COMPARED` are compared.
        most: how many to return at most.
    """
    different, counts = np.unique(rows[:MOST_COMPARED], axis=0, return_counts=True)
    if 4 * len(different) < 3 * min(len(rows), MOST_COMPARED):
        return different[np.argsort(-counts, kind="stable")][:most]
    return _clustered(different)[:most]


def _clustered(rows: Rows) -> Rows:
    """The averages of clusters, the largest cluster first."""
    distances = _distances(rows)
    np.fill_diagonal(distances, np.inf)
    usual = _SAME * float(np.median(distances.min(axis=1)))
    radius = min(usual, _FARTHEST * float(np.median(squares(rows))))
    near = distances <= radius
    np.fill_diagonal(near, True)
    left, averages = np.ones(len(rows), dtype=bool), []
    counts = near.sum(axis=1)
    while left.any():
        centre = int(np.argmax(np.where(left, counts, -1)))
        members = near[centre] & left
        averages.append(rows[members].mean(axis=0, dtype=np.float64))
        left &= ~members
        counts = counts - near[:, members].sum(axis=1)
    return np.array(averages, np.float32)


def _distances(rows: Rows) -> Matrix:
    """(n, n) squared distances."""
    own = squares(rows)
    products = (rows @ rows.T).astype(np.float64)
    return np.maximum(own[:, None] + own - 2 * products, 0)
