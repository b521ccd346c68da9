"""A plan at work on frames: chosen models look, links predict the rest, now and then anew.

All of it belongs to the thread of the stages; `status` alone is read by others. A model of a
plan is a stage that is loaded when it is chosen, and let go when it no longer is. It runs
behind its filters as ever. Behind all models stands one more stage, which predicts those that
did not look from those that did, and at the beginning of each period has all models look at a
few frames, each loaded for a batch alone unless it is chosen. Models of a pulled plan are
fetched before that, while frames go on, and those that were not chosen are evicted after it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from triparty.common.errors import TripartyError
from triparty.common.links.ensemble import Ensemble
from triparty.common.links.planning.costs import LATENCY, MEMORY, Budget, Cost
from triparty.common.links.specs import OutputSpec
from triparty.device.filters.results import LowConfidence, OutOfBound, Unchanged
from triparty.device.gateway.frames import StreamFrame
from triparty.device.gateway.library import Fetching, Library
from triparty.device.gateway.predictions import Predicted, Row, RowForm, row_of, rows_of
from triparty.device.gateway.stages import PASS, Reused, Seen, Stage, StandIn, Verdict
from triparty.device.gateway.status import PlanStatus
from triparty.device.links.loading import FailedError, Loading
from triparty.device.links.nodes import Node
from triparty.device.links.selecting import Reselection, Selector, recorded

log = logging.getLogger(__name__)

LINKS: Final = "links of the plan"
_PATIENCE: Final = 20
"""A profile ends after so many times its frames, also if filters kept models from most."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What a plan says of models.

    Attributes:
        active: those that run.
        expected_accuracy: over all of them.
        cost: that they and their links are expected to have, by resource; of those alone that
            they were chosen by.
    """

    active: frozenset[str]
    expected_accuracy: float
    cost: Mapping[str, float] = field(default_factory=dict)


class Planner:
    """Knows which models run, what the others are predicted from, and how they fare.

    Args:
        choice: to begin with.
        ensembles: links to each model that can be predicted, by its name.
        specs: outputs of all models of the plan, as links know them.
        forms: of their rows.
        budget: that the choice was made under; None if it is not known.
        reselection: when to choose anew; None: never.
        retry_s: a model that failed is left alone for so long.
        records: folder for what all models said; None: none.
        library: brings the models that are needed; None: all are here.
    """

    def __init__(
        self,
        choice: Choice,
        ensembles: Mapping[str, Ensemble],
        specs: Mapping[str, OutputSpec],
        forms: Mapping[str, RowForm],
        *,
        budget: Budget | None = None,
        reselection: Reselection | None = None,
        retry_s: float = 60.0,
        records: Path | None = None,
        library: Library | None = None,
    ) -> None:
        """Has seen no frame; the first ones are profiled."""
        self.forms, self.ensembles = dict(forms), dict(ensembles)
        self.retry_s = retry_s
        self.specs = dict(specs)
        self._choice, self._records = choice, records
        self._budget = budget
        self._selector = Selector(reselection, ensembles) if reselection else None
        self._loadings: dict[str, Loading] = {}
        self._rows: dict[str, list[Row]] = {name: [] for name in forms}
        self._frames = 0
        self._refused: str | None = None
        self._fetching = None if library is None else Fetching(library)
        self._is_profiling = self._is_fetching = False
        if reselection is not None:
            self._begin_period()
        self._measured, self._predicted = Counter[str](), Counter[str]()
        self._confidence, self._unanswered = defaultdict[str, float](float), Counter[str]()
        self._sources: dict[str, tuple[str, ...]] = {}
        self._switches = 0
        self.status = self._status()

    @property
    def active(self) -> frozenset[str]:
        """Models that run."""
        return self._choice.active

    @property
    def is_profiling(self) -> bool:
        """Whether all models look at frames now."""
        return self._is_profiling

    def asked(self, models: frozenset[str]) -> frozenset[str]:
        """The models that look at frames of a camera that asks some."""
        linked = (self.ensembles[name].sources for name in models if name in self.ensembles)
        return models.union(*linked)

    def join(self, loading: Loading) -> None:
        """Takes in how a model is loaded, so that what it costs is known."""
        self._loadings[loading.node.name] = loading

    def failure(self, name: str) -> str | None:
        """Why a chosen model cannot be run now; None if it can, or is not chosen."""
        loading = self._loadings.get(name)
        return loading.failure if loading is not None and name in self.active else None

    def predict(
        self, frame: StreamFrame, seen: Mapping[str, Seen], filtered: Mapping[str, StandIn]
    ) -> dict[str, Predicted]:
        """What models that the frame's camera asks, and that did not look, would have seen."""
        self._measured.update(name for name in seen if name in self.forms)
        rows = rows_of(self.forms, seen) | _stood_in(self.forms, filtered)
        found = {}
        for name in self.forms:
            if name in seen or name in filtered or not frame.asks(name):
                continue
            predicted = self._predicted_of(name, rows)
            if predicted is None:
                self._unanswered[name] += 1
                continue
            found[name] = predicted
            self._predicted[name] += 1
            self._confidence[name] += predicted.confidence
            self._sources[name] = predicted.sources
        return found

    def end_batch(self, seen: Sequence[Mapping[str, Seen]]) -> None:
        """Counts frames, keeps rows that are profiled, and chooses anew when there are enough.

        Args:
            seen: of each frame, by model.
        """
        selector = self._selector
        if selector is not None:
            self._frames += len(seen)
            if self._is_profiling:
                self._profile(selector, seen)
            elif self._is_fetching:
                self._end_fetching()
            elif self._frames >= selector.reselection.every:
                self._begin_period()
        self.status = self._status()

    def _begin_period(self) -> None:
        """All models look as soon as they are here; at once if they are."""
        if self._fetching is None:
            self._frames, self._is_profiling = 0, True
        elif self._fetching.is_over:
            self._frames, self._is_fetching = 0, True
            self._fetching.begin(self.forms)

    def _end_fetching(self) -> None:
        """Has all models look when they are here; if they cannot be, the period goes on."""
        if self._fetching is None or not self._fetching.is_over:
            return
        self._is_fetching = False
        self._refused = self._fetching.failure
        if self._refused is None:
            self._frames, self._is_profiling = 0, True

    def _predicted_of(self, name: str, rows: Mapping[str, Row]) -> Predicted | None:
        ensemble = self.ensembles.get(name)
        sources = (
            () if ensemble is None else tuple(one for one in ensemble.sources if one in rows)
        )
        if ensemble is None or not sources:
            return None
        made = ensemble.predict({one: rows[one][None] for one in sources})
        return Predicted(
            self.forms[name],
            made.outputs[0],
            float(made.confidence[0]),
            sources,
            self.failure(name),
        )

    def _profile(self, selector: Selector, seen: Sequence[Mapping[str, Seen]]) -> None:
        wanted = selector.reselection.profiled
        able = [name for name in self.forms if not self._cannot_run(name)]
        for each in seen:
            rows = rows_of(self.forms, each)
            if able and all(name in rows for name in able):
                for name in able:
                    self._rows[name].append(rows[name])
        known = max((len(rows) for rows in self._rows.values()), default=0)
        if known >= wanted or self._frames >= _PATIENCE * wanted:
            whole = {name: each for name, each in self._rows.items() if len(each) == known > 0}
            self._rows = {name: [] for name in self.forms}
            self._is_profiling = False
            self._choose(selector, whole)
            if self._fetching is not None:
                self._fetching.begin(self.active)

    def _cannot_run(self, name: str) -> bool:
        loading = self._loadings.get(name)
        return loading is None or loading.failure is not None

    def _choose(self, selector: Selector, rows: Mapping[str, list[Row]]) -> None:
        costs = {name: self._loadings[name].cost for name in rows}
        known = {name: cost for name, cost in costs.items() if cost is not None}
        try:
            decision = selector.decide(rows, self.specs, known, self.active)
            if self._records is not None and rows.keys() == self.forms.keys():
                recorded(rows, self.specs).save(self._records)
        except (TripartyError, OSError) as error:
            self._refused = str(error)
            log.warning("models cannot be chosen anew, the old choice stays: %s", error)
            return
        self._refused = None
        plan = decision.plan
        self._choice = Choice(frozenset(plan.active), plan.expected_accuracy, plan.cost)
        if decision.changed:
            self._switches += 1
            log.info("other models run now: %s", ", ".join(plan.active))

    def _status(self) -> PlanStatus:
        costs: dict[str, Cost] = {
            name: cost
            for name, loading in self._loadings.items()
            if (cost := loading.cost) is not None
        }
        choice, budget = self._choice, self._budget
        return PlanStatus(
            active=tuple(name for name in self.forms if name in self.active),
            predicted=tuple(name for name in self.forms if name not in self.active),
            expected_accuracy=choice.expected_accuracy,
            measured=dict(self._measured),
            predictions=dict(self._predicted),
            confidence={
                name: total / self._predicted[name] for name, total in self._confidence.items()
            },
            failures={
                name: one.failures for name, one in self._loadings.items() if one.failures
            },
            failing={
                name: why for name in self._loadings if (why := self.failure(name)) is not None
            },
            unanswered=dict(self._unanswered),
            profiles=self._selector.profiles if self._selector else 0,
            switches=self._switches,
            costs={name: (cost.memory_mib, cost.latency_ms) for name, cost in costs.items()},
            sources=dict(self._sources),
            planned=(choice.cost.get(MEMORY.name), choice.cost.get(LATENCY.name)),
            budget=(None, None) if budget is None else (budget.memory_mib, budget.latency_ms),
            refused=self._refused,
        )


