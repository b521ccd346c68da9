"""Rotation: weights under an orthogonal key beside the public ones that they began as.

A rotation mixes all coordinates and leaves every length, angle and spectrum as it was. The
principal axes of what all layers read and write lead to a first guess; neurons, which only
trade places, are told apart under it; Procrustes then gives the rotation.
"""

from __future__ import annotations

from dataclasses import replace

from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import ResidualKey
from triparty.developer.audit.controls import unrelated_model
from triparty.developer.audit.keyfinding import rotation_key
from triparty.developer.audit.knowledge import Knowledge, given
from triparty.developer.audit.levels import Level
from triparty.developer.audit.reading import Reading, incomparable


class Rotation:
    """Fits a rotation and the order of the neurons in turn to the public base."""

    name = "rotation"
    level = Level.K3
    target = Target.KEY
    cites = "Schoenemann 1966 (Procrustes); AWM, arXiv:2510.06738"
    means = "Who has the public base finds a rotation as well as a permutation."
    remedy = "Train from weights that are not public; no key that keeps the function helps."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs a base of the same family and layers."""
        if knowledge.hosted is None or knowledge.base is None:
            return "there is no public base"
        return incomparable(knowledge.base, knowledge.hosted)

    def mount(self, knowledge: Knowledge) -> ResidualKey:
        """The matrix with orthonormal rows that explains the hosted weights by the base."""
        base, hosted = given(knowledge.base), given(knowledge.hosted)
        return ResidualKey(rotation_key(Reading.of(base), Reading.of(hosted)).key)

    def control(self, knowledge: Knowledge) -> Knowledge:
        """Another model of the same shape for a base."""
        return replace(knowledge, base=unrelated_model(given(knowledge.base)))
