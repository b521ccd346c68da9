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


class _Unrelated(ModelView):
    """A checkpoint with the shapes of another and weights of its own."""

    def tensor(self, name: str) -> Matrix:
        """Normal draws of the same mean square."""
        values = super().tensor(name)
        drawn = np.random.default_rng(zlib.crc32(name.encode())).normal(size=values.shape)
        return np.asarray(drawn * np.sqrt((values**2).mean()))


def unrelated(view: ModelView) -> ModelView:
    """A model of the same shape that has nothing to do with this one."""
    return _Unrelated(**{field.name: getattr(view, field.name) for field in fields(view)})
