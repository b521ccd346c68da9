"""Norm and Gram matching: the embedding table, lengths of rows and the angles between them.

No isometry changes either, whether permutation, rotation or expansion. A few rows that only
one combination of tokens explains begin a fit of the key; the fit reads more rows, which fit
the key better. Averages over rows that are nearly equal take noise away before that.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from triparty.developer.audit.attack import Target
from triparty.developer.audit.averages import MOST_COMPARED, averaged
from triparty.developer.audit.claims import UNKNOWN, Rows, Tokens
from triparty.developer.audit.controls import turned_apart
from triparty.developer.audit.isometries import Fit, Puzzle, Reader, fitted, grown
from triparty.developer.audit.knowledge import Knowledge, given
from triparty.developer.audit.lengths import Lengths, precision, squares
from triparty.developer.audit.levels import Level
from triparty.developer.audit.seeding import seeds
from triparty.developer.audit.sessions import Deviations, Ids, presumed_places, read

NOISES = (0.01, 0.03, 0.06, 0.12, 0.2, 0.3)
"""Shares of noise that are tried after what the rounding of the wire makes."""
MOST_ROWS = 512
_HYPOTHESES = 3
_FRESH = 0.25  # deviation of a row to which the key was not fitted


class Gram:
    """Finds the tokens whose rows have the lengths and inner products of those on the wire."""

    name = "gram"
    level = Level.K2
    target = Target.TOKENS
    cites = "isometries keep inner products; closest points: Besl and McKay 1992"
    means = "Who has the embedding table reads every question, under any orthogonal key."
    remedy = "Decoys like the real texts; through noise other attacks find the key."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs rows and a table."""
        if knowledge.table is None or not knowledge.traffic:
            return "there is no traffic to match"
        if knowledge.rows.shape[1] < knowledge.table.rows.shape[1]:
            return "rows are narrower than the table's"
        return None

    def mount(self, knowledge: Knowledge) -> Tokens:
        """The token behind each row, where a key that agrees with enough rows is found."""
        fit = solved(puzzle_of(knowledge))
        if fit is None:
            return Tokens(tuple(np.full(len(r), UNKNOWN, np.int64) for r in knowledge.traffic))
        return opened(knowledge, fit)

    def control(self, knowledge: Knowledge) -> Knowledge:
        """Rows that each have another rotation, so that angles between them say nothing."""
        return replace(knowledge, traffic=turned_apart(knowledge.traffic))


def puzzle_of(knowledge: Knowledge) -> Puzzle:
    """Some rows of the traffic, each once."""
    table = given(knowledge.table)
    if table.positions is None:
        return Puzzle(averaged(knowledge.rows, most=MOST_ROWS), None, table)
    places = presumed_places(knowledge.traffic)
    rows = knowledge.rows[places < len(table.positions)][:MOST_COMPARED]
    places = places[places < len(table.positions)][:MOST_COMPARED]
    first = np.sort(np.unique(rows, axis=0, return_index=True)[1])[:MOST_ROWS]
    return Puzzle(rows[first], places[first], table)


def solved(puzzle: Puzzle) -> Fit | None:
    """The first isometry, trying ever more noise, that agrees with enough rows."""
    lengths = Lengths(puzzle.table)
    for noise in (precision(puzzle.rows), *NOISES):
        guess = seeds(puzzle, lengths, noise=noise)
        if guess is None:
            continue
        for tokens in guess.tokens[:_HYPOTHESES]:
            start = fitted(puzzle, guess.which, tokens, noise)
            fit = grown(puzzle, start, noise=noise)
            if fit.holds(noise):
                return fit
    return None


def opened(knowledge: Knowledge, fit: Fit) -> Tokens:
    """All rows of the traffic, read with a key that was fitted to some."""
    table = given(knowledge.table)
    reader = Reader(table, fit.isometry)

    def nearest(rows: Rows, places: Ids | None) -> tuple[Ids, Deviations]:
        reading = reader.read(rows, places)
        return reading.tokens, np.sqrt(reading.best / squares(rows))

    return read(
        knowledge.traffic,
        nearest,
        positions=None if table.positions is None else len(table.positions),
        tolerance=max(3 * fit.noise, _FRESH),
    )
