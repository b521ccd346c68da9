"""Norm matching: the embedding table, and nothing but the length of each row.

Any orthogonal key keeps lengths. In fp32 they are almost all different; rounding to bf16
leaves little of that.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import Rows, Tokens
from triparty.developer.audit.controls import other_lengths
from triparty.developer.audit.knowledge import Knowledge, given
from triparty.developer.audit.lengths import Lengths, precision, squares
from triparty.developer.audit.levels import Level
from triparty.developer.audit.sessions import Deviations, Ids, read

_TINY = 1e-30


class Norms:
    """Matches the length of wire rows with those of table rows."""

    name = "norms"
    level = Level.K2
    target = Target.TOKENS
    cites = "docs/security.md: a rotation keeps the lengths of rows"
    means = "A row's length alone tells the token, under any rotation, without its key."
    remedy = "Send rows in bf16, which hides lengths though not angles, or with noise."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs rows and a table."""
        if knowledge.table is None or not knowledge.traffic:
            return "there is no traffic to match"
        return None

    def mount(self, knowledge: Knowledge) -> Tokens:
        """The token whose length is nearest to that of each row."""
        table = given(knowledge.table)
        lengths = Lengths(table)

        def nearest(rows: Rows, places: Ids | None) -> tuple[Ids, Deviations]:
            found = squares(rows)
            tokens, gaps = lengths.nearest(found, places)
            return tokens, gaps / np.maximum(found, _TINY)

        return read(
            knowledge.traffic,
            nearest,
            positions=None if table.positions is None else len(table.positions),
            tolerance=4 * precision(knowledge.rows),
        )

    def control(self, knowledge: Knowledge) -> Knowledge:
        """Rows with the lengths of others, so that theirs say nothing."""
        return replace(knowledge, traffic=other_lengths(knowledge.traffic))
