"""Situations in which an attack must find nothing, because what it exploits is not there."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from triparty.developer.audit.claims import Matrix, Rows
from triparty.developer.audit.views import ModelView

_WIDTH = 512


def rotated(requests: Sequence[Rows]) -> tuple[Rows, ...]:
    """The requests under a random rotation, which no permutation undoes."""
    width = min(requests[0].shape[1], _WIDTH)
    square = np.random.default_rng(0).normal(size=(width, width))
    turn = np.linalg.qr(square)[0].astype(np.float32)
    return tuple(np.hstack([rows[:, :width] @ turn, rows[:, width:]]) for rows in requests)


def unrelated_rows(requests: Sequence[Rows]) -> tuple[Rows, ...]:
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


class _Unrelated(ModelView):
    """A checkpoint with the shapes of another and weights of its own."""

    def tensor(self, name: str) -> Matrix:
        """Normal draws of the same mean square."""
        values = super().tensor(name)
        drawn = np.random.default_rng(zlib.crc32(name.encode())).normal(size=values.shape)
        return np.asarray(drawn * np.sqrt((values**2).mean()))


def unrelated_model(view: ModelView) -> ModelView:
    """A model of the same shape that has nothing to do with this one."""
    return _Unrelated(**{field.name: getattr(view, field.name) for field in fields(view)})


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
