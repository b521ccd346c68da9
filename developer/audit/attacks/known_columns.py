"""Known plaintext against a permutation: which column of the wire is which of the plain.

Each known row says of every column what value it has. One row tells nearly all columns of a
wide model apart, two rows all of them: a chat template or the begin-of-text token is enough.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import Matrix, ResidualKey
from triparty.developer.audit.controls import turned_apart
from triparty.developer.audit.knowledge import Knowledge, KnownRows, given
from triparty.developer.audit.levels import Level

Columns = tuple[NDArray[np.int64], NDArray[np.float64]]

_BLOCK = 512
_UNLIKELY = 0.5  # share of known rows' energy that a permutation leaves unexplained


class KnownColumns:
    """Matches columns of known rows, up to their signs."""

    name = "known-columns"
    level = Level.K1
    target = Target.KEY
    cites = "known-plaintext attack on a permutation, folklore; thesis 4.4"
    means = "A template that everybody knows gives the key of all traffic, past and future."
    remedy = "Use the scheme `orthogonal`; keys of small cohorts, changed often."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs known rows, as wide as they were before."""
        if knowledge.known is None:
            return "no plaintext is known"
        if knowledge.known.plain.shape[1] != knowledge.known.keyed.shape[1]:
            return "the residual was expanded: a wire row has more columns than a plain one"
        return None

    def mount(self, knowledge: Knowledge) -> ResidualKey:
        """The signed permutation that explains the known rows; zeros if none does."""
        known = given(knowledge.known)
        plain, keyed = known.plain.astype(np.float64), known.keyed.astype(np.float64)
        found = _matched(plain, keyed)
        key = _key(found)
        left = np.square(keyed - plain @ key).sum() / np.square(keyed).sum()
        if left > _UNLIKELY:
            return ResidualKey(np.zeros_like(key), {"known_rows": len(plain)})
        return ResidualKey(key, _figures(plain, keyed, found))

    def control(self, knowledge: Knowledge) -> Knowledge:
        """Known rows that no permutation leads to."""
        known = given(knowledge.known)
        return replace(knowledge, known=KnownRows(turned_apart([known.keyed])[0], known.plain))


def _matched(plain: Matrix, keyed: Matrix) -> Columns:
    """(D,) for each keyed column the nearest plain one, and the sign that brings it there."""
    squares = np.square(plain).sum(axis=0)
    nearest = np.empty(keyed.shape[1], np.int64)
    signs = np.empty(keyed.shape[1])
    for start in range(0, keyed.shape[1], _BLOCK):
        products = keyed[:, start : start + _BLOCK].T @ plain
        best = np.argmin(squares - 2 * np.abs(products), axis=1)
        nearest[start : start + _BLOCK] = best
        signs[start : start + _BLOCK] = np.sign(products[np.arange(len(best)), best])
    return nearest, signs


def _key(found: Columns) -> Matrix:
    nearest, signs = found
    key = np.zeros((len(nearest), len(nearest)))
    key[nearest, np.arange(len(nearest))] = signs
    return key


def _figures(plain: Matrix, keyed: Matrix, found: Columns) -> dict[str, float]:
    """How many of the known rows would have been enough, and what one of them gives."""

    def agreeing(count: int) -> float:
        fewer = _matched(plain[:count], keyed[:count])
        return float(((fewer[0] == found[0]) & (fewer[1] == found[1])).mean())

    enough = next(n for n in range(1, len(plain) + 1) if agreeing(n) == 1.0)
    return {
        "known_rows": len(plain),
        "rows_that_were_enough": enough,
        "columns_by_one_row": agreeing(1),
    }
