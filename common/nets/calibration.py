"""How much may be filtered so that the accuracy holds: thresholds with a confidence bound.

Accuracy is agreement with the model unfiltered. A threshold that just keeps it on the samples
at hand keeps it elsewhere half of the time; so it must hold with a margin. For every threshold
from the strictest on, the exact binomial bound (Clopper-Pearson) says how low the accuracy may
be in truth; the first threshold whose bound is below the target ends the search. As that is a
sequence fixed beforehand, of which nothing behind the first failure is looked at, the
confidence holds for the threshold that was chosen and not for one alone; where accuracy falls
with every threshold, as for `skip`, it is the bound of risk-controlling prediction sets (Bates
et al., 2021, theorem 1). It supposes samples that are drawn independently from what will come.
Samples that are not, such as frames of a clip, come in blocks, and `blocks.py` has their bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import DatasetError, SettingsError
from triparty.common.nets.blocks import Blocks, blocks_show, per_block

Floats = NDArray[np.float64]
_MOST_CELLS: Final = 1 << 22


@dataclass(frozen=True)
class Calibration:
    """A threshold and what it promises.

    Attributes:
        threshold: what scores at most this much is filtered; None filters nothing.
        target_accuracy: that is kept.
        confidence: with which it is kept.
        filter_rate: of the samples that it was chosen on.
        accuracy: on them.
        samples: how many.
        blocks: in which they came; 0 where each was taken as independent of all others.
    """

    threshold: float | None
    target_accuracy: float
    confidence: float
    filter_rate: float
    accuracy: float
    samples: int
    blocks: int = 0


def check_target(target_accuracy: float, confidence: float) -> None:
    """Returns only if a target and a confidence are shares.

    Raises:
        SettingsError: they are not above 0 and below 1.
    """
    for name, value in (("target accuracy", target_accuracy), ("confidence", confidence)):
        if not 0.0 < value < 1.0:
            raise SettingsError(f"{name} {value}: expected above 0 and below 1")


def calibrate_skip(
    logits: Floats,
    needed: NDArray[np.bool_],
    *,
    blocks: Blocks | None = None,
    target_accuracy: float = 0.9,
    confidence: float = 0.95,
) -> Calibration:
    """The threshold below which inputs are skipped.

    Args:
        logits: (n,) of inputs that nothing was learnt from.
        needed: (n,) whether the model is needed.
        blocks: (n,) numbers of blocks that are independent of each other; None: inputs are.
        target_accuracy: to keep.
        confidence: with which.

    Raises:
        DatasetError: lengths that differ, no sample, or a logit that is no number.
        SettingsError: a target or confidence that is no share.
    """
    check_target(target_accuracy, confidence)
    if logits.shape != needed.shape or logits.ndim != 1 or not len(logits):
        raise DatasetError(f"{logits.shape} logits for {needed.shape} labels: expected as many")
    if blocks is not None and blocks.shape != logits.shape:
        raise DatasetError(f"{blocks.shape} blocks for {logits.shape} logits: expected as many")
    if np.isnan(logits).any():
        raise DatasetError(
            f"row {int(np.isnan(logits).argmax())} has a logit that is no number"
        )
    total = len(logits)
    count = 0 if blocks is None else len(np.unique(blocks))
    skipped, wrong, thresholds = skip_curve(logits, needed)
    if blocks is None:
        most = most_wrong(total, target_accuracy, confidence)
    else:
        most = _most_wrong_of_blocks(logits, needed, blocks, target_accuracy, confidence)
    kept = np.flatnonzero(wrong <= most)
    if most < 0 or not len(kept):
        return Calibration(None, target_accuracy, confidence, 0.0, 1.0, total, count)
    last = int(kept[-1])
    return Calibration(
        threshold=float(thresholds[last]),
        target_accuracy=target_accuracy,
        confidence=confidence,
        filter_rate=float(skipped[last]) / total,
        accuracy=1.0 - float(wrong[last]) / total,
        samples=total,
        blocks=count,
    )


def _most_wrong_of_blocks(
    logits: Floats,
    needed: NDArray[np.bool_],
    blocks: Blocks,
    target_accuracy: float,
    confidence: float,
) -> int:
    """How many needed inputs, from the strictest threshold on, may be skipped; -1: not even 0.

    Thresholds between which no needed input lies have the same losses, so each number of them
    is tried once, in their order, up to the first that is not shown.
    """
    sizes = per_block(needed, blocks)[1]
    places = np.unique(blocks, return_inverse=True)[1].reshape(-1)
    order = np.argsort(logits, kind="stable")
    losing = places[order][needed[order]]
    step = max(1, _MOST_CELLS // len(sizes))
    before = np.zeros(len(sizes))
    for start in range(0, len(losing) + 1, step):
        added = np.zeros((min(step, len(losing) + 1 - start), len(sizes)))
        rows = np.arange(start, start + len(added))
        rows = rows[rows > 0]
        added[rows - start, losing[rows - 1]] = 1.0
        wrong = before + np.cumsum(added, axis=0)
        shown = blocks_show(wrong, sizes, target_accuracy, confidence)
        if not shown.all():
            return start + int(shown.argmin()) - 1
        before = wrong[-1]
    return len(losing)


def skip_curve(
    logits: Floats, needed: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """What each threshold skips, and skips wrongly.

    Every different logit is a threshold: equal ones are skipped together, and none is lost to
    a grid, however much the sigmoid of them is saturated.

    Returns:
        (k,) how many are skipped, (k,) how many of these were needed, (k,) the thresholds,
        rising.
    """
    order = np.argsort(logits, kind="stable")
    ordered = logits[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    skipped = np.arange(1, len(logits) + 1)[last]
    wrong = np.cumsum(needed[order].astype(np.int64))[last]
    return skipped, wrong, ordered[last]


@lru_cache(maxsize=256)
def most_wrong(samples: int, target_accuracy: float, confidence: float) -> int:
    """How many answers of so many may be wrong with the target certain; -1: not even 0."""
    low, high = -1, samples
    while low < high:  # the bound falls with every wrong answer
        middle = (low + high + 1) // 2
        if accuracy_bound(middle, samples, confidence) >= target_accuracy:
            low = middle
        else:
            high = middle - 1
    return low


def accuracy_bound(wrong: int, samples: int, confidence: float) -> float:
    """The lowest accuracy that is not refuted, one-sided: Clopper and Pearson (1934).

    That is the accuracy at which so few wrong answers or fewer have a chance of
    1 - confidence.
    """
    if wrong >= samples:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _chance_of_at_most(wrong, samples, 1.0 - middle) < 1.0 - confidence:
            low = middle
        else:
            high = middle
    return low


def accuracy_ceiling(wrong: int, samples: int, confidence: float) -> float:
    """The highest accuracy that is not refuted, one-sided."""
    return 1.0 - accuracy_bound(samples - wrong, samples, confidence)


def _chance_of_at_most(count: int, samples: int, rate: float) -> float:
    """Of so many events or fewer among samples, each with a chance of `rate`."""
    if rate <= 0.0:
        return 1.0
    if rate >= 1.0:
        return float(count >= samples)
    numbers = np.arange(1, count + 1, dtype=np.float64)
    steps = np.log((samples - numbers + 1) / numbers) + np.log(rate) - np.log1p(-rate)
    logs = samples * np.log1p(-rate) + np.append(0.0, np.cumsum(steps))
    return float(np.exp(logs - logs.max()).sum() * np.exp(logs.max()))
