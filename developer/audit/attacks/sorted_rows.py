"""Sorted-row matching: the embedding table and one pass over the traffic.

Under `permutation` a token's row on the wire has the same values as its row in the table, in
another order. Sorting both undoes the key without finding it, whatever 1/d! says about
guessing it. Thomas et al., "Hidden No More" (arXiv:2505.18332) do the same to permuted hidden
states.
"""

from __future__ import annotations

from dataclasses import replace

from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import Tokens
from triparty.developer.audit.controls import rotated
from triparty.developer.audit.knowledge import Knowledge, given
from triparty.developer.audit.levels import Level
from triparty.developer.audit.matching import match, sorted_values


class SortedRows:
    """Matches sorted absolute values of wire rows with those of table rows."""

    name = "sorted-rows"
    level = Level.K2
    target = Target.TOKENS
    cites = "Thomas et al., arXiv:2505.18332"
    means = "Who has the embedding table reads every question, without ever finding the key."
    remedy = "Decoys like the real texts; other schemes and noise only call for other attacks."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs rows to match, as wide as the table's."""
        if knowledge.table is None or not knowledge.traffic:
            return "there is no traffic to match"
        if knowledge.rows.shape[1] != knowledge.table.rows.shape[1]:
            return "the residual was expanded: rows are wider than the table's"
        return None

    def mount(self, knowledge: Knowledge) -> Tokens:
        """The token behind each row, where exactly one matches."""
        return match(knowledge.traffic, given(knowledge.table), sorted_values)

    def control(self, knowledge: Knowledge) -> Knowledge:
        """Rows under a rotation, which no sorting undoes."""
        return replace(knowledge, traffic=rotated(knowledge.traffic))
