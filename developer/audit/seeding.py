"""The first few tokens from lengths and inner products of rows alone, by a beam search.

A row's length leaves a shortlist of tokens. Which combinations of them have the inner products
of their rows as well is soon unique, since each pair of rows is one more equation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.claims import Matrix
from triparty.developer.audit.isometries import Puzzle
from triparty.developer.audit.lengths import Lengths, squares

Ids = NDArray[np.int64]

SHORTLIST = 2000
_BEAM = 600
_SEEDS = 12
_TRIED = 48
_LEAST = 3
_ALIKE = 0.6  # cosine
_DEVIATIONS = 4.0  # of how many standard deviations an equation may be wrong


@dataclass(frozen=True, eq=False)
class Guess:
    """What could be behind some rows.

    Attributes:
        which: (m,) the rows.
        tokens: (b, m) the tokens, likeliest combination first.
    """

    which: Ids
    tokens: Ids


def seeds(puzzle: Puzzle, lengths: Lengths, *, noise: float) -> Guess | None:
    """Combinations of tokens with the lengths and inner products of some rows.

    Args:
        puzzle: the rows.
        lengths: of the puzzle's table.
        noise: share of a row's length that is noise.

    Returns:
        None if there are no such combinations of at least three rows.
    """
    shortlists = _shortlists(puzzle, lengths, noise)
    search = _Search(puzzle, noise)
    for row in _varied(puzzle, sorted(shortlists, key=lambda row: len(shortlists[row]))):
        search.extend(row, shortlists[row])
        if len(search.which) == _SEEDS:
            break
    if len(search.which) < _LEAST:
        return None
    return Guess(np.array(search.which), search.tokens)


def _shortlists(puzzle: Puzzle, lengths: Lengths, noise: float) -> dict[int, Ids]:
    """The tokens that the length of a row leaves, where they are few enough."""
    own = squares(puzzle.rows)
    spread = _DEVIATIONS * own * (2 * noise / np.sqrt(puzzle.rows.shape[1]) + 1e-6)
    centre = own / (1 + noise**2)
    lists = {}
    for row in range(len(own)):
        place = None if puzzle.places is None else int(puzzle.places[row])
        least, most = centre[row] - spread[row], centre[row] + spread[row]
        lists[row] = lengths.within(least, most, place)
    return {row: found for row, found in lists.items() if 0 < len(found) <= SHORTLIST}


def _varied(puzzle: Puzzle, order: list[int]) -> list[int]:
    """The same rows, those first that are not much like an earlier one, which say more."""
    rows = puzzle.rows / np.sqrt(squares(puzzle.rows))[:, None]
    chosen: list[int] = []
    for row in order:
        if len(chosen) < _TRIED and not (np.abs(rows[chosen] @ rows[row]) > _ALIKE).any():
            chosen.append(row)
    return [*chosen, *(row for row in order if row not in set(chosen))][:_TRIED]


class _Search:
    """Hypotheses about more and more rows, the likeliest ones kept."""

    def __init__(self, puzzle: Puzzle, noise: float) -> None:
        self._puzzle, self._noise = puzzle, noise
        self.which: list[int] = []
        self.tokens: Ids = np.zeros((1, 0), np.int64)
        self._costs: Matrix = np.zeros(1)

    def extend(self, row: int, shortlist: Ids) -> None:
        """Adds a row to every hypothesis, or leaves it out if it contradicts them all."""
        candidates = self._puzzle.behind(np.full(len(shortlist), row), shortlist)
        costs = self._costs[:, None] + self._own_cost(row, candidates)
        for column, other in enumerate(self.which):
            costs = costs + self._pair_cost(row, candidates, other, self.tokens[:, column])
        costs[(self.tokens[:, :, None] == shortlist).any(axis=1)] += self._repetition
        keep = np.argsort(costs, axis=None)[:_BEAM]
        keep = keep[np.isfinite(costs.ravel()[keep])]
        if len(keep):
            hypotheses, chosen = np.unravel_index(keep, costs.shape)
            self.tokens = np.hstack([self.tokens[hypotheses], shortlist[chosen][:, None]])
            self._costs = costs.ravel()[keep]
            self.which.append(row)

    @property
    def _repetition(self) -> float:
        """Rows that do not depend on their place are different, so their tokens are too."""
        return np.inf if self._puzzle.places is None else 0.0

    def _own_cost(self, row: int, candidates: Matrix) -> Matrix:
        square = float(squares(self._puzzle.rows[row : row + 1])[0])
        off = squares(candidates) - square / (1 + self._noise**2)
        return (off / (square * self._spread(2.0))) ** 2

    def _pair_cost(self, row: int, candidates: Matrix, other: int, tokens: Ids) -> Matrix:
        """(b, k) how far inner products are off, in standard deviations, squared."""
        rows = self._puzzle.rows[[row, other]].astype(np.float64)
        distinct, places = np.unique(tokens, return_inverse=True)
        plain = self._puzzle.behind(np.full(len(distinct), other), distinct)
        off = plain @ candidates.T - float(rows[0] @ rows[1])
        scale = float(np.prod(np.linalg.norm(rows, axis=1))) * self._spread(np.sqrt(2.0))
        off = np.abs(off) / scale
        return np.where(off > _DEVIATIONS, np.inf, off**2)[places.reshape(-1)]

    def _spread(self, share: float) -> float:
        """The standard deviation of a product of rows of length 1."""
        return share * self._noise / float(np.sqrt(self._puzzle.rows.shape[1])) + 1e-6
