"""Every tensor of a protected model, made from the source's by its plan and key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from math import prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.device_head import GAIN, WEIGHT
from triparty.common.errors import CheckpointError
from triparty.common.tensorfile import TensorEntry, TensorFile
from triparty.developer.protect.keys import Keys
from triparty.developer.protect.output import Made
from triparty.developer.protect.plans import Plan, merged_shape
from triparty.developer.protect.rekeying import (
    CHUNK_BYTES,
    Matter,
    rekeyed,
    to_bits,
    to_floats,
)
from triparty.developer.protect.rules import (
    Axis,
    Experts,
    Fate,
    LookupRule,
    NormRule,
    Role,
    Rule,
)
from triparty.developer.protect.transforms import Monomial, Transform, joined

KEPT_TRANSFORMS = 32
"""How many drawn transforms stay in memory: the residual's and those of a layer."""


class Weights:
    """The tensors of one source under one set of keys.

    Args:
        plan: of the source.
        shards: its tensor files.
        keys: from which every transform is drawn.
        fold: whether norm weights are folded into their readers where the plan allows it.
    """

    def __init__(
        self, plan: Plan, shards: tuple[TensorFile, ...], keys: Keys, *, fold: bool
    ) -> None:
        """Finds the tensors; draws and reads nothing yet."""
        self._plan, self._keys, self._fold = plan, keys, fold
        self._space = lru_cache(KEPT_TRANSFORMS)(self._draw)
        self._places = {
            plan.canonical(name): (shard, name) for shard in shards for name in shard.entries
        }

    def hosted(self, name: str) -> Made:
        """The tensor of this name in the cloud's folder."""
        rule = self._source_of(self._plan.rule(name))
        if rule.fate is Fate.ON_DEVICE:
            entry = self._entry(rule)
            return Made(entry, partial(_zeros, entry))
        return self._norm(rule) if isinstance(rule, NormRule) else self._keyed(rule)

    def device_tables(self) -> Mapping[str, Made]:
        """The tables that the device looks up, by their names there."""
        tables = self._plan.device_tables()
        return {name: self._looked_up(rule) for name, rule in tables.items()}

    def device_head(self) -> Mapping[str, Made]:
        """The tensors of the head that the device has; `common.device_head` names them."""
        head = self._plan.device_head
        if head is None:
            return {}
        rule = self._plan.rule(head.weight)
        return {GAIN: self._gain(rule)} if head.is_rows else {WEIGHT: self._keyed(rule)}

    def _gain(self, rule: Rule) -> Made:
        """What the final norm's weights multiply, where the device's rows are the head."""
        read = next(axis for axis in rule.axes if axis.role is Role.READS)
        transform = self.transform(Axis(read.space, Role.SCALES))

        def pieces() -> Iterator[NDArray[Any]]:
            scale = self.fold_scale(rule, read)
            plain = np.ones(transform.size) if scale is None else scale
            yield to_bits(transform.apply(plain, 0), "F64")

        return Made(TensorEntry("F64", (transform.new_size,), 0), pieces)

    def output(self) -> Transform:
        """What the device has to undo in an answer."""
        return self._space(self._plan.output_space)

    def matrix_of(self, space: str) -> NDArray[np.float64]:
        """M (d, D) of a space that the device keys by itself."""
        transform = self._space(space)
        return transform.apply(np.eye(transform.size), 1).astype(np.float64)

    def order_of(self, space: str) -> Monomial:
        """The transform of a space whose coordinates trade places."""
        return _monomial(Axis(space), self._space(space))

    def transform(self, axis: Axis) -> Transform:
        """The transform of an axis: of its spaces, in its role."""
        spaces = [self._space(space) for space in axis.space.split("|")]
        match axis.role:
            case Role.WRITES:
                return joined(spaces)
            case Role.READS:
                return joined([space.dual() for space in spaces])
            case Role.SCALES:
                return joined([_monomial(axis, space).unsigned() for space in spaces])

    def _source_of(self, rule: Rule) -> Rule:
        """The rule of the tensor that this one is made of: experts trade places."""
        if not isinstance(rule.experts, Experts):
            return rule
        order = self.order_of(rule.experts.space)
        return self._plan.rule(rule.experts.names[order.index[rule.experts.number]])

    def _draw(self, name: str) -> Transform:
        return self._plan.spaces[name].draw(self._keys)

    def original(self, name: str) -> tuple[str, NDArray[Any]]:
        """The dtype and the bit patterns of a source tensor, axes that are one merged."""
        place = self._places.get(name) or self._places[self._plan.ties[name]]
        shard, stored = place
        bits = shard.bits(stored)
        shape = merged_shape(self._plan.rule(name), bits.shape)
        return shard.entries[stored].dtype, bits.reshape(shape)

    def _values(self, name: str) -> NDArray[np.float64]:
        """The values of a small tensor."""
        dtype, bits = self.original(name)
        return to_floats(bits, dtype).astype(np.float64)

    def _entry(self, rule: Rule) -> TensorEntry:
        """The dtype and the new shape of a tensor."""
        name = rule.pattern
        shard, stored = self._places.get(name) or self._places[self._plan.ties[name]]
        entry = shard.entries[stored]
        sizes = tuple(self._new_size(axis) for axis in rule.axes)
        return TensorEntry(entry.dtype, _unmerged(rule, entry.shape, sizes), 0)

    def _new_size(self, axis: Axis) -> int:
        return sum(self._plan.spaces[space].new_size for space in axis.space.split("|"))

    def _keyed(self, rule: Rule) -> Made:
        """A tensor under the transforms of its axes, what it reads folded in."""
        return Made(self._entry(rule), lambda: rekeyed(self._matter(rule), self._axes(rule)))

    def _axes(self, rule: Rule) -> list[Transform]:
        return [self.transform(axis) for axis in rule.axes]

    def _matter(self, rule: Rule) -> Matter:
        """A tensor, what it reads folded in."""
        dtype, bits = self.original(rule.pattern)
        matter = Matter.stored(rule.pattern, dtype, bits)
        return replace(
            matter,
            factor=factor_of(rule, dtype),
            scale=tuple(self.fold_scale(rule, axis) for axis in rule.axes),
            plus=_sum(self._absorbed(rule), self.offset(rule)),
        )

    def _looked_up(self, rule: Rule) -> Made:
        """A device's table: the keyed rows that a token can take."""
        made, rows = self._keyed(rule), rule.device_rows
        if rows is None:
            return made
        first, end = rows.start, rows.stop

        def pieces() -> Iterator[NDArray[Any]]:
            begin = 0
            for piece in made.pieces():
                yield piece[max(0, first - begin) : max(0, end - begin)]
                begin += len(piece)

        shape = (len(rows), *made.entry.shape[1:])
        return Made(TensorEntry(made.entry.dtype, shape, 0), pieces)

    def folded(self, norm: str) -> bool:
        """Whether the weights of a norm went into its readers."""
        rule = self._plan.rule(f"{norm}.weight")
        return self._fold and isinstance(rule, NormRule) and rule.foldable

    def _gamma(self, norm: str) -> NDArray[np.float64]:
        rule = self._plan.rule(f"{norm}.weight")
        offset = rule.offset if isinstance(rule, NormRule) else 0.0
        return self._values(rule.pattern) + offset

    def fold_scale(self, rule: Rule, axis: Axis) -> NDArray[np.float64] | None:
        """What a reader of a folded norm is multiplied by: the norm's weights.

        An expanded residual has the length of the one before on more coordinates, so that
        its norm is sqrt(D / d) too long.
        """
        if rule.after is None or axis.role is not Role.READS or not self.folded(rule.after):
            return None
        transform = self.transform(axis)
        return self._gamma(rule.after) * sqrt(transform.size / transform.new_size)

    def shift(self, rule: Rule) -> NDArray[np.float64] | None:
        """What a layer's bias makes up for: its true input minus the one that it reads.

        Args:
            rule: of the layer's weight.

        Returns:
            (d,) per old coordinate of what it reads, or None. The bias of a folded norm is
            missing from the input; the secret offset of a bias is in it and does not belong.
        """
        norm = self._plan.tensors.get(f"{rule.after}.bias")
        if isinstance(norm, NormRule) and not norm.bias_kept and self.folded(str(rule.after)):
            return self._values(norm.pattern)
        for axis in rule.axes:
            for offset in self._plan.offsets.values():
                if axis.role is Role.READS and offset.read_as == axis.space:
                    return -offset.seen(offset.draw(self._keys))
        return None

    def _absorbed(self, rule: Rule) -> NDArray[np.float64] | None:
        """What a bias takes in: the shift of its layer's input, through its weight."""
        weight = self._plan.tensors.get(f"{rule.pattern.removesuffix('.bias')}.weight")
        if not rule.pattern.endswith(".bias") or weight is None:
            return None
        shift = self.shift(weight)
        if shift is None:
            return None
        dtype, bits = self.original(weight.pattern)
        read = [axis.role for axis in weight.axes].index(Role.READS)
        return rule.factor * _product(bits, dtype, shift, axis=read)

    def offset(self, rule: Rule) -> NDArray[np.float64] | None:
        """The secret offsets of a bias, per old coordinate of what it writes, or None."""
        spaces = [space for axis in rule.axes for space in axis.space.split("|")]
        offsets = self._plan.offsets
        if not rule.pattern.endswith(".bias") or not set(spaces) & set(offsets):
            return None
        return np.concatenate(
            [
                offsets[space].draw(self._keys)
                if space in offsets
                else np.zeros(self._plan.spaces[space].size)
                for space in spaces
            ]
        )

    def _norm(self, rule: NormRule) -> Made:
        """The weights or the bias of a norm."""
        entry = self._entry(rule)
        name = rule.pattern.rpartition(".")[0]
        pieces = self._folded_norm if self.folded(name) else self._kept_norm
        return Made(entry, lambda: pieces(rule, entry))

    def _folded_norm(self, rule: NormRule, entry: TensorEntry) -> Iterator[NDArray[Any]]:
        if not rule.is_bias:
            values = np.full(entry.shape, 1.0 - rule.offset)
        elif rule.bias_kept:
            values = self._divided_bias(rule, rule.pattern.rpartition(".")[0])
        else:
            values = np.zeros(entry.shape)
        yield to_bits(values, entry.dtype)

    def _kept_norm(self, rule: NormRule, entry: TensorEntry) -> Iterator[NDArray[Any]]:
        transform = self.transform(rule.axes[0])
        if rule.is_bias or not rule.offset or _monomial(rule.axes[0], transform).signed:
            yield from rekeyed(self._matter(rule), [transform])
            return
        values = transform.apply(self._values(rule.pattern) + rule.offset, 0) - rule.offset
        yield to_bits(values, entry.dtype)

    def _divided_bias(self, rule: NormRule, name: str) -> NDArray[np.float64]:
        gamma, beta = self._gamma(name), self._values(rule.pattern)
        lost = (gamma == 0) & (beta != 0)
        if lost.any():
            raise CheckpointError(
                f"{name!r} has a weight of zero beside a bias (coordinate "
                f"{int(lost.argmax())}), which cannot be folded into readers without a bias; "
                f"use the scheme 'permutation' with norms 'keep'"
            )
        divided = np.divide(beta, gamma, out=np.zeros_like(beta), where=gamma != 0)
        return self.transform(rule.axes[0]).apply(divided, 0).astype(np.float64)


