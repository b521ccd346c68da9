"""A model with a filter in front of it: skip, reuse, audit, active update.

A share of all inputs, drawn whatever the filter says of them, goes to the model as well. What
the model answers there tells the true accuracy of the filter, and an alarm rises when it is no
longer what was promised. Updates are validated and calibrated on every other of these inputs,
because no others are drawn without regard to the filter; nothing is ever learnt from them. The
rest is learnt from, because where the filter is wrong and sure of itself nothing else would be
looked at.
"""

from __future__ import annotations

import functools
import heapq
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from triparty.common.errors import ArtifactError, DatasetError, SettingsError
from triparty.common.nets.calibration import accuracy_bound, accuracy_ceiling
from triparty.device.filters.cache import Lookup, ReuseCache
from triparty.device.filters.drift import DriftAlarm
from triparty.device.filters.filter import ONE_TASK, Core, Filter
from triparty.device.filters.fitting import Updated
from triparty.device.filters.measures import label_of
from triparty.device.filters.session import Output

if TYPE_CHECKING:
    from triparty.common.nets.training import Course

Model = Callable[[Any], Any]
_CONFIDENCE: Final = 0.95
_MISS: Final = Lookup(False, None, 0.0, math.inf)


@dataclass(frozen=True)
class Status:
    """What a filter in front of a model did so far.

    Attributes:
        seen: inputs.
        filtered: of them, answered without any model.
        unreadable: of them, that the filter could not take and the model got.
        audited: of them, that the model got to check the filter.
        accuracy: of the filter on the last audits; None before the first.
        accuracy_low: its lower bound, 95 %.
        accuracy_high: its upper bound, 95 %.
        is_drifting: whether the accuracy is below what was promised.
    """

    seen: int
    filtered: int
    unreadable: int
    audited: int
    accuracy: float | None
    accuracy_low: float
    accuracy_high: float
    is_drifting: bool

    @property
    def filter_rate(self) -> float:
        """Share answered without any model; audits count as not filtered."""
        return self.filtered / self.seen if self.seen else 0.0


@dataclass(frozen=True)
class _Said:
    """What the filter said of one input, by task.

    Attributes:
        answers: of tasks that need no model.
        certainty: how sure the filter is; the smallest of its tasks.
    """

    answers: Mapping[str, Any]
    certainty: float


