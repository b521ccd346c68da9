"""The key/value cache of one session: transformers' cache, growing without a copy per step.

transformers' `DynamicLayer` concatenates, so that every step copies the whole cache.
`GrowingLayer` writes into a buffer that doubles when it is full: a step copies its own rows,
and growing to `n` rows copies less than `2 n` rows in all.

Shapes are those of transformers: (1, H, T, d), `H` key/value heads of width `d`, which may
differ between keys and values (DeepSeek's latent attention).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from triparty.common.errors import CloudError

FIRST_CAPACITY = 64


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # its registry hook
    """The keys and values of one layer, as views of buffers with room to grow."""

    def __init__(self, *, most_rows: int) -> None:
        """An empty layer whose buffers never have more than `most_rows` rows."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._most_rows = most_rows
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def rows(self) -> int:
        """Rows held."""
        return 0 if self.keys is None else self.keys.shape[-2]

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return sum(buffer.nbytes for buffer in self._buffers or ())

    @property
    def capacity(self) -> int:
        """Rows for which there is room."""
        return 0 if self._buffers is None else self._buffers[0].shape[-2]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends rows; returns all keys and values, (1, H, T, d) each."""
        start, count = self.rows, key_states.shape[-2]
        keys, values = self._room_for(start + count, key_states, value_states)
        keys.narrow(2, start, count).copy_(key_states)
        values.narrow(2, start, count).copy_(value_states)
        return self._show((keys, values), start + count)

    def crop_to(self, rows: int) -> None:
        """Forgets everything after the first `rows` rows; keeps the room."""
        if rows > self.rows:
            raise CloudError(f"the session's cache has {self.rows} rows, expected {rows}")
        if rows < self.rows and self._buffers is not None:
            self._show(self._buffers, rows)

    def copy(self, rows: int) -> GrowingLayer:
        """A layer of its own with the first `rows` rows."""
        layer = GrowingLayer(most_rows=self._most_rows)
        if rows and self.keys is not None and self.values is not None:
            layer.update(self.keys[:, :, :rows], self.values[:, :, :rows])
        return layer

    def _room_for(
        self, rows: int, key_states: torch.Tensor, value_states: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        old = self._buffers
        if old is not None and rows <= old[0].shape[-2]:
            return old
        capacity = FIRST_CAPACITY if old is None else 2 * old[0].shape[-2]
        capacity = max(rows, min(capacity, self._most_rows))
        new = (_empty(key_states, capacity), _empty(value_states, capacity))
        if old is None:
            self.dtype, self.device = key_states.dtype, key_states.device
            self.is_initialized = True
        else:
            for target, source in zip(new, old, strict=True):
                target[:, :, : self.rows] = source[:, :, : self.rows]
        self._buffers = new
        return new

    def _show(
        self, buffers: tuple[torch.Tensor, torch.Tensor], rows: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = buffers
        shown = keys.narrow(2, 0, rows), values.narrow(2, 0, rows)
        self.keys, self.values = shown
        return shown


def _empty(like: torch.Tensor, rows: int) -> torch.Tensor:
    batch, heads, _, width = like.shape
    return like.new_empty((batch, heads, rows, width))


Memory = tuple[tuple[torch.Tensor, torch.Tensor], ...]
"""What a decoder reads of a whole text: keys and values of each layer, (1, H, S, d) each."""


@dataclass(frozen=True, eq=False)
class SessionCache:
    """The key/value cache of one session.

    Attributes:
        layers: one of each attention layer of the model, in order.
        memory: of the text that the session answers, where an encoder has read one; never
            changed, so that forks share it.
    """

    layers: tuple[GrowingLayer, ...]
    memory: Memory = ()

    @classmethod
    def empty(cls, *, layers: int, most_rows: int, memory: Memory = ()) -> SessionCache:
        """A cache without rows."""
        return cls(tuple(GrowingLayer(most_rows=most_rows) for _ in range(layers)), memory)

    @property
    def nbytes(self) -> int:
        """Bytes allocated, all layers."""
        read = sum(keys.nbytes + values.nbytes for keys, values in self.memory)
        return read + sum(layer.nbytes for layer in self.layers)

    def crop_to(self, rows: int) -> None:
        """Forgets everything after the first `rows` rows.

        Raises:
            CloudError: the cache has fewer.
        """
        for layer in self.layers:
            layer.crop_to(rows)

    def copy(self, rows: int) -> SessionCache:
        """An independent cache with the first `rows` rows."""
        return SessionCache(tuple(layer.copy(rows) for layer in self.layers), self.memory)
