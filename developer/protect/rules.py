"""The rows of a plan's table: what each tensor is, and the spaces of its axes.

A table names every tensor of a family once:

    embedding("model.embed_tokens", "residual"),
    norm("model.layers.{l}.input_layernorm", "residual"),
    linear("model.layers.{l}.self_attn.q_proj", "residual", "query.{l}", after="..."),

- a space is a name (`residual`, `gate.{l}`); `a|b` is an axis on which spaces lie one after
  another; `{l}` stands for every number that the plan counts under that letter;
- a `linear` reads its first space and writes its second one; `after` names the norm whose
  output it reads, so that the norm's weights can be folded into it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Role(Enum):
    """How an axis stands to its space."""

    WRITES = "writes"
    READS = "reads"
    SCALES = "scales"  # the weights of a norm: they trade places, signs do not matter


class Fate(Enum):
    """What becomes of a tensor."""

    HOSTED = "cloud, keyed"
    ON_DEVICE = "device, keyed; zeros on the cloud"
    DROPPED = "dropped"


@dataclass(frozen=True)
class Axis:
    """One axis of a tensor.

    Attributes:
        space: its name; `a|b` if several lie one after another.
        role: how the axis stands to it.
    """

    space: str
    role: Role = Role.WRITES

    def __str__(self) -> str:
        """As a description of the plan shows it."""
        return self.space


@dataclass(frozen=True)
class Experts:
    """Which expert a tensor belongs to; experts trade places, and so do their names.

    Attributes:
        space: a coordinate per expert.
        names: of this tensor in each of them.
        number: of this one.
    """

    space: str
    names: tuple[str, ...]
    number: int


@dataclass(frozen=True)
class Rule:
    """One row of a table.

    Attributes:
        pattern: the tensor's name; `{l}` stands for each number counted under that letter.
        axes: of the tensor, as stored; empty for a dropped one and for a single number.
        fate: what becomes of it.
        after: pattern of the norm module whose output it reads, or whose output the weight
            beside this bias reads.
        device_name: of the device's table, for what the device looks up.
        factor: of all elements; what the stock class applies and the protected one does not.
        experts: the letter that counts experts in the pattern and the space in which they
            trade places; spelled out, which expert this is.
        flat: whether stored axes are merged: all but the first (the pixels of a patch), all
            of them (a row stored with axes of length one), or the first two of three, the
            first of which has length one (a table stored like that).
        device_rows: of the table, those that the device has; None for all.
    """

    pattern: str
    axes: tuple[Axis, ...]
    fate: Fate = Fate.HOSTED
    after: str | None = None
    device_name: str | None = None
    factor: float = 1.0
    experts: tuple[str, str] | Experts | None = None
    flat: bool = False
    device_rows: range | None = None


@dataclass(frozen=True)
class NormRule(Rule):
    """The weights or the bias of a norm.

    Attributes:
        offset: what the stock class adds to the stored weights.
        foldable: whether linear layers alone read its output.
        is_bias: whether it is the bias.
        bias_kept: whether readers without a bias of their own read it, so that the bias
            stays with the norm (divided by its weights, if those are folded).
    """

    offset: float = 0.0
    foldable: bool = True
    is_bias: bool = False
    bias_kept: bool = False


@dataclass(frozen=True)
class LookupRule(Rule):
    """A table of rows that are looked up; its factors are rounded to its dtype.

    Attributes:
        divisor: of all elements; what the protected class applies and the stock one does not.
    """

    divisor: float = 1.0


Rows = tuple[Rule, ...]


def linear(
    name: str,
    reads: str,
    writes: str,
    *,
    after: str | None = None,
    bias: bool = False,
    transposed: bool = False,
    factor: float = 1.0,
    experts: tuple[str, str] | None = None,
) -> Rows:
    """A linear layer.

    Args:
        name: pattern of the module.
        reads: space of its input.
        writes: space of its output.
        after: pattern of the norm module whose output it reads.
        bias: whether it has one.
        transposed: stored (in, out), as `Conv1D`, not (out, in), as `nn.Linear`.
        factor: of its output; what the stock class applies and the protected one does not.
        experts: the letter in `name` that counts experts, and their space.
    """
    axes = (Axis(writes), Axis(reads, Role.READS))
    weight = Rule(
        f"{name}.weight",
        axes[::-1] if transposed else axes,
        after=after,
        factor=factor,
        experts=experts,
    )
    if not bias:
        return (weight,)
    bias_row = Rule(
        f"{name}.bias", (Axis(writes),), after=after, factor=factor, experts=experts
    )
    return (weight, bias_row)


def norm(
    name: str,
    space: str,
    *,
    bias: bool = False,
    foldable: bool = True,
    bias_kept: bool = False,
    offset: float = 0.0,
) -> Rows:
    """A norm over a space.

    Args:
        name: pattern of the module.
        space: what it normalises.
        bias: whether it has one (LayerNorm).
        foldable: whether linear layers alone read its output; where the output is itself
            the residual, the weights stay and trade places.
        bias_kept: whether a reader has no bias that could take the norm's.
        offset: what the stock class adds to the stored weights (Gemma: 1).
    """
    weight = NormRule(
        f"{name}.weight", (Axis(space, Role.SCALES),), foldable=foldable, offset=offset
    )
    if not bias:
        return (weight,)
    bias_row = NormRule(
        f"{name}.bias",
        (Axis(space),),
        foldable=foldable,
        is_bias=True,
        bias_kept=bias_kept,
    )
    return (weight, bias_row)


def embedding(
    pattern: str,
    index: str,
    space: str,
    *,
    device_name: str | None,
    factor: float = 1.0,
    device_rows: range | None = None,
    divisor: float = 1.0,
) -> Rows:
    """A table of rows that are written to the residual (tokens, positions, types).

    Args:
        pattern: name of the tensor.
        index: space of its rows.
        space: space of its columns.
        device_name: of the device's table; the cloud hosts zeros in its place. None for a
            table that the cloud looks up, keyed.
        factor: of the rows, rounded to the table's dtype, where the stock class scales what
            it looks up and takes rows from elsewhere as they are.
        device_rows: those that a token can take, if not all (positions that are counted from
            the padding token's id on).
        divisor: of the rows, rounded alike, where the protected class scales what it looks up.
    """
    row = LookupRule(
        pattern,
        (Axis(index), Axis(space)),
        Fate.HOSTED if device_name is None else Fate.ON_DEVICE,
        device_name=device_name,
        factor=factor,
        device_rows=device_rows,
        divisor=divisor,
    )
    return (row,)


def vector(pattern: str, space: str) -> Rows:
    """A row that is written to a space (a bias by itself, a class token)."""
    return (Rule(pattern, (Axis(space),), flat=True),)


def scalar(pattern: str) -> Rows:
    """A single number, which no key changes."""
    return (Rule(pattern, ()),)


def dropped(pattern: str) -> Rows:
    """A buffer of old checkpoints that the model's code makes by itself."""
    return (Rule(pattern, (), Fate.DROPPED),)


def within(prefix: str, rows: Rows) -> Rows:
    """The rows of a model that is a part of another one.

    Args:
        prefix: what the names of its tensors begin with there.
        rows: of the model by itself.
    """
    return tuple(
        replace(
            rule,
            pattern=prefix + rule.pattern,
            after=None if rule.after is None else prefix + rule.after,
        )
        for rule in rows
    )


def table(*rows: Rows) -> Rows:
    """The rows of a table, one after another."""
    return tuple(rule for group in rows for rule in group)
