"""The cache of a reuse filter: embeddings of earlier inputs and the results that they had.

Lookup is by homogenised nearest neighbours (FoggyCache; thesis algorithm 3.1): of the K nearest
entries those beyond the mean of their distances are dropped, the others vote with their
results, and theta = N_max / sqrt(sum_c N_c^2) says how much they agree. It is a miss when theta
is below its threshold, or when the nearest entry is further away than `most_distance`: with
theta alone, an input unlike anything seen would get the result of neighbours that agree.

Where the thesis is silent: a lookup counts as a use of the neighbours that carry the result it
gave; the least used entry makes room, the oldest of these first; with fewer than K entries all
of them are neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import SettingsError
from triparty.device.filters.measures import label_of

Keys = NDArray[np.float32]
MOST_ENTRIES: Final = 1 << 20


@dataclass(frozen=True)
class CacheSettings:
    """How a cache decides.

    Attributes:
        size: most entries.
        neighbours: K.
        least_theta: agreement of neighbours from which a result is reused.
        most_distance: to the nearest entry within which it is.
        first: entries before which nothing is reused; an almost empty cache agrees with itself
            about everything.
    """

    size: int = 1000
    neighbours: int = 10
    least_theta: float = 0.5
    most_distance: float = float("inf")
    first: int = 50

    def __post_init__(self) -> None:
        """Refuses what cannot decide.

        Raises:
            SettingsError: a number out of its range.
        """
        if not 1 <= self.size <= MOST_ENTRIES or self.neighbours < 1:
            raise SettingsError(
                f"a cache has 1 to {MOST_ENTRIES} entries and at least 1 neighbour, got "
                f"{self.size} and {self.neighbours}"
            )
        if self.first < 0:
            raise SettingsError(f"the first {self.first} entries: expected 0 or more")
        if not 0.0 <= self.least_theta <= 1.0 or not self.most_distance >= 0.0:
            raise SettingsError(
                f"theta {self.least_theta} and distance {self.most_distance}: expected 0 to 1 "
                "and not below 0"
            )

    def within(self, most_distance: float | None) -> CacheSettings:
        """The same with another largest distance; None: for the same key alone."""
        return replace(self, most_distance=most_distance or 0.0)


@dataclass(frozen=True)
class Lookup:
    """What a cache knows of an input.

    Attributes:
        is_hit: whether `result` may be reused.
        result: that the nearest entries agree on; None in an empty cache.
        theta: how much they agree; 0 in an empty cache.
        distance: to the nearest entry; infinite in an empty cache.
    """

    is_hit: bool
    result: Any
    theta: float
    distance: float


@dataclass(frozen=True, eq=False)
class Vote:
    """What the neighbours of a key say.

    Attributes:
        told: numbers of the entries that carry the result that most of them have.
        theta: how much they agree.
        distance: to the nearest.
    """

    told: NDArray[np.intp]
    theta: float
    distance: float

    def agrees(self, settings: CacheSettings) -> bool:
        """Whether they agree enough and are near enough."""
        return self.theta >= settings.least_theta and self.distance <= settings.most_distance


class ReuseCache:
    """Entries of one task; not for several threads at once.

    Args:
        width: of the keys.
        settings: how it decides.
        identity: equal for results that mean the same.
    """

    def __init__(
        self,
        width: int,
        settings: CacheSettings | None = None,
        *,
        identity: Callable[[Any], Hashable] = label_of,
    ) -> None:
        """An empty cache."""
        self.settings = settings or CacheSettings()
        self._identity = identity
        size = self.settings.size
        self._keys: Keys = np.zeros((size, width), np.float32)
        self._gap: Keys = np.zeros((size, width), np.float32)
        self._class = np.zeros(size, np.int64)
        self._uses = np.zeros(size, np.int64)
        self._born = np.zeros(size, np.int64)
        self._results: list[Any] = [None] * size
        self._identities: list[Hashable] = [None] * size
        self._classes: dict[Hashable, int] = {}  # number of each identity that has entries
        self._members: dict[Hashable, int] = {}
        self._count, self._clock = 0, 0

    def __len__(self) -> int:
        """How many entries there are."""
        return self._count

    def look(self, key: Keys) -> Lookup:
        """What the entries nearest to a key say.

        Args:
            key: (width,) float32.
        """
        if not self._count:
            return Lookup(False, None, 0.0, float("inf"))
        distance = self._distances(key)
        vote = homogenised(distance, self._class[: self._count], self.settings.neighbours)
        is_hit = self._count >= min(self.settings.first, self.settings.size) and vote.agrees(
            self.settings
        )
        if is_hit:
            self._uses[vote.told] += 1
        closest = vote.told[distance[vote.told].argmin()]
        return Lookup(is_hit, self._results[closest], vote.theta, vote.distance)

    def put(self, key: Keys, result: Any) -> None:
        """Adds an entry, in the place of the least used if the cache is full.

        Args:
            key: (width,) float32.
            result: of the model.
        """
        if self._count < self.settings.size:
            place = self._count
            self._count += 1
        else:
            place = int(np.lexsort((self._born, self._uses))[0])
            self._forget(self._identities[place])
        identity = self._identity(result)
        self._keys[place] = key
        self._class[place] = self._classes.setdefault(identity, self._clock)
        self._members[identity] = self._members.get(identity, 0) + 1
        self._identities[place], self._results[place] = identity, result
        self._uses[place], self._born[place] = 0, self._clock
        self._clock += 1

    def _forget(self, identity: Hashable) -> None:
        """One entry less of an identity; what has none takes no room."""
        self._members[identity] -= 1
        if not self._members[identity]:
            del self._members[identity], self._classes[identity]

    def _distances(self, key: Keys) -> Keys:
        """(entries,) L1 to each; the keys bear the learned weights."""
        gap = self._gap[: self._count]
        np.subtract(self._keys[: self._count], key, out=gap)
        np.abs(gap, out=gap)
        distances: Keys = gap.sum(axis=1)
        return distances


def homogenised(distance: Keys, classes: NDArray[np.int64], neighbours: int) -> Vote:
    """The vote of the nearest entries, those beyond the mean of their distances left out.

    Args:
        distance: (entries,) to each of at least one entry.
        classes: (entries,) equal for results that mean the same.
        neighbours: K.
    """
    near = _nearest(distance, neighbours)
    near = near[distance[near] <= distance[near].mean() * (1.0 + 1e-6)]
    voted = classes[near]
    votes = (voted[:, None] == voted).sum(axis=1)  # N_c of each neighbour's; they add to N_c^2
    most = votes.max()
    told = near[voted == voted[votes == most].min()]
    return Vote(told, float(most / np.sqrt(votes.sum())), float(distance[near].min()))


def _nearest(distance: Keys, count: int) -> NDArray[np.intp]:
    if len(distance) <= count:
        return np.arange(len(distance))
    return np.argpartition(distance, count - 1)[:count]
