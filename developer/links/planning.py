"""Which models to run under a budget: from recorded outputs, links and costs to a plan."""

from __future__ import annotations

from collections.abc import Mapping

from triparty.common.errors import SettingsError
from triparty.common.links.ensemble import Ensemble
from triparty.common.links.planning.costs import Budget, Cost
from triparty.common.links.planning.folder import PlanFolder
from triparty.common.links.planning.measured import LINK_MS, measured_problem
from triparty.common.links.planning.plan import Method, choose
from triparty.common.links.recorded import Recorded


def made_plan(
    recorded: Recorded,
    ensembles: Mapping[str, Ensemble],
    costs: Mapping[str, Cost],
    budget: Budget,
    *,
    method: Method = "auto",
    link_ms: float = LINK_MS,
) -> PlanFolder:
    """The plan of a budget, judged on recorded outputs that the links have not learnt from.

    Args:
        recorded: outputs of all models.
        ensembles: links by target; those of models that were not recorded are left out.
        costs: of each recorded model.
        budget: of all that runs.
        method: of choosing.
        link_ms: latency of a link.

    Raises:
        SettingsError: no cost of a model, links of other outputs, or too many models.
    """
    known = {name: one for name, one in ensembles.items() if name in recorded.specs}
    if not known:
        raise SettingsError("none of the links is to a model that was recorded")
    problem = measured_problem(recorded, known, costs, budget, link_ms=link_ms)
    return PlanFolder(
        choose(problem, method),
        {name: costs[name] for name in recorded.specs},
        links=dict.fromkeys(known, 0),
    )
