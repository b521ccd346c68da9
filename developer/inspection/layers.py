"""Runs the original and the protected model side by side and compares them module by module.

The output of a module lies in the space that its row of the plan writes: the key of that space
is undone, and what remains is compared with the original's output; what it reads, alike. This
finds a wrong plan as well as a wrong tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from triparty.common.keying import EMBEDDING_FILE, Bundle
from triparty.common.tensorfile import TensorFile
from triparty.developer.answers import Task
from triparty.developer.answers.task import as_array
from triparty.developer.inspection.record import Call, Values, recording
from triparty.developer.inspection.tolerances import relative_error
from triparty.developer.protect.modelkey import ModelKey
from triparty.developer.protect.rekeying import to_floats
from triparty.developer.protect.rules import Axis, Fate, NormRule, Role, Rule
from triparty.developer.protect.transforms import Transform, undone

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WEIGHT = ".weight"
_TABLE_ROWS = 256
_LAYER = re.compile(r"(.*?\.\d+)\.")


@dataclass(frozen=True)
class Spaces:
    """What a module reads and writes, as its row of the plan says; None: nothing keyed."""

    reads: str | None
    writes: str | None

    @classmethod
    def of(cls, rule: Rule) -> Spaces:
        """Of a norm, a linear layer, or a table."""
        if isinstance(rule, NormRule):
            return cls(rule.axes[0].space, rule.axes[0].space)
        reads = [axis.space for axis in rule.axes if axis.role is Role.READS]
        writes = [axis.space for axis in rule.axes if axis.role is Role.WRITES]
        return cls(reads[0] if reads else None, writes[-1] if writes else None)


@dataclass(frozen=True, eq=False)
class Read:
    """What a module read.

    Attributes:
        plain: in the original.
        keyed: in the protected model.
        norm: whose output it is, if the norm's weights went into the module.
        shift: what is missing from it otherwise: a secret offset, taken back by the module.
    """

    plain: Values
    keyed: Values
    norm: str | None
    shift: Values | None = None


@dataclass(frozen=True, eq=False)
class Reading:
    """How far one call of a module is from the original's, its keys undone.

    Attributes:
        tensor: its weight.
        spaces: that its row names.
        given: relative error of what it read; None if that cannot be compared.
        answer: of what it answered.
        read: what it read; None if that cannot be compared.
    """

    tensor: str
    spaces: Spaces
    given: float | None
    answer: float | None
    read: Read | None = None


@dataclass(frozen=True)
class LayerError:
    """The largest relative error in one layer, and the weight whose output has it."""

    layer: str
    error: float
    tensor: str


class SideBySide:
    """Both models and the key between them.

    Args:
        key: of the protected model.
        original: the source, loaded.
        protected: what the cloud has, loaded.
    """

    def __init__(
        self, key: ModelKey, original: PreTrainedModel, protected: PreTrainedModel
    ) -> None:
        """Runs nothing yet."""
        self._key, self._original, self._protected = key, original, protected
        self._rules = {
            name.removesuffix(_WEIGHT): rule
            for name, rule in key.decided.plan.tensors.items()
            if name.endswith(_WEIGHT) and rule.fate is Fate.HOSTED
        }

    def readings(self, task: Task, bundle: Bundle, sample: Any) -> list[Reading]:
        """The device's tables, then every call of a module that the plan names, in order.

        Args:
            task: how the models are run.
            bundle: of the protected model.
            sample: an input that the task made.
        """
        with recording(self._original, self._rules) as plain:
            task.original(self._original, sample)
        with recording(self._protected, self._rules) as keyed:
            task.protected(self._protected, bundle, sample)
        before = {(call.module, call.number): call for call in plain}
        pairs = ((before.get((call.module, call.number)), call) for call in keyed)
        compared = [self._reading(old, new) for old, new in pairs if old is not None]
        return [*self._tables(bundle.folder), *compared, *self._head(bundle)]

    def fits(self, space: str, read: Read) -> float | None:
        """The relative error of what was read, if this space's key is undone."""
        return self._error(space, read.plain, read.keyed, norm=read.norm, shift=read.shift)

    def _reading(self, plain: Call, keyed: Call) -> Reading:
        rule = self._rules[plain.module]
        spaces, read = Spaces.of(rule), None
        is_norm = isinstance(rule, NormRule)
        given = answer = None
        if is_norm and _on_heads(plain):
            return Reading(rule.pattern, spaces, None, None)
        if spaces.reads is not None and plain.given is not None and keyed.given is not None:
            missing = None if rule.after else self._key.weights.shift(rule)
            read = Read(plain.given, keyed.given, rule.after, missing)
            given = self.fits(spaces.reads, read)
        if spaces.writes is not None and plain.answer is not None and keyed.answer is not None:
            norm = plain.module if is_norm else None
            shift = self._negative_offset(plain.module)
            answer = self._error(
                spaces.writes, plain.answer, keyed.answer, norm=norm, shift=shift
            )
        return Reading(rule.pattern, spaces, given, answer, read)

    def _negative_offset(self, module: str) -> Values | None:
        """What the secret offset of a module's bias adds to its answer, negated."""
        bias = self._key.decided.plan.tensors.get(f"{module}.bias")
        offset = None if bias is None else self._key.weights.offset(bias)
        return None if offset is None else -offset

    def _error(
        self,
        space: str,
        plain: Values,
        keyed: Values,
        *,
        norm: str | None,
        shift: Values | None,
    ) -> float | None:
        transform = self._key.weights.transform(Axis(space))
        found = _undone(transform, keyed)
        if found is not None and norm is not None and self._key.weights.folded(norm):
            found = self._unfolded(norm, transform, found)
        if found is not None and shift is not None:
            found = found + shift
        return None if found is None else _compared(plain, found)

    def _unfolded(self, name: str, transform: Transform, values: Values) -> Values:
        """The output of a norm with the weights that went into its readers."""
        norm = self._original.get_submodule(name)
        rules = self._key.decided.plan.tensors
        weight, bias = rules[f"{name}.weight"], rules.get(f"{name}.bias")
        offset = weight.offset if isinstance(weight, NormRule) else 0.0
        gamma = as_array(norm.get_parameter("weight").detach()) + offset
        whole: Values = values * gamma * sqrt(transform.size / transform.new_size)
        if isinstance(bias, NormRule) and not bias.bias_kept:
            whole = whole + as_array(norm.get_parameter("bias").detach())
        return whole

    def _tables(self, folder: Path) -> Iterator[Reading]:
        """The first rows of the device's tables beside the original's."""
        rules = self._key.decided.plan.device_tables()
        if not rules or not (folder / EMBEDDING_FILE).is_file():
            return
        file = TensorFile.open(folder / EMBEDDING_FILE)
        for name, rule in rules.items():
            spaces, error = Spaces.of(rule), None
            plain = _parameter(self._original, rule.pattern)
            if plain is not None and name in file.entries and spaces.writes is not None:
                rows = file.bits(name)[:_TABLE_ROWS]
                keyed = to_floats(rows, file.entries[name].dtype) / rule.factor
                transform = self._key.weights.transform(Axis(spaces.writes))
                found = _undone(transform, keyed)
                error = None if found is None else _compared(plain[:_TABLE_ROWS], found)
            yield Reading(rule.pattern, spaces, None, error)

    def _head(self, bundle: Bundle) -> Iterator[Reading]:
        """The first rows of the device's head beside the original's, if the device has it."""
        head = self._key.decided.plan.device_head
        if head is None or bundle.head is None:
            return
        rule = self._key.decided.plan.rule(head.weight)
        read = next(axis for axis in rule.axes if axis.role is Role.READS)
        dtype, bits = self._key.weights.original(head.weight)
        plain = to_floats(bits[:_TABLE_ROWS], dtype)
        scale = self._key.weights.fold_scale(rule, read)
        expected = plain if scale is None else plain * scale
        found = _undone(self._key.weights.transform(read), bundle.head.rows(_TABLE_ROWS))
        error = None if found is None else _compared(expected, found)
        yield Reading(rule.pattern, Spaces.of(rule), None, error)


