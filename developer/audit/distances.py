"""How near rows can come to other rows under a rotation of which something is known.

The rotation that takes rows nearest to others is the orthogonal factor of their product, and
the distance that it leaves follows from that product's singular values alone (Schoenemann
1966). On what the pairs do not span, any rotation goes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_SPANNED = 0.02  # of the largest singular value: directions that pairs say something about


@dataclass(frozen=True, eq=False)
class Fit:
    """What pairs of rows tell of the rotation between them.

    Attributes:
        left: (d, r) an orthonormal basis of what the plain rows span.
        right: (D, r) where the rotation takes it.
        misfit: mean squared distance that it leaves, of rows of length one.
    """

    left: Values
    right: Values
    misfit: float

    @classmethod
    def of(cls, plain: Values, keyed: Values) -> Fit:
        """Fits rows (m, d) of length one to rows (m, D)."""
        left, spectrum, right = np.linalg.svd(plain.T @ keyed, full_matrices=False)
        kept = spectrum > _SPANNED * spectrum[0]
        misfit = 2 - 2 * float(spectrum.sum()) / len(plain)
        return cls(left[:, kept], right[kept].T, misfit)


def least_distances(plain: Values, keyed: Values, known: Fit | None = None) -> Values:
    """(C,) least distance between stacks of rows under any rotation that does what is known.

    Args:
        plain: (C, k, d) stacks that may be behind the rows.
        keyed: (k, D) rows.
        known: of the rotation; None for nothing.
    """
    near = np.zeros(len(plain))
    inner = plain @ plain.transpose(0, 2, 1)
    other = keyed @ keyed.T
    if known is not None:
        found, within = plain @ known.left, keyed @ known.right
        near = np.square(found - within).sum(axis=(1, 2))
        inner = inner - found @ found.transpose(0, 2, 1)
        other = other - within @ within.T
    return np.sqrt(near + _rest(inner, other))


def _rest(inner: Values, other: Values) -> Values:
    """(C,) least squared distance of rows, of which only inner products are known.

    Args:
        inner: (C, k, k) of each stack.
        other: (k, k) of the rows.
    """
    shared = np.linalg.svd(_root(inner) @ _root(other), compute_uv=False).sum(axis=-1)
    squares = np.trace(inner, axis1=1, axis2=2) + np.trace(other) - 2 * shared
    least: Values = np.maximum(squares, 0.0)
    return least


def _root(inner: Values) -> Values:
    """The symmetric square root of positive matrices (..., k, k), rounding aside."""
    roots, axes = np.linalg.eigh(inner)
    roots = np.sqrt(np.maximum(roots, 0.0))
    root: Values = (axes * roots[..., None, :]) @ np.swapaxes(axes, -1, -2)
    return root
