"""What filters are trained on, as `triparty device filter fit` reads it, in bounded room."""

from __future__ import annotations

import io
import logging
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from triparty.common.files import make_private_folder, write_private
from triparty.device.gateway.frames import Pixels

log = logging.getLogger(__name__)

PART: Final = 64
"""Samples of a file; no more are lost when the process ends at once."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One input and what the model said of it.

    Attributes:
        pixels: (H, W, 1) uint8, as the filter took them.
        label: whether the model was needed, or for a reuse filter what equal results share.
        is_drawn: whether chance chose it, and not that the filter was unsure.
        wall: of the frame, in seconds since 1970.
    """

    pixels: Pixels
    label: bool | str
    is_drawn: bool
    wall: float


class Samples:
    """A folder of parts, npz files for their owner alone; the oldest make room for new ones.

    Safe for several threads. Where it cannot be written, samples are lost, and that is logged.

    Args:
        folder: of the parts, and of nothing else.
        column: of labels: `needed` or `results`.
        most_bytes: of all parts.
    """

    def __init__(self, folder: Path, column: str, most_bytes: int) -> None:
        """Writes nothing yet."""
        self._folder, self._column, self._most_bytes = folder, column, most_bytes
        self._waiting: list[Sample] = []
        self._lock = threading.Lock()
        self.count = self.lost = 0

    def add(self, sample: Sample) -> None:
        """Keeps a sample; each `PART` of them, or a quarter of the room, become a file."""
        with self._lock:
            self._waiting.append(sample)
            self.count += 1
            size = len(self._waiting) * sample.pixels.nbytes
            if len(self._waiting) >= PART or 4 * size >= self._most_bytes:
                self._write()

    def flush(self) -> None:
        """Writes what waits."""
        with self._lock:
            if self._waiting:
                self._write()

    def _write(self) -> None:
        samples, self._waiting = self._waiting, []
        name = f"{int(samples[-1].wall * 1e3):015d}-{secrets.token_hex(4)}.npz"
        data = _archive(samples, self._column)
        try:
            make_private_folder(self._folder)
            self._make_room(len(data))
            write_private(self._folder / name, data)
        except OSError as error:
            if not self.lost:
                log.error("samples of filters cannot be written: %s", error)
            self.lost += len(samples)

    def _make_room(self, needed: int) -> None:
        parts = sorted(self._folder.glob("*.npz"))
        sizes = [part.stat().st_size for part in parts]
        for place, part in enumerate(parts):
            if sum(sizes[place:]) + needed <= self._most_bytes:
                return
            part.unlink(missing_ok=True)


def _archive(samples: list[Sample], column: str) -> bytes:
    columns: dict[str, Any] = {
        "input": np.stack([sample.pixels for sample in samples]),
        column: np.array([sample.label for sample in samples]),
        "drawn": np.array([sample.is_drawn for sample in samples]),
        "wall": np.array([sample.wall for sample in samples]),
    }
    stream = io.BytesIO()
    np.savez(stream, **columns)
    return stream.getvalue()
