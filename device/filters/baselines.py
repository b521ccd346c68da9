"""What a filter has to beat: luck, and ways that need no network.

Each is a curve of accuracy against filter rate on inputs that it did not learn from, beside the
best that there can be. To skip: by chance; one threshold on one low-level feature; the share of
needed inputs among the nearest in low-level features. To reuse: the most frequent result; the
last result for a while; the last result until low-level features differ enough (Reducto's way);
the cache on low-level features (FoggyCache's way).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import DatasetError
from triparty.common.nets.calibration import skip_curve
from triparty.common.nets.samples import Inputs
from triparty.device.filters.artifact import FilterArtifact
from triparty.device.filters.cache import CacheSettings
from triparty.device.filters.low_level import Features, low_level, scaled
from triparty.device.filters.replay import Replayed, distances_to_try, replay
from triparty.device.filters.scores import best_point
from triparty.device.filters.session import Session

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]
Labels = NDArray[np.int64]
Floats = NDArray[np.float64]
NEIGHBOURS: Final = 10
_STEPS: Final = 41
_LONGEST: Final = 65


@dataclass(frozen=True, eq=False)
class Curve:
    """Accuracy against filter rate.

    Attributes:
        name: of the way.
        rates: (k,) shares answered without the model.
        accuracies: (k,) shares answered as the model would.
    """

    name: str
    rates: Floats
    accuracies: Floats

    def rate_at(self, target: float) -> float:
        """The largest filter rate with that accuracy; 0, the model for all, if none."""
        kept = self.rates[self.accuracies >= target - 1e-9]
        return float(kept.max(initial=0.0))


def skip_curves(
    features: Features, needed: Flags, learned: Rows, tested: Rows, target: float
) -> list[Curve]:
    """Ways to skip, the best that there can be first.

    Args:
        features: (n, k) low-level ones of all inputs.
        needed: (n,) whether the model is needed.
        learned: rows that may be learnt from.
        tested: rows that are judged by.
        target: accuracy for which a threshold's feature is chosen.
    """
    judged = needed[tested]
    share = float(judged.mean())
    rates = np.linspace(0.0, 1.0, _STEPS)
    known = np.append(rates, 1.0 - share)
    threshold = static_scores(features, needed, learned, target)[tested]
    votes = nearest_votes(features, needed, learned, tested)
    return [
        Curve("possible", np.sort(known), 1.0 - np.maximum(0.0, np.sort(known) - 1.0 + share)),
        Curve("by chance", rates, 1.0 - rates * share),
        scored("one threshold", threshold, judged),
        scored("low level + kNN", votes, judged),
    ]


def reuse_curves(
    features: Features, labels: Labels, learned: Rows, tested: Rows, settings: CacheSettings
) -> list[Curve]:
    """Ways to reuse on a stream, the best that there can be first.

    Args:
        features: (n, k) low-level ones of all inputs.
        labels: (n,) equal numbers for equal results.
        learned: rows from which features are scaled.
        tested: rows of the stream that is judged by, in its order.
        settings: of the cache.
    """
    judged, keys = labels[tested], scaled(features, learned)
    rates = np.linspace(0.0, 1.0, _STEPS)
    most = float(np.unique(judged, return_counts=True)[1].max()) / len(judged)
    return [
        Curve("possible", np.array([0.0, 1.0 - 1.0 / len(judged)]), np.ones(2)),
        Curve("most frequent result", rates, 1.0 - rates * (1.0 - most)),
        previous_curve(judged),
        unchanged_curve("low level unchanged", keys[tested], judged),
        cached_curve("low level + cache", keys, judged, learned, tested, settings),
    ]


def scored(name: str, scores: Floats, needed: Flags) -> Curve:
    """Of scores, from which on the model is run."""
    skipped, wrong, _ = skip_curve(scores, needed)
    total = len(needed)
    rates, accuracies = skipped / total, 1.0 - wrong / total
    return Curve(name, np.append(0.0, rates), np.append(1.0, accuracies))


def static_scores(features: Features, needed: Flags, learned: Rows, target: float) -> Floats:
    """(n,) the one feature, upwards or downwards, that does best where it may be learnt."""
    best_rate, best = -1.0, np.zeros(len(features))
    for column in range(features.shape[1]):
        for sign in (1.0, -1.0):
            scores = sign * features[:, column].astype(np.float64)
            rate = best_point(scores[learned], needed[learned], target).filter_rate
            if rate > best_rate:
                best_rate, best = rate, scores
    return best


def nearest_votes(features: Features, needed: Flags, learned: Rows, tested: Rows) -> Floats:
    """(tested,) share of needed inputs among the nearest that may be learnt from."""
    keys = scaled(features, learned)
    count = min(NEIGHBOURS, len(learned) - 1)
    votes = np.empty(len(tested))
    for place, row in enumerate(tested):
        gaps = np.abs(keys[learned] - keys[row]).sum(axis=1)
        near = np.argpartition(gaps, count)[:count]
        # The nearest tells ties apart, or all inputs without a needed neighbour are one step.
        votes[place] = needed[learned[near]].mean() - 1e-6 * gaps[near].mean()
    return votes


def previous_curve(labels: Labels) -> Curve:
    """The model on every k-th input, its result for those until the next."""
    rates, accuracies = [0.0], [1.0]
    for every in range(2, min(_LONGEST, len(labels))):
        held = labels[np.arange(len(labels)) // every * every]
        rates.append(1.0 - len(labels[::every]) / len(labels))
        accuracies.append(float((held == labels).mean()))
    return Curve("last result for a while", np.array(rates), np.array(accuracies))


def unchanged_curve(name: str, keys: Features, labels: Labels) -> Curve:
    """The last result until an input is further from the last that the model got."""
    rates, accuracies = [0.0], [1.0]
    for most in np.quantile(np.abs(np.diff(keys, axis=0)).sum(axis=1), _levels()) * 2.0:
        point = unchanged(keys, labels, float(most))
        rates.append(point.filter_rate)
        accuracies.append(point.accuracy)
    return Curve(name, np.array(rates), np.array(accuracies))


def unchanged(keys: Features, labels: Labels, most: float) -> Replayed:
    """What reusing the last result within a distance does on a stream."""
    last, reused, wrong = 0, 0, 0
    for row in range(1, len(keys)):
        if float(np.abs(keys[row] - keys[last]).sum()) <= most:
            reused += 1
            wrong += int(labels[row] != labels[last])
        else:
            last = row
    return Replayed(reused, wrong, len(keys))


def cached_curve(
    name: str,
    keys: Features,
    labels: Labels,
    learned: Rows,
    tested: Rows,
    settings: CacheSettings,
) -> Curve:
    """A cache on keys that were not learnt.

    Args:
        name: of the curve.
        keys: (n, width) of all inputs.
        labels: (k,) of the stream.
        learned: rows from which distances to try are taken.
        tested: rows of the stream.
        settings: of the cache.
    """
    rates, accuracies = [0.0], [1.0]
    for distance in distances_to_try(keys[learned])[::2]:
        point = replay(keys[tested], labels, replace(settings, most_distance=distance))
        rates.append(point.filter_rate)
        accuracies.append(point.accuracy)
    return Curve(name, np.array(rates), np.array(accuracies))


def compared(
    artifact: FilterArtifact, session: Session, inputs: Inputs, labels: Labels
) -> list[Curve]:
    """The first task of a filter beside all of these, which learn from the first half.

    The filter and they are judged by the second half, in its order.

    Args:
        artifact: of the filter.
        session: of its network.
        inputs: that the filter was not made from.
        labels: (n, tasks) of them.

    Raises:
        DatasetError: too few inputs to have neighbours, or one class alone in a half.
    """
    if len(inputs) < 4 * NEIGHBOURS:
        raise DatasetError(f"{len(inputs)} inputs: baselines need {4 * NEIGHBOURS}")
    learned, tested = np.split(np.arange(len(inputs)), [len(inputs) // 2])
    task, outputs = artifact.tasks[0], session.run(inputs)[:, 0]
    features = low_level(inputs, artifact.design.inputs)
    if artifact.design.kind == "reuse":
        column, settings = labels[:, 0], artifact.reuse
        curves = reuse_curves(features, column, learned, tested, settings)
        mine = cached_curve("this filter", outputs, column[tested], learned, tested, settings)
        return [*curves, mine]
    needed = labels[:, 0] == 1
    for name, half in (("first", learned), ("second", tested)):
        if len(np.unique(needed[half])) < 2:
            raise DatasetError(
                f"the {name} half of the inputs has one class alone: mix their order"
            )
    target = task.calibration.target_accuracy
    mine = scored("this filter", outputs[tested].astype(np.float64), needed[tested])
    return [*skip_curves(features, needed, learned, tested, target), mine]


def _levels() -> Floats:
    return np.linspace(0.0, 1.0, 21)
