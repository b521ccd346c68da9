"""What a device makes of an encoder's answers: vectors of sentences, labels with scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triparty.common.encodinginfo import EncodingInfo, Pooling, Scores

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Classification:
    """What a classifier says of one text or image.

    Attributes:
        label: the one with the highest score.
        score: its score.
        scores: of every label, in the model's order. Under `softmax` they add up to 1, under
            `sigmoid` each is from 0 to 1, of a regression they are the model's numbers.
    """

    label: str
    score: float
    scores: Mapping[str, float]


def sentence_vector(answer: NDArray[np.float32], encoding: EncodingInfo) -> NDArray[np.float32]:
    """The vector (D,) of a text.

    Args:
        answer: (T, D) one row a token, which are pooled, or (D,) the vector as it is.
        encoding: how.
    """
    rows = answer.astype(np.float64)
    vector = rows if rows.ndim == 1 else _pooled(rows, encoding.pooling)
    if encoding.normalise:
        vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return vector.astype(np.float32)


def _pooled(rows: Floats, pooling: Pooling) -> Floats:
    pooled: Floats
    match pooling:
        case Pooling.CLS:
            pooled = rows[0]
        case Pooling.MAX:
            pooled = rows.max(axis=0)
        case Pooling.MEAN_SQRT_LEN:
            pooled = rows.sum(axis=0) / np.sqrt(len(rows))
        case Pooling.MEAN:
            pooled = rows.mean(axis=0)
    return pooled


def classification(
    logits: NDArray[np.float32], labels: tuple[str, ...], scores: Scores
) -> Classification:
    """Labels with scores.

    Args:
        logits: (O,) plain.
        labels: O names; none: numbers take their place.
        scores: how logits become scores.
    """
    names = labels or tuple(f"LABEL_{number}" for number in range(len(logits)))
    values = _scored(logits.astype(np.float64), scores)
    best = int(logits.argmax())  # scores grow with logits, and may round to one number
    named = dict(zip(names, map(float, values), strict=True))
    return Classification(names[best], float(values[best]), named)


def _scored(logits: Floats, scores: Scores) -> Floats:
    match scores:
        case Scores.NONE:
            return logits
        case Scores.SIGMOID:
            made: Floats = 0.5 * (1 + np.tanh(logits / 2))
            return made
        case Scores.SOFTMAX:
            raised: Floats = np.exp(logits - logits.max())
            shares: Floats = raised / raised.sum()
            return shares
