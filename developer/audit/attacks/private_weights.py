"""Private weights: what fine-tuning changed, read off the hosted model.

With the residual's key found, hosted matrices go back into the coordinates of the base, and
their neurons into their places there. What is left beside the base is what its owner trained.
Only matrices whose neurons trade places are undone, not the heads of attention, which some
keys mix: what mixes them changes nothing in the function.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import Matrix, Weights
from triparty.developer.audit.controls import unrelated_model
from triparty.developer.audit.keyfinding import Found, found_key
from triparty.developer.audit.knowledge import Knowledge, given
from triparty.developer.audit.levels import Level
from triparty.developer.audit.reading import Reading, incomparable

UNSCALED = 0.15
"""Below which mean logarithm of their sizes scales are taken for signs."""


class PrivateWeights:
    """Undoes the keys of the matrices that read and write the residual."""

    name = "private-weights"
    level = Level.K3
    target = Target.WEIGHTS
    cites = "Wang et al., 'Game of Arrows' (ArrowMatch), USENIX Sec'25"
    means = (
        "Who has the public base also gets what the owner's training added to it: here to the "
        "matrices whose neurons trade places, not to the heads of attention."
    )
    remedy = "Train from weights that are not public; no key that keeps the function helps."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs a base of the same shape."""
        if knowledge.hosted is None or knowledge.base is None:
            return "there is no public base"
        return incomparable(knowledge.base, knowledge.hosted)

    def mount(self, knowledge: Knowledge) -> Weights:
        """The matrices of all neurons, in the base's coordinates."""
        base = Reading.of(given(knowledge.base))
        hosted = Reading.of(given(knowledge.hosted))
        found = found_key(base, hosted)
        return Weights(
            dict(_undone(base, hosted, found)),
            {side.name: side.matrix for group in base.neurons.values() for side in group.sides},
        )

    def control(self, knowledge: Knowledge) -> Knowledge:
        """Another model of the same shape for a base."""
        return replace(knowledge, base=unrelated_model(given(knowledge.base)))


def _undone(base: Reading, hosted: Reading, found: Found) -> Iterator[tuple[str, Matrix]]:
    for name, pairs in found.pairs.items():
        mine, its = base.neurons[name], hosted.neurons[name]
        if len(pairs.first) < mine.count:
            continue  # too many neurons to be sure of each
        for a, b in zip(mine.sides, its.sides, strict=True):
            made = found.key @ b.matrix[:, pairs.second]
            if a.scaled:
                made = made * pairs.signs / _sizes(a.matrix[:, pairs.first], made)
            back = np.empty_like(made)
            back[:, pairs.first] = made
            yield a.name, back


def _sizes(base: Matrix, hosted: Matrix) -> Matrix:
    """(n,) by what each column was multiplied but for its sign; ones, if by nothing at all."""
    lengths = [np.maximum(np.linalg.norm(side, axis=0), 1e-30) for side in (base, hosted)]
    sizes: Matrix = lengths[1] / lengths[0]
    return np.ones_like(sizes) if np.abs(np.log(sizes)).mean() < UNSCALED else sizes
