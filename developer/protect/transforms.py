"""Transforms: what the key of a space does to its coordinates.

A space (the residual stream, the neurons of a layer, the vocabulary) has d coordinates; its
transform is a matrix M (d, D), written for rows: `x' = x M`. An axis that *writes* a space is
multiplied by M, one that *reads* it by the dual of M, so that what is read is what was
written: `(x M)(w dual(M))^T = x w^T`.

Three forms are enough for every exact symmetry:

- `Monomial`: coordinates trade places and are scaled (permutations, signs, neuron scales);
- `Dense`: any matrix with a right inverse (rotations of the residual, of a head);
- `DirectSum`: transforms side by side (heads; spaces that lie one after another).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


class Transform(Protocol):
    """What the key of a space does to its coordinates."""

    @property
    def size(self) -> int:
        """d, coordinates before."""

    @property
    def new_size(self) -> int:
        """D, coordinates after."""

    def dual(self) -> Transform:
        """The transform of an axis that reads the space."""

    def apply(self, values: Floats, axis: int) -> Floats:
        """`values` with one axis multiplied by M, in the dtype of `values`."""

    def runs(self, limit: int) -> Iterator[Run]:
        """The transform cut into pieces of about `limit` new coordinates."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run of new coordinates, and what they are made of.

    Attributes:
        start: the first new coordinate.
        old: places of the old coordinates that are read.
        transform: from those to the new ones.
    """

    start: int
    old: NDArray[np.int64]
    transform: Transform


@dataclass(frozen=True, eq=False)
class Monomial:
    """Coordinates trade places and are scaled: `x'[j] = factor[j] * x[index[j]]`.

    Attributes:
        index: (d,) the old place of each new coordinate.
        factor: (d,) float64, none of them zero; None if all are one.
    """

    index: NDArray[np.int64]
    factor: NDArray[np.float64] | None = None

    @classmethod
    def identity(cls, size: int) -> Monomial:
        """The transform that changes nothing."""
        return cls(np.arange(size))

    @property
    def size(self) -> int:
        """d, coordinates before."""
        return len(self.index)

    @property
    def new_size(self) -> int:
        """The same: none is added."""
        return len(self.index)

    @cached_property
    def signed(self) -> bool:
        """Whether nothing is scaled, so that weights move without rounding."""
        return self.factor is None or bool((np.abs(self.factor) == 1).all())

    @cached_property
    def in_place(self) -> bool:
        """Whether no coordinate moves."""
        return bool((self.index == np.arange(self.size)).all())

    def factors(self) -> NDArray[np.float64]:
        """(d,) the factor of each new coordinate."""
        return np.ones(self.size) if self.factor is None else self.factor

    def order(self) -> NDArray[np.int64]:
        """(d,) the new place of each old coordinate: `x'[order[i]]` is made of `x[i]`."""
        return np.argsort(self.index)

    def dual(self) -> Monomial:
        """Places trade alike; factors are inverted."""
        return Monomial(self.index, None if self.factor is None else 1 / self.factor)

    def unsigned(self) -> Monomial:
        """The same without signs: of a norm's weights."""
        if self.signed:
            return Monomial(self.index)
        return Monomial(self.index, np.abs(self.factors()))

    def then_scaled(self, factor: NDArray[np.float64]) -> Monomial:
        """The same, with each new coordinate scaled as well."""
        return Monomial(self.index, self.factors() * factor)

    def apply(self, values: Floats, axis: int) -> Floats:
        """`values` with one axis reordered and scaled."""
        taken = values if self.in_place else values.take(self.index, axis=axis)
        return taken if self.factor is None else _scaled(taken, self.factor, axis)

    def runs(self, limit: int) -> Iterator[Run]:
        """Any run of new coordinates stands by itself."""
        for start in range(0, self.size, limit):
            run = slice(start, start + limit)
            old = self.index[run]
            factor = None if self.factor is None else self.factor[run]
            yield Run(start, old, Monomial(np.arange(len(old)), factor))