def layer_errors(readings: Sequence[Reading]) -> list[LayerError]:
    """The largest error of each layer, in the order of the run.

    Tensors outside numbered layers are layers by themselves.
    """
    worst: dict[str, LayerError] = {}
    for reading in readings:
        if reading.answer is None:
            continue
        match = _LAYER.match(reading.tensor)
        layer = match[1] if match else reading.tensor.removesuffix(_WEIGHT)
        if layer not in worst or reading.answer > worst[layer].error:
            worst[layer] = LayerError(layer, reading.answer, reading.tensor)
    return list(worst.values())


def unseen(key: ModelKey, readings: Sequence[Reading]) -> list[str]:
    """Weights of the plan that no run compared: fused experts, convolutions, heads' norms."""
    seen = {reading.tensor for reading in readings if reading.answer is not None}
    rules: Mapping[str, Rule] = key.decided.plan.tensors
    return [
        name
        for name, rule in rules.items()
        if name not in seen and not name.endswith(".bias") and rule.axes
    ]


def _on_heads(call: Call) -> bool:
    """Whether a norm reads heads (B, T, H, h), whose order its own space does not know."""
    return call.given is not None and call.given.ndim > 3


def _undone(transform: Transform, values: Values) -> Values | None:
    if not values.ndim or values.shape[-1] != transform.new_size:
        return None
    return undone(transform, values)


def _compared(plain: Values, found: Values) -> float | None:
    return relative_error(plain, found) if plain.shape == found.shape else None


def _parameter(model: PreTrainedModel, name: str) -> Values | None:
    try:
        return np.array(as_array(model.get_parameter(name).detach()))
    except AttributeError:
        return None
