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
