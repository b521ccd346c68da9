"""Texts as rows of numbers without a vocabulary to keep: words are hashed.

A filter needs to tell texts apart, not to write any. Words go to numbers by CRC-32 modulo the
size of the table, so that two parties agree without exchanging anything. 0 is padding.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

VOCABULARY: Final = 8192
LENGTH: Final = 64
_WORD = re.compile(r"\w+|[^\w\s]")


def hashed(texts: Sequence[str], *, length: int = LENGTH) -> NDArray[np.int64]:
    """Numbers of the words of texts.

    Args:
        texts: any.
        length: words that count; shorter texts are padded with 0.

    Returns:
        (n, length) int64 below `VOCABULARY`.
    """
    rows = np.zeros((len(texts), length), np.int64)
    for row, text in zip(rows, texts, strict=True):
        words = _WORD.findall(text.lower())[:length]
        row[: len(words)] = [1 + zlib.crc32(one.encode()) % (VOCABULARY - 1) for one in words]
    return rows
