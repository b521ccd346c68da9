"""Vectors without a model: texts are alike where they have letters in common.

It knows no synonyms: "meeting room" is found as "meeting rooms" and not as "where we confer".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from triparty.device.ask.vectors import Vectors

WIDTH = 4096
_LETTERS = 3


class Lexical:
    """Hashed words and runs of three letters, as unit vectors; nothing leaves the device."""

    name = f"lexical-{WIDTH}"

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (N, D) of N texts."""
        made = np.zeros((len(texts), WIDTH), np.float32)
        for row, text in zip(made, texts, strict=True):
            for piece in _pieces(text.lower()):
                row[_place(piece)] += 1.0
        lengths = np.linalg.norm(made, axis=1, keepdims=True)
        return np.asarray(made / np.maximum(lengths, 1e-12), dtype=np.float32)


def _pieces(text: str) -> list[str]:
    found = list[str]()
    for word in text.split():
        padded = f" {word} "
        found.append(padded)
        found += [padded[n : n + _LETTERS] for n in range(len(padded) - _LETTERS + 1)]
    return found


def _place(piece: str) -> int:
    return int.from_bytes(hashlib.blake2b(piece.encode(), digest_size=8).digest()) % WIDTH
