"""What a reuse filter would have answered on a stream of inputs whose results are known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import DatasetError
from triparty.common.nets.blocks import Blocks, blocks_show, per_block
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
    reused, wrong = replayed_rows(keys, labels, settings)
    return Replayed(int(reused.sum()), int(wrong.sum()), len(keys))


def replayed_rows(
    keys: Keys, labels: Labels, settings: CacheSettings
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(n,) whether each input of a stream was answered from the cache, (n,) and wrongly."""
    cache = ReuseCache(keys.shape[1], settings, identity=int)
    reused, wrong = np.zeros(len(keys), np.bool_), np.zeros(len(keys), np.bool_)
    for row, (key, label) in enumerate(zip(keys, labels, strict=True)):
        found = cache.look(key)
        if found.is_hit:
            reused[row], wrong[row] = True, found.result != label
        else:
            cache.put(key, int(label))
    return reused, wrong


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
    blocks: Blocks | None = None,
    target_accuracy: float = 0.9,
    confidence: float = 0.95,
) -> Calibration:
    """The largest distance at which results are reused; see `common/nets/calibration.py`.

    What a cache answers depends on which inputs happened to fill it, and one stream is one draw
    of that. So each distance is tried on the stream in its order and in four random ones, and
    the worst has to keep the target; inputs that fill the cache do not count for it. Blocks
    change places as a whole, and those that fill the cache do not count.

    Args:
        keys: (n, width) of a stream that nothing was learnt from.
        labels: (n,) equal numbers for equal results.
        settings: of the cache.
        distances: to try, from strict to loose, fixed without a look at the stream.
        blocks: (n,) numbers of blocks that are independent of each other; None: inputs are.
        target_accuracy: to keep.
        confidence: with which.

    Raises:
        DatasetError: blocks of another number than keys.
        SettingsError: a target or confidence that is no share.
    """
    check_target(target_accuracy, confidence)
    if blocks is not None and len(blocks) != len(keys):
        raise DatasetError(f"{len(keys)} keys have {len(blocks)} blocks: expected as many")
    best, best_distance = Replayed(0, 0, len(keys)), None
    orders = _orders(len(keys), blocks)
    fill = min(settings.first, settings.size)
    for distance in distances:
        tried = []
        for order in orders:
            within = replace(settings, most_distance=distance)
            reused, wrong = replayed_rows(keys[order], labels[order], within)
            if not _is_shown(
                wrong[fill:],
                None if blocks is None else blocks[order][fill:],
                target_accuracy,
                confidence,
            ):
                break
            tried.append(Replayed(int(reused.sum()), int(wrong.sum()), len(keys)))
        if len(tried) < len(orders):
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
        0 if blocks is None else len(np.unique(blocks)),
    )


def _orders(count: int, blocks: Blocks | None) -> list[NDArray[np.intp]]:
    """A stream's own order, and random ones of its rows or blocks."""
    rng = np.random.default_rng(count)
    if blocks is None:
        return [np.arange(count), *(rng.permutation(count) for _ in range(_ORDERS - 1))]
    parts = [np.flatnonzero(blocks == one) for one in np.unique(blocks)]
    mixed = (rng.permutation(len(parts)) for _ in range(_ORDERS - 1))
    return [np.arange(count), *(np.concatenate([parts[n] for n in one]) for one in mixed)]


def _is_shown(
    wrong: NDArray[np.bool_], blocks: Blocks | None, target_accuracy: float, confidence: float
) -> bool:
    """Whether the target is kept by inputs of which some were answered wrongly."""
    if not len(wrong):
        return False
    if blocks is None:
        bound = accuracy_bound(int(wrong.sum()), len(wrong), confidence)
        return bound >= target_accuracy
    return bool(blocks_show(*per_block(wrong, blocks), target_accuracy, confidence))


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
