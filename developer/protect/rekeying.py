"""Applies transforms to the axes of one stored tensor, a piece at a time.

Where every transform is a signed permutation and nothing is folded in, bit patterns move and
nothing is rounded. Otherwise values are computed in float64 (F32 and F64 tensors) or float32
(16-bit tensors) and rounded once.

Memory: the source is a memory map; what is made lies in memory a run of rows at a time, or
whole where the first axis is mixed by a dense matrix. Where coordinates only trade places, a
run is small enough for the processor's cache; a matrix needs longer ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import CheckpointError
from triparty.common.wire import bfloat16_to_float32, float32_to_bfloat16
from triparty.developer.protect.transforms import Floats, Monomial, Run, Transform

CHUNK_BYTES = 16 << 20
CACHED_BYTES = 1 << 20
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_STORAGE = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_EXPONENT = {"F64": 0x7FF << 52, "F32": 0xFF << 23, "F16": 0x1F << 10, "BF16": 0xFF << 7}


@dataclass(frozen=True, eq=False)
class Matter:
    """A stored tensor and what is done to it before it is keyed.

    Attributes:
        name: for error messages.
        dtype: as the tensor format names it.
        bits: bit patterns, at most two axes; a memory map.
        scale: for each axis a factor per old coordinate, or None.
        factor: of all elements.
        plus: added to the elements of a tensor with one axis after all factors, or None.
    """

    name: str
    dtype: str
    bits: NDArray[Any]
    scale: tuple[NDArray[np.float64] | None, ...]
    factor: float = 1.0
    plus: NDArray[np.float64] | None = None

    @classmethod
    def stored(cls, name: str, dtype: str, bits: NDArray[Any]) -> Matter:
        """A tensor as it is."""
        return cls(name, dtype, bits, (None,) * bits.ndim)

    @property
    def plain(self) -> bool:
        """Whether nothing is done to it before it is keyed."""
        return self.factor == 1 and self.plus is None and all(s is None for s in self.scale)

    def values(self, *old: NDArray[np.int64]) -> Floats:
        """The elements at these coordinates of each axis, in the dtype to compute in."""
        taken = self.bits
        for axis, places in enumerate(old):
            if len(places) != taken.shape[axis] or (places != np.arange(len(places))).any():
                taken = taken.take(places, axis=axis)
        values = to_floats(taken, self.dtype)
        with np.errstate(invalid="ignore", over="ignore"):  # found in what is made of them
            for axis, (scale, places) in enumerate(zip(self.scale, old, strict=True)):
                if scale is not None:
                    shape = [1] * values.ndim
                    shape[axis] = len(places)
                    values *= scale[places].reshape(shape).astype(values.dtype)
            if self.factor != 1:
                values *= values.dtype.type(self.factor)
        return values if self.plus is None else values + self.plus[old[0]]


def rekeyed(matter: Matter, axes: Sequence[Transform]) -> Iterator[NDArray[Any]]:
    """The bit patterns of a tensor under the transforms of its axes.

    Args:
        matter: the tensor.
        axes: a transform per axis.

    Yields:
        Consecutive pieces along the first axis, together the whole transformed tensor.

    Raises:
        CheckpointError: the tensor holds NaN or infinity, or does not fit into its dtype.
    """
    if not axes:
        yield matter.bits.reshape(1)
        return
    monomials = [t for t in axes if isinstance(t, Monomial) and t.signed]
    if matter.plain and len(monomials) == len(axes):
        pieces = moved(matter.bits, monomials)
    else:
        pieces = _computed(matter, axes)
    for piece in pieces:
        if not _finite(piece, matter.dtype):
            raise CheckpointError(
                f"tensor {matter.name!r} holds NaN or infinity, before or after it is keyed; "
                f"check the checkpoint, or save it as float32 if it is float16"
            )
        yield piece


def moved(bits: NDArray[Any], axes: Sequence[Monomial]) -> Iterator[NDArray[Any]]:
    """The bit patterns of a tensor whose axes are reordered and negated.

    Args:
        bits: the elements' bit patterns, one axis per transform.
        axes: signed permutations.
    """
    for run in axes[0].runs(_rows(bits.shape, bits.itemsize, CACHED_BYTES)):
        piece = bits.take(run.old, axis=0)
        for axis, transform in enumerate(axes[1:], start=1):
            if not transform.in_place:
                piece = piece.take(transform.index, axis=axis)
        factors = [run.transform.factor] if isinstance(run.transform, Monomial) else []
        yield _negated(piece, [*factors, *(transform.factor for transform in axes[1:])])


def to_floats(bits: NDArray[Any], dtype: str) -> Floats:
    """Values to compute with, a copy: float64 of F64 and F32 elements, else float32."""
    if dtype == "BF16":
        return bfloat16_to_float32(bits)
    values = np.ascontiguousarray(bits).view(_STORAGE[dtype])
    return values.astype(np.float32 if dtype == "F16" else np.float64)


def to_bits(values: Floats, dtype: str) -> NDArray[Any]:
    """The bit patterns of the nearest elements of a dtype."""
    if dtype == "BF16":
        return float32_to_bfloat16(values.astype(np.float32, copy=False))
    with np.errstate(over="ignore"):  # found by the caller, who knows the tensor's name
        stored = np.ascontiguousarray(values.astype(_STORAGE[dtype]))
    return stored.view(f"<u{stored.itemsize}")


def _computed(matter: Matter, axes: Sequence[Transform]) -> Iterator[NDArray[Any]]:
    if len(axes) == 1:
        everything = np.arange(axes[0].size)
        yield to_bits(axes[0].apply(matter.values(everything), 0), matter.dtype)
        return
    first, second = axes
    traded = all(isinstance(axis, Monomial) for axis in axes)
    limit = _rows(matter.bits.shape, 8, CACHED_BYTES if traded else CHUNK_BYTES)
    runs = list(first.runs(limit))
    if len(runs) == 1 and first.size > limit:
        yield _by_columns(matter, runs[0], second)
        return
    (columns,) = second.runs(second.new_size)
    for run in runs:
        values = columns.transform.apply(matter.values(run.old, columns.old), 1)
        yield to_bits(run.transform.apply(values, 0), matter.dtype)


def _by_columns(matter: Matter, rows: Run, columns: Transform) -> NDArray[Any]:
    """The whole tensor, a run of columns at a time: its rows are mixed by one matrix."""
    made = np.empty((rows.transform.new_size, columns.new_size), matter.bits.dtype)
    for run in columns.runs(_rows(matter.bits.shape[::-1], 8, CHUNK_BYTES)):
        values = matter.values(rows.old, run.old)
        mixed = run.transform.apply(rows.transform.apply(values, 0), 1)
        made[:, run.start : run.start + mixed.shape[1]] = to_bits(mixed, matter.dtype)
    return made


def _rows(shape: tuple[int, ...], item_bytes: int, piece_bytes: int) -> int:
    """How many rows make a piece."""
    width = 1
    for size in shape[1:]:
        width *= size
    return max(1, piece_bytes // max(1, width * item_bytes))


def _finite(bits: NDArray[Any], dtype: str) -> bool:
    mask = bits.dtype.type(_EXPONENT[dtype])
    return not bits.size or bool((bits & mask).max() < mask)


def _negated(
    piece: NDArray[Any], factors: Sequence[NDArray[np.float64] | None]
) -> NDArray[Any]:
    if all(factor is None for factor in factors):
        return piece
    sign_bit = piece.dtype.type(1 << (8 * piece.itemsize - 1))
    for axis, factor in enumerate(factors):
        if factor is not None:
            shape = [1] * piece.ndim
            shape[axis] = len(factor)
            piece ^= (factor < 0).reshape(shape).astype(piece.dtype) * sign_bit
    return piece
