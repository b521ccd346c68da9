"""What a model's output is: from it follow activation, loss, metric and network of a link.

An output is a fixed number of values (`Vec`) or a sequence of tokens (`Seq`). Rows of outputs
are arrays:

* single-label: (n, width) float32, shares of classes that sum to 1
* multi-label: (n, width) float32, each 0 to 1
* regression: (n, width) float32
* localisation: (n, 5) float32: 1 if there is a box else 0; left, top, right, bottom
* sequence: (n, length) int64 tokens, filled up with `PAD` behind the last one
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from triparty.common.documents import Members, check_name
from triparty.common.errors import DatasetError, ManifestError, SettingsError

VecTask = Literal["single-label", "multi-label", "regression", "localisation"]
VEC_TASKS: Final[tuple[str, ...]] = get_args(VecTask)
BOX_WIDTH: Final = 5
PAD: Final = -1
MOST_VALUES: Final = 16_384
MOST_TOKENS: Final = 65_536
MOST_LENGTH: Final = 1024
_SUM_ERROR: Final = 1e-2
_WHERE: Final = "output spec"

Outputs = NDArray[Any]


@dataclass(frozen=True)
class _Meaning:
    """What follows from a task.

    Attributes:
        activation: that makes an output of logits.
        loss: that links to it are trained with.
        metric: that they are judged by.
    """

    activation: str
    loss: str
    metric: str


_MEANINGS: Final = {
    "single-label": _Meaning("softmax", "cross-entropy", "accuracy"),
    "multi-label": _Meaning("sigmoid", "binary cross-entropy", "mAP"),
    "regression": _Meaning("linear", "Huber", "MAE"),
    "localisation": _Meaning("box", "binary cross-entropy, L1 and GIoU", "IoU"),
    "sequence": _Meaning("softmax of each token", "cross-entropy of tokens", "WER"),
}


@dataclass(frozen=True)
class Vec:
    """A fixed number of values.

    Attributes:
        task: what they are.
        width: how many.
        labels: of the values, or empty; two models with equal labels share a label space.
        tolerance: of regression: an error below it counts as right, and the metric becomes
            the share of right outputs (0.5 for counts); 0 leaves the metric MAE.
    """

    task: VecTask
    width: int
    labels: tuple[str, ...] = ()
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        """Refuses what no model gives.

        Raises:
            SettingsError: an unknown task, or numbers that do not fit it.
        """
        if self.task not in VEC_TASKS:
            raise SettingsError(
                f"task {self.task!r:.40}: expected one of {', '.join(VEC_TASKS)}, sequence"
            )
        least = 2 if self.task == "single-label" else 1
        if not least <= self.width <= MOST_VALUES:
            raise SettingsError(
                f"{self.task} output of {self.width} values: expected {least} to {MOST_VALUES}"
            )
        if self.task == "localisation" and self.width != BOX_WIDTH:
            raise SettingsError(
                f"a box has {BOX_WIDTH} values (is there, left, top, right, bottom), got "
                f"{self.width}"
            )
        if self.labels and len(set(self.labels)) != self.width:
            raise SettingsError(
                f"{len(set(self.labels))} different labels for {self.width} values: name each, "
                "or none"
            )
        if self.tolerance and (self.task != "regression" or not self.tolerance > 0):
            raise SettingsError("a tolerance is a number above 0, of regression alone")

    @property
    def activation(self) -> str:
        """That makes an output of logits."""
        return _MEANINGS[self.task].activation

    @property
    def loss(self) -> str:
        """That links to this output are trained with."""
        return _MEANINGS[self.task].loss

    @property
    def metric(self) -> str:
        """That links to this output are judged by."""
        return "accuracy" if self.tolerance else _MEANINGS[self.task].metric

    @property
    def logits(self) -> int:
        """Numbers that a link to this output emits."""
        return self.width


@dataclass(frozen=True)
class Seq:
    """A sequence of tokens.

    Attributes:
        vocabulary: tokens are 0 to this, exclusive.
        length: most tokens of an output.
        labels: the words of the tokens, or empty.
    """

    vocabulary: int
    length: int
    labels: tuple[str, ...] = ()
    task: ClassVar[Literal["sequence"]] = "sequence"

    def __post_init__(self) -> None:
        """Refuses what no model gives.

        Raises:
            SettingsError: a number out of its range, or labels that do not fit.
        """
        if not 1 <= self.vocabulary <= MOST_TOKENS or not 1 <= self.length <= MOST_LENGTH:
            raise SettingsError(
                f"sequences of {self.vocabulary} tokens and length {self.length}: expected 1 "
                f"to {MOST_TOKENS} and 1 to {MOST_LENGTH}"
            )
        if self.labels and len(set(self.labels)) != self.vocabulary:
            raise SettingsError(
                f"{len(set(self.labels))} different labels for {self.vocabulary} tokens: name "
                "each, or none"
            )

    @property
    def activation(self) -> str:
        """That makes an output of logits."""
        return _MEANINGS[self.task].activation

    @property
    def loss(self) -> str:
        """That links to this output are trained with."""
        return _MEANINGS[self.task].loss

    @property
    def metric(self) -> str:
        """That links to this output are judged by."""
        return _MEANINGS[self.task].metric

    @property
    def end(self) -> int:
        """The token, no word of its own, that begins and ends every sequence of a decoder."""
        return self.vocabulary

    @property
    def logits(self) -> int:
        """Numbers that a link to this output emits for each token."""
        return self.vocabulary + 1


OutputSpec = Vec | Seq


def share_labels(source: OutputSpec, target: OutputSpec) -> bool:
    """Whether two outputs are classes of the same names in the same order."""
    return (
        isinstance(source, Vec)
        and isinstance(target, Vec)
        and source.task == target.task == "single-label"
        and bool(source.labels)
        and source.labels == target.labels
    )


def spec_members(spec: OutputSpec) -> dict[str, object]:
    """Law: `read_spec(spec_members(s)) == s`."""
    if isinstance(spec, Seq):
        return {
            "task": spec.task,
            "vocabulary": spec.vocabulary,
            "length": spec.length,
            "labels": list(spec.labels),
        }
    return {
        "task": spec.task,
        "width": spec.width,
        "labels": list(spec.labels),
        "tolerance": repr(float(spec.tolerance)),
    }


def read_spec(value: object) -> OutputSpec:
    """The spec of a document; `labels` and `tolerance` may be left out.

    Raises:
        ManifestError: missing or unknown members, or another type.
        SettingsError: an output that no model gives.
    """
    if isinstance(value, dict) and value.get("task") == Seq.task:
        names = ("task", "vocabulary", "length")
        members = Members(value, where=_WHERE, names=names, optional=("labels",))
        labels = _labels(members, value)
        return Seq(members.integer("vocabulary"), members.integer("length"), labels)
    optional = ("labels", "tolerance")
    members = Members(value, where=_WHERE, names=("task", "width"), optional=optional)
    given = value if isinstance(value, dict) else {}
    tolerance = members.fraction("tolerance") if "tolerance" in given else 0.0
    task: Any = members.text("task")
    return Vec(task, members.integer("width"), _labels(members, given), tolerance)


def _labels(members: Members, value: Mapping[str, object]) -> tuple[str, ...]:
    labels: list[str] = []
    for label in members.items("labels") if "labels" in value else ():
        if not isinstance(label, str):
            raise ManifestError(f"{_WHERE}: a label must be text, got {label!r:.40}")
        labels.append(label)
    return tuple(labels)


def specs_bytes(specs: Mapping[str, OutputSpec]) -> bytes:
    """The JSON document of models' outputs, which a person can read and write."""
    told = {name: spec_members(spec) for name, spec in specs.items()}
    return json.dumps(told, indent=2).encode() + b"\n"