class PlannedStage:
    """A model of a plan: it looks while it is chosen, and where all models are profiled.

    What it raises costs its own look alone: links predict it from the others then.

    Args:
        name: of the model.
        make: loads its stage.
        planner: knows whether it is chosen.
        clock: seconds.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Stage],
        planner: Planner,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Loads nothing."""
        self.name = name
        self._planner, self._make = planner, make
        self._stage: Stage | None = None
        node = Node(name, planner.specs[name], self._load, encode=self._row)
        self._loading = Loading(node, retry_s=planner.retry_s, clock=clock)
        planner.join(self._loading)

    def load(self) -> None:
        """Loads the model if it is chosen; where that fails the log says so."""
        if self.name in self._planner.active:
            try:
                self._loading.load()
            except FailedError as error:
                log.warning("model '%s' does not load, links predict it: %s", self.name, error)

    def process(self, frames: Sequence[StreamFrame]) -> Sequence[Verdict]:
        """What the model saw in each frame; nothing where it does not run or fails."""
        if self._planner.is_profiling or self.name in self._planner.active:
            verdicts = [self._look(frame) for frame in frames]
        else:
            verdicts = [PASS for _ in frames]
        if self.name not in self._planner.active:
            self._unload()
        return verdicts

    def cpu_ms(self) -> float | None:
        """That of the model; none while it is not loaded."""
        return None if self._stage is None else self._stage.cpu_ms()

    def close(self) -> None:
        """Closes the model."""
        self._unload()

    def _look(self, frame: StreamFrame) -> Verdict:
        if not frame.asks(self.name):
            return PASS
        try:
            output, _ = self._loading.run(frame)
        except FailedError as error:
            log.warning("model '%s' failed, links predict it: %s", self.name, error)
            return PASS
        return Verdict({self.name: output})

    def _load(self) -> Callable[[Any], Any]:
        stage = self._stage = self._make()
        return lambda frame: stage.process([frame])[0].seen[self.name]

    def _row(self, seen: Seen) -> Row:
        return row_of(self._planner.forms[self.name], seen)

    def _unload(self) -> None:
        self._loading.unload()
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.close()


