"""Is a task filterable? What theory says, as a hint, and what a small experiment says.

Thesis 3.2 compares the complexity of the filter's and the model's hypotheses: filtering by a
subset of classes or by a bound on a regression is no harder than the task, filtering by low
confidence is. Its proofs have gaps (a bound compared with a bound; a step that fails for one
sign), so they are a hint. The verdict is empirical: the smallest network, cross-validated on a
few labelled samples, against the same scores with their labels shuffled. Needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import DatasetError
from triparty.common.nets.design import Design
from triparty.common.nets.inputs import Modality
from triparty.common.nets.samples import Inputs, Samples, check_samples
from triparty.device.filters.evaluation import Labels
from triparty.device.filters.fitting import specifications, training_file, training_module
from triparty.device.filters.measures import Measure, Theory
from triparty.device.filters.scores import best_point, best_possible, random_level
from triparty.device.filters.session import Session

SMALLEST: Final = {"units": 32, "embedding": 32, "filters": 8, "resolution": 64}
MOST_SAMPLES: Final = 600
_FOLDS: Final = 3
_EPOCHS: Final = 12
_DRAWS: Final = 200
_SIGNIFICANT: Final = 0.05


@dataclass(frozen=True)
class Filterability:
    """What is known of a task before a filter is made.

    Attributes:
        theory: what thesis 3.2 says of its measure.
        samples: of the experiment.
        filter_rate: of the smallest filter, out of fold, at the target accuracy.
        low: 95 % interval of it, by bootstrap.
        high: the same.
        best_possible: of a filter that knows.
        random_level: of luck.
        chance: how often shuffled labels do as well.
        is_filterable: whether that is rare.
    """

    theory: Theory
    samples: int
    filter_rate: float
    low: float
    high: float
    best_possible: float
    random_level: float
    chance: float
    is_filterable: bool


def filterability(
    inputs: Inputs,
    needed: NDArray[np.bool_],
    measure: Measure,
    *,
    target_accuracy: float = 0.9,
    modalities: dict[str, Modality] | None = None,
    seed: int = 0,
) -> Filterability:
    """Tries the smallest filter on some samples.

    Args:
        inputs: of the model.
        needed: (n,) whether its results were needed.
        measure: of redundancy, for what theory says.
        target_accuracy: to keep.
        modalities: where shapes and types do not tell.
        seed: of folds, weights and draws.

    Raises:
        DatasetError: data that nothing can be learnt from.
        SettingsError: torch is not installed.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(inputs))[:MOST_SAMPLES]
    labels: Labels = needed[rows].astype(np.int64)[:, None]
    design = Design("skip", specifications(inputs, modalities or {}), **SMALLEST)
    samples = check_samples(Samples(inputs.part(rows), labels), design)
    if int(min(labels.sum(), len(labels) - labels.sum())) < 2 * _FOLDS:
        raise DatasetError(
            f"{int(labels.sum())} of {len(labels)} samples are needed: at least "
            f"{2 * _FOLDS} of each kind are"
        )
    ranks = _out_of_fold(samples, design, seed)
    is_needed = labels[:, 0] == 1
    rate = best_point(ranks, is_needed, target_accuracy).filter_rate
    shuffled = [
        best_point(ranks, rng.permutation(is_needed), target_accuracy).filter_rate
        for _ in range(_DRAWS)
    ]
    drawn = []
    for _ in range(_DRAWS):
        again = rng.integers(0, len(ranks), len(ranks))
        drawn.append(best_point(ranks[again], is_needed[again], target_accuracy).filter_rate)
    chance = (1 + sum(one >= rate for one in shuffled)) / (1 + _DRAWS)
    return Filterability(
        theory=measure.theory,
        samples=len(ranks),
        filter_rate=rate,
        low=float(np.quantile(drawn, 0.025)),
        high=float(np.quantile(drawn, 0.975)),
        best_possible=best_possible(is_needed, target_accuracy),
        random_level=random_level(is_needed, target_accuracy),
        chance=chance,
        is_filterable=chance < _SIGNIFICANT,
    )


def _out_of_fold(samples: Samples, design: Design, seed: int) -> NDArray[np.float64]:
    """(n,) rank in its fold, 0 to 1, of each sample by a network that did not see it."""
    training = training_module()
    ranks = np.zeros(len(samples))
    labels = samples.labels[:, 0]
    fold = np.zeros(len(samples), np.int64)
    for label in (0, 1):  # as many of each kind in every fold
        own = np.flatnonzero(labels == label)
        fold[own] = np.arange(len(own)) % _FOLDS
    course = training.Course(epochs=_EPOCHS, seed=seed)
    for number in range(_FOLDS):
        others, own = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        trained = training.train(design, samples.part(others), course)
        logits = Session(training_file(trained), design).run(samples.part(own).inputs)[:, 0]
        ranks[own] = (np.argsort(np.argsort(logits)) + 0.5) / len(own)
    return ranks
