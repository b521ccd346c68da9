"""What a filter has to be better than, on the splits and seeds of the filters themselves.

Each gives the best filter rate of its curve on the test part at a target accuracy, as the
thesis reports; neighbours, thresholds and small classifiers are learnt on the training part.
The ways without a network are those of `triparty device filter evaluate --baselines`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.filter_data import Rows, Task
from benchmarks.filter_foggy import HashedCache
from benchmarks.filter_frozen import micro_scores, yamnet_embeddings
from triparty.device.filters.baselines import (
    nearest_votes,
    previous_curve,
    scored,
    static_scores,
)
from triparty.device.filters.cache import CacheSettings
from triparty.device.filters.low_level import cepstral, scaled
from triparty.device.filters.replay import best_reuse_point

NEIGHBOURS = 10
Matrix = NDArray[np.float32]


def nearest_vote(task: Task, learned: Rows, tested: Rows, target: float) -> float:
    """SKIP by the share of needed inputs among the neighbours in low-level features."""
    votes = nearest_votes(task.summary, task.needed, learned, tested)
    return scored("", votes, task.needed[tested]).rate_at(target)


def nearest_result(task: Task, tested: Rows, target: float, settings: CacheSettings) -> float:
    """REUSE by the same cache on low-level features, without anything learnt."""
    features = scaled(task.summary, tested)[tested]
    return best_reuse_point(features, task.said[tested], settings, target).filter_rate


def foggy(task: Task, learned: Rows, tested: Rows, target: float) -> float:
    """REUSE as FoggyCache: hashed neighbours in low-level features, homogenised."""
    features = scaled(task.summary, learned)
    return HashedCache(features[learned]).best_rate(features[tested], task.said[tested], target)


def static_threshold(task: Task, learned: Rows, tested: Rows, target: float) -> float:
    """SKIP by one low-level feature: the one and the direction that do best in training."""
    scores = static_scores(task.summary, task.needed, learned, target)[tested]
    return scored("", scores, task.needed[tested]).rate_at(target)


def cepstral_vote(task: Task, learned: Rows, tested: Rows, target: float) -> float:
    """SKIP of sounds by neighbours in cepstral coefficients (MFCC)."""
    features = cepstral(task.inputs.transpose(0, 2, 1))
    votes = nearest_votes(features, task.needed, learned, tested)
    return scored("", votes, task.needed[tested]).rate_at(target)


def filter_forward(
    task: Task, learned: Rows, tested: Rows, target: float, *, seed: int = 0
) -> float:
    """SKIP of sounds as FilterForward: YAMNet frozen, a small classifier on its embedding."""
    scores = micro_scores(yamnet_embeddings(), task.needed, learned, tested, seed)
    return scored("", scores, task.needed[tested]).rate_at(target)


def majority(said: Rows, target: float) -> float:
    """REUSE of the most frequent result for a random share of inputs."""
    share = float(np.unique(said, return_counts=True)[1].max()) / len(said)
    return min(1.0, (1.0 - target) / (1.0 - share)) if share < 1 else 1.0


def previous(said: Rows, target: float) -> float:
    """REUSE of the last result, the model run on every k-th input in the recorded order."""
    return previous_curve(said).rate_at(target)
