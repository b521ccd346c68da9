"""Noisy rows under a fixed key: known pairs if there are enough, the whole traffic if not.

Fresh noise hides a row, not the key: the key is the same for all rows, so it is fitted to all
of them, by moments first (the covariance of the traffic has the table's axes; skewness tells
their signs), then by expectation and maximisation. With the key each row is the noisy
picture of one of V known points, and in many dimensions the nearest is the right one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import Matrix, Tokens
from triparty.developer.audit.isometries import nearest_rotation
from triparty.developer.audit.knowledge import Knowledge, KnownRows, given
from triparty.developer.audit.levels import Level
from triparty.developer.audit.moments import Weighed, by_axes, by_coordinates
from triparty.developer.audit.noisy import Mixture, Project, Sent, signed_permutation
from triparty.developer.audit.sessions import presumed_places

Vector = NDArray[np.float64]

MAX_TRIED_ROWS = 4096
_DRAWN = 1 << 14  # sums of a token and a place that moments are taken of
MAX_VALUES = 1 << 24  # tokens times width: a table that is fitted in minutes
_STARTS = (0.0, 0.1, 0.1, 0.2, 0.2)  # share of axes whose sign is turned: skewness may be wrong


class NoisyRows:
    """Fits the key to the traffic, noise and all, and takes each row's likeliest token."""

    name = "noisy-rows"
    level = Level.K2
    target = Target.TOKENS
    cites = "Dempster, Laird and Rubin (1977), after Chen et al., BeamClean, arXiv:2505.13758"
    means = "Noise on rows hides nothing once some rows are known or much traffic was seen."
    remedy = "Decoys like the real texts, or hardware that attests what it runs."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs rows and a table, of a vocabulary that is fitted in time."""
        if knowledge.table is None or not knowledge.traffic:
            return "there is no traffic to match"
        if knowledge.table.rows.size > MAX_VALUES:
            return f"the table has more than {MAX_VALUES} values to fit the traffic to"
        if knowledge.rows.shape[1] < knowledge.table.rows.shape[1]:
            return "rows are narrower than the table's"
        return None

    def mount(self, knowledge: Knowledge) -> Tokens:
        """The likeliest token behind each row."""
        table = given(knowledge.table).rows.astype(np.float64)
        prior = np.full(len(table), 1 / len(table))
        if knowledge.unigrams is not None:
            prior = knowledge.unigrams + 1e-4 / len(table)
        sent = Sent(knowledge.rows.astype(np.float64), _placed(knowledge))
        mixture = Mixture.of(table, prior / prior.sum(), knowledge.noise, sent.placed)
        found = mixture.tokens(sent, _key(mixture, sent, knowledge.known))
        sizes = [len(request) for request in knowledge.traffic]
        return Tokens(tuple(np.split(found, np.cumsum(sizes)[:-1])))

    def control(self, knowledge: Knowledge) -> Knowledge:
        """Random rows, which no key makes of the table."""
        rng = np.random.default_rng(0)
        rows = tuple(
            rng.normal(size=request.shape).astype(np.float32) for request in knowledge.traffic
        )
        return replace(knowledge, traffic=rows, known=None)


def _placed(knowledge: Knowledge) -> Matrix | None:
    """(N, d) what positions add to each row; None where they are not part of rows."""
    positions = given(knowledge.table).positions
    if positions is None:
        return None
    places = presumed_places(knowledge.traffic)
    if knowledge.starts:
        spans = zip(knowledge.starts, knowledge.traffic, strict=True)
        places = np.concatenate([start + np.arange(len(rows)) for start, rows in spans])
    return positions[np.minimum(places, len(positions) - 1)].astype(np.float64)


def _key(mixture: Mixture, sent: Sent, known: KnownRows | None) -> Matrix:
    """The first key (d, D) that explains the traffic, else the likeliest of those tried."""
    some = sent.first(MAX_TRIED_ROWS)
    pull = None if known is None else _cross(mixture, known)
    square = sent.rows.shape[1] == mixture.table.shape[1]
    families: list[Project] = [nearest_rotation, *([signed_permutation] if square else [])]
    tried: list[tuple[float, Matrix]] = []
    for project in families:
        for start in _starts(mixture, some, pull, project):
            key = mixture.fitted(some, project(start), project, known=pull)
            if mixture.fits(some, key):
                return key
            tried.append((mixture.likelihood(some, key), key))
    return max(tried, key=lambda pair: pair[0])[1]


def _cross(mixture: Mixture, known: KnownRows) -> Matrix:
    plain, keyed = known.plain.astype(np.float64), known.keyed.astype(np.float64)
    squares = np.square(plain).sum(axis=1, keepdims=True) / keyed.shape[1]
    variances = mixture.noise**2 * squares + 1e-4 * squares.mean()
    return np.asarray((plain / variances).T @ keyed)


def _starts(
    mixture: Mixture, sent: Sent, pull: Matrix | None, project: Project
) -> Iterator[Matrix]:
    """Matrices (d, D) to begin with."""
    if pull is not None:
        yield pull
    plain = _expected(mixture, sent)
    if project is signed_permutation:
        yield by_coordinates(plain, Weighed.evenly(sent.rows))
        return
    rng = np.random.default_rng(0)
    for share in _STARTS:
        turned = np.less(rng.random(mixture.table.shape[1]), share)
        yield by_axes(plain, Weighed.evenly(sent.rows), turned)


def _expected(mixture: Mixture, sent: Sent) -> Weighed:
    """The plain rows that traffic is made of: the table, or sums of tokens and places."""
    if sent.placed is None:
        return Weighed(mixture.table, mixture.prior)
    drawn = np.random.default_rng(0).choice(len(mixture.prior), _DRAWN, p=mixture.prior)
    placed = sent.placed[np.arange(_DRAWN) % len(sent.placed)]
    return Weighed.evenly(mixture.table[drawn] + placed)
