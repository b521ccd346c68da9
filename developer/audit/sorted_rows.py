"""Sorted-row matching: the embedding table and one pass over the traffic.

Under `permutation` a token's row on the wire has the same values as its row in the table, in
another order. Sorting both undoes the key without finding it, whatever 1/d! says about
guessing it. Thomas et al., "Hidden No More" (arXiv:2505.18332) do the same to permuted hidden
states.
"""

from __future__ import annotations

from triparty.developer.audit.knowledge import Knowledge, Level, Recovered
from triparty.developer.audit.matching import match, sorted_values


class SortedRows:
    """Matches sorted absolute values of wire rows with those of table rows."""

    name = "sorted-rows"
    level = Level.K2
    target = "tokens"

    def mount(self, knowledge: Knowledge) -> Recovered:
        """The token behind each row, where exactly one matches."""
        return match(knowledge.traffic, knowledge.table, sorted_values)
