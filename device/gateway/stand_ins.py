"""What a filter's word in the place of a model means to tasks, and when it was right; pure.

A filter knows its measure of redundancy by name, the tasks of a model know what they answer.
This is where both meet: what a model saw becomes a result that the measure can judge, and what
a filter says becomes answers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final

from triparty.common.errors import SettingsError
from triparty.device.filters.measures import Measure
from triparty.device.filters.results import LowConfidence, OutOfBound, Unchanged
from triparty.device.gate.detectors import Detections
from triparty.device.gate.traces import Task
from triparty.device.gateway.answers import Answer, answer, differs, nothing
from triparty.device.gateway.stages import Reused, Seen, StandIn

NONE_OF_THEM: Final = "none of them"


def stood_in(
    tasks: Sequence[Task], said: Mapping[str, StandIn], held: Mapping[str, Answer]
) -> dict[str, Answer]:
    """The answers of tasks whose models were not run; none where nothing is known.

    Args:
        tasks: each of a model in `said`.
        said: by filters, by model.
        held: the last answers, by task.
    """
    answers = {task.name: _answer(task, said[task.model], held) for task in tasks}
    return {name: found for name, found in answers.items() if found is not None}


def _answer(task: Task, said: StandIn, held: Mapping[str, Answer]) -> Answer | None:
    if isinstance(said, Reused):
        return answer(task, said.seen)
    if isinstance(said, Unchanged):
        return held.get(task.name)
    if isinstance(said, LowConfidence | OutOfBound):
        return None
    return nothing(task)


def check_measure(measure: Measure, where: str) -> None:
    """Returns only if the measure can judge what models of cameras see.

    Raises:
        SettingsError: it cannot.
    """
    if measure.name not in _RESULTS:
        raise SettingsError(
            f"{where} has the measure '{measure.name}', which cannot judge what a model sees "
            f"in a frame: fit it with one of {', '.join(_RESULTS)}"
        )


def is_needed(measure: Measure, tasks: Sequence[Task], before: Seen | None, seen: Seen) -> bool:
    """Whether a model was needed for what it saw, by a measure that `check_measure` took.

    Args:
        measure: of redundancy.
        tasks: of the model.
        before: what it saw last in frames of the same camera.
        seen: now.
    """
    made = _RESULTS[measure.name]
    results = [made(measure, tasks, one) for one in (before, seen) if one is not None]
    return bool(measure.needed(results)[-1])


def label(tasks: Sequence[Task], seen: Seen) -> str:
    """Equal where tasks answer the same; of boxes, what is there and not where."""
    return repr([_identity(task, answer(task, seen)) for task in tasks])


def agrees(tasks: Sequence[Task], one: Seen, other: Seen) -> bool:
    """Whether no task answers differently to what a model saw."""
    return not any(differs(task, answer(task, one), answer(task, other)) for task in tasks)


def _identity(task: Task, found: Answer) -> Hashable:
    if task.measure == "value":
        return round(float(found) / task.step)  # type: ignore[arg-type]
    if task.measure == "boxes":
        return tuple(sorted(box[0] for box in found))  # type: ignore[union-attr]
    return found


def _is_something(tasks: Sequence[Task], seen: Seen) -> bool:
    return any(answer(task, seen) != nothing(task) for task in tasks)


def _class(measure: Measure, seen: Seen) -> str:
    """The class of a number, or one of objects: a wanted one if there is any."""
    numbers = seen.labels.tolist() if isinstance(seen, Detections) else [round(seen)]
    classes = [str(number) for number in numbers]
    return next((one for one in classes if one in measure.parameters), NONE_OF_THEM)


def _scores(seen: Seen) -> Any:
    scores = seen.scores if isinstance(seen, Detections) else [seen]
    return scores if len(scores) else [0.0]


def _number(seen: Seen) -> float:
    return float(len(seen.labels)) if isinstance(seen, Detections) else seen


_RESULTS: Final[dict[str, Callable[[Measure, Sequence[Task], Seen], Any]]] = {
    "as-given": lambda _, tasks, seen: _is_something(tasks, seen),
    "nothing-detected": lambda _, tasks, seen: [0] * _is_something(tasks, seen),
    "count-zero": lambda _, tasks, seen: int(_is_something(tasks, seen)),
    "class-not-in": lambda measure, _, seen: _class(measure, seen),
    "confidence-below": lambda _, __, seen: _scores(seen),
    "regression-above": lambda _, __, seen: _number(seen),
    "label-changed": lambda _, tasks, seen: label(tasks, seen),
}
"""Makes of what a model saw the result that a measure of this name judges."""
