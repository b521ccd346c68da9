"""How long things took, counted in buckets: a value that sums over models."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_NONE = (0,) * (len(BOUNDS_S) + 1)


@dataclass(frozen=True)
class Durations:
    """Durations by bucket.

    Attributes:
        counts: how many fell into each bucket of `BOUNDS_S`, and behind the last.
        sum_s: of all, in seconds.
    """

    counts: tuple[int, ...] = _NONE
    sum_s: float = 0.0

    @classmethod
    def of(cls, *durations_s: float) -> Durations:
        """Counts durations, in seconds."""
        counts = list(_NONE)
        for duration_s in durations_s:
            counts[bisect_left(BOUNDS_S, duration_s)] += 1
        return cls(tuple(counts), sum(durations_s))

    def __add__(self, other: Durations) -> Durations:
        """Both together."""
        both = zip(self.counts, other.counts, strict=True)
        return Durations(tuple(a + b for a, b in both), self.sum_s + other.sum_s)

    @property
    def count(self) -> int:
        """How many."""
        return sum(self.counts)

    def cumulative(self) -> Iterator[tuple[str, int]]:
        """Each bound as Prometheus writes it, with how many are at most that."""
        total = 0
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), self.counts, strict=True):
            total += count
            yield bound, total


NONE = Durations()
