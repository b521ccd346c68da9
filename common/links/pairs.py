"""Which links to build at all: those whose source says something about the target.

With many models, links between all pairs are too many. A ridge regression from the features of
a source to those of a target, judged on folds that it has not seen, costs a few milliseconds;
the share of the target's variance that it explains is the pair's dependence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import SettingsError
from triparty.common.links.features import MOST_DEVIATIONS, features
from triparty.common.links.recorded import Recorded
from triparty.common.links.specs import PAD, Outputs, OutputSpec, Seq

SAMPLE_ROWS: Final = 1000
_FOLDS: Final = 3
_RIDGE: Final = 1.0
_LEAST_ROWS: Final = 9
_LEAST_SCALE: Final = 1e-6

Pair = tuple[str, str]
Matrix = NDArray[np.float64]


def chosen_pairs(
    recorded: Recorded, *, most_sources: int, least: float = 0.01, seed: int = 0
) -> tuple[Pair, ...]:
    """The pairs worth a link: for each target the sources that it depends on most.

    Args:
        recorded: outputs; a sample of their rows is looked at.
        most_sources: of a target; one source stays even where none says anything.
        least: dependence below which a source is left out.
        seed: of the sample.

    Raises:
        SettingsError: fewer than one source, or fewer than 9 rows.
    """
    if most_sources < 1:
        raise SettingsError(f"{most_sources} sources for a target: expected 1 or more")
    found = dependences(recorded, seed=seed)
    pairs: list[Pair] = []
    for target in recorded.specs:
        ranked = sorted(
            (pair for pair in found if pair[1] == target),
            key=lambda pair: (-found[pair], pair),
        )
        pairs += ranked[:1]
        pairs += [pair for pair in ranked[1:most_sources] if found[pair] >= least]
    return tuple(pairs)


def dependences(recorded: Recorded, *, seed: int = 0) -> Mapping[Pair, float]:
    """The dependence of each target on each source: 0 (none) to 1, by (source, target).

    Args:
        recorded: outputs; at most `SAMPLE_ROWS` of them are looked at.
        seed: of the sample and the folds.

    Raises:
        SettingsError: fewer than 9 rows.
    """
    if len(recorded) < _LEAST_ROWS:
        raise SettingsError(
            f"{len(recorded)} rows tell nothing of dependence: expected {_LEAST_ROWS} or more"
        )
    rows = np.random.default_rng(seed).permutation(len(recorded))[:SAMPLE_ROWS]
    sample = recorded.part(rows)
    scaled = {
        name: _scaled(_summary(spec, sample.outputs[name]))
        for name, spec in sample.specs.items()
    }
    return {
        (source, target): _explained(scaled[source], scaled[target])
        for target in scaled
        for source in scaled
        if source != target
    }


def correlated_number(spec: OutputSpec, outputs: Outputs) -> Matrix:
    """(n,) the one number of each output that thesis 5.5.2 correlates.

    The likeliest class or label, whether there is a box, or the first number.

    Raises:
        SettingsError: a sequence, which has none.
    """
    if isinstance(spec, Seq):
        raise SettingsError("a sequence has no one number to correlate")
    if spec.task in ("single-label", "multi-label"):
        likeliest: Matrix = outputs.argmax(1).astype(np.float64)
        return likeliest
    first: Matrix = outputs[:, 0].astype(np.float64)
    return first


def _summary(spec: OutputSpec, outputs: Outputs) -> Matrix:
    """(n, k) features of a vector; how often each token is in a sequence, and its length."""
    if not isinstance(spec, Seq):
        return features(spec, outputs).astype(np.float64)
    counts = np.zeros((len(outputs), spec.vocabulary + 1))
    rows, places = np.nonzero(outputs != PAD)
    np.add.at(counts, (rows, outputs[rows, places]), 1.0)
    counts[:, -1] = (outputs != PAD).sum(1)
    return counts[:, counts.any(0)]


def _scaled(values: Matrix) -> Matrix:
    scale = np.maximum(values.std(axis=0), _LEAST_SCALE)
    moved = (values - values.mean(axis=0)) / scale
    clipped: Matrix = np.clip(moved, -MOST_DEVIATIONS, MOST_DEVIATIONS)
    return clipped


def _explained(source: Matrix, target: Matrix) -> float:
    """Share of the target's variance that ridge regression explains on rows held out."""
    left, total = 0.0, 0.0
    place = np.arange(len(source))
    for fold in range(_FOLDS):
        learned, held = place % _FOLDS != fold, place % _FOLDS == fold
        mean = target[learned].mean(axis=0)
        solved = _ridge(source[learned], target[learned] - mean)
        told = source[held] @ solved + mean
        left += float(((target[held] - told) ** 2).sum())
        total += float(((target[held] - mean) ** 2).sum())
    return max(0.0, 1.0 - left / total) if total > 0 else 0.0


def _ridge(inputs: Matrix, wanted: Matrix) -> NDArray[np.floating[Any]]:
    """In the smaller of both forms: over features, or over rows."""
    if inputs.shape[1] <= len(inputs):
        inner = inputs.T @ inputs + _RIDGE * np.eye(inputs.shape[1])
        primal: NDArray[np.floating[Any]] = np.linalg.solve(inner, inputs.T @ wanted)
        return primal
    outer = inputs @ inputs.T + _RIDGE * np.eye(len(inputs))
    dual: NDArray[np.floating[Any]] = inputs.T @ np.linalg.solve(outer, wanted)
    return dual
