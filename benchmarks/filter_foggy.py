"""FoggyCache's way: low-level features, adaptive locality-sensitive hashing, homogenised kNN.

Keys fall into buckets of random projections (p-stable hashing, several tables). The buckets'
width adapts to the data, as FoggyCache's does: it is the one with which a key finds a small
share of others. Neighbours are sought among those found, and homogenised as in the cache of
the filters, which looks at all entries. Written from the published description.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from triparty.device.filters.cache import CacheSettings, homogenised
from triparty.device.filters.replay import Replayed, distances_to_try

TABLES, PROJECTIONS = 4, 6
FOUND = 0.1  # share of keys that a key is to find
Matrix = NDArray[np.float32]
SETTINGS = CacheSettings()


class HashedCache:
    """A cache whose lookups see only the entries of a key's buckets.

    Args:
        learned: (n, width) keys from which the buckets' width and distances to try are taken.
    """

    def __init__(self, learned: Matrix) -> None:
        """Draws projections and fits the width."""
        rng = np.random.default_rng(0)
        some = learned[rng.permutation(len(learned))[:400]]
        self._ways = rng.normal(size=(learned.shape[1], TABLES * PROJECTIONS))
        self._offsets = rng.random(TABLES * PROJECTIONS)
        self._distances = distances_to_try(learned)[::2]
        spread = float((some @ self._ways).std())
        widths = spread * np.geomspace(0.25, 16.0, 13)
        found = [self._share(some, width) for width in widths]
        self._width = float(widths[int(np.argmin(np.abs(np.array(found) - FOUND)))])

    def best_rate(
        self,
        keys: Matrix,
        labels: NDArray[np.int64],
        target: float,
        settings: CacheSettings = SETTINGS,
    ) -> float:
        """The largest filter rate on a stream that keeps the target on it."""
        hashes = self._hashes(keys, self._width)
        points = [
            self._replay(keys, hashes, labels, replace(settings, most_distance=one))
            for one in self._distances
        ]
        return max((one.filter_rate for one in points if one.accuracy >= target), default=0.0)

    def _hashes(self, keys: Matrix, width: float) -> NDArray[np.int64]:
        """(n, tables) number of the bucket."""
        cells = np.floor(keys @ self._ways / width + self._offsets).astype(np.int64)
        mixed = cells.reshape(len(keys), TABLES, PROJECTIONS)
        return np.asarray(mixed @ (7919 ** np.arange(PROJECTIONS) % 1000003), np.int64)

    def _share(self, keys: Matrix, width: float) -> float:
        hashes = self._hashes(keys, width)
        return float((hashes[:, None] == hashes[None]).any(axis=2).mean())

    def _replay(
        self,
        keys: Matrix,
        hashes: NDArray[np.int64],
        labels: NDArray[np.int64],
        settings: CacheSettings,
    ) -> Replayed:
        kept = np.zeros(len(keys), np.int64)
        count = reused = wrong = 0
        for row, key in enumerate(keys):
            entries = kept[max(0, count - settings.size) : count]
            near = entries[(hashes[entries] == hashes[row]).any(axis=1)]
            vote = None
            if len(near) and count >= settings.first:
                distance = np.abs(keys[near] - key).sum(axis=1)
                vote = homogenised(distance, labels[near], settings.neighbours)
            if vote is not None and vote.agrees(settings):
                reused += 1
                wrong += int(labels[near[vote.told[0]]] != labels[row])
            else:
                kept[count] = row
                count += 1
        return Replayed(reused, wrong, len(keys))
