"""The public head: a secret order of the vocabulary under a secret rotation, both at once.

The head is a cloud of points, one a token. A rotation turns it and a secret order renames its
points, but its axes, its skewness along them and the lengths of its points stay. That gives a
first guess; then nearest points and the rotation between them are found in turn.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import Matrix, Vocabulary
from triparty.developer.audit.controls import unrelated_model
from triparty.developer.audit.keyfinding import best_rotation, by_angles
from triparty.developer.audit.knowledge import Knowledge, given
from triparty.developer.audit.levels import Level
from triparty.developer.audit.pairing import MAX_PLACED, placed
from triparty.developer.audit.reading import folded_head, headless

MAX_TURNS = 15
_ANCHORS = 4096
_POWERS = (0.0, -1.0, -2.0, 1.0)


class PublicHead:
    """Matches the hosted head with the base's as two clouds of points."""

    name = "public-head"
    level = Level.K3
    target = Target.TOKENS
    cites = "Besl and McKay 1992 (ICP), from principal axes and skewness"
    means = "Who has the public head reads what the model answers."
    remedy = "Keep the head on the device."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs a head on both sides."""
        return headless(knowledge.base, knowledge.hosted)

    def mount(self, knowledge: Knowledge) -> Vocabulary:
        """The keyed place of each token."""
        base = folded_head(given(knowledge.base))
        hosted = folded_head(given(knowledge.hosted))
        return Vocabulary(registered(base, hosted))

    def control(self, knowledge: Knowledge) -> Knowledge:
        """The head of another model of the same shape for a base."""
        return replace(knowledge, base=unrelated_model(given(knowledge.base)))


def registered(base: Matrix, hosted: Matrix) -> NDArray[np.int64]:
    """(V,) the place of each column of `base` among those of `hosted`.

    Args:
        base: (d, V).
        hosted: (D, V) the same, rotated, in another order, and not quite the same.
    """
    anchors = _anchors(base)
    keys = [_fitted(base[:, anchors], hosted, key) for key in _beginnings(base, hosted)]
    key = min(keys, key=lambda one: _distance(base[:, anchors], hosted, one))
    return placed((key.T @ base).T, hosted.T)


def _fitted(base: Matrix, hosted: Matrix, key: Matrix) -> Matrix:
    """Nearest points and the rotation between them, in turn."""
    places = placed((key.T @ base).T, hosted.T)
    for _ in range(MAX_TURNS):
        key = best_rotation(base, hosted[:, places])
        found = placed((key.T @ base).T, hosted.T)
        if np.array_equal(found, places):
            break
        places = found
    return key


def _distance(base: Matrix, hosted: Matrix, key: Matrix) -> float:
    moved = key.T @ base
    return float(np.linalg.norm(moved - hosted[:, placed(moved.T, hosted.T)]))


def _beginnings(base: Matrix, hosted: Matrix) -> list[Matrix]:
    """Rotations to begin with: by the axes of both clouds; by angles, if points are few."""
    keys = [_by_axes(base, hosted)]
    if base.shape[1] <= MAX_PLACED:
        keys.append(by_angles([(base, hosted)]))
    return keys


def _anchors(base: Matrix) -> NDArray[np.int64]:
    """Tokens to find the rotation by: all, or some at random."""
    count = base.shape[1]
    if count <= _ANCHORS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, _ANCHORS, replace=False))


def _by_axes(base: Matrix, hosted: Matrix) -> Matrix:
    """Principal axes onto principal axes, their signs by what is not symmetric."""
    rank = min(len(base), base.shape[1])
    clouds = [matrix / np.sqrt((matrix**2).sum(axis=0).mean()) for matrix in (base, hosted)]
    axes = [np.linalg.eigh(cloud @ cloud.T)[1][:, ::-1][:, :rank] for cloud in clouds]
    seen = [_seen(side.T @ cloud) for side, cloud in zip(axes, clouds, strict=True)]
    signs = np.where((seen[0] * seen[1]).sum(axis=1) < 0, -1.0, 1.0)
    key: Matrix = (axes[0] * signs) @ axes[1].T
    return key


def _seen(points: Matrix) -> Matrix:
    """(rank, f) along each axis: means of points by their length, and the skewness."""
    lengths = np.linalg.norm(points, axis=0)
    weights = np.maximum(lengths, 1e-12)[None, :] ** np.array(_POWERS)[:, None]
    means = points @ (weights / weights.sum(axis=1, keepdims=True)).T
    spread = np.sqrt((points**2).mean(axis=1, keepdims=True))
    skewness = ((points / np.maximum(spread, 1e-12)) ** 3).mean(axis=1, keepdims=True)
    made: Matrix = np.hstack([means / np.maximum(spread, 1e-12) / len(_POWERS), skewness])
    return made
