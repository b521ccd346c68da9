"""A middleware between callers and their models: the chosen ones run, links predict the rest.

Code that calls `model(x)` goes on doing so:

>>> links = Links(ensembles, active=["people"])        # doctest: +SKIP
>>> people = links.add(onnx_node("people", ...))       # doctest: +SKIP
>>> @links.node("cars", Vec("regression", 1))          # doctest: +SKIP
... def cars(frame): ...
>>> cars(frame)                                        # doctest: +SKIP
>>> links.results(frame)["cars"].origin                # doctest: +SKIP
<Origin.PREDICTED: 'predicted'>

Each model that runs is run once for an input, however many are predicted from it. Where inputs
follow each other in time, others may run now and then: what they said is held for a while.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from triparty.common.errors import SettingsError, StateError
from triparty.common.links.ensemble import Ensemble
from triparty.common.links.planning.costs import Cost
from triparty.common.links.planning.refreshing import Refresh
from triparty.common.links.planning.reselection import Decision
from triparty.common.links.recorded import Recorded
from triparty.common.links.specs import OutputSpec
from triparty.device.links.loading import FailedError, Loading
from triparty.device.links.nodes import Model, Node, Row, as_it_is, as_row
from triparty.device.links.results import Origin, Result
from triparty.device.links.selecting import Reselection, Selector, recorded

RETRY_S = 60.0


@dataclass(frozen=True)
class Status:
    """How the models stand.

    Attributes:
        active: that run.
        measured: outputs that models gave, by name.
        predicted: outputs that links gave, by name.
        failures: times that a model failed, by name.
        failing: why models cannot be run now, by name.
        costs: of models that were run, as measured.
        profiles: times that all models were run to choose anew.
        switches: times that others were chosen.
    """

    active: tuple[str, ...]
    measured: Mapping[str, int]
    predicted: Mapping[str, int]
    failures: Mapping[str, int]
    failing: Mapping[str, str]
    costs: Mapping[str, Cost]
    profiles: int
    switches: int


@dataclass(eq=False)
class _Moment:
    """One input, and what is known of it."""

    value: Any
    measured: dict[str, tuple[Any, Row]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)


@dataclass
class _Held:
    """What a model said last that runs now and then.

    Attributes:
        output: in the model's own form.
        at: number of the input.
    """

    output: Any
    at: int


class LinkedModel:
    """Stands where the model stood: call it with an input, get the model's output.

    Args:
        links: that it belongs to.
        name: of the model.
    """

    def __init__(self, links: Links, name: str) -> None:
        """Loads nothing."""
        self._links, self.name = links, name

    def __call__(self, value: Any) -> Any:
        """The output, measured or predicted."""
        return self._links.result(self.name, value).output

    def result(self, value: Any) -> Result:
        """The output, and where it comes from."""
        return self._links.result(self.name, value)


class Links:
    """Runs models or predicts them; safe for several threads, one input at a time.

    Args:
        ensembles: links to each model that can be predicted, by its name.
        active: names of the models that run.
        reselection: when to choose them anew; None: never. While all models are profiled, one
            more model is in memory than runs, and inputs wait.
        refresh: how models run that run now and then; only where they are not chosen anew.
        keep: most inputs of which the outputs of all models are kept, for training links.
        retry_s: a model that failed is left alone for so long.
        clock: seconds.
    """

    def __init__(
        self,
        ensembles: Mapping[str, Ensemble],
        *,
        active: Collection[str],
        reselection: Reselection | None = None,
        refresh: Mapping[str, Refresh] | None = None,
        keep: int = 10_000,
        retry_s: float = RETRY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Has no models yet.

        Raises:
            SettingsError: models that are chosen anew and run now and then.
        """
        if refresh and reselection is not None:
            raise SettingsError("give reselection or refresh: what is held is for one choice")
        self._refresh = dict(refresh or {})
        self._held: dict[str, _Held] = {}
        self._inputs = 0
        self._ensembles, self._retry_s, self._clock = dict(ensembles), retry_s, clock
        self._active = frozenset(active)
        self._selector = Selector(reselection, ensembles) if reselection else None
        self._models: dict[str, Loading] = {}
        self._kept: deque[dict[str, Row]] = deque(maxlen=keep)
        self._profile: list[_Moment] = []
        self._moment: _Moment | None = None
        self._lock = threading.RLock()
        self._measured, self._predicted = Counter[str](), Counter[str]()
        self._switches = 0

    def add(self, node: Node) -> LinkedModel:
        """Takes a model in; nothing is loaded before it is needed.

        Raises:
            SettingsError: the name is taken, or links know another output of it.
        """
        if node.name in self._models:
            raise SettingsError(f"there is a model '{node.name}' already")
        for target, ensemble in self._ensembles.items():
            known = {**ensemble.sources, target: ensemble.target}
            if known.get(node.name, node.spec) != node.spec:
                raise SettingsError(
                    f"links know another output of '{node.name}' than it has: "
                    f"{known[node.name]}, not {node.spec}"
                )
        self._models[node.name] = Loading(node, retry_s=self._retry_s, clock=self._clock)
        return LinkedModel(self, node.name)

    def node(
        self,
        name: str,
        spec: OutputSpec,
        *,
        encode: Callable[[Any], Row] = as_row,
        decode: Callable[[Row], Any] = as_it_is,
    ) -> Callable[[Model], LinkedModel]:
        """Makes a node of a function: a decorator."""

        def taken(function: Model) -> LinkedModel:
            model = self.add(Node(name, spec, lambda: function, encode, decode))
            functools.update_wrapper(model, function, updated=())
            return model

        return taken

    def load(self) -> dict[str, str]:
        """Loads the chosen models; returns why some cannot be, by name."""
        with self._lock:
            failures = {}
            for name in self._running():
                try:
                    self._models[name].load()
                except FailedError as error:
                    failures[name] = str(error)
            return failures

    def results(self, value: Any) -> dict[str, Result]:
        """What all models say of an input, or would.

        Raises:
            StateError: a model is not run, or failed, and nothing predicts it.
        """
        with self._input(value) as moment:
            names = {*self._models, *self._ensembles}
            return {name: self._result(name, moment) for name in sorted(names)}

    def result(self, name: str, value: Any) -> Result:
        """What one model says of an input, or would; only what that takes is run.

        Raises:
            StateError: as `results`.
            SettingsError: no such model.
        """
        if name not in self._models and name not in self._ensembles:
            raise SettingsError(f"there is neither a model '{name}' nor links to it")
        with self._input(value) as moment:
            return self._result(name, moment)

    def recorded(self) -> Recorded:
        """The outputs of all models on the inputs on which all were run.

        Raises:
            DatasetError: there are none yet.
        """
        with self._lock:
            rows = {name: [row[name] for row in self._kept] for name in self._models}
            return recorded(rows, self._specs())

    def profile(self, values: Collection[Any]) -> None:
        """Runs all models on inputs, and keeps what they say, to train links with."""
        with self._lock:
            self._run_all([_Moment(value) for value in values])

    def status(self) -> Status:
        """How the models stand."""
        with self._lock:
            models = self._models.items()
            return Status(
                tuple(sorted(self._active)),
                dict(self._measured),
                dict(self._predicted),
                {name: model.failures for name, model in models if model.failures},
                {name: why for name, model in models if (why := model.failure) is not None},
                {name: cost for name, model in models if (cost := model.cost) is not None},
                self._selector.profiles if self._selector else 0,
                self._switches,
            )

    def choose(self, active: Collection[str]) -> None:
        """Runs other models from now on; those that do not run are unloaded."""
        with self._lock:
            self._active = frozenset(active)
            for name, model in self._models.items():
                if not self._stays(name):
                    model.unload()
            self.load()

    def close(self) -> None:
        """Unloads all models."""
        with self._lock:
            for model in self._models.values():
                model.unload()

    def _running(self) -> list[str]:
        return [name for name in self._models if self._stays(name)]

    def _stays(self, name: str) -> bool:
        return name in self._active or name in self._refresh

    def _specs(self) -> dict[str, OutputSpec]:
        return {name: model.node.spec for name, model in self._models.items()}

    @contextmanager
    def _input(self, value: Any) -> Iterator[_Moment]:
        """What is known of an input; a new one may be profiled, and the models chosen anew."""
        with self._lock:
            if self._moment is None or self._moment.value is not value:
                self._moment = _Moment(value)
                self._inputs += 1
                self._begin(self._moment)
            yield self._moment

    def _begin(self, moment: _Moment) -> None:
        if self._selector is None:
            return
        if self._selector.begin():
            self._profile.append(moment)
        if len(self._profile) >= self._selector.reselection.profiled:
            moments, self._profile = self._profile, []
            self._reselect(self._selector, moments)

    def _reselect(self, selector: Selector, moments: list[_Moment]) -> None:
        rows = self._run_all(moments)
        costs = {name: self._models[name].cost for name in rows}
        known = {name: cost for name, cost in costs.items() if cost is not None}
        if not known:
            return
        decision: Decision = selector.decide(rows, self._specs(), known, self._active)
        if decision.changed:
            self._switches += 1
            self.choose(decision.plan.active)

    def _run_all(self, moments: list[_Moment]) -> dict[str, list[Row]]:
        """The rows of each model that could be run on all of the inputs."""
        rows: dict[str, list[Row]] = {}
        for name, model in self._models.items():
            for moment in moments:
                self._measure(name, moment)
            if not self._stays(name):
                model.unload()
            if all(name in moment.measured for moment in moments):
                rows[name] = [moment.measured[name][1] for moment in moments]
        if rows.keys() == self._models.keys():
            self._kept += [
                {name: rows[name][place] for name in rows} for place in range(len(moments))
            ]
        return rows

    def _measure(self, name: str, moment: _Moment) -> bool:
        """Runs a model on an input, unless it was; returns whether its output is known."""
        if name in moment.measured:
            return True
        if name in moment.failures:
            return False
        try:
            moment.measured[name] = self._models[name].run(moment.value)
        except FailedError as error:
            moment.failures[name] = str(error)
            return False
        self._measured[name] += 1
        return True

    def _result(self, name: str, moment: _Moment) -> Result:
        if name not in moment.results:
            moment.results[name] = self._made(name, moment)
        return moment.results[name]

    def _made(self, name: str, moment: _Moment) -> Result:
        runs = name in self._models and (name in self._active or self._is_due(name))
        if (runs and self._measure(name, moment)) or name in moment.measured:
            output = moment.measured[name][0]
            if name in self._refresh:
                self._held[name] = _Held(output, self._inputs)
            return Result(output, Origin.MEASURED)
        failure = moment.failures.get(name) if runs else None
        return self._still(name, failure) or self._prediction(name, moment, failure)

    def _is_due(self, name: str) -> bool:
        """Whether a model that runs now and then runs on this input."""
        refresh, held = self._refresh.get(name), self._held.get(name)
        if refresh is None:
            return False
        return held is None or self._inputs - held.at >= refresh.every

    def _still(self, name: str, failure: str | None) -> Result | None:
        """What a model said a moment ago, if that still holds; None otherwise."""
        refresh, held = self._refresh.get(name), self._held.get(name)
        if refresh is None or held is None or self._inputs - held.at > len(refresh.held):
            return None
        self._predicted[name] += 1
        share = refresh.held[self._inputs - held.at - 1]
        return Result(held.output, Origin.PREDICTED, share, (name,), failure)

    def _prediction(self, name: str, moment: _Moment, failure: str | None) -> Result:
        ensemble = self._ensembles.get(name)
        wanted = ensemble.sources if ensemble is not None else {}
        sources = tuple(
            source
            for source in wanted
            if source in self._active and source in self._models
            if self._measure(source, moment)
        )
        if ensemble is None or not sources:
            why = f"failed ({failure})" if failure else "is not run"
            told = "there are no links to it"
            if wanted:
                told = f"none of the models that it is predicted from runs: {', '.join(wanted)}"
            raise StateError(f"the model '{name}' {why}, and {told}")
        made = ensemble.predict({one: moment.measured[one][1][None] for one in sources})
        self._predicted[name] += 1
        row, model = made.outputs[0], self._models.get(name)
        output = model.node.decode(row) if model is not None else row
        return Result(output, Origin.PREDICTED, float(made.confidence[0]), sources, failure)
