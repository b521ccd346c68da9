"""Typing packets: CPU microseconds each, by codec and packaging, demuxing left out."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from pathlib import Path

import av

from benchmarks.harness import ROOT, BenchError, Case, Effort, case, cpu_time
from triparty.device.streams.typer import Typer

CLIP = "one-by-one-person-detection"
FRAMES, WIDTH, HEIGHT, RATE = 250, 384, 216, 25
os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder writes to stderr on its own
QUIET = "log-level=none:pools=none:frame-threads=1"


@dataclass(frozen=True)
class Made:
    """How a stream to be typed is made of the clip.

    Attributes:
        name: in the case's name.
        encoder: FFmpeg's name; None copies the clip's packets.
        container: FFmpeg's name of the format.
        options: of the encoder.
        target: most microseconds a packet, None where none is set.
    """

    name: str
    encoder: str | None
    container: str
    options: tuple[tuple[str, str], ...] = ()
    target: float | None = None


STREAMS = (
    Made("H.264, mp4", None, "mp4", target=4.0),
    Made("H.264, transport stream", None, "mpegts", target=6.0),
    Made(
        "H.264 without B pictures, mp4",
        "libx264",
        "mp4",
        (("preset", "veryfast"), ("x264-params", "bframes=0:keyint=50:threads=1")),
        target=4.0,
    ),
    Made(
        "H.265, mp4",
        "libx265",
        "mp4",
        (("preset", "ultrafast"), ("x265-params", f"{QUIET}:keyint=50:bframes=3")),
        target=4.0,
    ),
    Made(
        "H.265, transport stream",
        "libx265",
        "mpegts",
        (("preset", "ultrafast"), ("x265-params", f"{QUIET}:keyint=50:bframes=3")),
        target=6.0,
    ),
    Made(
        "VP9, WebM",
        "libvpx-vp9",
        "webm",
        (("deadline", "realtime"), ("cpu-used", "8"), ("g", "50"), ("lag-in-frames", "0")),
    ),
    Made(
        "AV1, mp4",
        "libsvtav1",
        "mp4",
        (("preset", "12"), ("g", "50"), ("svtav1-params", "lp=1")),
    ),
    Made("MPEG-4 part 2, mp4", "mpeg4", "mp4", (("g", "50"),)),
    Made("JPEG, Matroska", "mjpeg", "matroska"),
)


def _clip() -> Path:
    data = Path(os.environ.get("TRIPARTY_TEST_DATA", ROOT.parent / "shared" / "data"))
    path = data / "clips" / f"{CLIP}.mp4"
    if not path.is_file():
        raise BenchError(f"{path} is absent: set TRIPARTY_TEST_DATA")
    return path


def _copy(source: Path, container: str) -> bytes:
    target = io.BytesIO()
    with av.open(source) as read, av.open(target, "w", format=container) as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.size:
                packet.stream = stream
                written.mux(packet)
    return target.getvalue()


def _encode(source: Path, made: Made, frames: int) -> bytes:
    target = io.BytesIO()
    with av.open(source) as read, av.open(target, "w", format=made.container) as written:
        stream = written.add_stream(made.encoder or "", rate=RATE)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if made.encoder == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "FRAME"
        stream.codec_context.options = dict(made.options)
        for number, frame in zip(range(frames), read.decode(video=0), strict=False):
            small = frame.reformat(WIDTH, HEIGHT, stream.pix_fmt)
            small.pts, small.time_base = number, Fraction(1, RATE)
            written.mux(stream.encode(small))
        written.mux(stream.encode())
    return target.getvalue()


@cache
def _file(made: Made, frames: int) -> bytes:
    source = _clip()
    return (
        _copy(source, made.container) if made.encoder is None else _encode(source, made, frames)
    )


def typing_microseconds(made: Made, effort: Effort) -> Iterator[float]:
    """CPU us a packet, once a run."""
    file = io.BytesIO(_file(made, 50 if effort.quick else FRAMES))
    with av.open(file) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context.codec.canonical_name
        extradata = stream.codec_context.extradata
        packets = [packet for packet in container.demux(stream) if packet.size]
        views = [memoryview(packet) for packet in packets]
        repeats = max(1, (1_000 if effort.quick else 20_000) // len(views))
        for _ in range(effort.runs):
            spent: list[float] = []
            with cpu_time(spent):
                for _ in range(repeats):
                    read = Typer.of(codec, extradata).read
                    for view in views:
                        read(view)
            yield 1e6 * spent[0] / (repeats * len(views))


def _case(made: Made) -> Case:
    return case(
        f"typing a packet, {made.name}",
        unit="CPU us",
        better="lower",
        target=made.target,
        reference="2.0 us (H.264) and 2.4 us (H.265) for the picture type alone, pure Python",
    )(partial(typing_microseconds, made))


TYPING = tuple(_case(made) for made in STREAMS)
