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
from triparty.developer.audit.noisy import Mixture, Project, signed_permutation

Vector = NDArray[np.float64]

MAX_TRIED_ROWS = 4096
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
        """It needs rows without positions, of a vocabulary that is fitted in time."""
        if knowledge.table is None or not knowledge.traffic:
            return "there is no traffic to match"
        if knowledge.table.positions is not None:
            return "positions are added to the rows"
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
        mixture = Mixture(table, prior / prior.sum(), knowledge.noise)
        rows = knowledge.rows.astype(np.float64)
        key = _key(mixture, rows, knowledge.known)
        found = mixture.tokens(rows, key)
        sizes = [len(request) for request in knowledge.traffic]
        return Tokens(tuple(np.split(found, np.cumsum(sizes)[:-1])))

    def control(self, knowledge: Knowledge) -> Knowledge:
        """Random rows, which no key makes of the table."""
        rng = np.random.default_rng(0)
        rows = tuple(
            rng.normal(size=request.shape).astype(np.float32) for request in knowledge.traffic
        )
        return replace(knowledge, traffic=rows, known=None)


def _key(mixture: Mixture, rows: Matrix, known: KnownRows | None) -> Matrix:
    """The first key (d, D) that explains the traffic, else the likeliest of those tried."""
    some = rows[:MAX_TRIED_ROWS]
    pull = None if known is None else _cross(mixture, known)
    square = rows.shape[1] == mixture.table.shape[1]
    families: list[Project] = (
        [nearest_rotation, signed_permutation] if square else [nearest_rotation]
    )
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
    mixture: Mixture, rows: Matrix, pull: Matrix | None, project: Project
) -> Iterator[Matrix]:
    """Matrices (d, D) to begin with."""
    if pull is not None:
        yield pull
    if project is signed_permutation:
        yield _by_coordinates(mixture, rows)
        return
    rng = np.random.default_rng(0)
    for share in _STARTS:
        turned = np.less(rng.random(mixture.table.shape[1]), share)
        yield _by_axes(mixture, rows, turned)


def _by_axes(mixture: Mixture, rows: Matrix, turned: NDArray[np.bool_]) -> Matrix:
    """Principal axes of the table on those of the traffic, signs by mean and skewness."""
    centre, axes, plain_size, plain_skew = _moments(mixture.table, mixture.prior)
    even = np.full(len(rows), 1 / len(rows))
    keyed_centre, keyed_axes, keyed_size, keyed_skew = _moments(rows, even)
    width = mixture.table.shape[1]
    keyed_axes, keyed_skew = keyed_axes[:, :width], keyed_skew[:width]
    means = (centre @ axes) * (keyed_centre @ keyed_axes)
    signs = plain_skew * keyed_skew + 2 * means / np.sqrt(plain_size * keyed_size[:width])
    signs = np.where((signs < 0) ^ turned, -1.0, 1.0)
    return np.asarray((axes * signs) @ keyed_axes.T)


def _moments(rows: Matrix, weights: Vector) -> tuple[Vector, Matrix, Vector, Vector]:
    """Mean, principal axes from the largest on, variances on them, skewness on them."""
    mean = weights @ rows
    centred = rows - mean
    sizes, axes = np.linalg.eigh((centred * weights[:, None]).T @ centred)
    sizes, axes = np.maximum(sizes[::-1], 1e-12), axes[:, ::-1]
    skewness = weights @ (centred @ axes) ** 3 / sizes**1.5
    return mean, axes, sizes, skewness


def _by_coordinates(mixture: Mixture, rows: Matrix) -> Matrix:
    """How alike the moments of each coordinate are, with the sign under which they are."""
    even = np.full(len(rows), 1 / len(rows))
    plain = _coordinate_moments(mixture.table, mixture.prior)
    keyed = _coordinate_moments(rows, even)
    scale = plain.std(axis=1, keepdims=True) + 1e-12
    odd = np.array([[-1.0], [1.0], [-1.0]])
    straight = np.linalg.norm((plain / scale)[:, :, None] - (keyed / scale)[:, None], axis=0)
    turned = np.linalg.norm(
        (plain / scale)[:, :, None] - (odd * keyed / scale)[:, None], axis=0
    )
    likeness = 1 / (1e-9 + np.minimum(straight, turned))
    return np.asarray(np.where(straight <= turned, likeness, -likeness))


def _coordinate_moments(rows: Matrix, weights: Vector) -> Matrix:
    """(3, D) mean, deviation and cube root of the third central moment."""
    mean = weights @ rows
    centred = rows - mean
    return np.stack([mean, np.sqrt(weights @ centred**2), np.cbrt(weights @ centred**3)])
