"""A plan: which models run, what predicts the others, and what is to be expected of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from triparty.common.errors import SettingsError
from triparty.common.links.planning.activation import by_activation
from triparty.common.links.planning.exact import optimum
from triparty.common.links.planning.greedy import greedy
from triparty.common.links.planning.problem import Floats, Mask, Problem
from triparty.common.links.planning.qualities import PairQualities

Method = Literal["auto", "greedy", "exact", "activation"]
EXACT_BY_DEFAULT = 10
"""Models up to which `auto` looks at all sets."""


@dataclass(frozen=True)
class Plan:
    """Which models run under a budget.

    Attributes:
        active: models that run, in the order of the problem.
        predicted: of the others, the sources whose links predict each.
        quality: expected quality of each predicted one, 0 to 1.
        expected_accuracy: mean over all models, 1 for those that run.
        cost: of it all, by resource.
        budget: by resource.
        method: that chose it.
    """

    active: tuple[str, ...]
    predicted: Mapping[str, tuple[str, ...]]
    quality: Mapping[str, float]
    expected_accuracy: float
    cost: Mapping[str, float]
    budget: Mapping[str, float]
    method: Method

    @property
    def models(self) -> tuple[str, ...]:
        """All of them, those that run first."""
        return (*self.active, *self.predicted)


def choose(problem: Problem, method: Method = "auto") -> Plan:
    """The plan of a method.

    Args:
        problem: to solve.
        method: `greedy`; `exact` for few models; `activation`, the thesis's; `auto` is exact
            for few models, and greedy.

    Raises:
        SettingsError: no such method, or too many models for it.
    """
    if method not in get_args(Method):
        raise SettingsError(f"method '{method}': expected one of {', '.join(get_args(Method))}")
    used = method
    if used == "auto":
        used = "exact" if len(problem.models) <= EXACT_BY_DEFAULT else "greedy"
    if used == "exact":
        active = optimum(problem)
    elif used == "activation":
        active = by_activation(problem, single_links(problem))
    else:
        active = greedy(problem)
    return planned(problem, active, used)


def planned(problem: Problem, active: Mask, method: Method) -> Plan:
    """What a choice (n,) of models means.

    Raises:
        SettingsError: it does not fit into the budget.
    """
    if not problem.fits(active[None])[0]:
        raise SettingsError("these models do not fit into the budget")
    names, one = problem.models, active[None]
    qualities = problem.qualities.of(one)[0]
    others = np.flatnonzero(~active)
    by_name = [resource.name for resource in problem.resources]
    return Plan(
        active=tuple(names[n] for n in np.flatnonzero(active)),
        predicted={
            names[n]: tuple(
                names[i] for i in np.flatnonzero(active & problem.qualities.links[:, n])
            )
            for n in others
        },
        quality={names[n]: float(np.clip(qualities[n], 0, 1)) for n in others},
        expected_accuracy=float(problem.accuracy(one)[0]),
        cost=dict(zip(by_name, problem.cost(one)[0].tolist(), strict=True)),
        budget=dict(zip(by_name, problem.budget.tolist(), strict=True)),
        method=method,
    )


def single_links(problem: Problem) -> Floats:
    """(n, n) quality of each link by itself; NaN where there is none."""
    qualities = problem.qualities
    if isinstance(qualities, PairQualities):
        return qualities.pairs
    alone = qualities.of(np.eye(len(problem.models), dtype=bool))
    return np.where(qualities.links, alone, np.nan)
