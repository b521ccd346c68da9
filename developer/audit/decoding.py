"""Reading traffic token by token with a public base: what fits what the cloud computes?

Thomas et al., "Hidden No More" (arXiv:2505.18332): a decoder computes nothing of a row from
the rows after it. So who knows the tokens so far tries every token as the next one, in one
pass of the base, and takes the one whose inside is most like what the hosted model has there,
up to what the key may change. A text of N tokens costs V N trials, not V^N.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.claims import UNKNOWN, Rows, Tokens
from triparty.developer.audit.knowledge import Knowledge, Table, given
from triparty.developer.audit.running import Inside, Running, Values
from triparty.developer.audit.views import ModelView

MOST_TRIED = 4096
"""Tokens that are tried at a position: of a larger vocabulary, those of likeliest length."""

MOST_BEGINNINGS = 16
"""Tokens of likeliest length that are tried as the first one, with a pass for each."""

EXACT = 1e-3
"""A distance that no drift leaves, of the length of what is compared."""

_DECODERS = ("ForCausalLM", "LMHeadModel")


class Comparison(Protocol):
    """How well candidates fit, up to the key; it may learn of the key as it goes on.

    Attributes:
        sees_first: whether the first row of a text shows something by itself; if not, its
            token is the one after which something fits the second row best.
    """

    sees_first: bool

    def distances(self, hosted: Inside, at: int, tried: Inside) -> Values:
        """(C,) how far each candidate is from row `at` of what the hosted model computed."""

    def learn(self, hosted: Inside, at: int, base: Inside) -> None:
        """Takes note of a row that was read: `base` is what the base computes of it."""


def unreadable(knowledge: Knowledge) -> str | None:
    """Why traffic cannot be read like this; None if it can."""
    base = knowledge.base
    if base is None or knowledge.hosted is None or knowledge.table is None:
        return "there is no public base"
    if not knowledge.traffic:
        return "there is no traffic to read"
    return decodes(base)


def decodes(model: ModelView) -> str | None:
    """Why a model's rows do depend on later ones; None if it is a decoder."""
    if model.architecture.endswith(_DECODERS):
        return None
    return f"{model.architecture} is no decoder, so later rows change earlier ones"


def decoded(
    knowledge: Knowledge, comparison: Comparison, *, depth: int | None
) -> tuple[Tokens, float]:
    """The token behind each row that fits best, and how far off those are in the mean.

    Args:
        knowledge: for which nothing is `unreadable`.
        comparison: of the insides of both models.
        depth: how many blocks of them are run; None for all.
    """
    reader = _Reader(knowledge, comparison, depth)
    found = [np.full(len(rows), UNKNOWN, np.int64) for rows in knowledge.traffic]
    for requests in sessions(knowledge.traffic, knowledge.starts):
        rows = np.concatenate([knowledge.traffic[number] for number in requests])
        ends = np.cumsum([len(knowledge.traffic[number]) for number in requests])
        for number, tokens in zip(
            requests, np.split(reader.text(rows), ends[:-1]), strict=True
        ):
            found[number] = tokens
    return Tokens(tuple(found)), reader.mean_distance


def sessions(traffic: Sequence[Rows], starts: Sequence[int]) -> Iterator[list[int]]:
    """The numbers of the requests of each session, in order; each by itself if unknown."""
    if not starts:
        yield from ([number] for number in range(len(traffic)))
        return
    open_: list[tuple[int, list[int]]] = []
    for number, (rows, start) in enumerate(zip(traffic, starts, strict=True)):
        before = [at for at, (length, _) in enumerate(open_) if length == start and start]
        requests = open_.pop(before[-1])[1] if before else []
        open_.append((start + len(rows), [*requests, number]))
    yield from (requests for _, requests in open_)


class _Reader:
    """Reads sessions one after another; rows that were seen before are read already."""

    def __init__(self, knowledge: Knowledge, comparison: Comparison, depth: int | None) -> None:
        self._hosted = Running(given(knowledge.hosted), depth)
        self._base = Running(given(knowledge.base), depth)
        self._table = given(knowledge.table)
        self._comparison = comparison
        self._seen: dict[bytes, int] = {}
        self._distances: list[float] = []

    @property
    def mean_distance(self) -> float:
        return float(np.mean(self._distances)) if self._distances else 0.0

    def text(self, rows: Rows) -> NDArray[np.int64]:
        """(T,) the tokens of one session."""
        if not all(row.tobytes() in self._seen for row in rows):
            self._hosted.forget()
            self._base.forget()
            hosted = self._hosted.read(rows)
            for at in range(len(rows)):
                if rows[at].tobytes() not in self._seen:
                    self._read(rows, at, hosted)
        return np.array([self._seen[row.tobytes()] for row in rows], np.int64)

    def _read(self, rows: Rows, at: int, hosted: Inside) -> None:
        behind = [self._seen[row.tobytes()] for row in rows[self._base.length : at]]
        if behind:
            self._base.append(behind)
        if at or self._comparison.sees_first:
            candidates = _likely(rows[at], at, self._table, MOST_TRIED)
            token, distance = self._best(hosted, at, candidates)
        elif len(rows) > 1:
            candidates = _likely(rows[at], at, self._table, MOST_BEGINNINGS)
            token, distance = self._beginning(hosted, rows, candidates)
        else:
            self._seen[rows[at].tobytes()] = UNKNOWN
            return
        self._distances.append(distance)
        self._seen[rows[at].tobytes()] = token
        self._comparison.learn(hosted, at, self._base.append([token]))

    def _best(
        self, hosted: Inside, at: int, candidates: NDArray[np.int64]
    ) -> tuple[int, float]:
        distances = self._comparison.distances(hosted, at, self._base.tried(candidates))
        best = int(np.argmin(distances))
        return int(candidates[best]), float(distances[best])

    def _beginning(
        self, hosted: Inside, rows: Rows, candidates: NDArray[np.int64]
    ) -> tuple[int, float]:
        """The first token, by the second row; that of a beginning text is tried first."""
        following = _likely(rows[1], 1, self._table, MOST_TRIED)
        known = self._seen.get(rows[1].tobytes(), UNKNOWN)
        following = following if known == UNKNOWN else np.array([known])
        best, least = UNKNOWN, np.inf
        for token in [*self._usual, *candidates.tolist()]:
            self._base.forget()
            self._base.append([token])
            distance = self._best(hosted, 1, following)[1]
            if distance < least:
                best, least = token, distance
            if token in self._usual and distance < EXACT:
                break
        self._base.forget()
        return best, least

    @property
    def _usual(self) -> list[int]:
        """The token that texts begin with, if there is one."""
        token = self._base.begin
        return [] if token is None else [token]


def _likely(row: Rows, position: int, table: Table, most: int) -> NDArray[np.int64]:
    """The tokens to try: all, or those whose rows are about as long as this one."""
    if len(table.rows) <= most:
        return np.arange(len(table.rows))
    squares = np.einsum("vd,vd->v", table.rows, table.rows)
    if table.positions is not None:
        placed = table.positions[position]
        squares = squares + 2 * (table.rows @ placed) + placed @ placed
    gaps = np.abs(squares - row @ row)
    return np.argpartition(gaps, most)[:most].astype(np.int64)
