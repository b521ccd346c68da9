"""A symmetry plan: for every tensor of a checkpoint, the spaces of its axes.

A plan is a table (`rules.py`) and the spaces that it names (`spaces.py`, `heads.py`). It
fails closed: a tensor that no row names, one that a row names and the checkpoint lacks, or
one of another shape is an error. (Every public implementation of this idea skips names that
it does not know, and so leaves the norm weights or the positions of a trained model as they
were.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from math import prod
from typing import Any

from triparty.common.deviceinfo import ImageInfo
from triparty.common.errors import CheckpointError, UnknownTensorError
from triparty.common.tensorfile import TensorEntry
from triparty.developer.protect.rules import Axis, Experts, Fate, NormRule, Rule
from triparty.developer.protect.spaces import Offset, Space

VOCABULARY = "vocabulary"
"""The space of token ids that leave the device keyed, and of a language model's answers."""

_LETTER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class DeviceHead:
    """The head of a model whose devices have it.

    Attributes:
        weight: name of its tensor; zeros on the cloud.
        is_rows: whether the device's rows serve as the head as well.
        softcap: bound of the logits, or None.
    """

    weight: str
    is_rows: bool
    softcap: float | None


@dataclass(frozen=True)
class Plan:
    """The symmetry plan of one model.

    Attributes:
        family: its `model_type`.
        task: what its head answers; see `DeviceInfo`.
        prefix: what tensor names begin with; checkpoints of the bare model leave it out.
        counts: what each letter of the table counts: layers, experts.
        width: d of the residual that the device writes, before it is keyed.
        vocabulary: V, tokens that the device knows ids of; 0 if none.
        max_positions: longest text.
        spaces: every space by name.
        rules: the table.
        output_space: the space of the answer: what the device has to undo.
        offsets: spaces whose biases get a secret offset; see `heads.attention_offsets`.
        ties: the tensor that stands in for another one that the checkpoint lacks.
        separable: tied tensors that a checkpoint may also have by themselves, different.
        config: what the protected `config.json` says otherwise.
        image: the images that the model takes, if it takes any.
        pixels: the space of a patch's pixels, if it takes images.
        labels: the names of the answers, if they have some; the cloud does not get them.
        token_ids: further options of the configuration that are token ids (`section.name` in
            a section), plain; the cloud's has them keyed, or 0 if it may not know ids.
        aliases: beginnings of names in other versions of `transformers`, and what they are
            here.
        device_head: the head, if devices have it.
    """

    family: str
    task: str
    prefix: str
    counts: Mapping[str, Sequence[int]]
    width: int
    vocabulary: int
    max_positions: int
    spaces: Mapping[str, Space]
    rules: tuple[Rule, ...]
    output_space: str
    offsets: Mapping[str, Offset] = field(default_factory=dict)
    ties: Mapping[str, str] = field(default_factory=dict)
    separable: frozenset[str] = frozenset()
    config: Mapping[str, Any] = field(default_factory=dict)
    image: ImageInfo | None = None
    pixels: str | None = None
    labels: tuple[str, ...] = ()
    token_ids: Mapping[str, int] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    device_head: DeviceHead | None = None

    @cached_property
    def tensors(self) -> Mapping[str, Rule]:
        """Every tensor that the model consists of, with its rule, letters spelled out."""
        return {
            rule.pattern: rule
            for row in self.rules
            if row.fate is not Fate.DROPPED
            for rule in self._spelled(row)
        }

    def canonical(self, name: str) -> str:
        """The full name of a tensor, whether or not the checkpoint leaves the prefix out.

        Raises:
            UnknownTensorError: no rule names it.
        """
        for other, own in self.aliases.items():
            if name.startswith(other):
                name = own + name.removeprefix(other)
        for known in (name, self.prefix + name):
            if known in self.tensors or known in self._dropped:
                return known
        raise UnknownTensorError(
            f"tensor {name!r} has no rule in the plan of family {self.family!r}, so it "
            f"cannot be protected; check that config.json describes this checkpoint"
        )

    def rule(self, name: str) -> Rule:
        """The rule of a tensor, by its full name."""
        return self.tensors.get(name) or self._dropped[name]

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor before it is keyed, stored axes that are one merged."""
        return tuple(
            sum(self.spaces[space].size for space in axis.space.split("|"))
            for axis in self.rule(name).axes
        )

    def device_tables(self) -> Mapping[str, Rule]:
        """The tables that the device looks up, by their names there."""
        return {
            rule.device_name: rule
            for rule in self.tensors.values()
            if rule.device_name is not None
        }

    def check(self, tensors: Mapping[str, TensorEntry]) -> None:
        """Compares a checkpoint with the plan before any work.

        Args:
            tensors: by full name.

        Raises:
            UnknownTensorError: a missing tensor.
            CheckpointError: a tensor of another shape.
        """
        for name, entry in tensors.items():
            if self.rule(name).fate is Fate.DROPPED:
                continue
            expected = self.shape_of(name)
            if merged_shape(self.rule(name), entry.shape) != expected:
                raise CheckpointError(
                    f"tensor {name!r} has shape {list(entry.shape)}, "
                    f"config.json says {list(expected)}"
                )
        self._check_biases()
        missing = [
            name
            for name in self.tensors
            if name not in tensors and self.ties.get(name) not in tensors
        ]
        if missing:
            raise UnknownTensorError(
                f"the checkpoint lacks {_some(missing)}, which family {self.family!r} has"
            )

    def _check_biases(self) -> None:
        """A norm's bias can only be folded into readers that have a bias themselves."""
        for name, rule in self.tensors.items():
            bias = self.tensors.get(f"{rule.after}.bias")
            if not isinstance(bias, NormRule) or bias.bias_kept or not name.endswith(".weight"):
                continue
            if name.removesuffix("weight") + "bias" not in self.tensors:
                raise ValueError(
                    f"family {self.family!r}: {name!r} reads {rule.after!r} and has no bias "
                    f"to take the norm's; mark the norm with bias_kept"
                )

    @cached_property
    def _dropped(self) -> Mapping[str, Rule]:
        return {
            rule.pattern: rule
            for row in self.rules
            if row.fate is Fate.DROPPED
            for rule in self._spelled(row)
        }

    def _spelled(self, row: Rule) -> Iterator[Rule]:
        """The row for every number that its letters count."""
        letters = list(dict.fromkeys(_LETTER.findall(row.pattern)))
        for numbers in product(*(self.counts[letter] for letter in letters)):
            yield spelled(row, dict(zip(letters, numbers, strict=True)), self.counts)


def spelled(row: Rule, numbers: Mapping[str, int], counts: Mapping[str, Sequence[int]]) -> Rule:
    """A row with numbers in place of its letters."""

    def fill(text: str) -> str:
        return _LETTER.sub(lambda found: str(numbers[found.group(1)]), text)

    rule = replace(
        row,
        pattern=fill(row.pattern),
        axes=tuple(Axis(fill(axis.space), axis.role) for axis in row.axes),
        after=None if row.after is None else fill(row.after),
    )
    if isinstance(row.experts, tuple):
        letter, space = row.experts
        one = row.pattern.replace(f"{{{letter}}}", "{}")
        names = tuple(fill(one).format(expert) for expert in counts[letter])
        rule = replace(rule, experts=Experts(fill(space), names, numbers[letter]))
    return rule


def merged_shape(rule: Rule, stored: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a tensor with its stored axes merged as its rule says."""
    if not rule.flat or not stored:
        return stored
    if len(rule.axes) == 1:
        return (prod(stored),)
    if len(stored) == 3 and stored[0] == 1:
        return stored[1:]
    return (stored[0], prod(stored[1:]))


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
