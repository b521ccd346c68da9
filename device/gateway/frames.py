"""A decoded frame as stages see it: pixels are converted when a stage asks, once."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import av

Pixels = NDArray[np.uint8]
_EIGHT_BIT_LUMA = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12")
"""Formats whose first plane is the luma itself."""


class Purpose(Enum):
    """Why a frame was decoded."""

    CHOSEN = "chosen"
    """The gate chose it."""
    WHOLE = "whole"
    """All of its stream is decoded."""
    AUDIT = "audit"
    """Its group is decoded whole, to learn what gating misses."""
    DEPENDENCY = "dependency"
    """A chosen one needs it: its pixels are free, a model's look at it is not."""


@dataclass(eq=False)
class StreamFrame:
    """One frame of one stream.

    Attributes:
        stream: name of the camera.
        key: of the stream in the gateway; never used again for another.
        run: which opening of the stream it is from.
        pts: stamp of its packet.
        time: presentation time in seconds on the stream's clock.
        wall: the same as seconds since 1970, as well as this machine knows.
        selected: whether the gate chose it; others were decoded because it needed them.
        image: the decoder's own frame.
        purpose: why it was decoded.
        group: that is audited.
        models: names of those that its camera asks; None for all.
    """

    stream: str
    key: int
    run: int
    pts: int
    time: float
    wall: float
    selected: bool
    image: av.VideoFrame = field(repr=False)
    purpose: Purpose = Purpose.CHOSEN
    group: int | None = None
    models: frozenset[str] | None = None
    _rgb: Pixels | None = field(default=None, repr=False)
    _luma: Pixels | None = field(default=None, repr=False)

    def asks(self, model: str) -> bool:
        """Whether its camera asks a model."""
        return self.models is None or model in self.models

    def luma(self) -> Pixels:
        """(H, W) uint8 brightness; not copied where the format allows. Not to be written to."""
        if self._luma is None:
            self._luma = self._plane() if self._has_luma() else self._grey()
        return self._luma

    def rgb(self) -> Pixels:
        """(H, W, 3) uint8; converted at the first call. Not to be written to."""
        if self._rgb is None:
            self._rgb = np.asarray(self.image.to_ndarray(format="rgb24"), dtype=np.uint8)
        return self._rgb

    def _has_luma(self) -> bool:
        return self.image.format.name in _EIGHT_BIT_LUMA

    def _plane(self) -> Pixels:
        plane = self.image.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        return rows[: self.image.height, : self.image.width]

    def _grey(self) -> Pixels:
        return np.asarray(self.image.to_ndarray(format="gray"), dtype=np.uint8)
