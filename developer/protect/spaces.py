"""The spaces of a Transformer and how the scheme `permutation` draws their keys.

A space is drawn from labels alone, so that the four spaces of an attention layer, drawn one
by one, agree with each other.

Two public formulas for attention are wrong in every model with more than one head: a
permutation over the whole width mixes the heads, and one inside a head does not commute with
rotary positions. What is exact is drawn here:

- key-value groups trade places, and the query heads inside a group do;
- value coordinates of a group are permuted, and with them what its query heads write;
- query and key coordinates of a group: permuted where the head carries no positions; with
  rotary positions each frequency pair (j, j + h/2) is a complex number, the rotation
  multiplies it by e^(i position frequency), and only multiplication by another z commutes
  with that. q z and k conj(z)^-1 leave q conj(k) as it was; z in {1, i, -1, -i} moves
  weights without rounding, and there conj(z)^-1 = z.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triparty.developer.protect.keys import Keys
from triparty.developer.protect.transforms import SignedPermutation


@dataclass(frozen=True)
class Space:
    """Coordinates that move together wherever a tensor has them as an axis.

    Attributes:
        size: how many coordinates.
        draw: their transform under some keys.
    """

    size: int
    draw: Callable[[Keys], SignedPermutation]


@dataclass(frozen=True)
class Attention:
    """The shape of a self-attention layer.

    Attributes:
        heads: query heads.
        groups: key-value heads; `heads` unless queries share them.
        head_width: h, coordinates of a head.
        rotary: whether positions rotate queries and keys.
    """

    heads: int
    groups: int
    head_width: int
    rotary: bool


def fixed(size: int) -> Space:
    """A space that keeps its order: token ids and positions on the device."""
    return Space(size, lambda keys: SignedPermutation.identity(size))


def permuted(label: str, size: int) -> Space:
    """A space whose coordinates are permuted freely."""
    return Space(size, lambda keys: SignedPermutation(keys.permutation(label, size)))


def attention_spaces(layer: int, shape: Attention) -> Mapping[str, Space]:
    """The spaces of a layer's queries, keys, values, and what the heads write ("mixed")."""
    queries, groups = shape.heads * shape.head_width, shape.groups * shape.head_width

    def space(size: int, draw: Callable[[_AttentionKey], SignedPermutation]) -> Space:
        return Space(size, lambda keys: draw(_AttentionKey(keys, f"layer {layer} ", shape)))

    return {
        f"query.{layer}": space(queries, lambda key: key.by_head(key.scores)),
        f"key.{layer}": space(groups, lambda key: key.by_group(key.scores)),
        f"value.{layer}": space(groups, lambda key: key.by_group(key.values)),
        f"mixed.{layer}": space(queries, lambda key: key.by_head(key.values)),
    }


@dataclass(frozen=True)
class _AttentionKey:
    """The draws of one attention layer."""

    keys: Keys
    label: str
    shape: Attention

    def scores(self, group: int) -> SignedPermutation:
        """Of the query and key coordinates of a (new) group."""
        label, width = f"{self.label}scores {group}", self.shape.head_width
        if self.shape.rotary:
            return quarter_turns(self.keys.quarters(label, width // 2))
        return SignedPermutation(self.keys.permutation(label, width))

    def values(self, group: int) -> SignedPermutation:
        """Of the value coordinates of a (new) group."""
        label = f"{self.label}values {group}"
        return SignedPermutation(self.keys.permutation(label, self.shape.head_width))

    def by_group(self, inside: Callable[[int], SignedPermutation]) -> SignedPermutation:
        parts = [(old, inside(new)) for new, old in enumerate(self._groups())]
        return _blocks(parts, self.shape.head_width)

    def by_head(self, inside: Callable[[int], SignedPermutation]) -> SignedPermutation:
        share = self.shape.heads // self.shape.groups
        parts = []
        for new, old in enumerate(self._groups()):
            heads = self.keys.permutation(f"{self.label}heads {new}", share)
            transform = inside(new)
            parts += [(old * share + int(head), transform) for head in heads]
        return _blocks(parts, self.shape.head_width)

    def _groups(self) -> list[int]:
        order = self.keys.permutation(f"{self.label}groups", self.shape.groups)
        return [int(group) for group in order]


def _blocks(parts: list[tuple[int, SignedPermutation]], width: int) -> SignedPermutation:
    index = np.concatenate([old * width + inside.index for old, inside in parts])
    if all(inside.negative is None for _, inside in parts):
        return SignedPermutation(index)
    return SignedPermutation(index, np.concatenate([inside.flips() for _, inside in parts]))


def quarter_turns(turns: NDArray[np.int64]) -> SignedPermutation:
    """Multiplication of the pair (j, j + h/2), read as a complex number, by i^turns[j].

    Args:
        turns: (h/2,) from 0, 1, 2, 3.
    """
    half = len(turns)
    low, high = np.arange(half), np.arange(half) + half
    odd = turns % 2 == 1
    index = np.concatenate([np.where(odd, high, low), np.where(odd, low, high)])
    negative = np.concatenate([(turns == 1) | (turns == 2), (turns == 2) | (turns == 3)])
    return SignedPermutation(index, negative)
