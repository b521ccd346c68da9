"""What a filter learns from: inputs and what the model said of them, checked row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import DatasetError
from triparty.common.nets.blocks import Blocks
from triparty.common.nets.design import Design
from triparty.common.nets.inputs import InputSpec
from triparty.common.nets.words import hashed

Columns = Mapping[str, NDArray[Any]]
Present = NDArray[np.bool_]
ONE_INPUT = "input"


@dataclass(frozen=True, eq=False)
class Inputs:
    """n inputs, each of one or more modalities.

    Attributes:
        columns: (n, ...) by name of the modality.
        present: (n, modalities) whether each is there, in the order of `columns`; what is
            missing has zeros.
    """

    columns: Columns
    present: Present

    def __len__(self) -> int:
        """How many inputs."""
        return len(self.present)

    def part(self, rows: NDArray[Any]) -> Inputs:
        """Some of them."""
        return Inputs({k: v[rows] for k, v in self.columns.items()}, self.present[rows])


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs and what is learnt about them.

    Attributes:
        inputs: n of them.
        labels: (n, tasks) int64. For `skip` 1 where the model is needed, else 0; for `reuse`
            equal numbers for equal results.
        blocks: (n,) numbers of blocks that are independent of each other (`blocks.py`); None:
            each input is independent of all others.
    """

    inputs: Inputs
    labels: NDArray[np.int64]
    blocks: Blocks | None = None

    def __len__(self) -> int:
        """How many inputs."""
        return len(self.inputs)

    def part(self, rows: NDArray[Any]) -> Samples:
        """Some of them."""
        blocks = None if self.blocks is None else self.blocks[rows]
        return Samples(self.inputs.part(rows), self.labels[rows], blocks)


def gather(values: Any) -> Inputs:
    """Inputs from arrays, lists of arrays, lists of texts, or several of these by name.

    Args:
        values: one modality, or a mapping from names to modalities. An entry of a list may be
            None where a modality of several is missing.

    Raises:
        DatasetError: no inputs, columns of different lengths, a row of another shape or type.
    """
    given = values if isinstance(values, Mapping) else {ONE_INPUT: values}
    columns, present = {}, []
    for name, column in given.items():
        columns[name], here = _column(name, column)
        present.append(here)
    lengths = {name: len(column) for name, column in columns.items()}
    if not lengths or min(lengths.values()) == 0 or len(set(lengths.values())) > 1:
        told = ", ".join(f"{length} of '{name}'" for name, length in lengths.items())
        raise DatasetError(
            f"expected equally many inputs of each modality, got {told or 'none'}"
        )
    return Inputs(columns, np.stack(present, axis=1))


def _column(name: str, column: Any) -> tuple[NDArray[Any], Present]:
    if isinstance(column, np.ndarray) and column.dtype.kind in "fiub":
        return column, np.ones(len(column), np.bool_)
    rows = list(column)
    present = np.array([row is not None for row in rows], np.bool_)
    if not present.any():
        raise DatasetError(f"'{name}' has no row that is not missing")
    first = next(row for row in rows if row is not None)
    if isinstance(first, str):
        _check_texts(name, rows)
        return hashed(["" if row is None else str(row) for row in rows]), present
    return _stacked(name, rows, np.asarray(first)), present


def _check_texts(name: str, rows: Sequence[Any]) -> None:
    for number, row in enumerate(rows):
        if row is not None and not isinstance(row, str):
            _refuse(name, number, f"is {type(row).__name__}, the rows before are texts")


def _stacked(name: str, rows: Sequence[Any], like: NDArray[Any]) -> NDArray[Any]:
    """(n, ...) with zeros where a row is missing."""
    if like.dtype.kind not in "fiub":
        raise DatasetError(f"'{name}' has rows of type {like.dtype}: expected numbers or texts")
    made = np.zeros((len(rows), *like.shape), like.dtype)
    for number, row in enumerate(rows):
        if row is None:
            continue
        found = np.asarray(row)
        if found.shape != like.shape or found.dtype.kind not in "fiub":
            _refuse(
                name,
                number,
                f"has shape {found.shape} and type {found.dtype}, expected {like.shape} and "
                f"{like.dtype}",
            )
        made[number] = found
    return made