def read_specs(path: Path) -> dict[str, OutputSpec]:
    """The outputs of models that a JSON file describes, by the models' names.

    Raises:
        ManifestError, SettingsError: it cannot be read, or describes what cannot be.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict) or not value:
        raise ManifestError(f"{path}: expected an object with an output spec for each model")
    return {check_name(name, what="model"): read_spec(one) for name, one in value.items()}


def check_outputs(name: str, spec: OutputSpec, outputs: Outputs) -> Outputs:
    """The outputs of a model, if they are what its spec says.

    Args:
        name: of the model.
        spec: of its output.
        outputs: one row an input, of any number type.

    Returns:
        (n, width) float32 or (n, length) int64, as the module says.

    Raises:
        DatasetError: another shape or type, or a row that is wrong; names the first.
    """
    is_whole = np.issubdtype(outputs.dtype, np.integer)
    if outputs.ndim == 1 and isinstance(spec, Vec) and spec.width == 1:
        outputs = outputs[:, None]
    width = spec.width if isinstance(spec, Vec) else spec.length
    if outputs.ndim != 2 or outputs.shape[1] != width:
        raise DatasetError(
            f"outputs of '{name}' have rows of shape {outputs.shape[1:]}: expected ({width},) "
            f"of {spec.task}"
        )
    if isinstance(spec, Seq):
        if not is_whole:
            raise DatasetError(f"outputs of '{name}' are {outputs.dtype}: tokens are integers")
        return _good_rows(name, outputs.astype(np.int64), _sequence_faults(spec, outputs))
    if not (is_whole or np.issubdtype(outputs.dtype, np.floating) or outputs.dtype == bool):
        raise DatasetError(f"outputs of '{name}' are {outputs.dtype}: expected numbers")
    values = outputs.astype(np.float32)
    return _good_rows(name, values, _value_faults(spec, values))


def _sequence_faults(spec: Seq, tokens: Outputs) -> dict[str, NDArray[np.bool_]]:
    is_pad = tokens == PAD
    known = is_pad | ((tokens >= 0) & (tokens < spec.vocabulary))
    return {
        f"a token that is none of 0 to {spec.vocabulary - 1}": ~known.all(1),
        "a token behind the end": (is_pad[:, :-1] & ~is_pad[:, 1:]).any(1),
    }


def _value_faults(spec: Vec, values: Outputs) -> dict[str, NDArray[np.bool_]]:
    whole = np.asarray(np.isfinite(values).all(1))
    faults: dict[str, NDArray[np.bool_]] = {"a number that is not finite": ~whole}
    beyond = np.asarray(((values < 0) | (values > 1)).any(1))
    match spec.task:
        case "single-label":
            faults["a share outside 0 to 1"] = beyond
            apart: NDArray[np.bool_] = np.abs(values.sum(1) - 1.0) > _SUM_ERROR
            faults["shares that do not sum to 1"] = apart
        case "multi-label":
            faults["a score outside 0 to 1"] = beyond
        case "localisation":
            there = np.asarray(values[:, 0] == 1)
            absent = np.asarray(values[:, 0] == 0)
            faults["neither 0 nor 1 for whether there is a box"] = ~(there | absent)
            inverted: NDArray[np.bool_] = (values[:, 3] < values[:, 1]) | (
                values[:, 4] < values[:, 2]
            )
            faults["a box whose right or bottom is before its left or top"] = there & inverted
        case "regression":
            pass
    return faults


def _good_rows(name: str, values: Outputs, faults: Mapping[str, NDArray[np.bool_]]) -> Outputs:
    for fault, rows in faults.items():
        if rows.any():
            raise DatasetError(f"row {int(rows.argmax())} of '{name}' holds {fault}")
    return values
