"""Which answers of sites may be aggregated, and why not; pure.

Flower compares the names of arrays and nothing else: one NaN, one wrong shape or one huge
weight would spoil or end a round. Each refusal is a reason in words, for the journal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from triparty.common.federation import EXAMPLES, LOSS


def refusal(
    reference: Mapping[str, NDArray[np.float32]],
    update: Mapping[str, object],
    *,
    largest_norm: float,
    least_norm: float = 0.0,
) -> str | None:
    """Why a site's weights must not be aggregated; None if they may.

    Args:
        reference: the weights that were sent out.
        update: arrays that came back, by name.
        largest_norm: of the change, as L2 over all arrays together.
        least_norm: of the same.
    """
    if update.keys() != reference.keys():
        missing, unknown = reference.keys() - update.keys(), update.keys() - reference.keys()
        name = min(missing or unknown)
        return f"{'no array' if missing else 'an unknown array'} {name!r:.80}"
    squares = 0.0
    for name, sent in reference.items():
        came = update[name]
        if not isinstance(came, np.ndarray):
            return f"{name!r:.80} is no array"
        if came.dtype != sent.dtype:
            return f"{name!r:.80} has dtype {came.dtype}, expected {sent.dtype}"
        if came.shape != sent.shape:
            return f"{name!r:.80} has shape {came.shape}, expected {sent.shape}"
        if not np.isfinite(came).all():
            return f"{name!r:.80} has values that are not finite"
        squares += float(np.square(came.astype(np.float64) - sent).sum())
    norm = math.sqrt(squares)
    if norm > largest_norm:
        return f"a change of norm {norm:.3g}, at most {largest_norm:.3g} is taken"
    if norm < least_norm:
        return f"a change of norm {norm:.3g}, too small to be cut to a length"
    return None


def metrics_refusal(metrics: Mapping[str, object]) -> str | None:
    """Why the numbers beside the weights must not be used; None if they may."""
    if metrics.keys() != {EXAMPLES, LOSS}:
        return f"metrics {sorted(metrics)!s:.120}, expected {[EXAMPLES, LOSS]}"
    examples, loss = metrics[EXAMPLES], metrics[LOSS]
    if type(examples) is not int or not 1 <= examples < 1 << 40:
        return f"{examples!r:.40} examples, expected a whole number from 1 on"
    if not isinstance(loss, float) or not math.isfinite(loss):
        return f"a loss of {loss!r:.40}, expected a finite number"
    return None
