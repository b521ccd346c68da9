"""Plans of gateways for tests: folders of a plan and of the links that it names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from triparty.common.links.ensemble import Ensemble
from triparty.common.links.folder import save_links
from triparty.common.links.planning.costs import Cost
from triparty.common.links.planning.folder import PlanFolder
from triparty.common.links.planning.plan import Plan


def saved_plan(
    folder: Path,
    active: tuple[str, ...],
    ensembles: Mapping[str, Ensemble],
    *,
    memory_mib: float = 1.0,
) -> Path:
    """`folder/plan` and `folder/links`: some models run, links predict the others."""
    names = {*active, *ensembles}
    names |= {source for each in ensembles.values() for source in each.sources}
    predicted = {
        name: tuple(one for one in ensembles[name].sources if one in active)
        for name in sorted(names - set(active))
    }
    plan = Plan(
        active=active,
        predicted=predicted,
        quality={name: ensembles[name].expected for name in predicted},
        expected_accuracy=0.95,
        cost={"memory_mib": memory_mib},
        budget={"memory_mib": memory_mib},
        method="exact",
    )
    for name, each in ensembles.items():
        save_links(each, folder / "links" / name)
    made = PlanFolder(
        plan, {name: Cost(1.0, 1.0) for name in names}, links=dict.fromkeys(ensembles, 0)
    )
    made.save(folder / "plan")
    return folder
