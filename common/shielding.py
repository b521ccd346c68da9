"""What a device does to keyed rows before they go: noise, and rounding.

A fixed key sends a token always to the same row. Noise makes two rows of one token differ, at
the price of accuracy; `triparty developer audit --compare` measures both. It hides nothing
from who holds the key: a row with as much noise as signal is still nearest to its own token.

Laws:
- noise 0 without rounding sends the very same frame;
- one shield sends one row at one position always the same way, so that a request that is
  repeated, or a session that is replayed, is no second noisy copy to be averaged with the
  first one;
- two shields, two positions and two rows get noise that is independent.

So noise is no draw but a function of a secret, the position and the row: SHAKE-256, whose
output nobody tells from random bits without the secret, then Box and Muller's transform.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import SettingsError
from triparty.common.keying import KeyedRows
from triparty.common.wire import DType, Frame

SECRET_BYTES = 32
MAX_NOISE = 10.0  # ten times the signal: nothing is left of an answer long before
_DOMAIN = b"triparty row noise 1"
_WORDS = 2.0**32


@dataclass(frozen=True)
class Shield:
    """What one conversation does to its rows.

    Attributes:
        noise: standard deviation of the Gaussian noise on each element, as a share of the
            row's root mean square; 0 adds none.
        to_bfloat16: whether rows are rounded to bfloat16, which halves the bytes of float32.
        secret: 32 bytes that the noise is made of; not in `repr`.
    """

    noise: float = 0.0
    to_bfloat16: bool = False
    secret: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        """Refuses noise without a meaning, or without a secret."""
        if not 0 <= self.noise <= MAX_NOISE:
            raise SettingsError(f"noise must be from 0 to {MAX_NOISE:g}, got {self.noise}")
        if self.noise and len(self.secret) != SECRET_BYTES:
            raise SettingsError(
                f"noise is made of a secret of {SECRET_BYTES} bytes, got {len(self.secret)}: "
                "use Shield.fresh"
            )

    @classmethod
    def fresh(cls, *, noise: float = 0.0, to_bfloat16: bool = False) -> Self:
        """A shield for one conversation, its secret from the operating system."""
        return cls(noise, to_bfloat16, secrets.token_bytes(SECRET_BYTES))

    def rows(self, rows: KeyedRows, *, start: int) -> KeyedRows:
        """The rows as they go over the wire.

        Args:
            rows: (T, D) of floating point numbers.
            start: position of the first one in its session.

        Returns:
            (T, D), in bfloat16 if so chosen, in the dtype of `rows` otherwise.
        """
        if not self.noise:
            return _rounded(rows) if self.to_bfloat16 else rows
        values = rows.as_float32()
        noisy = values + self._noise(values, start)
        dtype = DType.BF16 if self.to_bfloat16 else rows.dtype
        return KeyedRows(Frame.rounded(noisy, dtype))

    def _noise(self, values: NDArray[np.float32], start: int) -> NDArray[np.float32]:
        sizes = np.sqrt(np.mean(np.square(values, dtype=np.float64), axis=1, keepdims=True))
        draws = [self._gaussian(row, start + i) for i, row in enumerate(values)]
        shape = np.reshape(draws, values.shape)
        return np.asarray(self.noise * sizes * shape, np.float32)

    def _gaussian(self, row: NDArray[np.float32], position: int) -> NDArray[np.float64]:
        """(D,) independent standard normal numbers, a function of secret, position and row."""
        pairs = (len(row) + 1) // 2
        named = self.secret + position.to_bytes(8, "little") + row.astype("<f4").tobytes()
        bits = hashlib.shake_256(_DOMAIN + named).digest(8 * pairs)
        first, second = np.frombuffer(bits, "<u4").reshape(2, pairs) / _WORDS
        radius = np.sqrt(-2 * np.log(first + 1 / _WORDS))
        angle = 2 * np.pi * second
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[: len(row)]


def _rounded(rows: KeyedRows) -> KeyedRows:
    if rows.dtype is DType.BF16:
        return rows
    return KeyedRows(Frame.rounded(rows.as_float32(), DType.BF16))


def request_sizes(start: int, count: int, *, block: int, limit: int) -> list[int]:
    """How many rows go in each request, so that sizes say nothing below a block.

    Rows from the beginning of a block go in whole blocks, all others one by one, as the rows
    of an answer do: the cloud cannot tell where a question ends, but for its whole blocks.

    Args:
        start: position of the first row.
        count: rows to send.
        block: rows of a block; 1 sends all at once.
        limit: most rows that a request may have.

    Returns:
        Sizes, from 1 to `limit`, that add up to `count`.
    """
    sizes: list[int] = []
    while (left := count - sum(sizes)) > 0:
        whole = min(left, limit) // block * block
        is_aligned = (start + sum(sizes)) % block == 0
        sizes.append(whole if is_aligned and whole else 1)
    return sizes