@dataclass(frozen=True, eq=False)
class Dense:
    """Any matrix with a right inverse.

    Attributes:
        matrix: M (d, D) float64.
        inverse: (D, d) with `M inverse = 1`; the transpose of M for a rotation.
        is_rotation: whether the rows of M are orthonormal.
    """

    matrix: NDArray[np.float64]
    inverse: NDArray[np.float64]
    is_rotation: bool = False

    @classmethod
    def rotation(cls, matrix: NDArray[np.float64]) -> Dense:
        """A matrix with orthonormal rows."""
        return cls(matrix, matrix.T, is_rotation=True)

    @property
    def size(self) -> int:
        """d, coordinates before."""
        return len(self.matrix)

    @property
    def new_size(self) -> int:
        """D, coordinates after."""
        return len(self.inverse)

    def dual(self) -> Dense:
        """Readers are multiplied by the transposed inverse; a rotation is its own dual."""
        return self if self.is_rotation else Dense(self.inverse.T, self.matrix.T)

    def apply(self, values: Floats, axis: int) -> Floats:
        """`values` with one axis multiplied by M."""
        matrix = self._single if values.dtype == np.float32 else self.matrix
        with np.errstate(invalid="ignore", over="ignore"):  # found by who knows the tensor
            if axis == 0 and values.ndim == 2:
                made: Floats = matrix.T @ values
                return made
            return np.moveaxis(np.moveaxis(values, axis, -1) @ matrix, -1, axis)

    def runs(self, limit: int) -> Iterator[Run]:
        """All in one: every new coordinate is made of all old ones."""
        yield Run(0, np.arange(self.size), self)

    @cached_property
    def _single(self) -> NDArray[np.float32]:
        """M for 16-bit tensors, which are computed in float32."""
        return self.matrix.astype(np.float32)


@dataclass(frozen=True, eq=False)
class DirectSum:
    """Transforms side by side, each reading its own run of old coordinates.

    Attributes:
        parts: where each one's old coordinates begin, and the transform; in the new order.
    """

    parts: tuple[tuple[int, Transform], ...]

    @property
    def size(self) -> int:
        """d, coordinates before."""
        return sum(part.size for _, part in self.parts)

    @property
    def new_size(self) -> int:
        """D, coordinates after."""
        return sum(part.new_size for _, part in self.parts)

    def dual(self) -> DirectSum:
        """The duals side by side."""
        return DirectSum(tuple((start, part.dual()) for start, part in self.parts))

    def apply(self, values: Floats, axis: int) -> Floats:
        """`values` with each run of an axis under its own transform."""
        before = (slice(None),) * axis
        return np.concatenate(
            [
                part.apply(values[(*before, slice(start, start + part.size))], axis)
                for start, part in self.parts
            ],
            axis=axis,
        )

    def runs(self, limit: int) -> Iterator[Run]:
        """Some parts at a time."""
        begin, held, held_size = 0, list[tuple[int, Transform]](), 0
        for start, part in self.parts:
            if held and held_size + part.new_size > limit:
                yield _sum_run(begin, held)
                begin, held, held_size = begin + held_size, [], 0
            held.append((start, part))
            held_size += part.new_size
        if held:
            yield _sum_run(begin, held)


def side_by_side(parts: Sequence[tuple[int, Transform]]) -> Transform:
    """The transforms of runs of coordinates, in the new order, as one.

    Args:
        parts: where each one's old coordinates begin, and its transform.
    """
    if len(parts) == 1 and parts[0][0] == 0:
        return parts[0][1]
    monomials = [(start, part) for start, part in parts if isinstance(part, Monomial)]
    if len(monomials) < len(parts):
        return DirectSum(tuple(parts))
    index = np.concatenate([start + part.index for start, part in monomials])
    if all(part.factor is None for _, part in monomials):
        return Monomial(index)
    return Monomial(index, np.concatenate([part.factors() for _, part in monomials]))


def joined(parts: Sequence[Transform]) -> Transform:
    """The transform of spaces that lie one after another on one axis."""
    starts = np.cumsum([0, *(part.size for part in parts)])[:-1]
    return side_by_side([(int(at), part) for at, part in zip(starts, parts, strict=True)])


def undone(transform: Transform, values: Floats) -> Floats:
    """Values (..., D) of a keyed space as they were (..., d), in the dtype of `values`."""
    if isinstance(transform, Monomial):
        plain: Floats = np.empty_like(values)
        plain[..., transform.index] = values / transform.factors().astype(values.dtype)
        return plain
    if isinstance(transform, DirectSum):
        return _parts_undone(transform, values)
    if isinstance(transform, Dense):
        mixed: Floats = values @ transform.inverse.astype(values.dtype)
        return mixed
    raise TypeError(f"a {type(transform).__name__} cannot be undone")


def _parts_undone(transform: DirectSum, values: Floats) -> Floats:
    plain: Floats = np.empty((*values.shape[:-1], transform.size), values.dtype)
    begin = 0
    for start, part in transform.parts:
        keyed = values[..., begin : begin + part.new_size]
        plain[..., start : start + part.size] = undone(part, keyed)
        begin += part.new_size
    return plain


def _sum_run(begin: int, parts: Sequence[tuple[int, Transform]]) -> Run:
    old = np.concatenate([np.arange(start, start + part.size) for start, part in parts])
    return Run(begin, old, joined([part for _, part in parts]))


def _scaled(values: Floats, factor: NDArray[np.float64], axis: int) -> Floats:
    shape = [1] * values.ndim
    shape[axis] = len(factor)
    scaled: Floats = values * factor.reshape(shape).astype(values.dtype)
    return scaled
