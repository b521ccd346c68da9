"""How far two equal functions may be apart by rounding alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCES = {"float64": 1e-5, "float32": 1e-3, "float16": 1e-1, "bfloat16": 4e-1}
"""Largest relative error by the dtype of the weights.

Keyed sums are taken in another order, and stock norms and softmax compute in float32 even of
float64. A wrong key is off by about 1.
"""

LARGEST = float(np.finfo(np.float64).max)


def largest_size(values: NDArray[np.floating[Any]]) -> float:
    """max|a|; the largest number there is, if any is NaN or infinity."""
    with np.errstate(invalid="ignore", over="ignore"):
        largest = float(np.abs(values).max(initial=0.0))
    return largest if np.isfinite(largest) else LARGEST


def relative_error(plain: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> float:
    """max|a - b| / max|a|; the largest number there is, if either has NaN or infinity."""
    with np.errstate(invalid="ignore", over="ignore"):
        return share(largest_size(plain - other), largest_size(plain))


def share(difference: float, largest: float) -> float:
    """A largest difference as a share of the largest value; of no number, `LARGEST`."""
    if difference == LARGEST or not largest:
        return difference
    return min(difference / largest, LARGEST)