class Filtered:
    """A model behind a filter; call it like the model. Safe for several threads.

    Args:
        filter_: in front.
        model: takes one input; or one model by task, and a call returns results by task.
        prepare: makes what the filter takes of what the model takes.
        audit_share: of inputs that the model gets whatever the filter says.
        window: most labelled inputs, audits and uncertain inputs that are kept in memory.
        on_drift: called once when the accuracy is no longer what was promised.
        seed: of the audits.
    """

    def __init__(
        self,
        filter_: Filter,
        model: Model | Mapping[str, Model],
        *,
        prepare: Callable[[Any], Any] = lambda value: value,
        audit_share: float = 0.02,
        window: int = 1000,
        on_drift: Callable[[Status], None] = lambda _: None,
        seed: int = 0,
    ) -> None:
        """Has seen nothing.

        Raises:
            SettingsError: models of other tasks than the filter's, or a share that is none.
        """
        tasks = [task.name for task in filter_.artifact.tasks]
        self._is_single = not isinstance(model, Mapping)
        named = model if isinstance(model, Mapping) else {tasks[0]: model}
        if sorted(named) != sorted(tasks):
            raise SettingsError(
                f"the filter has the tasks {', '.join(tasks)}, the models are of "
                f"{', '.join(named) or ONE_TASK}"
            )
        if not 0.0 <= audit_share <= 1.0 or window < 1:
            raise SettingsError(
                f"audit share {audit_share}, window {window}: expected 0 to 1 and at least 1"
            )
        self._models = {task: named[task] for task in tasks}
        self._filter, self._prepare, self._on_drift = filter_, prepare, on_drift
        self._audit_share, self._window = audit_share, window
        self._rng = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._caches: tuple[Core, dict[str, ReuseCache]] = (filter_.core, {})
        self._last: dict[str, Any] = {}
        self._seen = self._filtered = self._unreadable = self._audited = self._period = 0
        self._right: deque[bool] = deque(maxlen=window)
        self._alarm = DriftAlarm(
            min(task.calibration.target_accuracy for task in filter_.artifact.tasks)
        )
        self._labelled: deque[tuple[Any, dict[str, Any]]] = deque(maxlen=window)
        self._validation: deque[tuple[Any, dict[str, Any]]] = deque(maxlen=window)
        self._uncertain: list[tuple[float, int, Any, Any]] = []
        if not isinstance(model, Mapping):
            functools.update_wrapper(self, model)

    def __call__(self, value: Any) -> Any:
        """The result for an input, of the model or in its place."""
        core = self._filter.core
        with self._lock:
            self._seen += 1
            self._period += 1
            number = self._seen
            is_audit = bool(self._rng.random() < self._audit_share)
        try:
            prepared = self._prepare(value)
            outputs = core.session.run(self._filter.single(prepared, core))[0]
        except (DatasetError, ArtifactError):
            with self._lock:
                self._unreadable += 1
            return self._answer({task: model(value) for task, model in self._models.items()})
        said = self._say(core, outputs)
        wanted = [task for task in self._models if is_audit or task not in said.answers]
        results = {task: self._models[task](value) for task in wanted}
        self._learn(core, outputs, said, results, is_audit=is_audit)
        with self._lock:
            self._keep(number, (prepared, value), said, results, is_audit=is_audit)
        return self._answer({**said.answers, **results})

    def status(self) -> Status:
        """What happened so far."""
        with self._lock:
            return self._status()

    def update(self, *, beta: float = 0.05, course: Course | None = None) -> Updated:
        """Asks the model about the least certain inputs of this period, and learns from all.

        Ends the period. The model is called here; calls on other threads go on meanwhile.

        Args:
            beta: share of the period's inputs that the model is asked about.
            course: of the training; None: a short one.

        Raises:
            DatasetError: too few labelled inputs or audits yet; the period goes on.
            SettingsError: torch is not installed, or a share that is none.
        """
        if not 0.0 <= beta <= 1.0:
            raise SettingsError(f"beta {beta}: expected 0 to 1")
        with self._lock:
            count = math.ceil(beta * self._period)
            asked = sorted(self._uncertain, key=lambda one: (-one[0], one[1]))[:count]
            labelled, validation = list(self._labelled), list(self._validation)
        for _, _, prepared, value in asked:
            results = {task: model(value) for task, model in self._models.items()}
            labelled.append((prepared, results))
        if not labelled:
            raise DatasetError("nothing to learn from: the model has not labelled any input")
        done = self._filter.update(
            *self._columns(labelled), validation=self._columns(validation), course=course
        )
        with self._lock:
            self._uncertain, self._period = [], 0
            if done.is_taken:
                self._right.clear()
                self._alarm.reset()
        return done

    def _say(self, core: Core, outputs: Output) -> _Said:
        if core.artifact.design.kind == "reuse":
            return self._reuse(core, outputs)
        answers, certainty = {}, math.inf
        for task, logit in zip(core.artifact.tasks, outputs.tolist(), strict=True):
            threshold = task.calibration.threshold
            if threshold is not None and logit <= threshold:
                answers[task.name] = task.measure.skipped(task.name)
            certainty = min(certainty, abs(0.5 * math.tanh(0.5 * logit)))  # |g(x) - 0.5|
        return _Said(answers, certainty)

    def _reuse(self, core: Core, outputs: Output) -> _Said:
        answers, certainty = {}, math.inf
        with self._lock:
            caches = self._caches_of(core)
            for task, key in zip(core.artifact.tasks, outputs, strict=True):
                may_reuse = task.calibration.threshold is not None
                found = caches[task.name].look(key) if may_reuse else _MISS
                if found.is_hit:
                    answers[task.name] = found.result
                certainty = min(certainty, found.theta)  # least where 1 - theta is largest
        return _Said(answers, certainty)

    def _caches_of(self, core: Core) -> dict[str, ReuseCache]:
        """The caches of these weights; those of others hold keys that mean nothing to them."""
        if self._caches[0] is not core or not self._caches[1]:
            artifact = core.artifact
            self._caches = (
                core,
                {
                    task.name: ReuseCache(
                        artifact.design.width,
                        artifact.reuse.within(task.calibration.threshold),
                    )
                    for task in artifact.tasks
                },
            )
        return self._caches[1]

    def _learn(
        self,
        core: Core,
        outputs: Output,
        said: _Said,
        results: Mapping[str, Any],
        *,
        is_audit: bool,
    ) -> None:
        """Fills the caches, and compares what the filter said with what the model says."""
        with self._lock:
            if core.artifact.design.kind == "reuse" and self._caches[0] is core:
                caches = self._caches_of(core)
                for number, task in enumerate(self._models):
                    if task in results and task not in said.answers:
                        caches[task].put(outputs[number], results[task])
            was_raised = self._alarm.is_raised
            if is_audit:
                is_right = all(
                    self._agrees(core, task, answer, results[task])
                    for task, answer in said.answers.items()
                )
                self._audited += 1
                self._right.append(is_right)
                self._alarm.audited(is_wrong=not is_right)
            self._last.update(results)
            status = self._status() if self._alarm.is_raised and not was_raised else None
        if status is not None:
            self._on_drift(status)

    def _agrees(self, core: Core, name: str, answer: Any, result: Any) -> bool:
        if core.artifact.design.kind == "reuse":
            return bool(label_of(answer) == label_of(result))
        task = next(task for task in core.artifact.tasks if task.name == name)
        before = [self._last[name]] if name in self._last else []
        return not bool(task.measure.needed([*before, result])[-1])

    def _keep(
        self,
        number: int,
        given: tuple[Any, Any],
        said: _Said,
        results: dict[str, Any],
        *,
        is_audit: bool,
    ) -> None:
        """Labelled inputs for updates, and the least certain of those without a label.

        Args:
            number: of the input, which no other has.
            given: the input as the filter takes it, and as the model does.
            said: by the filter.
            results: of the models that were run.
            is_audit: whether they were run whatever the filter said.
        """
        self._filtered += not results
        if len(results) == len(self._models):
            is_validation = is_audit and self._audited % 2 == 0
            kept = self._validation if is_validation else self._labelled
            kept.append((given[0], results))
        elif self._audit_share > 0:
            entry = (-said.certainty, number, *given)
            heapq.heappush(self._uncertain, entry)  # the most certain one leaves first
            if len(self._uncertain) > self._window:
                heapq.heappop(self._uncertain)

    def _columns(self, kept: list[tuple[Any, dict[str, Any]]]) -> tuple[Any, Any]:
        """Inputs and results as `Filter.update` takes them."""
        names = [spec.name for spec in self._filter.artifact.inputs]
        first = kept[0][0] if kept else None
        inputs: Any = [prepared for prepared, _ in kept]
        if isinstance(first, Mapping):
            inputs = {name: [one.get(name) for one in inputs] for name in names}
        results = {task: [found[task] for _, found in kept] for task in self._models}
        return inputs, results

    def _answer(self, by_task: dict[str, Any]) -> Any:
        return next(iter(by_task.values())) if self._is_single else by_task

    def _status(self) -> Status:
        audits, wrong = len(self._right), self._right.count(False)
        return Status(
            seen=self._seen,
            filtered=self._filtered,
            unreadable=self._unreadable,
            audited=self._audited,
            accuracy=1.0 - wrong / audits if audits else None,
            accuracy_low=accuracy_bound(wrong, audits, _CONFIDENCE) if audits else 0.0,
            accuracy_high=accuracy_ceiling(wrong, audits, _CONFIDENCE) if audits else 1.0,
            is_drifting=self._alarm.is_raised,
        )
