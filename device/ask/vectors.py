"""Sentence vectors: who makes them, and those of the site's own words, which are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Protocol
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from triparty.common.files import write_private

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Makes vectors of texts that are alike where texts mean alike."""

    @property
    def name(self) -> str:
        """Of the model, with its version: vectors of another one cannot be compared."""

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (N, D) of N texts."""


class KeptVectors:
    """An embedder that keeps the vectors of the site's own words, and of nothing else.

    Args:
        embedder: makes those that are not there yet.
        file: that keeps them between processes; None keeps them in memory. It holds hashes of
            the words and vectors, mode 0600; a damaged or old one is made anew.

    Attributes:
        made: how many texts were made vectors of, because they were not there yet.
    """

    def __init__(self, embedder: Embedder, file: Path | None = None) -> None:
        """Reads the file, if there is one."""
        self._embedder, self._file = embedder, file
        self.made = 0
        self._kept = dict[str, Vectors]() if file is None else _read(file, embedder.name)

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (N, D) of N texts, of which the new ones are asked for in one go."""
        keys = [_key(text) for text in texts]
        new = dict.fromkeys(
            text for text, key in zip(texts, keys, strict=True) if key not in self._kept
        )
        if new:
            made = self._embedder(tuple(new))
            self.made += len(new)
            self._kept |= {_key(text): row for text, row in zip(new, made, strict=True)}
            self._write()
        return np.stack([self._kept[key] for key in keys])

    def _write(self) -> None:
        if self._file is None:
            return
        packed = BytesIO()
        names = np.array(list(self._kept), dtype="U64")
        rows = np.stack(list(self._kept.values()))
        np.savez(packed, allow_pickle=False, model=self._embedder.name, names=names, rows=rows)
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self._file, packed.getvalue())


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(file: Path, model: str) -> dict[str, Vectors]:
    try:
        with np.load(file, allow_pickle=False) as found:
            if str(found["model"]) != model:
                return {}
            rows: Vectors = found["rows"].astype(np.float32)
            names = [str(name) for name in found["names"]]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return {}
    if rows.ndim != 2 or len(rows) != len(names) or not np.isfinite(rows).all():
        return {}
    return dict(zip(names, rows, strict=True))
