"""How good a filter is: filter rate and accuracy, beside what is possible and what is luck.

Accuracy is agreement with the model unfiltered, the filter rate the share of inputs that are
answered without it. Shares of tasks with different base rates do not compare, so quality is
(rate - random) / (possible - random): 0 for luck, 1 for the best there can be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triparty.common.nets.calibration import Floats, skip_curve


@dataclass(frozen=True)
class Point:
    """A threshold on a set of inputs.

    Attributes:
        filter_rate: share answered without the model.
        accuracy: share answered as the model would.
        threshold: that does it; None filters nothing.
    """

    filter_rate: float
    accuracy: float
    threshold: float | None


def point_at(logits: Floats, needed: NDArray[np.bool_], threshold: float | None) -> Point:
    """What a threshold does: inputs whose logit is at most that much are skipped."""
    if threshold is None:
        return Point(0.0, 1.0, None)
    skipped = logits <= threshold
    return Point(float(skipped.mean()), 1.0 - float((skipped & needed).mean()), threshold)


def best_point(logits: Floats, needed: NDArray[np.bool_], target_accuracy: float) -> Point:
    """The largest filter rate on these inputs that keeps the accuracy on them.

    This is how the thesis reports; the threshold is chosen on what it is judged by.
    """
    skipped, wrong, thresholds = skip_curve(logits, needed)
    total = len(logits)
    kept = np.flatnonzero(wrong <= (1.0 - target_accuracy) * total + 1e-9)
    if not len(kept):
        return Point(0.0, 1.0, None)
    last = int(kept[-1])
    return Point(
        float(skipped[last]) / total, 1.0 - float(wrong[last]) / total, float(thresholds[last])
    )


def best_possible(needed: NDArray[np.bool_], target_accuracy: float) -> float:
    """The filter rate of a filter that knows: all redundant inputs and the error budget."""
    return min(1.0, (1.0 - target_accuracy) + 1.0 - float(needed.mean()))


def random_level(needed: NDArray[np.bool_], target_accuracy: float) -> float:
    """The filter rate of skipping by chance: a share r has r x needed wrong."""
    share = float(needed.mean())
    return min(1.0, (1.0 - target_accuracy) / share) if share > 0 else 1.0


def random_reuse_level(labels: NDArray[np.int64], target_accuracy: float) -> float:
    """The filter rate of reusing any earlier result by chance."""
    counts = np.unique(labels, return_counts=True)[1] / len(labels)
    differing = 1.0 - float(np.square(counts).sum())
    return min(1.0, (1.0 - target_accuracy) / differing) if differing > 0 else 1.0


def quality(rate: float, possible: float, random: float) -> float | None:
    """(rate - random) / (possible - random); None where luck does what is possible."""
    return (rate - random) / (possible - random) if possible > random else None