def _sum(*parts: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    given = [part for part in parts if part is not None]
    return sum(given[1:], start=given[0]) if given else None


def rounded(value: float, dtype: str) -> float:
    """A number as an element of a dtype."""
    return float(to_floats(to_bits(np.array([value]), dtype), dtype)[0])


def factor_of(rule: Rule, dtype: str) -> float:
    """The factor of a tensor's elements; stock classes round that of a lookup first."""
    if not isinstance(rule, LookupRule):
        return rule.factor
    return rounded(rule.factor, dtype) / rounded(rule.divisor, dtype)


def _monomial(axis: Axis, transform: Transform) -> Monomial:
    if not isinstance(transform, Monomial):
        raise TypeError(f"the coordinates of {axis.space!r} are mixed; they cannot be scaled")
    return transform


def _product(
    bits: NDArray[Any], dtype: str, vector: NDArray[np.float64], *, axis: int
) -> NDArray[np.float64]:
    """A stored matrix times a vector along one axis, a run of rows at a time."""
    rows = max(1, CHUNK_BYTES // max(1, 8 * bits.shape[1]))
    total = np.zeros(bits.shape[1 - axis])
    for start in range(0, bits.shape[0], rows):
        run = slice(start, start + rows)
        values = to_floats(bits[run], dtype).astype(np.float64)
        if axis == 1:
            total[run] = values @ vector
        else:
            total += vector[run] @ values
    return total


def _unmerged(rule: Rule, stored: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The stored shape of a tensor with new sizes of its (merged) axes."""
    if not rule.flat or len(stored) == len(sizes):
        return sizes
    if len(sizes) == 1:
        return (*stored[:-1], sizes[0] // prod(stored[:-1]))
    if len(stored) == 3 and stored[0] == 1:
        return (1, *sizes)
    if prod(stored[1:]) != sizes[1]:
        raise TypeError(f"the merged axes of {rule.pattern!r} cannot change their size")
    return (sizes[0], *stored[1:])


def _zeros(entry: TensorEntry) -> Iterator[NDArray[Any]]:
    left = entry.size_bytes
    while left:
        size = min(left, CHUNK_BYTES)
        yield np.zeros(size, np.uint8)
        left -= size
