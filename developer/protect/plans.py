"""A symmetry plan: for every tensor of a checkpoint, the spaces of its axes.

A plan is a table of rules, one row per tensor, and fails closed: a tensor that no rule names,
a tensor that a rule requires and the checkpoint lacks, or one of another shape is an error.
(Every public implementation of this idea skips names that it does not know, and so leaves the
norm weights or the positions of a trained model unpermuted.)

Words of the tables:

- a space is a name (`residual`, `neurons.{l}`); `a|b` is an axis on which spaces lie one
  after another; `{l}` stands for every layer;
- axes are those of the stored tensor: `nn.Linear` is (out, in), GPT-2's `Conv1D` (in, out).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from triparty.common.errors import CheckpointError, UnknownTensorError
from triparty.common.tensorfile import TensorEntry
from triparty.developer.protect.spaces import Space


class Fate(Enum):
    """What becomes of a tensor."""

    HOSTED = "cloud, keyed"
    ON_DEVICE = "device, keyed; zeros on the cloud"
    DROPPED = "dropped"


@dataclass(frozen=True)
class Rule:
    """One row of a plan.

    Attributes:
        pattern: the tensor's name; `{l}` stands for the number of a layer.
        axes: the space of each axis; empty for a dropped tensor.
        fate: what becomes of the tensor.
    """

    pattern: str
    axes: tuple[str, ...]
    fate: Fate = Fate.HOSTED


def hosted(pattern: str, *axes: str) -> Rule:
    """A tensor that the cloud hosts, keyed."""
    return Rule(pattern, axes)


def on_device(pattern: str, *axes: str) -> Rule:
    """A table that the device looks up, keyed; the cloud hosts zeros in its place."""
    return Rule(pattern, axes, Fate.ON_DEVICE)


def dropped(pattern: str) -> Rule:
    """A buffer of old checkpoints that the model's code makes by itself."""
    return Rule(pattern, (), Fate.DROPPED)


@dataclass(frozen=True)
class Plan:
    """The symmetry plan of one model.

    Attributes:
        family: its `model_type`.
        prefix: what tensor names begin with; checkpoints of the bare model leave it out.
        layers: how many layers it has.
        width: D of the residual.
        vocabulary: V, rows of embedding and head.
        max_positions: longest text.
        spaces: every space by name.
        rules: the table.
        embedding: name of the embedding table.
        positions: name of the table of learned positions, or None.
        head: name of the head.
        tied: whether the configuration takes the embedding for the head.
    """

    family: str
    prefix: str
    layers: int
    width: int
    vocabulary: int
    max_positions: int
    spaces: Mapping[str, Space]
    rules: tuple[Rule, ...]
    embedding: str
    positions: str | None
    head: str
    tied: bool

    @cached_property
    def required(self) -> Mapping[str, Rule]:
        """Every tensor that the model consists of, with its rule, layers spelled out."""
        return {
            name: rule
            for rule in self.rules
            if rule.fate is not Fate.DROPPED
            for name in self._names(rule.pattern)
        }

    def canonical(self, name: str) -> str:
        """The full name of a tensor, whether or not the checkpoint leaves the prefix out."""
        if name == self.head or name.startswith(self.prefix):
            return name
        return self.prefix + name

    def rule(self, name: str) -> Rule:
        """The rule of a tensor.

        Raises:
            UnknownTensorError: no rule names it.
        """
        rule = self.required.get(name) or self._dropped.get(re.sub(r"\d+", "{l}", name))
        if rule is None:
            raise UnknownTensorError(
                f"tensor {name!r} has no rule in the plan of family {self.family!r}, so it "
                f"cannot be protected; check that config.json describes this checkpoint"
            )
        return rule

    def spaces_of(self, name: str) -> tuple[tuple[str, ...], ...]:
        """The names of the spaces on each axis of a tensor that is not dropped."""
        layer = re.search(r"\.(\d+)\.", name)
        number = layer.group(1) if layer else ""
        axes = self.rule(name).axes
        return tuple(tuple(axis.replace("{l}", number).split("|")) for axis in axes)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape that the configuration gives a tensor."""
        return tuple(
            sum(self.spaces[space].size for space in axis) for axis in self.spaces_of(name)
        )

    def check(self, tensors: Mapping[str, TensorEntry]) -> None:
        """Compares a checkpoint with the plan before any work.

        Args:
            tensors: by canonical name.

        Raises:
            UnknownTensorError: a tensor without a rule, or a missing one.
            CheckpointError: a tensor of another shape.
        """
        for name, entry in tensors.items():
            if self.rule(name).fate is Fate.DROPPED:
                continue
            expected = self.shape_of(name)
            if entry.shape != expected:
                raise CheckpointError(
                    f"tensor {name!r} has shape {list(entry.shape)}, "
                    f"config.json says {list(expected)}"
                )
        missing = [name for name in self.required if name not in tensors]
        if self.tied and self.head in missing:
            missing.remove(self.head)
        if missing:
            raise UnknownTensorError(
                f"the checkpoint lacks {_some(missing)}, which family {self.family!r} has"
            )

    @cached_property
    def _dropped(self) -> Mapping[str, Rule]:
        return {rule.pattern: rule for rule in self.rules if rule.fate is Fate.DROPPED}

    def _names(self, pattern: str) -> Sequence[str]:
        if "{l}" not in pattern:
            return [pattern]
        return [pattern.replace("{l}", str(layer)) for layer in range(self.layers)]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