def check_inputs(inputs: Inputs, specs: Sequence[InputSpec]) -> Inputs:
    """The inputs in the types that networks take, in the order of the specifications.

    Raises:
        DatasetError: other modalities, another shape, or a number that is not finite.
    """
    names = [spec.name for spec in specs]
    if sorted(inputs.columns) != sorted(names):
        raise DatasetError(
            f"expected the inputs {', '.join(names)}, got {', '.join(inputs.columns)}"
        )
    columns = {spec.name: _checked(inputs.columns[spec.name], spec) for spec in specs}
    order = [list(inputs.columns).index(name) for name in names]
    present = inputs.present[:, order]
    if len(specs) == 1 and not present.all():
        _refuse(names[0], int(present[:, 0].argmin()), "is missing")
    if not present.any(axis=1).all():
        raise DatasetError(
            f"row {int(present.any(axis=1).argmin())}: all modalities are missing"
        )
    return Inputs(columns, present)


def _checked(column: NDArray[Any], spec: InputSpec) -> NDArray[Any]:
    if column.shape[1:] != spec.shape:
        raise DatasetError(
            f"'{spec.name}' has inputs of shape {column.shape[1:]}, expected {spec.shape}"
        )
    if spec.modality == "text" and column.dtype.kind not in "iu":
        raise DatasetError(f"'{spec.name}' has type {column.dtype}: tokens are integers")
    made = column.astype(spec.dtype, copy=False)
    flat = made.reshape(len(made), -1)
    good = (flat >= 0).all(1) if spec.modality == "text" else np.isfinite(flat).all(1)
    if not good.all():
        reason = (
            "a number below 0" if spec.modality == "text" else "a number that is not finite"
        )
        _refuse(spec.name, int(good.argmin()), f"holds {reason}")
    return made


def one_input(value: Any, specs: Sequence[InputSpec]) -> Inputs:
    """A single input in the types that networks take.

    Args:
        value: of one modality, or a mapping from names; a modality of several may be missing
            or None.
        specs: of the network.

    Raises:
        DatasetError: other modalities, another shape, or a number that is not finite.
    """
    named = value if isinstance(value, Mapping) else {specs[0].name: value}
    if unknown := set(named) - {spec.name for spec in specs}:
        raise DatasetError(
            f"input '{min(unknown)}': expected {', '.join(spec.name for spec in specs)}"
        )
    columns, present = {}, []
    for spec in specs:
        part = named.get(spec.name)
        present.append(part is not None)
        if part is None:
            columns[spec.name] = np.zeros((1, *spec.shape), spec.dtype)
        elif isinstance(part, str) and spec.modality == "text":
            columns[spec.name] = hashed([part], length=spec.shape[0])
        else:
            columns[spec.name] = np.asarray(part)[None]
    return check_inputs(Inputs(columns, np.array([present], np.bool_)), specs)


def check_samples(samples: Samples, design: Design) -> Samples:
    """The samples in the types that networks take.

    Raises:
        DatasetError: lengths that differ, inputs that are none, labels of other tasks, or a
            task with one class alone.
    """
    inputs = check_inputs(samples.inputs, design.inputs)
    labels = samples.labels
    if len(labels) != len(inputs):
        raise DatasetError(f"{len(inputs)} inputs have {len(labels)} labels: expected as many")
    if labels.shape != (len(inputs), design.tasks) or labels.dtype.kind not in "iu":
        raise DatasetError(
            f"labels have shape {labels.shape} and type {labels.dtype}: expected integers of "
            f"shape ({len(inputs)}, {design.tasks})"
        )
    for task, column in enumerate(labels.T):
        if design.kind == "skip" and not np.isin(column, (0, 1)).all():
            row = int(np.isin(column, (0, 1)).argmin())
            raise DatasetError(
                f"row {row}: label {column[row]} of task {task}, expected 0 or 1"
            )
        if (column == column[0]).all():
            raise DatasetError(
                f"task {task} has the label {column[0]} in all {len(column)} rows: at least "
                "two different ones are needed"
            )
    if samples.blocks is not None and len(samples.blocks) != len(inputs):
        raise DatasetError(
            f"{len(inputs)} inputs have {len(samples.blocks)} blocks: expected as many"
        )
    return Samples(inputs, labels.astype(np.int64, copy=False), samples.blocks)


def _refuse(name: str, row: int, reason: str) -> NoReturn:
    raise DatasetError(f"row {row} of '{name}' {reason}")
