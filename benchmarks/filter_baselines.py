"""What a filter has to be better than: luck, the majority, what came before, simple features.

Each gives the best filter rate of its curve on the test part at a target accuracy, as the
thesis reports; neighbours and thresholds are learnt on the training part.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.filter_data import Rows, Task
from triparty.device.filters.cache import CacheSettings
from triparty.device.filters.replay import best_reuse_point
from triparty.device.filters.scores import best_point

NEIGHBOURS = 10
Matrix = NDArray[np.float32]


def nearest_vote(task: Task, learned: Rows, tested: Rows, target: float) -> float:
    """SKIP by the share of needed inputs among the neighbours in low-level features."""
    features = _scaled(task.summary, learned)
    votes = np.empty(len(tested))
    for place, row in enumerate(tested):
        gaps = np.abs(features[learned] - features[row]).sum(axis=1)
        near = np.argpartition(gaps, NEIGHBOURS)[:NEIGHBOURS]
        # The nearest tells ties apart, or all inputs without a needed neighbour are one step.
        votes[place] = task.needed[learned[near]].mean() - 1e-6 * gaps[near].mean()
    return best_point(votes, task.needed[tested], target).filter_rate


def nearest_result(task: Task, tested: Rows, target: float, settings: CacheSettings) -> float:
    """REUSE by the same cache on low-level features, without anything learnt."""
    features = _scaled(task.summary, tested)[tested].astype(np.float32)
    return best_reuse_point(features, task.said[tested], settings, target).filter_rate


def static_threshold(task: Task, learned: Rows, tested: Rows, target: float) -> float:
    """SKIP by one low-level feature: the one and the direction that do best in training."""
    best_rate, best = -1.0, (0, 1.0)
    for column in range(task.summary.shape[1]):
        for sign in (1.0, -1.0):
            scores = sign * task.summary[learned, column].astype(np.float64)
            rate = best_point(scores, task.needed[learned], target).filter_rate
            if rate > best_rate:
                best_rate, best = rate, (column, sign)
    scores = best[1] * task.summary[tested, best[0]].astype(np.float64)
    return best_point(scores, task.needed[tested], target).filter_rate


def majority(said: Rows, target: float) -> float:
    """REUSE of the most frequent result for a random share of inputs."""
    share = float(np.unique(said, return_counts=True)[1].max()) / len(said)
    return min(1.0, (1.0 - target) / (1.0 - share)) if share < 1 else 1.0


def previous(said: Rows, target: float) -> float:
    """REUSE of the last result, the model run on every k-th input in the recorded order."""
    best = 0.0
    for every in range(2, 65):
        held = said[np.arange(len(said)) // every * every]
        if (held == said).mean() >= target:
            best = 1.0 - len(said[::every]) / len(said)
    return best


def _scaled(features: Matrix, rows: Rows) -> Matrix:
    offset, scale = features[rows].mean(axis=0), features[rows].std(axis=0)
    return np.asarray((features - offset) / (scale + 1e-6), np.float32)
