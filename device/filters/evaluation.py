"""What a filter does on inputs whose results are known, and whether it is worth having."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triparty.common.nets.blocks import Blocks
from triparty.common.nets.calibration import Calibration, calibrate_skip
from triparty.common.nets.samples import Inputs, check_inputs
from triparty.device.filters.artifact import FilterArtifact, FilterTask
from triparty.device.filters.cache import CacheSettings, ReuseCache
from triparty.device.filters.cost import Worth, cost_of, worth
from triparty.device.filters.replay import (
    best_reuse_point,
    calibrate_reuse,
    distances_to_try,
    reuse_point,
)
from triparty.device.filters.scores import (
    Point,
    best_point,
    best_possible,
    point_at,
    quality,
    random_level,
    random_reuse_level,
)
from triparty.device.filters.session import Output, Session

Labels = NDArray[np.int64]
_TIMED: Final = 64  # inputs that times are measured on


@dataclass(frozen=True)
class TaskEvaluation:
    """One task of a filter on inputs that it was not made from.

    Attributes:
        name: of the task.
        calibrated: the threshold that the filter has.
        best: the best threshold for these very inputs, as the thesis reports.
        target_accuracy: that both are to keep.
        best_possible: filter rate of a filter that knows; for `reuse` all but the first input,
            a bound that no filter need reach.
        random_level: filter rate of luck.
        quality_calibrated: (rate - random) / (possible - random) of `calibrated`; None where
            luck does what is possible.
        quality_best: of `best`.
    """

    name: str
    calibrated: Point
    best: Point
    target_accuracy: float
    best_possible: float
    random_level: float
    quality_calibrated: float | None
    quality_best: float | None


@dataclass(frozen=True)
class Evaluation:
    """A filter on inputs that it was not made from.

    Attributes:
        samples: how many.
        tasks: one an output.
        worth: of the filter for the task that it filters least.
    """

    samples: int
    tasks: tuple[TaskEvaluation, ...]
    worth: Worth

    def with_model_cost(self, model_cost_ms: float) -> Evaluation:
        """The same for a model whose cost was measured elsewhere, in milliseconds."""
        rate = min(task.calibrated.filter_rate for task in self.tasks)
        return replace(self, worth=worth(rate, self.worth.cost_ms, model_cost_ms, 0.0))


def evaluate(
    artifact: FilterArtifact,
    session: Session,
    inputs: Inputs,
    labels: Labels,
    *,
    model: Callable[[Any], object] | None,
    given: Any,
) -> Evaluation:
    """Scores and times a filter.

    Args:
        artifact: of the filter.
        session: of its network.
        inputs: to judge by.
        labels: (n, tasks) of them.
        model: what is filtered, to be timed; None leaves its cost out.
        given: the inputs as they were given, which the model takes one at a time.
    """
    outputs = session.run(inputs)
    judge = _reuse_task if artifact.design.kind == "reuse" else _skip_task
    tasks = tuple(
        judge(task, outputs[:, number], labels[:, number], artifact.reuse)
        for number, task in enumerate(artifact.tasks)
    )
    rate = min(task.calibrated.filter_rate for task in tasks)
    return Evaluation(
        len(inputs), tasks, _worth(artifact, session, inputs, outputs, rate, model, given)
    )


def calibrated_tasks(
    artifact: FilterArtifact,
    outputs: Output,
    labels: Labels,
    *,
    blocks: Blocks | None = None,
    apart: Output,
    target_accuracy: float,
    confidence: float,
) -> tuple[FilterTask, ...]:
    """The tasks of a filter with thresholds that keep a target.

    Args:
        artifact: of the filter.
        outputs: of its network, of inputs that nothing was learnt from.
        labels: (n, tasks) of them.
        blocks: (n,) numbers of blocks that are independent of each other; None: inputs are.
        apart: outputs of other inputs, from which distances to try are taken.
        target_accuracy: to keep.
        confidence: with which.
    """
    made = []
    for number, task in enumerate(artifact.tasks):
        if artifact.design.kind == "skip":
            found: Calibration = calibrate_skip(
                outputs[:, number].astype(np.float64),
                labels[:, number] == 1,
                blocks=blocks,
                target_accuracy=target_accuracy,
                confidence=confidence,
            )
        else:
            found = calibrate_reuse(
                outputs[:, number],
                labels[:, number],
                artifact.reuse,
                distances_to_try(apart[:, number]),
                blocks=blocks,
                target_accuracy=target_accuracy,
                confidence=confidence,
            )
        made.append(replace(task, calibration=found))
    return tuple(made)


def best_rate(artifact: FilterArtifact, outputs: Output, labels: Labels) -> float:
    """The mean over tasks of the filter rate of the best threshold for these very inputs."""
    rates = []
    for number, task in enumerate(artifact.tasks):
        target = task.calibration.target_accuracy
        if artifact.design.kind == "skip":
            logits = outputs[:, number].astype(np.float64)
            rates.append(best_point(logits, labels[:, number] == 1, target).filter_rate)
        else:
            rates.append(
                best_reuse_point(
                    outputs[:, number], labels[:, number], artifact.reuse, target
                ).filter_rate
            )
    return float(np.mean(rates))


def _skip_task(
    task: FilterTask, logits: Output, labels: Labels, _: CacheSettings
) -> TaskEvaluation:
    scores, needed = logits.astype(np.float64), labels == 1
    target = task.calibration.target_accuracy
    return _task(
        task,
        point_at(scores, needed, task.calibration.threshold),
        best_point(scores, needed, target),
        best_possible(needed, target),
        random_level(needed, target),
    )


def _reuse_task(
    task: FilterTask, keys: Output, labels: Labels, settings: CacheSettings
) -> TaskEvaluation:
    target = task.calibration.target_accuracy
    return _task(
        task,
        reuse_point(keys, labels, settings, task.calibration.threshold),
        best_reuse_point(keys, labels, settings, target),
        1.0 - 1.0 / len(labels),
        random_reuse_level(labels, target),
    )


def _task(
    task: FilterTask, calibrated: Point, best: Point, possible: float, random: float
) -> TaskEvaluation:
    return TaskEvaluation(
        name=task.name,
        calibrated=calibrated,
        best=best,
        target_accuracy=task.calibration.target_accuracy,
        best_possible=possible,
        random_level=random,
        quality_calibrated=quality(calibrated.filter_rate, possible, random),
        quality_best=quality(best.filter_rate, possible, random),
    )


def _worth(
    artifact: FilterArtifact,
    session: Session,
    inputs: Inputs,
    outputs: Output,
    rate: float,
    model: Callable[[Any], object] | None,
    given: Any,
) -> Worth:
    rows = [np.array([row]) for row in range(min(_TIMED, len(inputs)))]
    specs = artifact.design.inputs
    singles = [inputs.part(row) for row in rows]
    cost_ms = cost_of(lambda one: session.run(check_inputs(one, specs)), singles)
    kept_ms = 0.0
    if artifact.design.kind == "reuse":
        for number in range(artifact.design.tasks):
            cache = ReuseCache(outputs.shape[2], artifact.reuse, identity=int)
            for place, key in enumerate(outputs[: artifact.reuse.size, number]):
                cache.put(key, place)
            cost_ms += cost_of(cache.look, [outputs[row[0], number] for row in rows])
    else:
        kept_ms = cost_of(lambda task: task.measure.skipped(task.name), list(artifact.tasks))
    model_ms = None if model is None else cost_of(model, one_by_one(given)[: len(rows)])
    return worth(rate, cost_ms, model_ms, kept_ms)


def one_by_one(given: Any) -> list[Any]:
    """Inputs as they were given, each by itself."""
    if not isinstance(given, Mapping):
        return list(given)
    columns: Sequence[Sequence[Any]] = [list(column) for column in given.values()]
    return [dict(zip(given, row, strict=True)) for row in zip(*columns, strict=True)]
