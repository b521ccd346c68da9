"""How good links are on outputs that they have not seen, beside saying always the same."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from triparty.common.errors import SettingsError
from triparty.common.links.ensemble import Ensemble
from triparty.common.links.features import constant
from triparty.common.links.folder import is_link, open_links
from triparty.common.links.metrics import Score, score
from triparty.common.links.recorded import Recorded

_TIMED: Final = 200


@dataclass(frozen=True)
class Judged:
    """What the links to one target are worth.

    Attributes:
        target: name of the model.
        metric: of its output.
        together: score of the ensemble.
        alone: scores of each source's links alone, by source.
        constant: score of saying always the same.
        weights: of the sources.
        parameters: numbers that training changed.
        cost_us: microseconds of a prediction for one input on one core, all sources together.
    """

    target: str
    metric: str
    together: Score
    alone: Mapping[str, Score]
    constant: Score
    weights: Mapping[str, float]
    parameters: int
    cost_us: float

    @property
    def gain(self) -> float:
        """Share of agreement above saying always the same."""
        return self.together.share - self.constant.share


def open_all(folder: Path) -> dict[str, Ensemble]:
    """The links in a folder, or in the folders in it, by target.

    Raises:
        SettingsError: there are none, or two to one target.
        ArtifactError, CheckpointError: links that must not be used.
    """
    folders = [folder] if is_link(folder) else sorted(filter(is_link, folder.glob("*")))
    found: dict[str, Ensemble] = {}
    for one in folders:
        ensemble = open_links(one)
        if found.setdefault(ensemble.name, ensemble) is not ensemble:
            raise SettingsError(f"{folder} holds links to '{ensemble.name}' twice")
    if not found:
        raise SettingsError(
            f"no links in {folder}: make them with 'triparty developer links train'"
        )
    return found


def judge(ensemble: Ensemble, recorded: Recorded) -> Judged:
    """Judges the links to one target.

    Args:
        ensemble: the links.
        recorded: outputs that they have not learnt from.

    Raises:
        SettingsError: a model that was not recorded, or whose output is another.
        DatasetError: no rows.
    """
    models = recorded.models([*ensemble.sources, ensemble.name])
    wanted = {**ensemble.sources, ensemble.name: ensemble.target}
    for name, spec in wanted.items():
        if models.specs[name] != spec:
            raise SettingsError(f"the output of '{name}' is another than the links were for")
    said = models.outputs[ensemble.name]
    still = np.broadcast_to(constant(ensemble.target, said), said.shape)

    def scored(*sources: str) -> Score:
        outputs = {name: models.outputs[name] for name in sources}
        return score(ensemble.target, ensemble.predict(outputs).outputs, said)

    weights: dict[str, float] = {}
    for member in ensemble.among(ensemble.sources):
        weights[member.source] = weights.get(member.source, 0.0) + member.weight
    return Judged(
        target=ensemble.name,
        metric=ensemble.target.metric,
        together=scored(*ensemble.sources),
        alone={name: scored(name) for name in ensemble.sources},
        constant=score(ensemble.target, still, said),
        weights=weights,
        parameters=ensemble.parameters,
        cost_us=prediction_us(ensemble, models),
    )


def prediction_us(ensemble: Ensemble, recorded: Recorded) -> float:
    """Microseconds of a prediction for one input, the median of many."""
    row = recorded.part(np.arange(1)).outputs
    took = []
    for _ in range(_TIMED):
        start = time.perf_counter_ns()
        ensemble.predict(row)
        took.append(time.perf_counter_ns() - start)
    return float(np.median(took)) / 1000
