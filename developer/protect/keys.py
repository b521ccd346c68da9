"""Keys: one master secret, a derived key per space, uniform draws from it.

    master (32 bytes of the operating system's generator)
      -> HKDF-SHA256, info = version and label of the space -> 32-byte key
      -> ChaCha20 keystream -> draws

The same master and label give the same draw on every machine and in every later run, so a
model can be re-keyed, checked or extended from `secrets/master.key` alone.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from triparty.common.errors import StateError

DERIVATION_VERSION = 1
MASTER_BYTES = 32
_INFO = f"triparty protect v{DERIVATION_VERSION} "
_SEED_INFO = b"triparty reproducible test master v1 "


@dataclass(frozen=True)
class Keys:
    """The secret from which every key of one protected model follows."""

    master: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuses a master secret of another length."""
        if len(self.master) != MASTER_BYTES:
            raise StateError(f"a master key has {MASTER_BYTES} bytes, got {len(self.master)}")

    @classmethod
    def fresh(cls) -> Keys:
        """New keys from the operating system's generator."""
        return cls(os.urandom(MASTER_BYTES))

    @classmethod
    def of_seed(cls, seed: int) -> Keys:
        """Keys that anybody who guesses the number can make: for reproducible tests only."""
        return cls(hashlib.sha256(_SEED_INFO + str(seed).encode()).digest())

    def permutation(self, label: str, size: int) -> NDArray[np.int64]:
        """A uniformly distributed permutation of `size` places.

        The order of `size` independent 64-bit draws is uniform unless two of them are equal,
        which happens with probability below size^2 / 2^65 (2^-30 for a vocabulary of
        2^17.5); then all are drawn again, so the result is exactly uniform.
        """
        stream = self._stream(label)
        while True:
            draws = np.frombuffer(stream.take(8 * size), "<u8")
            index = np.argsort(draws, kind="stable")
            in_order = draws[index]
            if (in_order[1:] != in_order[:-1]).all():
                return index

    def quarters(self, label: str, size: int) -> NDArray[np.int64]:
        """(size,) independent uniform draws from 0, 1, 2, 3."""
        draws = np.frombuffer(self._stream(label).take(size), "u1")
        return (draws & 3).astype(np.int64)

    def signs(self, label: str, size: int) -> NDArray[np.float64]:
        """(size,) independent uniform draws from 1, -1."""
        return np.where(self.quarters(label, size) & 1, -1.0, 1.0)

    def uniform(self, label: str, size: int) -> NDArray[np.float64]:
        """(size,) independent uniform draws from [0, 1), multiples of 2^-53."""
        draws = np.frombuffer(self._stream(label).take(8 * size), "<u8")
        return (draws >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, label: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Independent standard normal draws (Box and Muller, 1958)."""
        size = int(np.prod(shape))
        draws = self.uniform(label, 2 * size)
        radius = np.sqrt(-2.0 * np.log1p(-draws[:size]))
        return (radius * np.cos(2.0 * np.pi * draws[size:])).reshape(shape)

    def _stream(self, label: str) -> _KeyStream:
        info = (_INFO + label).encode()
        return _KeyStream(HKDF(SHA256(), length=32, salt=None, info=info).derive(self.master))


class _KeyStream:
    """The ChaCha20 keystream of a key that is used for nothing else (nonce and counter 0)."""

    def __init__(self, key: bytes) -> None:
        self._cipher = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()

    def take(self, size: int) -> bytes:
        return self._cipher.update(bytes(size))
