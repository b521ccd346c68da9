"""Redundancy measures: which results of a model are of no use, told from the results alone.

`needed = f(h(x))` (thesis definition 3.1). The model that is filtered labels the data; ground
truth is never asked for. Each measure knows what stands for a result that was skipped.

```python
@measure
def meeting(result: list[str]) -> bool:
    return "projector" in result  # whether the model was needed
```
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import DatasetError, SettingsError
from triparty.device.filters.results import (
    EmptyText,
    LowConfidence,
    NothingDetected,
    OtherClass,
    OutOfBound,
    Redundant,
    Skipped,
    Unchanged,
    ZeroCount,
)

Judge = Callable[[Sequence[Any]], list[bool]]
Theory = Literal["filterable", "not filterable", "unknown"]


@dataclass(frozen=True)
class Measure:
    """A redundancy measure.

    Attributes:
        name: of the measure, as an artifact calls it.
        parameters: of the measure as texts.
        judge: results in the order of their inputs, to whether the model was needed for each.
        skipped: makes what stands for a result that was skipped, from the task's name.
        theory: what thesis 3.2 says of tasks with this measure; a hint, its proofs have gaps.
    """

    name: str
    parameters: tuple[str, ...]
    judge: Judge
    skipped: Callable[[str], Skipped]
    theory: Theory = "unknown"

    def needed(self, results: Sequence[Any]) -> NDArray[np.bool_]:
        """(n,) whether the model was needed for each result.

        Raises:
            DatasetError: a result that the measure cannot judge; names the row.
        """
        return np.array(self.judge(results), np.bool_)


def measure(judge: Callable[[Any], bool]) -> Measure:
    """A measure of one's own: a function that says whether a result was needed."""
    return Measure(judge.__name__.replace("_", "-"), (), _each(judge), Redundant)


def as_given() -> Measure:
    """Results that say themselves, as true or false, whether the model was needed."""
    return Measure("as-given", (), _each(_truth), Redundant)


def nothing_detected() -> Measure:
    """Redundant: no object in the result."""
    return Measure(
        "nothing-detected", (), _each(lambda result: _size(result) > 0), NothingDetected
    )


def count_zero() -> Measure:
    """Redundant: a count of zero."""
    return Measure("count-zero", (), _each(lambda result: _number(result) != 0), ZeroCount)


def class_not_in(*classes: int | str) -> Measure:
    """Redundant: a class other than these; results are classes, or scores of all classes."""
    wanted = tuple(str(one) for one in classes)
    if not wanted:
        raise SettingsError("class-not-in needs at least one class")
    return Measure(
        "class-not-in",
        wanted,
        _each(lambda result: str(label_of(result)) in wanted),
        lambda task: OtherClass(task, wanted),
        "filterable",
    )


def confidence_below(threshold: float) -> Measure:
    """Redundant: the largest score is below a threshold; results are scores."""
    return Measure(
        "confidence-below",
        (repr(float(threshold)),),
        _each(lambda result: float(np.max(np.asarray(result, np.float64))) >= threshold),
        LowConfidence,
        "not filterable",
    )


def fewer_words_than(count: int) -> Measure:
    """Redundant: a text with fewer words."""
    return Measure(
        "fewer-words-than",
        (str(int(count)),),
        _each(lambda result: len(_text(result).split()) >= count),
        EmptyText,
    )


def regression_above(bound: float) -> Measure:
    """Redundant: a number above a bound."""
    return Measure(
        "regression-above",
        (repr(float(bound)),),
        _each(lambda result: _number(result) <= bound),
        lambda task: OutOfBound(task, float(bound)),
        "filterable",
    )


def label_changed() -> Measure:
    """Redundant: the label of the input before; the first input is always needed."""
    return Measure("label-changed", (), _changes, Unchanged)


_BUILT_IN: Final[dict[str, Callable[..., Measure]]] = {
    "as-given": as_given,
    "nothing-detected": nothing_detected,
    "count-zero": count_zero,
    "class-not-in": class_not_in,
    "confidence-below": lambda value: confidence_below(_parsed(value)),
    "fewer-words-than": lambda value: fewer_words_than(int(_parsed(value))),
    "regression-above": lambda value: regression_above(_parsed(value)),
    "label-changed": label_changed,
}


def named(name: str, *parameters: str) -> Measure:
    """The measure of a name, with its parameters as texts.

    Raises:
        SettingsError: an unknown name, or parameters that are not the measure's.
    """
    if name not in _BUILT_IN:
        raise SettingsError(
            f"measure {name!r:.40}: expected one of {', '.join(_BUILT_IN)}, or a function of "
            "your own in Python"
        )
    try:
        return _BUILT_IN[name](*parameters)
    except TypeError as error:
        raise SettingsError(
            f"measure '{name}' does not take {len(parameters)} parameters"
        ) from (error)


def restored(name: str, parameters: tuple[str, ...]) -> Measure:
    """The measure that an artifact names; one of its maker's own can skip, but not judge."""
    if name in _BUILT_IN:
        return named(name, *parameters)

    def judge(_: Sequence[Any]) -> list[bool]:
        raise SettingsError(
            f"the measure '{name}' is a function of who made the filter: give it again"
        )

    return Measure(name, parameters, judge, Redundant)


def label_of(result: Any) -> Any:
    """The label of a result: itself, or the class with the largest score."""
    if isinstance(result, str | bytes | bool | int | np.integer | np.str_):
        return result.item() if isinstance(result, np.generic) else result
    values = np.asarray(result)
    if values.dtype == object:
        hash(result)  # the TypeError of what cannot be a label
        return result
    if values.ndim == 0:
        return values.item()
    if values.dtype.kind in "fiu" and values.size > 1:
        return int(values.argmax())
    if values.size == 1:
        return values.reshape(-1)[0].item()
    raise TypeError(f"no label in a result of shape {values.shape} and type {values.dtype}")


def _each(judge: Callable[[Any], bool]) -> Judge:
    """A judge of many results out of one of a single one."""

    def judge_all(results: Sequence[Any]) -> list[bool]:
        needed = []
        for row, result in enumerate(results):
            try:
                needed.append(bool(judge(result)))
            except (TypeError, ValueError, AttributeError) as error:
                raise DatasetError(f"row {row}: no result of this measure: {error}") from error
        return needed

    return judge_all


def _changes(results: Sequence[Any]) -> list[bool]:
    labels = [label_of(result) for result in results]
    return [row == 0 or labels[row] != labels[row - 1] for row in range(len(labels))]


def _truth(result: Any) -> bool:
    value = float(np.asarray(result, np.float64).reshape(()))
    if value not in (0.0, 1.0):
        raise ValueError(f"expected 0 or 1, got {value}")
    return bool(value)


def _size(result: Any) -> int:
    objects = getattr(result, "boxes", result)
    return len(objects)


def _number(result: Any) -> float:
    value = float(np.asarray(result, np.float64).reshape(()))
    if not np.isfinite(value):
        raise ValueError("not finite")
    return value


def _text(result: Any) -> str:
    if not isinstance(result, str):
        raise TypeError(f"expected a text, got {type(result).__name__}")
    return result


def _parsed(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SettingsError(
            f"a measure's parameter: expected a number, got {text!r:.40}"
        ) from (None)
