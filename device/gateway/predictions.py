"""What models see in frames as rows that links understand, and rows as answers; pure.

| output, as links know it | row | answers |
|---|---|---|
| regression with labels | objects of each label | presence, anomaly, count, labels, value |
| multi-label | whether there is one of each label | presence, anomaly, labels |
| regression of one number | the number | presence, anomaly, count, value |
| single-label | the class that a function returned | value |

Where something is cannot be predicted: no `boxes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import DatasetError, SettingsError
from triparty.common.links.specs import OutputSpec, Vec
from triparty.device.gate.detectors import Detections
from triparty.device.gate.traces import Task

Row = NDArray[np.float32]
_HALF: Final = 0.5
_MEASURES: Final = {
    "counts": ("presence", "anomaly", "count", "labels", "value"),
    "there": ("presence", "anomaly", "labels"),
    "number": ("presence", "anomaly", "count", "value"),
    "class": ("value",),
}


@dataclass(frozen=True)
class RowForm:
    """What the numbers of a model's rows are.

    Attributes:
        kind: `counts` or `there` of objects, a `number`, or a `class`.
        classes: of objects, the class number of each value.
        width: values of a row.
    """

    kind: str
    classes: tuple[int, ...]
    width: int


@dataclass(frozen=True, eq=False)
class Predicted:
    """What links predict of a model that was not run on a frame.

    Attributes:
        form: of the row.
        row: (width,) float32.
        confidence: 0 to 1.
        sources: models that it was predicted from.
        failure: why the model was not run though it was chosen; None otherwise.
    """

    form: RowForm
    row: Row
    confidence: float
    sources: tuple[str, ...]
    failure: str | None = None

    def told(self, labels: Sequence[str]) -> dict[str, Any]:
        """As JSON has it.

        Args:
            labels: names of the model's classes.
        """
        numbers = [round(float(value), 3) for value in self.row]
        names = [labels[n] if n < len(labels) else str(n) for n in self.form.classes]
        return {
            "value": dict(zip(names, numbers, strict=True)) if names else numbers,
            "confidence": round(self.confidence, 4),
            "from": list(self.sources),
            **({"failure": self.failure} if self.failure is not None else {}),
        }


def form_of(name: str, spec: OutputSpec, labels: Sequence[str]) -> RowForm:
    """The form of a model's rows.

    Args:
        name: of the model.
        spec: of its output, as links know it.
        labels: names of its classes in the configuration; without any, classes have numbers.

    Raises:
        SettingsError: an output that nothing seen in frames can be, or a class that the
            configuration does not know.
    """
    if isinstance(spec, Vec) and spec.labels and spec.task in ("regression", "multi-label"):
        known = list(labels) or [str(number) for number in range(1000)]
        if unknown := [label for label in spec.labels if label not in known]:
            raise SettingsError(
                f"links know the class '{unknown[0]}' of model '{name}', its 'labels' do not: "
                "give the labels that the links were trained with"
            )
        kind = "counts" if spec.task == "regression" else "there"
        return RowForm(kind, tuple(known.index(one) for one in spec.labels), spec.width)
    if isinstance(spec, Vec) and spec.task == "regression" and spec.width == 1:
        return RowForm("number", (), 1)
    if isinstance(spec, Vec) and spec.task == "single-label":
        return RowForm("class", (), spec.width)
    raise SettingsError(
        f"links know the output of model '{name}' as {spec.task}: expected counts or presence "
        "with a label each, one number, or a class"
    )


def spec_of(labels: Sequence[str], tasks: Sequence[Task]) -> Vec:
    """What a model gives, as far as a configuration tells: counts of classes, or a number.

    Args:
        labels: names of its classes.
        tasks: that ask it; only classes that they name are counted, if each names some.
    """
    if tasks and all(task.classes for task in tasks):
        numbers = sorted({number for task in tasks for number in task.classes})
        names = tuple(labels[n] if n < len(labels) else str(n) for n in numbers)
    else:
        names = tuple(labels)
    if names:
        return Vec("regression", len(names), names, 0.5)
    steps = [task.step for task in tasks if task.measure == "value"]
    return Vec("regression", 1, tolerance=min(steps, default=1.0) / 2)


def check_task(task: Task, form: RowForm) -> None:
    """Returns only if a task can be answered from rows of a form.

    Raises:
        SettingsError: it cannot.
    """
    if task.measure not in _MEASURES[form.kind]:
        raise SettingsError(
            f"task '{task.name}' measures {task.measure}, which links cannot predict of "
            f"'{task.model}': expected one of {', '.join(_MEASURES[form.kind])}"
        )
    if missing := [n for n in task.classes if form.classes and n not in form.classes]:
        raise SettingsError(
            f"task '{task.name}' asks for class {missing[0]} of '{task.model}', which the "
            "links do not know"
        )


def row_of(form: RowForm, seen: Detections | float | None) -> Row:
    """What a model saw as a row; None is nothing at all.

    Raises:
        DatasetError: a number where objects are expected.
    """
    row = np.zeros(form.width, np.float32)
    if form.kind == "class":
        row[int(np.clip(round(_number(seen)), 0, form.width - 1))] = 1.0
    elif form.kind == "number":
        row[0] = _number(seen)
    elif isinstance(seen, Detections):
        for place, number in enumerate(form.classes):
            row[place] = np.count_nonzero(seen.labels == number)
        if form.kind == "there":
            row = np.minimum(row, 1.0)
    elif seen is not None:
        raise DatasetError(
            "a model returned a number: expected objects of its labels; for a number leave "
            "'labels' and the classes of its tasks out"
        )
    return row


def predicted_answer(task: Task, predicted: Predicted) -> bool | int | float | tuple[int, ...]:
    """A task's answer to what links predict of its model."""
    form, row = predicted.form, predicted.row
    if form.kind == "class":
        return float(row.argmax())
    if form.kind == "number":
        return _answer_to(task, float(row[0]))
    chosen = [
        (number, float(value))
        for number, value in zip(form.classes, row, strict=True)
        if not task.classes or number in task.classes
    ]
    if task.measure == "labels":
        return tuple(sorted(number for number, value in chosen if value >= _HALF))
    if task.measure in ("presence", "anomaly"):
        return any(value >= _HALF for _, value in chosen)
    return _answer_to(task, float(sum(max(0, round(value)) for _, value in chosen)))


def rows_of(
    forms: Mapping[str, RowForm], seen: Mapping[str, Detections | float]
) -> dict[str, Row]:
    """The rows of all models that looked at a frame."""
    return {name: row_of(forms[name], one) for name, one in seen.items() if name in forms}


def _answer_to(task: Task, value: float) -> bool | int | float:
    if task.measure == "value":
        return value
    if task.measure == "count":
        return max(0, round(value))
    return value >= _HALF


def _number(seen: Detections | float | None) -> float:
    if seen is None:
        return 0.0
    return float(len(seen.labels)) if isinstance(seen, Detections) else float(seen)
