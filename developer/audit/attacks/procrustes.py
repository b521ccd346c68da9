"""Known plaintext against a rotation: orthogonal Procrustes, by one decomposition (SVD).

m known rows give the key exactly on the subspace of m dimensions that they span, which tells
tokens apart long before it is the whole. With the table, the rows that this reads are known
plaintext in turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from triparty.developer.audit.attack import Target
from triparty.developer.audit.attacks.gram import NOISES, puzzle_of
from triparty.developer.audit.claims import ResidualKey
from triparty.developer.audit.controls import turned_apart
from triparty.developer.audit.isometries import Isometry, grown, procrustes
from triparty.developer.audit.knowledge import Knowledge, KnownRows, given
from triparty.developer.audit.lengths import precision, squares
from triparty.developer.audit.levels import Level

_ENOUGH = 4  # known rows to measure noise by


class Procrustes:
    """Fits a rotation to known rows."""

    name = "procrustes"
    level = Level.K1
    target = Target.KEY
    cites = "orthogonal Procrustes: Schönemann, Psychometrika 1966"
    means = "Known text gives the rotation, and with it all traffic, past and future."
    remedy = "Change keys before as many different tokens are known as the residual is wide."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs known rows."""
        return _lacks_known(knowledge)

    def mount(self, knowledge: Knowledge) -> ResidualKey:
        """The key on the subspace that the known rows span."""
        known = given(knowledge.known)
        found = fitted_to(known, len(known.plain))
        return ResidualKey(
            found.key, {"known_rows": len(known.plain), "dimensions": found.plain.shape[1]}
        )

    def control(self, knowledge: Knowledge) -> Knowledge:
        """Known rows that each have another rotation."""
        return _apart(knowledge)


class ProcrustesTable:
    """Fits a rotation to a few known rows, reads others with it, and fits it to them too."""

    name = "procrustes-table"
    level = Level.K2
    target = Target.KEY
    cites = "closest points: Besl and McKay 1992, begun by known plaintext"
    means = "Two or three known tokens give the rotation to who has the table."
    remedy = "Decoys like the real texts; changing keys is of no use."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs known rows, a table and traffic."""
        if knowledge.table is None or not knowledge.traffic:
            return "there is no traffic to match"
        return _lacks_known(knowledge)

    def mount(self, knowledge: Knowledge) -> ResidualKey:
        """The key by the fewest known rows that lead to one; zeros if none do."""
        known, puzzle = given(knowledge.known), puzzle_of(knowledge)
        noises = _noises(known)
        for count in _counts(len(known.plain)):
            for noise in noises:
                fit = grown(puzzle, fitted_to(known, count), noise=noise)
                if fit.holds(noise):
                    return ResidualKey(fit.isometry.key, {"known_rows": count})
        shape = known.plain.shape[1], known.keyed.shape[1]
        return ResidualKey(np.zeros(shape), {"known_rows": len(known.plain)})

    def control(self, knowledge: Knowledge) -> Knowledge:
        """Known rows and traffic whose rows each have another rotation."""
        return replace(_apart(knowledge), traffic=turned_apart(knowledge.traffic))


def fitted_to(known: KnownRows, count: int) -> Isometry:
    """The isometry that the first known rows give."""
    plain, keyed = known.plain[:count], known.keyed[:count]
    return procrustes(
        plain.astype(np.float64), keyed.astype(np.float64), noise=precision(keyed)
    )


def _noises(known: KnownRows) -> tuple[float, ...]:
    """The share of noise, as lengths of known rows show it; several where they are few."""
    rounding = precision(known.keyed)
    if len(known.plain) < _ENOUGH:
        return (rounding, *NOISES)
    ratios = squares(known.keyed) / squares(known.plain)
    return (max(rounding, float(ratios.std() * np.sqrt(known.keyed.shape[1]) / 2)),)


def _counts(most: int) -> Iterator[int]:
    """1, 2, 3, 4, 6, 8, 12, ... up to all."""
    count = 1
    while count < most:
        yield count
        count += max(1, 2 ** (count.bit_length() - 2))
    yield most


def _lacks_known(knowledge: Knowledge) -> str | None:
    if knowledge.known is None:
        return "no plaintext is known"
    if knowledge.known.keyed.shape[1] < knowledge.known.plain.shape[1]:
        return "rows are narrower than the table's"
    return None


def _apart(knowledge: Knowledge) -> Knowledge:
    known = given(knowledge.known)
    return replace(knowledge, known=KnownRows(turned_apart([known.keyed])[0], known.plain))
