"""Opens a stream with FFmpeg, and turns its failures into words without credentials."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import av.error
from av.container import InputContainer

from triparty.device.streams.addresses import Address

if TYPE_CHECKING:
    from av.video.stream import VideoStream

REFUSALS = (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)
USUAL_RATE = 25
MOST_RATE = 1000.0
TEMPLATE_FORMAT = "nut"
"""The one container that keeps any codec's header as it is."""


class NoVideoError(Exception):
    """A stream without pictures."""


@dataclass(frozen=True)
class Failure:
    """Why a stream could not be opened or broke.

    Attributes:
        text: for people, without credentials.
        refused: the camera did not accept our credentials.
        final: trying again is of no use, as with a file.
    """

    text: str
    refused: bool = False
    final: bool = False

    @classmethod
    def of(cls, error: Exception, address: Address) -> Failure:
        """What an exception of FFmpeg says of an address."""
        words = str(error) if isinstance(error, NoVideoError) else _words(error)
        return cls(
            text=address.scrub(words),
            refused=isinstance(error, REFUSALS),
            final=not address.live,
        )


@dataclass(frozen=True)
class Opened:
    """A connection that was made: what follows belongs to it, and begins with number 0.

    Attributes:
        codec: FFmpeg's name.
        extradata: the codec's header, None if the packets hold it.
        width: pixels.
        height: pixels.
        rate: frames a second, as far as its header says.
        time_base: length of a tick of the stream's stamps, in seconds.
        template: a container of `TEMPLATE_FORMAT` with this stream and no picture, from which
            a muxer learns what the stream is after its connection is gone.
        ungateable: why the stream must be decoded whole, as far as its header says.
        reorders: whether pictures come out in another order than they go in.
    """

    codec: str
    extradata: bytes | None
    width: int
    height: int
    rate: float
    time_base: Fraction
    template: bytes
    ungateable: str | None = None
    reorders: bool = False


def open_container(
    address: Address, *, timeout_s: float, options: Mapping[str, str]
) -> InputContainer:
    """Opens an address for reading.

    Raises:
        av.error.FFmpegError: it cannot be opened; the text may hold credentials.
    """
    container = av.open(address.url, options=address.options(timeout_s=timeout_s, more=options))
    if not container.streams.video:
        container.close()
        raise NoVideoError("there is no video stream in it")
    return container


def describe(stream: VideoStream) -> Opened:
    """What is known of a stream whose container is open.

    Raises:
        NoVideoError: its codec is unknown to FFmpeg.
    """
    context = stream.codec_context
    if context is None:
        raise NoVideoError("FFmpeg knows no decoder for its codec")
    return Opened(
        codec=str(context.codec.canonical_name),
        extradata=context.extradata or None,
        width=stream.width,
        height=stream.height,
        rate=min(MOST_RATE, float(stream.average_rate or stream.guessed_rate or USUAL_RATE)),
        time_base=stream.time_base or Fraction(1),
        template=_template(stream),
        reorders=bool(context.has_b_frames),
    )


def _template(stream: VideoStream) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=TEMPLATE_FORMAT) as output:
        copy = output.add_stream_from_template(stream, opaque=True)
        output.start_encoding()
        mark = av.Packet(b"\0")  # without a packet there is no header to read
        mark.pts = mark.dts = 0
        mark.time_base = stream.time_base or Fraction(1)
        mark.is_keyframe = True
        mark.stream = copy
        output.mux(mark)
    return buffer.getvalue()


def _words(error: Exception) -> str:
    """FFmpeg's own text, without number and file name."""
    words = getattr(error, "strerror", None) or str(error)
    return f"{type(error).__name__}: {words}"
