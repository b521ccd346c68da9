"""Signed permutations: the transforms of the scheme `permutation`.

A space (the residual stream, the neurons of a layer, the vocabulary) has D coordinates; its
key says where each one goes. Written for rows `x' = x R`:

    x'[j] = sign[j] * x[index[j]]

A signed permutation is orthogonal, so the axis of a weight that *reads* a space and the axis
of one that *writes* it move alike: `(x R)(R^T W) = x W`. Weights move as bit patterns, with
the sign bit flipped where the sign is negative: nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 16 << 20


@dataclass(frozen=True, eq=False)
class SignedPermutation:
    """Where each coordinate of a space goes, and whether it is negated.

    Attributes:
        index: (D,) the old place of each new coordinate.
        negative: (D,) whether the new coordinate is negated; None if none is.
    """

    index: NDArray[np.int64]
    negative: NDArray[np.bool_] | None = None

    @classmethod
    def identity(cls, size: int) -> SignedPermutation:
        """The transform that changes nothing."""
        return cls(np.arange(size))

    @classmethod
    def joined(cls, parts: Sequence[SignedPermutation]) -> SignedPermutation:
        """The transform of spaces that lie one after another on one axis."""
        if len(parts) == 1:
            return parts[0]
        starts = np.cumsum([0, *(part.size for part in parts[:-1])])
        index = np.concatenate([s + p.index for s, p in zip(starts, parts, strict=True)])
        if all(part.negative is None for part in parts):
            return cls(index)
        return cls(index, np.concatenate([part.flips() for part in parts]))

    @property
    def size(self) -> int:
        """D, coordinates of the space."""
        return len(self.index)

    def flips(self) -> NDArray[np.bool_]:
        """(D,) whether each new coordinate is negated."""
        if self.negative is None:
            return np.zeros(self.size, dtype=np.bool_)
        return self.negative

    def order(self) -> NDArray[np.int64]:
        """(D,) the new place of each old coordinate: `x'[order[i]] == +-x[i]`."""
        return np.argsort(self.index)


def moved(bits: NDArray[Any], axes: Sequence[SignedPermutation]) -> Iterator[NDArray[Any]]:
    """The bytes of a tensor under the keys of its axes, a run of leading rows at a time.

    Args:
        bits: the elements' bit patterns, one axis per transform; read lazily if it is a
            memory map.
        axes: a transform per axis.

    Yields:
        Consecutive pieces along the first axis, together the whole transformed tensor.
    """
    first, rest = axes[0], axes[1:]
    row_bytes = max(1, prod(bits.shape[1:]) * bits.itemsize)
    rows = max(1, CHUNK_BYTES // row_bytes)
    for start in range(0, first.size, rows):
        run = slice(start, start + rows)
        piece = bits.take(first.index[run], axis=0)
        for axis, transform in enumerate(rest, start=1):
            if not _is_identity(transform):
                piece = piece.take(transform.index, axis=axis)
        yield _negated(
            piece,
            [first.negative[run] if first.negative is not None else None]
            + [transform.negative for transform in rest],
        )


def _is_identity(transform: SignedPermutation) -> bool:
    return bool((transform.index == np.arange(transform.size)).all())


def _negated(piece: NDArray[Any], flips: Sequence[NDArray[np.bool_] | None]) -> NDArray[Any]:
    if all(flip is None for flip in flips):
        return piece
    sign_bit = piece.dtype.type(1 << (8 * piece.itemsize - 1))
    for axis, flip in enumerate(flips):
        if flip is not None:
            shape = [1] * piece.ndim
            shape[axis] = len(flip)
            piece ^= flip.reshape(shape).astype(piece.dtype) * sign_bit
    return piece
