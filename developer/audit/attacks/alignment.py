"""Alignment: permuted weights beside the public ones that they began as.

A coordinate of the residual keeps the values of its row in every matrix, whatever order the
other axis is in. Sorted, they tell which coordinate it is; then neurons are told apart, then
coordinates by neurons, and so on. Fine-tuning moves weights too little to hide any of this.
"""

from __future__ import annotations

from dataclasses import replace

from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import ResidualKey
from triparty.developer.audit.controls import unrelated_model
from triparty.developer.audit.keyfinding import places_key
from triparty.developer.audit.knowledge import Knowledge, given
from triparty.developer.audit.levels import Level
from triparty.developer.audit.reading import Reading, incomparable


class Alignment:
    """Assigns coordinates and neurons in turn until both fit the public base."""

    name = "alignment"
    level = Level.K3
    target = Target.KEY
    cites = "Ainsworth et al., arXiv:2209.04836; Wang et al., 'Game of Arrows', USENIX Sec'25"
    means = "Who has the public base finds the key, and with it reads every question."
    remedy = "Train from weights that are not public; no key that keeps the function helps."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs a base of the same shape."""
        if knowledge.hosted is None or knowledge.base is None:
            return "there is no public base"
        if knowledge.hosted.width != knowledge.base.width:
            return "the residual was expanded: no coordinate is one of the base's"
        return incomparable(knowledge.base, knowledge.hosted)

    def mount(self, knowledge: Knowledge) -> ResidualKey:
        """The signed permutation that explains the hosted weights by the base."""
        base, hosted = given(knowledge.base), given(knowledge.hosted)
        return ResidualKey(places_key(Reading.of(base), Reading.of(hosted)).key)

    def control(self, knowledge: Knowledge) -> Knowledge:
        """Another model of the same shape for a base."""
        return replace(knowledge, base=unrelated_model(given(knowledge.base)))
