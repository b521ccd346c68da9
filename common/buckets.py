"""Token buckets by name: so much at once, then a steady rate; bounded in number."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MOST_BUCKETS = 100_000


@dataclass
class Bucket:
    """What is left, as of a time."""

    left: float
    at_s: float


class Buckets:
    """The buckets of one kind; a forgotten one was full or is the least recently used."""

    def __init__(self, *, per_s: float, most: float) -> None:
        """Full buckets.

        Args:
            per_s: how fast each fills.
            most: what each holds.
        """
        self._per_s, self._most = per_s, most
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._buckets)

    def filled(self, name: str, now_s: float) -> Bucket:
        """A bucket, filled up to now; a clock that went back fills nothing."""
        bucket = self._buckets.setdefault(name, Bucket(self._most, now_s))
        self._buckets.move_to_end(name)
        gained = self._per_s * max(0.0, now_s - bucket.at_s)
        bucket.left = min(self._most, bucket.left + gained)
        bucket.at_s = now_s
        while len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        return bucket

    def wait_s(self, bucket: Bucket) -> float:
        """Seconds until the bucket has a whole one; 0 if it has one now."""
        return max(0.0, 1.0 - bucket.left) / self._per_s
