"""The shape of traffic: what shows as it is, without any attack.

How many rows are sent at once and one by one, which rows are equal (a fixed key sends one token
always to one row), which questions begin alike, and how long rows are.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np

from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import Rows, Seen
from triparty.developer.audit.controls import turned_apart
from triparty.developer.audit.knowledge import Knowledge, distinct
from triparty.developer.audit.levels import Level

_COMPARED = 64


class TrafficShape:
    """Counts what needs no key to be seen."""

    name = "traffic-shape"
    level = Level.K0
    target = Target.TOKENS
    cites = "what a fixed key leaves in sight; substitution ciphers"
    means = "Lengths, repeated words and shared templates show, though not which words."
    remedy = "Dummy rows and decoy requests hide lengths and counts, keys of one use the rest."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs traffic."""
        return None if knowledge.traffic else "there is no traffic to look at"

    def mount(self, knowledge: Knowledge) -> Seen:
        """The figures; their share is that of rows that were seen before."""
        traffic = knowledge.traffic
        numbers = distinct(knowledge.rows)
        different = int(numbers.max()) + 1
        asked = [len(rows) for rows in traffic if len(rows) > 1]
        lengths = np.linalg.norm(knowledge.rows, axis=1)
        repeated = 1 - different / len(numbers)
        return Seen(
            {
                "requests": len(traffic),
                "rows": len(numbers),
                "rows_one_by_one": sum(len(rows) == 1 for rows in traffic),
                "questions": len(asked),
                "rows_of_a_question": float(np.median(asked)) if asked else 0.0,
                "rows_of_an_answer": _answer(traffic),
                "different_rows": different,
                "repeated_rows": repeated,
                "rows_that_questions_begin_alike_with": _template(traffic),
                "questions_that_begin_alike": _alike(traffic),
                "spread_of_lengths": float(lengths.std() / lengths.mean()),
            },
            share=repeated,
        )

    def control(self, knowledge: Knowledge) -> Knowledge:
        """The same rows with a key for each."""
        return replace(knowledge, traffic=turned_apart(knowledge.traffic))


def _answer(traffic: tuple[Rows, ...]) -> float:
    """The median count of single rows that follow a question."""
    runs: list[int] = []
    for rows in traffic:
        if len(rows) > 1:
            runs.append(0)
        elif runs:
            runs[-1] += 1
    return float(np.median(runs)) if runs else 0.0


def _questions(traffic: tuple[Rows, ...]) -> list[Rows]:
    return [rows for rows in traffic if len(rows) > 1][:_COMPARED]


def _common(first: Rows, second: Rows) -> int:
    """With how many equal rows two questions begin."""
    length = min(len(first), len(second))
    equal = (first[:length] == second[:length]).all(axis=1)
    return length if equal.all() else int(np.argmin(equal))


def _template(traffic: tuple[Rows, ...]) -> float:
    """The most rows with which half of all pairs of questions begin alike."""
    shared = [_common(*pair) for pair in combinations(_questions(traffic), 2)]
    return float(np.median(shared)) if shared else 0.0


def _alike(traffic: tuple[Rows, ...]) -> float:
    """Share of pairs of questions whose first rows are equal."""
    shared = [_common(*pair) > 0 for pair in combinations(_questions(traffic), 2)]
    return float(np.mean(shared)) if shared else 0.0
