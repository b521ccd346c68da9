"""Takes noise from rows: rows of one token are near each other, and their average is nearer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.claims import Matrix, Rows
from triparty.developer.audit.lengths import squares

MOST_COMPARED = 4096
_SAME = 2.0  # of the usual squared distance to the nearest row
_FARTHEST = 0.5  # squared, of the usual squared length
_BEYOND = 1.6  # squared distance over what noise makes of it, that rows of one token keep to
_BLOCK = 512


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


def numbered(rows: Rows, noise: float) -> NDArray[np.int64]:
    """(N,) the number of each row's token among the different ones, told through the noise.

    Each row joins the nearest average so far, if it is as near as noise makes it, else it
    begins one; then each is numbered by the average that is nearest in the end.

    Args:
        rows: (N, D).
        noise: that was added, as a share of each row's root mean square.
    """
    found = _Averages(rows.shape[1], noise**2 / (1 + noise**2))
    for at in range(0, len(rows), _BLOCK):
        found.take(rows[at : at + _BLOCK].astype(np.float64))
    blocks = [rows[at : at + _BLOCK] for at in range(0, len(rows), _BLOCK)]
    return np.concatenate([found.nearest(block.astype(np.float64))[0] for block in blocks])


class _Averages:
    """Averages of rows that are taken for one token's."""

    def __init__(self, width: int, spread: float) -> None:
        """Nothing yet; `spread` is the share of a row's squared length that is noise."""
        self._sums, self._counts = np.zeros((0, width)), np.zeros(0)
        self._spread = spread

    def take(self, rows: Matrix) -> None:
        """Adds rows, those first that are near an average there is."""
        for row in self._joined(rows):
            if len(self._joined(row[None])):
                self._sums = np.vstack([self._sums, row])
                self._counts = np.append(self._counts, 1.0)

    def nearest(self, rows: Matrix) -> tuple[NDArray[np.int64], Matrix]:
        """(n,) the nearest average, and its squared distance."""
        averages = self._sums / self._counts[:, None]
        distances = squares(averages) - 2 * rows @ averages.T
        best = distances.argmin(axis=1)
        return best, distances[np.arange(len(rows)), best] + squares(rows)

    def _joined(self, rows: Matrix) -> Matrix:
        """Adds rows to averages that are near enough; returns the others."""
        if not len(self._counts):
            return rows
        best, distances = self.nearest(rows)
        usual = self._spread * squares(rows) * (1 + 1 / self._counts[best])
        near = distances <= _BEYOND * usual
        np.add.at(self._sums, best[near], rows[near])
        np.add.at(self._counts, best[near], 1.0)
        return rows[~near]


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
