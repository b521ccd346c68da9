"""All links and ensembles of recorded outputs, pair by pair (torch)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from triparty.common.errors import SettingsError
from triparty.common.links.design import default_design
from triparty.common.links.ensemble import Ensemble
from triparty.common.links.recipe import Recipe
from triparty.common.links.recorded import Recorded
from triparty.common.links.training import Fitted, fit_link
from triparty.common.links.weighing import fitted_ensemble

Pair = tuple[str, str]


def all_pairs(recorded: Recorded) -> tuple[Pair, ...]:
    """Every source with every other model as target."""
    names = list(recorded.specs)
    return tuple((one, other) for other in names for one in names if one != other)


def train_links(
    recorded: Recorded,
    recipe: Recipe,
    *,
    pairs: Sequence[Pair] | None = None,
    on_link: Callable[[Pair, Fitted], None] = lambda pair, fitted: None,
) -> dict[str, Ensemble]:
    """Trains a link for each pair, and for each target the ensemble of its links.

    Args:
        recorded: outputs to learn from.
        recipe: how.
        pairs: (source, target) by name; None: all. `pairs.chosen_pairs` leaves out those that
            promise nothing.
        on_link: called after each link.

    Returns:
        Ensembles by target; a target that no pair names has none.

    Raises:
        SettingsError: a pair of models that were not recorded, or a model with itself.
        DatasetError: too few rows.
    """
    wanted = all_pairs(recorded) if pairs is None else tuple(pairs)
    recorded.models(name for pair in wanted for name in pair)
    if own := [source for source, target in wanted if source == target]:
        raise SettingsError(f"a link from '{own[0]}' to itself: name two models")
    made: dict[str, Ensemble] = {}
    for target in dict.fromkeys(target for _, target in wanted):
        spec, said = recorded.specs[target], recorded.outputs[target]
        fitted: dict[str, Fitted] = {}
        for source in dict.fromkeys(one for one, other in wanted if other == target):
            design = default_design(recorded.specs[source], spec)
            fitted[source] = fit_link(design, recorded.outputs[source], said, recipe)
            on_link((source, target), fitted[source])
        made[target] = fitted_ensemble(target, spec, fitted, said, recipe)
    return made
