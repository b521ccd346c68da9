"""Known rows come again: one token always has one row, give or take the noise.

Whoever knows the plaintext of a few rows (a template, a first token) reads their tokens
wherever they come again. It takes neither the table nor the key, so no other table helps.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import UNKNOWN, Tokens
from triparty.developer.audit.controls import rotated
from triparty.developer.audit.knowledge import Knowledge, given
from triparty.developer.audit.levels import Level

_MARGIN = 1.25  # of the distance that noise alone makes, on average
_LEAST = 2e-2  # of a row's size: above what rounding to bfloat16 makes


class RowsAgain:
    """Finds known rows elsewhere in the traffic."""

    name = "rows-again"
    level = Level.K1
    target = Target.TOKENS
    cites = "equality of ciphertexts under a fixed key (electronic codebook)"
    means = "Words that the cloud knows once are known in every question."
    remedy = "Change keys often, or send no fixed template."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs known rows that depend on nothing but their token."""
        if knowledge.known is None or not knowledge.traffic:
            return "there are no known rows"
        return "positions are added to the rows" if knowledge.known.token_ids is None else None

    def mount(self, knowledge: Knowledge) -> Tokens:
        """The token of the nearest known row, where it is near enough."""
        known = given(knowledge.known)
        ids = given(known.token_ids)
        # Both rows carry noise, each of `noise` times its size in all directions together.
        reach = max(_LEAST, _MARGIN * np.sqrt(2.0) * knowledge.noise)
        sizes = np.linalg.norm(known.keyed, axis=1)
        clean = sizes / np.sqrt(1 + knowledge.noise**2)
        found = []
        for rows in knowledge.traffic:
            squares = np.square(rows).sum(axis=1)[:, None] + sizes**2
            distances = np.sqrt(np.maximum(0, squares - 2 * rows @ known.keyed.T))
            nearest = distances.argmin(axis=1)
            near = distances.min(axis=1) <= reach * clean[nearest]
            found.append(np.where(near, ids[nearest], UNKNOWN))
        return Tokens(tuple(found))

    def control(self, knowledge: Knowledge) -> Knowledge:
        """Traffic under another key."""
        return replace(knowledge, traffic=rotated(knowledge.traffic))
