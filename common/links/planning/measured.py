"""The problem of a period, of what models said on a sample and of the links between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from triparty.common.errors import SettingsError
from triparty.common.links.ensemble import Ensemble
from triparty.common.links.metrics import score
from triparty.common.links.planning.costs import Budget, Cost
from triparty.common.links.planning.problem import Problem
from triparty.common.links.planning.qualities import MeasuredQualities, Outputs
from triparty.common.links.recorded import Recorded

LINK_MS: Final = 0.1
"""What a link is taken to need for one input where nobody measured it."""
_MIB: Final = 1 << 20
_PARAMETER_BYTES: Final = 4


def measured_problem(
    recorded: Recorded,
    ensembles: Mapping[str, Ensemble],
    costs: Mapping[str, Cost],
    budget: Budget,
    *,
    link_ms: float = LINK_MS,
    weights: Mapping[str, float] | None = None,
    doubt: float = 1.0,
) -> Problem:
    """Which models to run, as far as a sample tells.

    Args:
        recorded: outputs of all models on the sample; for a plan that holds, on inputs that
            the links were not trained on.
        ensembles: links to each model that can be predicted, by its name; a model without
            them is run, or counts as wrong.
        costs: of each model.
        budget: of all that runs.
        link_ms: latency of one link.
        weights: how much a model's output counts; 1 where it is not named.
        doubt: see `MeasuredQualities`.

    Raises:
        SettingsError: a model without costs, or a link whose source or target has other
            outputs than were recorded.
    """
    names = tuple(recorded.specs)
    if missing := [name for name in names if name not in costs]:
        raise SettingsError(f"no cost of the model '{missing[0]}' is known: measure it")
    check_links(recorded, ensembles)
    links = np.zeros((len(names), len(names)), bool)
    link_costs = np.zeros((len(names), len(names), len(budget.resources)))
    for j, target in enumerate(names):
        if target not in ensembles:
            continue
        for member in ensembles[target].members:
            if member.source not in names:
                continue
            i = names.index(member.source)
            links[i, j] = True
            memory_mib = member.link.parameters * _PARAMETER_BYTES / _MIB
            link_costs[i, j] += _told(Cost(memory_mib, link_ms), budget)

    def predict(target: str, given: Mapping[str, Outputs]) -> Outputs:
        return ensembles[target].predict(given).outputs

    def agreement(target: str, predicted: Outputs, said: Outputs) -> float:
        return score(recorded.specs[target], predicted, said).share

    return Problem(
        names,
        MeasuredQualities(names, recorded.outputs, links, predict, agreement, doubt=doubt),
        budget.resources,
        np.array([_told(costs[name], budget) for name in names]),
        np.array([getattr(budget, one.name) for one in budget.resources], float),
        link_costs=link_costs,
        weights=np.array([(weights or {}).get(name, 1.0) for name in names], float),
    )


def check_links(recorded: Recorded, ensembles: Mapping[str, Ensemble]) -> None:
    """Returns only if links take and give what models do.

    Raises:
        SettingsError: they do not; names the model.
    """
    for target, ensemble in ensembles.items():
        specs = {**ensemble.sources, target: ensemble.target}
        for name, spec in specs.items():
            if name in recorded.specs and recorded.specs[name] != spec:
                raise SettingsError(
                    f"the links to '{target}' know other outputs of '{name}' than it gives: "
                    "train them again"
                )


def _told(cost: Cost, budget: Budget) -> list[float]:
    return [getattr(cost, one.name) for one in budget.resources]
