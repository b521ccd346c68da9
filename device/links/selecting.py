"""Choosing anew which models run, now and then, from what all of them said on a small share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from triparty.common.errors import SettingsError
from triparty.common.links.ensemble import Ensemble
from triparty.common.links.planning.costs import Budget, Cost
from triparty.common.links.planning.measured import LINK_MS, measured_problem
from triparty.common.links.planning.reselection import (
    LEAST_PROFILED,
    PROFILED_SHARE,
    Decision,
    Hysteresis,
    profiled_inputs,
    reselect,
)
from triparty.common.links.recorded import Recorded, check_recorded
from triparty.common.links.specs import OutputSpec
from triparty.device.links.nodes import Row


@dataclass(frozen=True)
class Reselection:
    """When and under what models are chosen anew.

    Attributes:
        budget: of the models that run.
        every: inputs of a period.
        share: of them, on which all models are run.
        least: inputs on which all are run at least.
        hysteresis: when a change pays.
        link_ms: latency of a link.
    """

    budget: Budget
    every: int
    share: float = PROFILED_SHARE
    least: int = LEAST_PROFILED
    hysteresis: Hysteresis = field(default_factory=Hysteresis)
    link_ms: float = LINK_MS

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            SettingsError: a period without inputs, or a share that is none.
        """
        if not (self.every >= 1 and 0 < self.share <= 1 and self.least >= 1):
            raise SettingsError(
                f"reselection every {self.every} inputs, share {self.share}, at least "
                f"{self.least}: expected at least 1, above 0 to 1, at least 1"
            )

    @property
    def profiled(self) -> int:
        """Inputs of a period on which all models are run."""
        return profiled_inputs(self.every, share=self.share, least=self.least)


class Selector:
    """Counts inputs, gathers what all models said on those to be profiled, and decides.

    Args:
        reselection: when and under what.
        ensembles: links to each model.
    """

    def __init__(self, reselection: Reselection, ensembles: Mapping[str, Ensemble]) -> None:
        """Begins a period."""
        self.reselection, self._ensembles = reselection, ensembles
        self._inputs = 0
        self.profiles = 0

    def begin(self) -> bool:
        """Counts an input; returns whether it is one that is profiled."""
        if self._inputs >= self.reselection.every:
            self._inputs = 0
        self._inputs += 1
        return self._inputs <= self.reselection.profiled

    def decide(
        self,
        rows: Mapping[str, list[Row]],
        specs: Mapping[str, OutputSpec],
        costs: Mapping[str, Cost],
        active: Collection[str],
    ) -> Decision:
        """What runs from now on.

        Args:
            rows: of each model that could be run on all of the profiled inputs.
            specs: of the models' outputs.
            costs: of these models, as measured.
            active: models that run now.

        Raises:
            SettingsError, DatasetError: nothing was profiled.
        """
        self.profiles += 1
        problem = measured_problem(
            recorded(rows, specs),
            {name: one for name, one in self._ensembles.items() if name in rows},
            costs,
            self.reselection.budget,
            link_ms=self.reselection.link_ms,
        )
        return reselect(
            tuple(name for name in problem.models if name in active),
            problem,
            self.reselection.hysteresis,
            load_s={name: cost.load_s for name, cost in costs.items()},
        )


def recorded(rows: Mapping[str, list[Row]], specs: Mapping[str, OutputSpec]) -> Recorded:
    """Rows of models as a table that links are trained with.

    Raises:
        DatasetError: no rows, or other numbers of them.
    """
    return check_recorded(
        {name: specs[name] for name in rows},
        {name: np.stack(each) if each else np.zeros((0, 0)) for name, each in rows.items()},
    )
