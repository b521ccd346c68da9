"""How well predicted outputs agree with a model's own, each task by its metric.

`score` gives the metric, and `share`, the same mapped to 0..1 (higher is better) so that models
of different tasks can be averaged (the p of thesis 5.1): MAE becomes 1 - MAE / MAE of the
constant predictor, WER becomes 1 - WER, neither below 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import DatasetError
from triparty.common.links.features import constant
from triparty.common.links.specs import PAD, Outputs, OutputSpec, Seq, Vec

LIKELY: Final = 0.5  # a label whose score is above this is there

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """How well predictions agree with what the model said.

    Attributes:
        metric: of the target's spec.
        value: of it: accuracy, mAP, IoU higher is better; MAE, WER lower.
        share: the same mapped to 0..1, higher is better.
    """

    metric: str
    value: float
    share: float


def score(
    spec: OutputSpec, predicted: Outputs, said: Outputs, *, reference: Outputs | None = None
) -> Score:
    """The agreement of predictions with a model's outputs.

    Args:
        spec: of the model.
        predicted: (n, ...) as the spec says.
        said: (n, ...) by the model itself.
        reference: (m, ...) outputs whose constant predictor has the share 0 of an MAE; None
            takes `said`.

    Raises:
        DatasetError: no rows, or not as many predictions as outputs.
    """
    if len(predicted) != len(said) or not len(said):
        raise DatasetError(
            f"{len(predicted)} predictions of {len(said)} outputs: expected as many, at least 1"
        )
    if spec.metric == "MAE":
        error = float(np.abs(predicted - said).mean())
        still = constant(spec, said if reference is None else reference)
        scale = float(np.abs(still - said).mean())
        share = 1.0 - min(1.0, error / scale) if scale else float(error == 0)
        return Score("MAE", error, share)
    if isinstance(spec, Seq):
        wrong = sum(map(edits, _words(predicted), _words(said)))
        rate = wrong / max(1, int((said != PAD).sum()))
        return Score("WER", rate, max(0.0, 1.0 - rate))
    value = _MEASURES[spec.metric](spec, predicted, said)
    return Score(spec.metric, value, value)


def agreement(spec: OutputSpec, predicted: Outputs, said: Outputs) -> Floats:
    """(n,) 0 to 1, how well each prediction agrees with what the model said.

    Single-label: the same class. Multi-label: shared labels of all that either has.
    Regression: right within the tolerance, or 1 / (1 + error) without one. Boxes: IoU, 1 where
    neither has one. Sequences: 1 - WER of the row, not below 0.
    """
    if isinstance(spec, Seq):
        pairs = zip(_words(predicted), _words(said), strict=True)
        return np.array([_word_agreement(one, other) for one, other in pairs], np.float64)
    match spec.task:
        case "single-label":
            same: Floats = (predicted.argmax(1) == said.argmax(1)).astype(np.float64)
            return same
        case "multi-label":
            return _overlap(predicted > LIKELY, said > LIKELY)
        case "localisation":
            return box_overlap(predicted, said)
        case "regression":
            error = np.abs(predicted - said).astype(np.float64)
            if spec.tolerance:
                error = (error >= spec.tolerance).astype(np.float64)
                close: Floats = 1.0 - error.max(1)
            else:
                close = 1.0 / (1.0 + error.mean(1))
            return close


def box_overlap(predicted: Outputs, said: Outputs) -> Floats:
    """(n,) intersection over union; 1 where neither has a box, 0 where one has."""
    one, other = predicted.astype(np.float64), said.astype(np.float64)
    low = np.maximum(one[:, 1:3], other[:, 1:3])
    high = np.minimum(one[:, 3:], other[:, 3:])
    shared = np.maximum(high - low, 0).prod(1)
    union = _area(one) + _area(other) - shared
    overlap = np.divide(
        shared, union, out=(shared == union).astype(np.float64), where=union > 0
    )
    has_one, has_other = one[:, 0] > LIKELY, other[:, 0] > LIKELY
    agreed: Floats = np.where(has_one & has_other, overlap, 1.0 * (has_one == has_other))
    return agreed


def _area(boxes: Floats) -> Floats:
    area: Floats = (boxes[:, 3:] - boxes[:, 1:3]).prod(1)
    return area


def average_precision(scores: Floats, is_there: NDArray[np.bool_]) -> float:
    """The mean of the precision at each label that is there, by falling score; ties share."""
    order = np.argsort(-scores, kind="stable")
    ranked, found = scores[order], is_there[order].cumsum()
    last = np.searchsorted(-ranked, -ranked, side="right") - 1  # of those with the same score
    precision = found[last] / (last + 1)
    return float(precision[is_there[order]].mean())


def edits(one: list[int], other: list[int]) -> int:
    """Insertions, deletions and replacements that make one of the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for number, word in enumerate(one, 1):
        diagonal, row[0] = row[0], number
        for place, given in enumerate(other, 1):
            replaced = diagonal + (word != given)
            diagonal = row[place]
            row[place] = min(replaced, row[place] + 1, row[place - 1] + 1)
    return row[-1]


def _words(tokens: Outputs) -> list[list[int]]:
    return [row[row != PAD].tolist() for row in tokens]


def _word_agreement(predicted: list[int], said: list[int]) -> float:
    if not said:
        return float(not predicted)
    return max(0.0, 1.0 - edits(predicted, said) / len(said))


def _overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> Floats:
    shared, either = (one & other).sum(1), (one | other).sum(1)
    overlap: Floats = np.divide(shared, either, out=np.ones(len(one)), where=either > 0)
    return overlap


def _mean_precision(_: Vec, predicted: Outputs, said: Outputs) -> float:
    """Over the labels that are there in some row and absent in another, else 1."""
    there = said > LIKELY
    judged = [label for label in range(said.shape[1]) if 0 < there[:, label].sum() < len(said)]
    found = [
        average_precision(predicted[:, label].astype(np.float64), there[:, label])
        for label in judged
    ]
    return float(np.mean(found)) if found else 1.0


def _mean_agreement(spec: Vec, predicted: Outputs, said: Outputs) -> float:
    return float(agreement(spec, predicted, said).mean())


_MEASURES: Final[dict[str, Callable[[Vec, Outputs, Outputs], float]]] = {
    "accuracy": _mean_agreement,
    "IoU": _mean_agreement,
    "mAP": _mean_precision,
}
