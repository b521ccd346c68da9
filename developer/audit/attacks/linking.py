"""Linking: two instances of one model, and nothing else.

Cohorts and epochs have keys of their own, but the same weights underneath. What leads from one
hosted model to the other is found as if one were the public base of the other. Then a bundle of
one, or whatever else opens it, opens both.
"""

from __future__ import annotations

from dataclasses import replace

from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import Relation
from triparty.developer.audit.controls import unrelated_model
from triparty.developer.audit.keyfinding import found_key
from triparty.developer.audit.knowledge import Knowledge, given
from triparty.developer.audit.levels import Level
from triparty.developer.audit.reading import Reading, incomparable


class Linking:
    """Finds the key from one instance's residual to another's."""

    name = "linking"
    level = Level.K0
    target = Target.KEY
    cites = "Ainsworth et al., arXiv:2209.04836, between two keyed instances"
    means = "Whatever opens one cohort or epoch opens all that the cloud has ever hosted."
    remedy = "Nothing that keeps the function: noise per instance has to spoil it first."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs a second instance."""
        if knowledge.hosted is None or knowledge.other is None:
            return "there is no second instance"
        return incomparable(knowledge.hosted, knowledge.other)

    def mount(self, knowledge: Knowledge) -> Relation:
        """The key that leads from this instance to the other one."""
        hosted, other = given(knowledge.hosted), given(knowledge.other)
        return Relation(found_key(Reading.of(hosted), Reading.of(other)).key)

    def control(self, knowledge: Knowledge) -> Knowledge:
        """An instance of another model of the same shape."""
        return replace(knowledge, other=unrelated_model(given(knowledge.other)))
