"""What a network sees of a source's output, and what becomes of its logits."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triparty.common.links.specs import Outputs, OutputSpec, Seq, Vec

LEAST_SHARE: Final = 1e-4  # of a class, before its logarithm
MOST_DEVIATIONS: Final = 6.0  # of a feature; rarer values count as this many

Floats = NDArray[np.float32]


def features(spec: Vec, outputs: Outputs) -> Floats:
    """Numbers that a linear layer can use: logarithms of shares, log-odds of scores.

    Args:
        spec: of the source.
        outputs: (n, width).

    Returns:
        (n, width) float32.
    """
    match spec.task:
        case "single-label":
            return log_shares(outputs)
        case "multi-label":
            scores = np.clip(outputs, LEAST_SHARE, 1 - LEAST_SHARE)
            odds: Floats = np.log(scores) - np.log1p(-scores)
            return odds.astype(np.float32)
        case _:
            return np.asarray(outputs, np.float32)


def log_shares(outputs: Outputs) -> Floats:
    """Logarithms of shares, none below that of `LEAST_SHARE`; float32."""
    logs: Floats = np.log(np.maximum(outputs, LEAST_SHARE)).astype(np.float32)
    return logs


def activate(spec: Vec, logits: NDArray[Any]) -> Floats:
    """An output of a model, of logits.

    Args:
        spec: of the target.
        logits: (n, width).

    Returns:
        (n, width) float32; of localisation, 0 or 1 and a box whose sides are in order.
    """
    match spec.task:
        case "single-label":
            raised = np.exp(logits - logits.max(1, keepdims=True))
            return np.asarray(raised / raised.sum(1, keepdims=True), np.float32)
        case "multi-label":
            return sigmoid(logits)
        case "localisation":
            there = (logits[:, :1] > 0).astype(np.float32)
            low = np.minimum(logits[:, 1:3], logits[:, 3:])
            high = np.maximum(logits[:, 1:3], logits[:, 3:])
            return np.concatenate([there, low, high], axis=1).astype(np.float32)
        case _:
            return np.asarray(logits, np.float32)


def sigmoid(logits: NDArray[Any]) -> Floats:
    """Of log-odds of any size, without overflow; float32."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), np.float32)


def constant(spec: OutputSpec, outputs: Outputs) -> Outputs:
    """The one output that does best for all rows: mean shares, the median, the mean box.

    Args:
        spec: of the model.
        outputs: (n, ...) of which it is made.

    Returns:
        (1, ...) as `outputs`.
    """
    if isinstance(spec, Seq):
        rows, counts = np.unique(outputs, axis=0, return_counts=True)
        found: Outputs = rows[counts.argmax()][None]
        return found
    if spec.task == "regression":
        return np.median(outputs, axis=0, keepdims=True).astype(np.float32)
    if spec.task != "localisation":
        mean: Outputs = outputs.mean(axis=0, keepdims=True, dtype=np.float32)
        return mean
    there = outputs[:, 0] > 0.5
    box = outputs[there, 1:].mean(axis=0) if there.any() else np.zeros(4)
    is_there = np.float32(there.mean() > 0.5)
    return np.concatenate([[is_there], box]).astype(np.float32)[None]
