"""A site's own link beside the one that all sites made (thesis 5.3.2, local-global; torch)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from triparty.common.links.ensemble import Ensemble
from triparty.common.links.link import Link
from triparty.common.links.metrics import agreement
from triparty.common.links.recipe import Recipe
from triparty.common.links.recorded import Recorded
from triparty.common.links.specs import Seq
from triparty.common.links.training import Fitted, fit_link
from triparty.common.links.weighing import fitted_ensemble

_LOCAL, _GLOBAL = "local", "global"


@dataclass(frozen=True, eq=False)
class LocalAndGlobal:
    """What a site makes of a global link.

    Attributes:
        local: a link of the site's own rows alone.
        ensemble: that link and the global one, weighed on rows that the local one had not
            seen; the better of them alone where both together are no better.
    """

    local: Fitted
    ensemble: Ensemble


def local_and_global(
    recorded: Recorded, source: str, target: str, shared: Link, recipe: Recipe
) -> LocalAndGlobal:
    """Trains a local link and weighs it against a global one.

    Args:
        recorded: outputs of this site.
        source: name of the model whose output both take.
        target: name of the model that they predict.
        shared: the global link. Where this site took part in it, it has seen these rows, and
            weighs somewhat more than it should.
        recipe: of the local link.

    Raises:
        SettingsError: a model that was not recorded.
        DatasetError: too few rows.
    """
    part = recorded.models([source, target])
    seen, said = part.outputs[source], part.outputs[target]
    local = fit_link(shared.design, seen, said, recipe)
    rows = seen[local.held]
    spec = shared.design.target
    told = shared.predict(rows)
    agreed = float(agreement(spec, told, said[local.held]).mean())
    other = Fitted(
        shared,
        1,
        local.held,
        told if isinstance(spec, Seq) else shared.logits(rows),
        agreed,
        agreed,
    )
    # A source is there or not, and both links with it: none is left out while they are weighed.
    weighing = replace(recipe, source_dropout=0.0)
    both = fitted_ensemble(target, spec, {_LOCAL: local, _GLOBAL: other}, said, weighing)
    members = tuple(replace(member, source=source) for member in both.members)
    return LocalAndGlobal(local, Ensemble(target, spec, members, both.expected))
