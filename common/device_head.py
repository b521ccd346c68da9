"""The head on the device: logits in the plain order from a keyed hidden state.

The head is one matrix (V, D), keyed on the side that reads the hidden state: neither the plain
head nor the key lies in a bundle. `head.safetensors` has one of

- `weight` (V, D) in the checkpoint's dtype: `plain == hidden @ weight.T`;
- `gain` (D,) float64, where head and embedding are one table whose coordinates trade places:
  `plain == (hidden * gain) @ rows.T`, the keyed rows that the device looks up.

The matrix stays on disk, memory-mapped, and becomes numbers a run of rows at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import CheckpointError
from triparty.common.tensorfile import TensorFile, as_float64
from triparty.common.wire import bfloat16_to_float32

Floats = NDArray[np.floating[Any]]

WEIGHT, GAIN = "weight", "gain"
_STORAGE = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_RUN = 1 << 20  # elements of the matrix that are numbers at a time


@dataclass(frozen=True, eq=False)
class DeviceHead:
    """A keyed head.

    Attributes:
        matrix: bit patterns (V, D) of the head, or of the rows that serve as one.
        dtype: of its elements, as the tensor format names it.
        gain: (D,) by which a hidden state is multiplied first, or None.
        softcap: c of logits c tanh(x / c), or None.
    """

    matrix: NDArray[Any]
    dtype: str
    gain: NDArray[np.float64] | None
    softcap: float | None

    @classmethod
    def read(
        cls,
        file: TensorFile,
        *,
        shape: tuple[int, int],
        softcap: float | None,
        rows: NDArray[Any],
        rows_dtype: str,
    ) -> DeviceHead:
        """Reads and checks `head.safetensors`; the matrix stays on disk.

        Args:
            file: `head.safetensors`.
            shape: V and D.
            softcap: c of logits c tanh(x / c), or None.
            rows: bit patterns (V, D) of the rows that the device looks up.
            rows_dtype: of their elements.

        Raises:
            CheckpointError: neither form, or one of another shape.
        """
        entries = file.entries
        if (WEIGHT in entries) == (GAIN in entries):
            raise CheckpointError(f"{file.path}: expected either {WEIGHT!r} or {GAIN!r}")
        if GAIN in entries:
            entry = entries[GAIN]
            if (entry.dtype, entry.shape) != ("F64", shape[1:]):
                raise CheckpointError(
                    f"{file.path}: expected {GAIN!r} F64 [{shape[1]}], "
                    f"got {entry.dtype} {list(entry.shape)}"
                )
            return cls(rows, rows_dtype, as_float64(file.bits(GAIN), "F64"), softcap)
        entry = entries[WEIGHT]
        if entry.dtype not in (*_STORAGE, "BF16") or entry.shape != shape:
            raise CheckpointError(
                f"{file.path}: expected {WEIGHT!r} {list(shape)} of floating point numbers, "
                f"got {entry.dtype} {list(entry.shape)}"
            )
        return cls(file.bits(WEIGHT), entry.dtype, None, softcap)

    def plain(self, hidden: Floats) -> Floats:
        """Logits (..., V) of hidden states (..., D), float64 if those are, else float32."""
        dtype = np.float64 if hidden.dtype == np.float64 else np.float32
        states = hidden.reshape(-1, hidden.shape[-1]).astype(dtype)
        if self.gain is not None:
            states = states * self.gain.astype(dtype)
        vocabulary, width = self.matrix.shape
        logits = np.empty((len(states), vocabulary), dtype)
        count = max(1, _RUN // width)
        for start in range(0, vocabulary, count):
            run = slice(start, start + count)
            np.matmul(states, self._values(run).astype(dtype, copy=False).T, out=logits[:, run])
        if self.softcap is not None:
            np.multiply(np.tanh(logits / self.softcap), self.softcap, out=logits)
        return logits.reshape(*hidden.shape[:-1], vocabulary)

    def rows(self, count: int) -> NDArray[np.float64]:
        """The first `count` rows (count, D) of the keyed head, whatever form it has."""
        values = self._values(slice(0, count)).astype(np.float64)
        return values if self.gain is None else values * self.gain

    def _values(self, run: slice) -> Floats:
        """The numbers of some rows of the matrix; no copy of those that are stored so."""
        bits = self.matrix[run]
        if self.dtype == "BF16":
            return bfloat16_to_float32(bits)
        values: Floats = np.ascontiguousarray(bits).view(_STORAGE[self.dtype])
        return values
