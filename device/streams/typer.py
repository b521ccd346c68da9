"""`Typer`: what the headers of each packet of a stream say, read before any decode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from triparty.device.streams.bits import Data
from triparty.device.streams.headers.av1 import Av1
from triparty.device.streams.headers.h264 import H264
from triparty.device.streams.headers.hevc import Hevc
from triparty.device.streams.headers.intra import Jpeg2000, MotionJpeg
from triparty.device.streams.headers.mpeg4 import Mpeg4
from triparty.device.streams.headers.unknown import Unknown
from triparty.device.streams.headers.vp9 import Vp9
from triparty.device.streams.packets import Picture


class Headers(Protocol):
    """The headers of one stream of one codec; keeps what later packets need."""

    ungateable: str | None

    def read(self, data: Data, keyframe: bool = False) -> Picture:
        """What the headers of the next packet say.

        Raises:
            PacketError: headers that cannot be read.
        """


HEADERS: dict[str, Callable[[bytes | None], Headers]] = {
    "h264": H264,
    "hevc": Hevc,
    "vp9": Vp9,
    "av1": Av1,
    "mpeg4": Mpeg4,
    "mjpeg": MotionJpeg,
    "jpeg2000": Jpeg2000,
}


class Typer:
    """Types the packets of one stream, in decode order, every one of them.

    Only a few bytes of a packet are copied. After a `PacketError` later packets can be read;
    what they say of references holds from the next entry on.

    Args:
        headers: of the stream's codec.
    """

    def __init__(self, headers: Headers) -> None:
        """Reads with the headers of one codec; see `of`."""
        self._headers = headers
        self.read = headers.read

    @classmethod
    def of(cls, codec: str, extradata: bytes | None) -> Typer:
        """The typer of a stream.

        Args:
            codec: FFmpeg's name of the codec (`h264`, `av1`), which is `canonical_name` of a
                decoder in PyAV; not the decoder's own (`libdav1d`).
            extradata: what the container holds before the packets, or None.

        Raises:
            PacketError: extradata that cannot be read.
        """
        make = HEADERS.get(codec)
        return cls(make(extradata) if make else Unknown(codec))

    @property
    def ungateable(self) -> str | None:
        """Why the stream must be decoded whole, as far as known so far; None if it need not."""
        return self._headers.ungateable
