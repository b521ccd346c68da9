"""The links of a federation as ensembles, one a target; those are what is published."""

from __future__ import annotations

from collections.abc import Sequence

from triparty.common.links.ensemble import Ensemble, Member
from triparty.common.links.link import Link
from triparty.common.links.metrics import agreement
from triparty.common.links.recorded import Recorded


def ensembles(
    links: Sequence[tuple[str, str, Link]], recorded: Recorded | None
) -> list[Ensemble]:
    """An ensemble for each target, whose links count alike.

    Args:
        links: source, target and link.
        recorded: outputs that say how well they agree; None leaves that at 0, unknown.

    Raises:
        SettingsError: a model that was not recorded.
    """
    made = []
    for target in dict.fromkeys(target for _, target, _ in links):
        members = tuple(Member(source, link) for source, to, link in links if to == target)
        spec = members[0].link.design.target
        ensemble = Ensemble(target, spec, members)
        if recorded is not None:
            part = recorded.models([*ensemble.sources, target])
            predicted = ensemble.predict(part.outputs).outputs
            found = float(agreement(spec, predicted, part.outputs[target]).mean())
            ensemble = Ensemble(target, spec, members, found)
        made.append(ensemble)
    return made
