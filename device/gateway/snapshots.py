"""Pictures of events: the frame that showed one, as a JPEG for its owner alone."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final

import av

from triparty.common.files import write_private

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

SUFFIX: Final = ".jpg"
SNAPSHOTS: Final = f"*{SUFFIX}"
"""Pattern of their names."""
QUALITY: Final = 5
"""Of FFmpeg's MJPEG encoder: 2 is best, 31 smallest."""


def write_snapshot(path: Path, image: av.VideoFrame, *, pixels: int) -> None:
    """Writes a frame as JPEG; whole or not at all, mode 0600.

    Args:
        path: of the file.
        image: as decoded; not changed.
        pixels: longest side; a larger picture is scaled down.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, jpeg(image, pixels=pixels))


def jpeg(image: av.VideoFrame, *, pixels: int) -> bytes:
    """A frame as JPEG, its longest side at most so long."""
    scale = min(1.0, pixels / max(image.width, image.height))
    width, height = (max(1, round(side * scale)) for side in (image.width, image.height))
    picture = image.reformat(width=width, height=height, format="yuvj420p")
    encoder: VideoCodecContext = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"qmin": str(QUALITY), "qmax": str(QUALITY)}
    picture.pts = 0
    return b"".join(
        bytes(packet) for packet in (*encoder.encode(picture), *encoder.encode(None))
    )
