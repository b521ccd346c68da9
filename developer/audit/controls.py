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


def unrelated(requests: Sequence[Rows]) -> tuple[Rows, ...]:
    """Random rows of one length; equal rows stay equal, and nothing else is left."""
    rng = np.random.default_rng(0)
    length = float(np.mean([np.linalg.norm(rows, axis=-1).mean() for rows in requests]))
    made: dict[bytes, Rows] = {}

    def instead(row: Rows) -> Rows:
        if row.tobytes() not in made:
            drawn = rng.normal(size=row.shape).astype(np.float32)
            made[row.tobytes()] = drawn * np.float32(length / np.linalg.norm(drawn))
        return made[row.tobytes()]

    return tuple(np.stack([instead(row) for row in rows]) for rows in requests)
