"""The spaces of an attention layer: queries, keys, values, and what the heads write.

Two public formulas for attention are wrong in every model with more than one head: a
permutation over the whole width mixes the heads, and one inside a head does not commute with
rotary positions. What is exact is drawn here:

- key-value groups trade places, and the query heads inside a group do;
- values of a group are mixed by any invertible B, and what its query heads write is read
  with the dual of B;
- queries and keys of a group, where the head carries no positions: any invertible A, the
  keys its dual. With rotary positions each frequency pair is a complex number, the rotation
  multiplies it by e^(i position frequency), and only multiplication by another z commutes
  with that: q z and k conj(z)^-1 leave q conj(k) as it was;
- where queries and keys are normalised by weights that the heads share, quarter turns that
  all heads share (the weights of a pair then trade places), signs that a group's heads
  share, and a scale of a query coordinate against its key's.

Under the scheme `permutation` B and A are permutations and z is one of 1, i, -1, -i.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from triparty.developer.protect.keys import Keys
from triparty.developer.protect.spaces import Offset, Scheme, Space, invertible, scales
from triparty.developer.protect.transforms import Dense, Monomial, Transform, side_by_side

OFFSET = 0.25
"""Standard deviation of offsets: small beside activations, so that 16 bits suffice."""


class Rotary(Enum):
    """How rotary positions pair the coordinates of a head."""

    NONE = "none"
    HALVES = "j with j + h/2"
    NEIGHBOURS = "2j with 2j + 1"


@dataclass(frozen=True)
class Attention:
    """The shape of an attention layer.

    Attributes:
        heads: query heads.
        groups: key-value heads; `heads` unless queries share them.
        head_width: h, query and key coordinates of a head.
        rotary: whether and how positions rotate queries and keys.
        scheme: how spaces are keyed.
        normalised: whether queries and keys are normalised with weights that heads share.
        value_width: value coordinates of a head; h unless it says otherwise.
        order_label: derives the order of heads; layers that share it keep one order.
    """

    heads: int
    groups: int
    head_width: int
    rotary: Rotary
    scheme: Scheme
    normalised: bool = False
    value_width: int | None = None
    order_label: str | None = None


def attention_spaces(name: str, shape: Attention) -> Mapping[str, Space]:
    """The spaces of one layer.

    Args:
        name: of the layer; derives its keys and ends the names of its spaces.
        shape: of the layer.

    Returns:
        `query.NAME`, `key.NAME`, `value.NAME`, `mixed.NAME` (what the heads write before the
        output projection), `heads.NAME` (a coordinate per query head) and, if normalised,
        `query norm.NAME` and `key norm.NAME`.
    """
    width = shape.value_width or shape.head_width

    def space(size: int, draw: Callable[[_AttentionKey], Transform]) -> Space:
        return Space(size, lambda keys: draw(_AttentionKey(keys, name, shape)))

    spaces = {
        f"query.{name}": space(
            shape.heads * shape.head_width, lambda key: key.by_head(key.queries)
        ),
        f"key.{name}": space(
            shape.groups * shape.head_width, lambda key: key.by_group(key.keyed_keys)
        ),
        f"value.{name}": space(shape.groups * width, lambda key: key.by_group(key.values)),
        f"mixed.{name}": space(shape.heads * width, lambda key: key.by_head(key.values)),
        f"heads.{name}": space(shape.heads, lambda key: key.by_head(_one)),
    }
    if shape.normalised:
        spaces |= {
            f"query norm.{name}": space(shape.head_width, lambda key: key.norm(1)),
            f"key norm.{name}": space(shape.head_width, lambda key: key.norm(-1)),
        }
    return spaces


def attention_offsets(name: str, shape: Attention) -> Mapping[str, Offset]:
    """Secret offsets of the biases of a layer whose projections all have one.

    A bias of the keys shifts all scores of a query alike where heads carry no positions, so
    that softmax does not see it. A bias of the values reaches every row with total weight
    one, so that the output's bias can take it back. Under the scheme `permutation`, which
    adds no numbers, there are none.
    """
    if shape.scheme is Scheme.PERMUTATION:
        return {}
    width = shape.value_width or shape.head_width

    def to_heads(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        of_groups = vector.reshape(shape.groups, width)
        return of_groups.repeat(shape.heads // shape.groups, axis=0).reshape(-1)

    def normal(label: str, size: int) -> Callable[[Keys], NDArray[np.float64]]:
        return lambda keys: OFFSET * keys.normal(f"layer {name} {label} offset", (size,))

    values = Offset(normal("values", shape.groups * width), f"mixed.{name}", to_heads)
    if shape.rotary is not Rotary.NONE:
        return {f"value.{name}": values}
    keys = Offset(normal("keys", shape.groups * shape.head_width))
    return {f"key.{name}": keys, f"value.{name}": values}


@dataclass(frozen=True)
class _AttentionKey:
    """The draws of one attention layer; groups are counted in the new order."""

    keys: Keys
    name: str
    shape: Attention

    def queries(self, group: int) -> Transform:
        """Of the query coordinates of a group."""
        return self._scores(group)

    def keyed_keys(self, group: int) -> Transform:
        """Of the key coordinates of a group."""
        return self._scores(group).dual()

    def values(self, group: int) -> Transform:
        """Of the value coordinates of a group."""
        label = f"layer {self.name} values {group}"
        width = self.shape.value_width or self.shape.head_width
        if self.shape.scheme is Scheme.ORTHOGONAL:
            return invertible(self.keys, label, width)
        return Monomial(self.keys.permutation(label, width))

    def norm(self, power: int) -> Monomial:
        """Of the weights that normalise queries (power 1) or keys (-1) in every head."""
        label, width = f"layer {self.name} norms", self.shape.head_width
        turned = self._shared_turn().unsigned()
        if self.shape.scheme is Scheme.PERMUTATION:
            return turned
        stretch = scales(self.keys, label, width // 2) ** power
        return turned.then_scaled(on_pairs(stretch, stretch, self.shape.rotary))

    def by_group(self, inside: Callable[[int], Transform]) -> Transform:
        """Each group under its own transform, groups in their new order."""
        parts = [(old, inside(new)) for new, old in enumerate(self._groups())]
        return _blocks(parts)

    def by_head(self, inside: Callable[[int], Transform]) -> Transform:
        """Each query head under its group's transform, heads in their new order."""
        share = self.shape.heads // self.shape.groups
        parts: list[tuple[int, Transform]] = []
        for new, old in enumerate(self._groups()):
            heads = self.keys.permutation(f"{self._order} heads {new}", share)
            transform = inside(new)
            parts += [(old * share + int(head), transform) for head in heads]
        return _blocks(parts)

    @property
    def _order(self) -> str:
        return self.shape.order_label or f"layer {self.name}"

    def _groups(self) -> list[int]:
        order = self.keys.permutation(f"{self._order} groups", self.shape.groups)
        return [int(group) for group in order]

    def _scores(self, group: int) -> Transform:
        """A, with which queries of a group are written and keys by its dual."""
        label, width = f"layer {self.name} scores {group}", self.shape.head_width
        if self.shape.normalised:
            flips = self.keys.signs(label, width // 2)
            return self._shared_turn().then_scaled(on_pairs(flips, flips, self.shape.rotary))
        exact = self.shape.scheme is Scheme.ORTHOGONAL
        if self.shape.rotary is Rotary.NONE:
            if exact:
                return invertible(self.keys, label, width)
            return Monomial(self.keys.permutation(label, width))
        return turned_pairs(self.keys, label, width, self.shape.rotary, self.shape.scheme)

    def _shared_turn(self) -> Monomial:
        """The quarter turns of pairs that all heads of a normalised layer share."""
        turns = self.keys.quarters(f"layer {self.name} turns", self.shape.head_width // 2)
        return quarter_turns(turns, self.shape.rotary)


def turned_pairs(
    keys: Keys, label: str, width: int, rotary: Rotary, scheme: Scheme
) -> Transform:
    """A key that commutes with rotary positions: each pair times a number of its own."""
    if scheme is Scheme.PERMUTATION:
        return quarter_turns(keys.quarters(label, width // 2), rotary)
    angle = 2 * np.pi * keys.uniform(label, width // 2)
    stretch = scales(keys, f"{label} stretch", width // 2)
    return complex_products(stretch * np.exp(1j * angle), rotary)


def _one(_: int) -> Transform:
    return Monomial.identity(1)


def _blocks(parts: list[tuple[int, Transform]]) -> Transform:
    return side_by_side([(old * inside.size, inside) for old, inside in parts])


def pairs(width: int, rotary: Rotary) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The coordinates of the real and the imaginary part of each pair."""
    half = np.arange(width // 2)
    if rotary is Rotary.NEIGHBOURS:
        return 2 * half, 2 * half + 1
    return half, half + width // 2


def on_pairs(
    real: NDArray[np.float64], imaginary: NDArray[np.float64], rotary: Rotary
) -> NDArray[np.float64]:
    """(h,) a number per coordinate from numbers per pair."""
    values = np.empty(2 * len(real))
    first, second = pairs(len(values), rotary)
    values[first], values[second] = real, imaginary
    return values


def quarter_turns(turns: NDArray[np.int64], rotary: Rotary) -> Monomial:
    """Multiplication of each pair, read as a complex number, by i^turns[j].

    Args:
        turns: (h/2,) from 0, 1, 2, 3.
        rotary: which coordinates are a pair.
    """
    first, second = pairs(2 * len(turns), rotary)
    odd = turns % 2 == 1
    index = np.empty(2 * len(turns), np.int64)
    index[first], index[second] = np.where(odd, second, first), np.where(odd, first, second)
    negative = ((turns == 1) | (turns == 2), (turns == 2) | (turns == 3))
    real, imaginary = (np.where(flags, -1.0, 1.0) for flags in negative)
    return Monomial(index, on_pairs(real, imaginary, rotary))


def complex_products(z: NDArray[np.complex128], rotary: Rotary) -> Dense:
    """Multiplication of each pair, read as a complex number, by z[j]."""

    def matrix(z: NDArray[np.complex128]) -> NDArray[np.float64]:
        first, second = pairs(2 * len(z), rotary)
        made = np.zeros((2 * len(z), 2 * len(z)))
        made[first, first] = made[second, second] = z.real
        made[first, second], made[second, first] = z.imag, -z.imag
        return made

    return Dense(matrix(z), matrix(1 / z))
