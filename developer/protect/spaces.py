"""The spaces of a Transformer and the groups from which their keys are drawn.

Two schemes: `permutation` draws permutations (and, where those would be wrong, signs) that
move weights bit for bit; `orthogonal` draws from the largest group that leaves the family's
function exactly as it was. What a space admits depends on what reads it:

- RMSNorm looks at the length of a row alone: any rotation, once its weights are folded into
  the readers. LayerNorm takes the mean away first, so 1 must stay an eigenvector.
- Where the output of a norm is itself the residual (BERT, Gemma 2), its weights stay, and
  only coordinates may trade places (and, under RMSNorm, change sign).
- An activation looks at each neuron alone: neurons trade places. In a gated layer the linear
  half may be scaled as well, if what reads the product divides by the scale.

A space is drawn from labels alone, so that spaces drawn one by one agree with each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from triparty.developer.protect.keys import Keys
from triparty.developer.protect.transforms import Dense, Monomial, Transform

LARGEST_SCALE = 2.0
"""Scales are drawn between 1/2 and 2, so that no key costs more than a few bits."""

_REFLECTIONS = 128
_SUBTRACTED_ROWS = 512


class Scheme(StrEnum):
    """How spaces are keyed."""

    PERMUTATION = "permutation"
    ORTHOGONAL = "orthogonal"


class Norm(StrEnum):
    """What normalises a residual."""

    RMS = "RMSNorm"
    LAYER = "LayerNorm"


@dataclass(frozen=True)
class Space:
    """Coordinates that move together wherever a tensor has them as an axis.

    Attributes:
        size: how many coordinates.
        draw: their transform under some keys.
        expanded: how many coordinates after, if keying adds some.
        is_mixed: whether the key is one matrix over all coordinates, which takes time to draw.
    """

    size: int
    draw: Callable[[Keys], Transform]
    expanded: int | None = None
    is_mixed: bool = False

    @property
    def new_size(self) -> int:
        """How many coordinates after, known before the key is drawn."""
        return self.size if self.expanded is None else self.expanded


@dataclass(frozen=True)
class Offset:
    """A secret vector that is added to a bias, where that changes no answer.

    Attributes:
        draw: the vector under some keys, a number per old coordinate of the space.
        read_as: the space as its reader sees it, whose bias takes the vector back; None
            where nothing has to.
        seen: the vector per old coordinate of that space.
    """

    draw: Callable[[Keys], NDArray[np.float64]]
    read_as: str | None = None
    seen: Callable[[NDArray[np.float64]], NDArray[np.float64]] = lambda vector: vector


def fixed(size: int) -> Space:
    """A space that keeps its order: token ids and positions on the device."""
    return Space(size, lambda keys: Monomial.identity(size))


def permuted(label: str, size: int) -> Space:
    """A space whose coordinates trade places freely, under any scheme."""
    return Space(size, lambda keys: Monomial(keys.permutation(label, size)))


def signed(label: str, size: int) -> Space:
    """A space whose coordinates trade places and change sign."""

    def draw(keys: Keys) -> Monomial:
        return Monomial(keys.permutation(label, size), keys.signs(f"{label} signs", size))

    return Space(size, draw)


def residual(
    label: str,
    size: int,
    *,
    scheme: Scheme,
    norm: Norm,
    norm_is_residual: bool = False,
    new_size: int | None = None,
) -> Space:
    """The residual stream.

    Args:
        label: derives its key.
        size: d.
        scheme: how spaces are keyed.
        norm: what normalises it before it is read.
        norm_is_residual: whether some norm's output is added to it, so that the norm's
            weights cannot be folded away.
        new_size: D of an isometric expansion, for rotations under RMSNorm alone.
    """
    if scheme is Scheme.PERMUTATION or (norm_is_residual and norm is Norm.LAYER):
        return permuted(label, size)
    if norm_is_residual:
        return signed(label, size)
    if norm is Norm.LAYER:
        return Space(
            size,
            lambda keys: Dense.rotation(mean_keeping_rotation(keys, label, size)),
            is_mixed=True,
        )
    wide = new_size or size
    return Space(
        size,
        lambda keys: Dense.rotation(rotation(keys, label, size, wide)),
        expanded=new_size,
        is_mixed=True,
    )


def rotated(label: str, size: int, *, scheme: Scheme) -> Space:
    """A space that nothing but linear maps reads: rotated, or permuted."""
    if scheme is Scheme.PERMUTATION:
        return permuted(label, size)
    return Space(
        size, lambda keys: Dense.rotation(rotation(keys, label, size, size)), is_mixed=True
    )


def mixed(label: str, size: int, *, scheme: Scheme) -> Space:
    """A space between two linear maps alone: any invertible matrix, or permuted."""
    if scheme is Scheme.PERMUTATION:
        return permuted(label, size)
    return Space(size, lambda keys: invertible(keys, label, size), is_mixed=True)


def gated_neurons(label: str, size: int, *, scheme: Scheme) -> tuple[Space, Space]:
    """The neurons of a gated layer: of the activated half, and of the linear half.

    The product of both halves is scaled as the linear one is, so its reader names that one.
    """
    gate = permuted(label, size)
    return gate, scaled(gate, f"{label} scales") if scheme is Scheme.ORTHOGONAL else gate


def scaled(space: Space, label: str, *, negative: bool = True) -> Space:
    """A space of coordinates that trade places, each scaled as well.

    Args:
        space: one whose key is a `Monomial`.
        label: derives the scales.
        negative: whether they may be negative.
    """

    def draw(keys: Keys) -> Transform:
        transform = space.draw(keys)
        if not isinstance(transform, Monomial):
            raise TypeError(f"{label!r}: only coordinates that trade places can be scaled")
        factor = scales(keys, label, space.size)
        if negative:
            factor = factor * keys.signs(f"{label} signs", space.size)
        return Monomial(transform.index, transform.factors() * factor)

    return Space(space.size, draw)


def head_scaled(space: Space) -> Space:
    """The space of answers, each scaled so that only who has the scales can compare them.

    The scales are float32 numbers, so that the device has them exactly.
    """

    def draw(keys: Keys) -> Transform:
        transform = scaled(space, "head scales").draw(keys)
        if not isinstance(transform, Monomial):
            raise TypeError("only answers that trade places can be scaled")
        return Monomial(transform.index, transform.factors().astype(np.float32).astype(float))

    return Space(space.size, draw)


def scales(keys: Keys, label: str, size: int) -> NDArray[np.float64]:
    """(size,) factors between 1/2 and 2, their logarithms uniform."""
    exponents = 2.0 * keys.uniform(label, size) - 1.0
    factors: NDArray[np.float64] = LARGEST_SCALE**exponents
    return factors


def rotation(keys: Keys, label: str, size: int, new_size: int) -> NDArray[np.float64]:
    """(size, new_size) orthonormal rows, uniformly distributed.

    A product of reflections: each takes a vector of normal draws, one coordinate shorter than
    the one before, to an axis and keeps its direction. That is what the QR decomposition of a
    matrix of normal draws gives (Stewart 1980; Mezzadri 2007), without the matrix. Reflections
    are applied a block at a time (Schreiber and Van Loan 1989), the last one first.
    """
    made = np.eye(size, new_size)
    for start in reversed(range(0, size, _REFLECTIONS)):
        count = min(_REFLECTIONS, size - start)
        draws = keys.normal(f"{label} rotation {start}", (count, new_size - start))
        vectors, triangle, signs = _reflections(np.triu(draws))
        rest = made[start:, start:]
        rest[np.arange(count), np.arange(count)] = signs
        _subtract(rest, (rest @ vectors.T) @ triangle.T, vectors)
    return made


def _reflections(
    draws: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Reflections that take the rows of `draws`, zero before the diagonal, to their axes.

    Returns:
        V (k, n) and upper triangular T (k, k), with which 1 - V^T T V is the product of all;
        (k,) the signs of the rows' own directions along their axes.
    """
    count = len(draws)
    axes = np.arange(count)
    signs = np.where(draws[axes, axes] < 0, 1.0, -1.0)
    vectors = draws.copy()
    vectors[axes, axes] -= signs * np.linalg.norm(draws, axis=1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    inner = vectors @ vectors.T
    triangle = np.zeros((count, count))
    for last in range(count):
        triangle[:last, last] = -2.0 * triangle[:last, :last] @ inner[:last, last]
        triangle[last, last] = 2.0
    return vectors, triangle, signs


def _subtract(
    target: NDArray[np.float64], left: NDArray[np.float64], right: NDArray[np.float64]
) -> None:
    """Does `target -= left @ right`, some rows at a time: no second matrix of its size."""
    for start in range(0, len(target), _SUBTRACTED_ROWS):
        rows = slice(start, start + _SUBTRACTED_ROWS)
        target[rows] -= left[rows] @ right


def mean_keeping_rotation(keys: Keys, label: str, size: int) -> NDArray[np.float64]:
    """(size, size) orthogonal, with 1 as an eigenvector to 1 or -1, uniform among those.

    In a basis that begins with 1 (a Householder reflection takes the first unit vector
    there) it is a sign beside a rotation of the rest.
    """
    inner = np.zeros((size, size))
    inner[0, 0] = keys.signs(f"{label} mean", 1)[0]
    if size > 1:
        inner[1:, 1:] = rotation(keys, label, size - 1, size - 1)
    mirror = np.full(size, -1 / np.sqrt(size))
    mirror[0] += 1.0
    if not mirror.any():
        return inner
    mirror /= np.linalg.norm(mirror)
    _subtract(inner, 2.0 * mirror[:, None], (mirror @ inner)[None])
    _subtract(inner, 2.0 * (inner @ mirror)[:, None], mirror[None])
    return inner


def invertible(keys: Keys, label: str, size: int) -> Dense:
    """An invertible matrix of condition number at most 4: two rotations and scales."""
    left = rotation(keys, f"{label} left", size, size)
    right = rotation(keys, f"{label} right", size, size)
    stretch = scales(keys, f"{label} stretch", size)
    return Dense((left * stretch) @ right, (right.T / stretch) @ left.T)
