"""What a reuse filter would have answered on a stream of inputs whose results are known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from triparty.common.nets.calibration import Calibration, accuracy_bound, check_target
from triparty.device.filters.cache import CacheSettings, Keys, ReuseCache
from triparty.device.filters.scores import Point

Labels = NDArray[np.int64]
_STEPS = 17
_ORDERS = 5
_MOST_KEYS = 400


@dataclass(frozen=True)
class Replayed:
    """What a stream became.

    Attributes:
        reused: inputs that were answered from the cache; the first ones fill it.
        wrong: of them, answered with another result than the model's.
        seen: all inputs.
    """

    reused: int
    wrong: int
    seen: int

    @property
    def filter_rate(self) -> float:
        """Share answered without the model."""
        return self.reused / self.seen

    @property
    def accuracy(self) -> float:
        """Share answered as the model would."""
        return 1.0 - self.wrong / self.seen


def replay(keys: Keys, labels: Labels, settings: CacheSettings) -> Replayed:
    """Runs a stream through an empty cache.

    Args:
        keys: (n, width) of the inputs in their order.
        labels: (n,) equal numbers for equal results.
        settings: of the cache.
    """
    cache = ReuseCache(keys.shape[1], settings, identity=int)
    reused = wrong = 0
    for key, label in zip(keys, labels, strict=True):
        found = cache.look(key)
        if found.is_hit:
            reused += 1
            wrong += int(found.result != label)
        else:
            cache.put(key, int(label))
    return Replayed(reused, wrong, len(keys))


def distances_to_try(keys: Keys) -> list[float]:
    """Largest distances from strict to loose: quantiles of those between inputs.

    Args:
        keys: (n, width) of inputs that nothing is judged by, such as those learnt from.
    """
    some = keys[:: max(1, len(keys) // _MOST_KEYS)][:_MOST_KEYS].astype(np.float64)
    gaps = np.stack([np.abs(some - one).sum(axis=1) for one in some])
    pairs = gaps[np.triu_indices(len(some), 1)] if len(some) > 1 else np.zeros(1)
    levels = np.linspace(0.0, 1.0, _STEPS) ** 2
    return sorted({float(one) for one in np.quantile(pairs, levels)})


def calibrate_reuse(
    keys: Keys,
    labels: Labels,
    settings: CacheSettings,
    distances: list[float],
    *,
    target_accuracy: float = 0.9,
    confidence: float = 0.95,
) -> Calibration:
    """The largest distance at which results are reused; see `common/nets/calibration.py`.

    What a cache answers depends on which inputs happened to fill it, and one stream is one draw
    of that. So each distance is tried on the stream in its order and in four random ones, and
    the worst has to keep the target; inputs that fill the cache do not count for it.

    Args:
        keys: (n, width) of a stream that nothing was learnt from.
        labels: (n,) equal numbers for equal results.
        settings: of the cache.
        distances: to try, from strict to loose, fixed without a look at the stream.
        target_accuracy: to keep.
        confidence: with which.

    Raises:
        SettingsError: a target or confidence that is no share.
    """
    check_target(target_accuracy, confidence)
    best, best_distance = Replayed(0, 0, len(keys)), None
    rng = np.random.default_rng(len(keys))
    orders = [np.arange(len(keys)), *(rng.permutation(len(keys)) for _ in range(_ORDERS - 1))]
    judged = len(keys) - min(settings.first, settings.size)
    for distance in distances:
        tried = [
            replay(keys[order], labels[order], replace(settings, most_distance=distance))
            for order in orders
        ]
        wrong = max(one.wrong for one in tried)
        if judged < 1 or accuracy_bound(wrong, judged, confidence) < target_accuracy:
            break
        if tried[0].reused >= best.reused:
            best, best_distance = tried[0], distance
    return Calibration(
        best_distance,
        target_accuracy,
        confidence,
        best.filter_rate,
        best.accuracy,
        len(keys),
    )


def reuse_point(
    keys: Keys, labels: Labels, settings: CacheSettings, distance: float | None
) -> Point:
    """What a distance does on a stream; None reuses nothing."""
    if distance is None:
        return Point(0.0, 1.0, None)
    found = replay(keys, labels, replace(settings, most_distance=distance))
    return Point(found.filter_rate, found.accuracy, distance)


def best_reuse_point(
    keys: Keys, labels: Labels, settings: CacheSettings, target_accuracy: float
) -> Point:
    """The largest filter rate on a stream that keeps the accuracy on it, of some distances."""
    best = Point(0.0, 1.0, None)
    for distance in distances_to_try(keys)[::2]:
        point = reuse_point(keys, labels, settings, distance)
        if point.accuracy >= target_accuracy and point.filter_rate >= best.filter_rate:
            best = point
    return best
