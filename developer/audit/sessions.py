"""Reads the requests of a traffic row by row, and keeps track of how far sessions have got.

A model that adds learned positions sends sums, so who reads a row has to know its place. A
request begins at place 0 or where an earlier one ended; what fits best tells which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.claims import UNKNOWN, Rows, Tokens

Ids = NDArray[np.int64]
Deviations = NDArray[np.float64]
Read = Callable[[Rows, Ids | None], tuple[Ids, Deviations]]
"""Given rows (n, D) and their places (n,): the likeliest tokens, and how far off each is."""

_BLOCK = 256
_AHEAD = 64
_PROBE = 4  # rows of a request that tell where it begins
_BEGINNINGS = 16  # sessions that may be open at once


def read(
    traffic: Sequence[Rows], nearest: Read, *, positions: int | None, tolerance: float
) -> Tokens:
    """The token behind each row of each request.

    Args:
        traffic: (T, D) each.
        nearest: what reads rows whose places are known.
        positions: how many places there are; None if a row does not depend on its place.
        tolerance: largest deviation that a read row may have.
    """
    if positions is not None:
        return Tokens(_Sessions(nearest, positions, tolerance).read(traffic))
    rows, numbers = np.unique(np.concatenate(traffic), axis=0, return_inverse=True)
    blocks = [nearest(rows[i : i + _BLOCK], None) for i in range(0, len(rows), _BLOCK)]
    tokens = np.concatenate([_within(*block, tolerance) for block in blocks])
    ends = np.cumsum([len(request) for request in traffic])[:-1]
    return Tokens(tuple(np.split(tokens[numbers.reshape(-1)], ends)))


def presumed_places(traffic: Sequence[Rows]) -> Ids:
    """(N,) a first guess: who sends several rows begins, who sends one goes on."""
    places, after = [], 0
    for request in traffic:
        start = 0 if len(request) > 1 else after
        after = start + len(request)
        places.append(np.arange(start, after))
    return np.concatenate(places)


def _within(tokens: Ids, deviations: Deviations, tolerance: float) -> Ids:
    return np.where(deviations <= tolerance, tokens, UNKNOWN)


class _Sessions:
    """Reads requests one after another."""

    def __init__(self, nearest: Read, positions: int, tolerance: float) -> None:
        self._nearest, self._positions, self._tolerance = nearest, positions, tolerance
        self._seen: dict[tuple[int, bytes], tuple[int, float]] = {}
        self._ends: list[int] = []  # of sessions; the one that went on last is last

    def read(self, traffic: Sequence[Rows]) -> tuple[Ids, ...]:
        found: list[Ids] = []
        while len(found) < len(traffic):
            found += self._going_on(traffic[len(found) :][:_AHEAD]) or [
                self._anywhere(traffic[len(found)])
            ]
        return tuple(found)

    def _going_on(self, requests: Sequence[Rows]) -> list[Ids]:
        """The first requests, as far as they are single rows of the last session."""
        more = next((i for i, rows in enumerate(requests) if len(rows) > 1), len(requests))
        if not self._ends or not more:
            return []
        places = self._ends[-1] + np.arange(more)
        tokens, deviations = self._at(np.concatenate(requests[:more]), places)
        fits = deviations <= self._tolerance
        count = more if fits.all() else int(np.argmin(fits))
        self._ends[-1] += count
        return list(tokens[:count, None])

    def _anywhere(self, rows: Rows) -> Ids:
        """One request, at the beginning where it fits best."""
        starts = [*reversed(self._ends[-_BEGINNINGS:]), 0]
        probe = rows[:_PROBE]
        readings = [self._at(probe, start + np.arange(len(probe))) for start in starts]
        best = int(np.argmin([deviations.mean() for _, deviations in readings]))
        tokens, deviations = self._at(rows, starts[best] + np.arange(len(rows)))
        if np.median(deviations) > self._tolerance:
            return np.full(len(rows), UNKNOWN, np.int64)
        if starts[best] in self._ends:
            self._ends.remove(starts[best])
        self._ends.append(starts[best] + len(rows))
        return _within(tokens, deviations, self._tolerance)

    def _at(self, rows: Rows, places: Ids) -> tuple[Ids, Deviations]:
        """What rows say at some places, those past the last one being wrong."""
        inside = np.flatnonzero(places < self._positions)
        keys = [(int(places[i]), rows[i].tobytes()) for i in inside]
        new = {key: i for key, i in zip(keys, inside, strict=True) if key not in self._seen}
        for start in range(0, len(new), _BLOCK):
            part = dict(list(new.items())[start : start + _BLOCK])
            which = list(part.values())
            self._seen |= dict(
                zip(
                    part,
                    zip(*self._nearest(rows[which], places[which]), strict=True),
                    strict=True,
                )
            )
        tokens = np.full(len(rows), UNKNOWN, np.int64)
        deviations = np.full(len(rows), np.inf)
        for i, key in zip(inside, keys, strict=True):
            tokens[i], deviations[i] = self._seen[key]
        return tokens, deviations