class LinkStage:
    """Predicts what models that did not look would have seen.

    Args:
        planner: knows the links.
    """

    def __init__(self, planner: Planner) -> None:
        """Holds the planner alone."""
        self.name = LINKS
        self._planner = planner

    def process(self, frames: Sequence[StreamFrame]) -> Sequence[Verdict]:
        """Without what models saw nothing is predicted."""
        return [PASS for _ in frames]

    def follow(
        self,
        frames: Sequence[StreamFrame],
        seen: Sequence[Mapping[str, Seen]],
        filtered: Sequence[Mapping[str, StandIn]],
    ) -> Sequence[Verdict]:
        """What the others are predicted to have seen."""
        verdicts = [
            Verdict(predicted=self._planner.predict(frame, found, said))
            for frame, found, said in zip(frames, seen, filtered, strict=True)
        ]
        self._planner.end_batch(seen)
        return verdicts

    def cpu_ms(self) -> float | None:
        """None: links run in the calling thread."""
        return None

    def close(self) -> None:
        """Holds nothing."""


def _stood_in(forms: Mapping[str, RowForm], filtered: Mapping[str, StandIn]) -> dict[str, Row]:
    """Rows of models of which a filter said what they would have seen."""
    found: dict[str, Row] = {}
    for name, said in filtered.items():
        if name not in forms or isinstance(said, Unchanged | LowConfidence | OutOfBound):
            continue
        seen = said.seen if isinstance(said, Reused) else None
        found[name] = np.asarray(row_of(forms[name], seen))
    return found
