"""What a filter and its model cost on this very device, and whether the filter is worth it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

_LEAST_CALLS: Final = 5
_SECONDS: Final = 0.2


@dataclass(frozen=True)
class Worth:
    """Whether a filter saves time.

    Attributes:
        cost_ms: of the filter for one input, lookup included.
        model_cost_ms: of the model for one input; None if it was not measured.
        break_even: filter rate above which time is saved; None as above, or where no rate
            saves any.
        worth_having: whether the filter rate is above; None if the model was not measured.
    """

    cost_ms: float
    model_cost_ms: float | None
    break_even: float | None
    worth_having: bool | None


def worth(rate: float, cost_ms: float, model_cost_ms: float | None, kept_ms: float) -> Worth:
    """The verdict.

    SKIP: r > C(g) / (C(h) - C(h')) with h' what is answered instead (thesis 3.1). REUSE: the
    lookup is paid for every input, so it belongs to C(g), and C(h') is 0.

    Args:
        rate: filter rate.
        cost_ms: C(g) with what is paid for every input.
        model_cost_ms: C(h), or None.
        kept_ms: C(h').
    """
    if model_cost_ms is None:
        return Worth(cost_ms, None, None, None)
    saved = model_cost_ms - kept_ms
    if saved <= cost_ms:
        return Worth(cost_ms, model_cost_ms, None, False)
    return Worth(cost_ms, model_cost_ms, cost_ms / saved, rate > cost_ms / saved)


def cost_of(call: Callable[[Any], object], inputs: list[Any]) -> float:
    """Median milliseconds of a call with one input, on one after the other, after a warm-up.

    Args:
        call: what is measured.
        inputs: at least one; taken in turn for about a fifth of a second, at least five times.
    """
    call(inputs[0])
    taken: list[float] = []
    start = time.perf_counter()
    while len(taken) < _LEAST_CALLS or time.perf_counter() - start < _SECONDS:
        one = inputs[len(taken) % len(inputs)]
        before = time.perf_counter()
        call(one)
        taken.append(time.perf_counter() - before)
    return 1000.0 * median(taken)
