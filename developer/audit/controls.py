"""Situations in which an attack must find nothing, because what it exploits is not there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from triparty.developer.audit.claims import Rows

_WIDTH = 512


def rotated(requests: Sequence[Rows]) -> tuple[Rows, ...]:
    """The requests under a random rotation, which no permutation undoes."""
    width = min(requests[0].shape[1], _WIDTH)
    square = np.random.default_rng(0).normal(size=(width, width))
    turn = np.linalg.qr(square)[0].astype(np.float32)
    return tuple(np.hstack([rows[:, :width] @ turn, rows[:, width:]]) for rows in requests)


def other_lengths(requests: Sequence[Rows]) -> tuple[Rows, ...]:
    """The requests with every row as long as a random other one."""
    rng = np.random.default_rng(1)
    lengths = np.unique(np.linalg.norm(np.concatenate(requests), axis=1))
    return tuple(
        rows
        * (rng.choice(lengths, (len(rows), 1)) / np.linalg.norm(rows, axis=1, keepdims=True))
        for rows in requests
    )


def turned_apart(requests: Sequence[Rows]) -> tuple[Rows, ...]:
    """The requests with every row as long as it was, in a direction of its own."""
    rng = np.random.default_rng(2)

    def turned(rows: Rows) -> Rows:
        directions = rng.normal(size=rows.shape)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        directions *= lengths / np.linalg.norm(directions, axis=1, keepdims=True)
        return directions.astype(np.float32)

    return tuple(turned(rows) for rows in requests)
