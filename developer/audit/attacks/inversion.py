"""Learned inversion: a linear map from what the cloud has to plain rows, from known ones.

It assumes nothing of the key, not even that there is one: least squares on known pairs, with
a small ridge, and the nearest token of the table. Procrustes analysis needs fewer pairs of
wire rows; this reads whatever depends on the token linearly enough, such as the residual after
some block, into which the key, the context and the noise have gone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import UNKNOWN, Tokens
from triparty.developer.audit.decoding import sessions
from triparty.developer.audit.knowledge import Knowledge, KnownRows, Table, given
from triparty.developer.audit.levels import Level
from triparty.developer.audit.running import Running, Values

_RIDGE = 1e-4  # of the mean square of the inputs
_BLOCK = 512  # rows that are compared with the table at once


class Inversion:
    """Reads rows by a linear map that known rows teach.

    Args:
        pairs: how many known rows it learns from; None for half of them.
        blocks: after which the residual is looked at; 0 for the rows themselves.
    """

    name = "inversion"
    level = Level.K2
    target = Target.TOKENS
    cites = "AloePri, arXiv:2603.01499, inversion attacks"
    means = "Some known text is enough to read the rest, whatever the key is."
    remedy = "Change keys before as many different tokens are known as a row is wide."

    def __init__(self, pairs: int | None = None, blocks: int = 0) -> None:
        """Remembers what to learn from."""
        self._pairs, self._blocks = pairs, blocks

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs rows with their plaintext and a table to look tokens up in."""
        if knowledge.known is None or knowledge.table is None:
            return "no plaintext is known"
        if not self._learned(knowledge.known) or not knowledge.traffic:
            return "too little plaintext is known to learn from"
        if self._blocks and knowledge.hosted is None:
            return "there is no hosted model to run"
        return None

    def mount(self, knowledge: Knowledge) -> Tokens:
        """The token behind each row that was not learned from."""
        known, table = given(knowledge.known), given(knowledge.table)
        chosen = self._chosen(known)
        taught = {known.keyed[number].tobytes(): number for number in chosen}
        views = self._views(knowledge)
        flat = np.concatenate(views)
        rows, places = knowledge.rows, _places(knowledge)
        pairs = [at for at, row in enumerate(rows) if row.tobytes() in taught]
        plain = known.plain[[taught[rows[at].tobytes()] for at in pairs]]
        guessed = _Linear(flat[pairs], plain.astype(np.float64))(flat)
        found = _nearest(guessed, table, places)
        found[pairs] = UNKNOWN
        ends = np.cumsum([len(request) for request in knowledge.traffic])[:-1]
        fresh = np.ones(len(rows), bool)
        fresh[pairs] = False
        return Tokens(tuple(np.split(found, ends)), tuple(np.split(fresh, ends)))

    def control(self, knowledge: Knowledge) -> Knowledge:
        """The same pairs, shuffled: what is learned of them is nothing."""
        known = given(knowledge.known)
        order = np.random.default_rng(0).permutation(len(known.plain))
        return replace(knowledge, known=KnownRows(known.keyed, known.plain[order]))

    def _learned(self, known: KnownRows) -> int:
        count = len(known.plain)
        return count // 2 if self._pairs is None else min(self._pairs, count * 9 // 10)

    def _chosen(self, known: KnownRows) -> NDArray[np.int64]:
        drawn = np.random.default_rng(0).permutation(len(known.plain))
        return drawn[: self._learned(known)]

    def _views(self, knowledge: Knowledge) -> list[Values]:
        """(T, D) of each request: what the cloud looks at."""
        if not self._blocks:
            return [rows.astype(np.float64) for rows in knowledge.traffic]
        running = Running(given(knowledge.hosted), self._blocks)
        views: list[Values] = [np.empty(0)] * len(knowledge.traffic)
        for requests in sessions(knowledge.traffic, knowledge.starts):
            running.forget()
            for number in requests:
                views[number] = running.read(knowledge.traffic[number]).states[-1]
        return views


class _Linear:
    """The affine map that takes rows nearest to others."""

    def __init__(self, rows: Values, plain: Values) -> None:
        self._mean, self._plain = rows.mean(axis=0), plain.mean(axis=0)
        apart = rows - self._mean
        ridge = _RIDGE * float(np.square(apart).mean()) * len(rows)
        # The smaller of both equal forms: as many equations as pairs, or as coordinates.
        inner = apart @ apart.T + ridge * np.eye(len(rows))
        self._map = apart.T @ np.linalg.solve(inner, plain - self._plain)

    def __call__(self, rows: Values) -> Values:
        """(N, d) of (N, D)."""
        made: Values = (rows - self._mean) @ self._map + self._plain
        return made


def _nearest(rows: Values, table: Table, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) the token whose row in the table is nearest, at the position of each."""
    if table.positions is not None:
        rows = rows - table.positions[np.minimum(places, len(table.positions) - 1)]
    squares = np.einsum("vd,vd->v", table.rows, table.rows)
    found = [
        np.argmin(squares - 2 * rows[at : at + _BLOCK] @ table.rows.T, axis=1)
        for at in range(0, len(rows), _BLOCK)
    ]
    return np.concatenate(found)


def _places(knowledge: Knowledge) -> NDArray[np.int64]:
    """(N,) the position of each row in its session."""
    starts = knowledge.starts or (0,) * len(knowledge.traffic)
    spans = [
        np.arange(start, start + len(rows))
        for start, rows in zip(starts, knowledge.traffic, strict=True)
    ]
    return np.concatenate(spans)
