"""Choosing again, now and then: on a small profiled share, and only if a change pays.

At the beginning of each period all models run on a small share of the inputs (thesis: 1 %), and
what was measured there makes the problem of the period. Loading and unloading takes time in
which nothing is answered; and what was measured on few inputs is uncertain. So the models stay
unless the change gains more than both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from triparty.common.errors import SettingsError
from triparty.common.links.planning.plan import Method, Plan, choose, planned
from triparty.common.links.planning.problem import Problem

PROFILED_SHARE = 0.01
LEAST_PROFILED = 30


@dataclass(frozen=True)
class Hysteresis:
    """When a change pays.

    Attributes:
        period_s: for how long a choice holds.
        least_gain: of the expected accuracy, in shares: what a small sample makes of chance.
    """

    period_s: float = 3600.0
    least_gain: float = 0.01

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            SettingsError: a period that is none, or a gain below 0.
        """
        if not (self.period_s > 0 and 0 <= self.least_gain <= 1):
            raise SettingsError("hysteresis: expected a period above 0 s, a gain of 0 to 1")

    def pays(self, gain: float, swap_s: float) -> bool:
        """Whether a gain over the rest of a period outweighs the time of the change.

        Args:
            gain: of the expected accuracy.
            swap_s: seconds in which nothing is answered.
        """
        return gain > self.least_gain and gain * (self.period_s - swap_s) > swap_s


@dataclass(frozen=True)
class Decision:
    """What becomes of a plan at the beginning of a period.

    Attributes:
        plan: of the period.
        changed: whether other models run than before.
        gain: of the expected accuracy that the best plan would bring.
        swap_s: that the change takes, or would.
    """

    plan: Plan
    changed: bool
    gain: float
    swap_s: float


def reselect(
    active: tuple[str, ...],
    problem: Problem,
    hysteresis: Hysteresis,
    *,
    load_s: Mapping[str, float],
    unload_s: Mapping[str, float] | None = None,
    method: Method = "auto",
) -> Decision:
    """The plan of the next period: the present models, or better ones if the change pays.

    Args:
        active: models that run now.
        problem: of the next period.
        hysteresis: when a change pays.
        load_s: seconds that loading each model takes; one that is not named, none.
        unload_s: seconds that unloading takes.
        method: of choosing.

    Present models that no longer fit into the budget are changed whatever that takes.
    """
    best = choose(problem, method)
    swap_s = sum(load_s.get(name, 0.0) for name in set(best.active) - set(active))
    swap_s += sum((unload_s or {}).get(name, 0.0) for name in set(active) - set(best.active))
    present = np.array([name in active for name in problem.models])
    if not problem.fits(present[None])[0]:
        return Decision(best, set(best.active) != set(active), best.expected_accuracy, swap_s)
    now = planned(problem, present, best.method)
    gain = best.expected_accuracy - now.expected_accuracy
    if set(best.active) == set(active) or not hysteresis.pays(gain, swap_s):
        return Decision(now, False, gain, swap_s)
    return Decision(best, True, gain, swap_s)


def profiled_inputs(
    inputs: int, *, share: float = PROFILED_SHARE, least: int = LEAST_PROFILED
) -> int:
    """How many of a period's inputs all models are run on.

    Args:
        inputs: of the period.
        share: of them.
        least: at least so many, as far as there are any.
    """
    return min(inputs, max(least, round(share * inputs)))
