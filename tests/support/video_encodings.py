"""Test encodings of real clips: every codec and group-of-pictures structure that gating meets.

They are made by PyAV's encoders when a test first asks for them, small (a few dozen frames at
CIF-like sizes), single-threaded, so that the same versions give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

RATE = 25
os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder writes to stderr on its own
X265_QUIET = "log-level=none:pools=none:frame-threads=1"


@dataclass(frozen=True)
class Encoding:
    """How one test stream is made.

    Attributes:
        name: of the encoding, and of its file.
        encoder: FFmpeg's name of the encoder.
        suffix: of the file; names the container.
        options: of the encoder.
        clip: the real clip that the frames are taken from.
        start: the first of its frames.
        frames: how many.
        width: pixels.
        height: pixels.
        ungateable: whether gating must refuse the stream and decode all of it.
    """

    name: str
    encoder: str
    suffix: str
    options: Mapping[str, str] = field(default_factory=dict)
    clip: str = "one-by-one-person-detection"
    start: int = 60
    frames: int = 60
    width: int = 256
    height: int = 144
    ungateable: bool = False

    @property
    def filename(self) -> str:
        return f"{self.name}.{self.suffix}"

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec, as `typer` and the cost model know it."""
        names = {"libx264": "h264", "libx265": "hevc", "libvpx-vp9": "vp9", "libsvtav1": "av1"}
        return names.get(self.encoder, self.encoder)


def _h264(name: str, suffix: str, parameters: str, **more: object) -> Encoding:
    options = {"preset": "veryfast", "crf": "24", "x264-params": f"threads=1:{parameters}"}
    return Encoding(name, "libx264", suffix, options, **more)  # type: ignore[arg-type]


def _h265(name: str, suffix: str, parameters: str, **more: object) -> Encoding:
    options = {"preset": "ultrafast", "x265-params": f"{X265_QUIET}:{parameters}"}
    return Encoding(name, "libx265", suffix, options, **more)  # type: ignore[arg-type]


def _rate(gop: int) -> str:
    """A camera's constant bit rate: no B, fixed groups, a buffer of one second."""
    steady = "nal-hrd=cbr:bitrate=150:vbv-maxrate=150:vbv-bufsize=150"
    return f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes=0:{steady}"


_GOP = "keyint=12:min-keyint=12:scenecut=0"

ENCODINGS = (
    _h264("h264-baseline", "mp4", f"{_GOP}:bframes=0:cabac=0:8x8dct=0:weightp=0:ref=1"),
    _h264("h264-main-b", "mp4", f"{_GOP}:bframes=2:b-adapt=0:b-pyramid=none:ref=2"),
    _h264("h264-b-pyramid", "mkv", f"{_GOP}:bframes=3:b-adapt=0:b-pyramid=normal:ref=3"),
    _h264("h264-b-transport", "ts", "keyint=20:scenecut=0:bframes=3:b-pyramid=strict:ref=3"),
    _h264(
        "h264-open-gop", "ts", f"{_GOP}:bframes=3:b-adapt=0:b-pyramid=normal:open-gop=1:ref=3"
    ),
    _h264("h264-open-gop-mp4", "mp4", f"{_GOP}:bframes=2:b-adapt=0:open-gop=1:ref=2"),
    _h264("h264-intra-refresh", "mp4", "keyint=12:intra-refresh=1:bframes=0", ungateable=True),
    _h264("h264-slices", "h264", f"{_GOP}:bframes=0:slices=4"),
    _h264("h264-b-raw", "h264", f"{_GOP}:bframes=2:b-adapt=0:b-pyramid=none:slices=2"),
    _h264("h264-cbr-25", "ts", _rate(25), clip="car-detection", start=200, frames=80),
    _h264("h264-cbr-50", "mp4", _rate(50), clip="car-detection", start=180, frames=120),
    _h264("h264-long", "mp4", "keyint=250:scenecut=0:bframes=0", frames=80),
    _h264("h264-all-intra", "mp4", "keyint=1:bframes=0", frames=24),
    _h265("h265-closed", "mp4", "keyint=12:scenecut=0:open-gop=0:bframes=3:b-adapt=0"),
    _h265("h265-open", "mkv", "keyint=12:scenecut=0:open-gop=1:bframes=3:b-adapt=0"),
    _h265("h265-open-transport", "ts", "keyint=12:open-gop=1:bframes=4:b-pyramid=1:ref=3"),
    _h265("h265-raw", "hevc", "keyint=16:scenecut=0:open-gop=0:bframes=0"),
    _h265("h265-layers", "mp4", "keyint=16:open-gop=0:bframes=3:temporal-layers=3"),
    Encoding(
        "vp9-altref",
        "libvpx-vp9",
        "webm",
        {
            **{"deadline": "good", "cpu-used": "8", "crf": "34", "b": "0", "g": "20"},
            **{"lag-in-frames": "12", "auto-alt-ref": "1", "arnr-maxframes": "3"},
        },
    ),
    Encoding(
        "vp9-realtime",
        "libvpx-vp9",
        "mkv",
        {
            **{"deadline": "realtime", "cpu-used": "8", "crf": "34", "b": "0", "g": "20"},
            **{"lag-in-frames": "0", "error-resilient": "default"},
        },
    ),
    Encoding(
        "av1",
        "libsvtav1",
        "mp4",
        {"preset": "12", "crf": "40", "g": "20", "svtav1-params": "lp=1"},
    ),
    Encoding(
        "av1-low-delay",
        "libsvtav1",
        "mkv",
        {"preset": "12", "crf": "40", "g": "20", "svtav1-params": "lp=1:pred-struct=1"},
    ),
    Encoding("mpeg4", "mpeg4", "mp4", {"g": "12", "bf": "0", "q:v": "5"}),
    Encoding("mpeg4-b", "mpeg4", "mp4", {"g": "12", "bf": "2", "b": "200k"}),
    Encoding("mjpeg", "mjpeg", "mkv", {"q:v": "8"}, frames=24),
    Encoding("jpeg2000", "jpeg2000", "mkv", {"b": "2M"}, frames=16, width=128, height=72),
)

NAMELESS_REFRESH = _h265(
    "h265-intra-refresh", "mp4", "keyint=12:intra-refresh=1:bframes=0:scenecut=0"
)
"""Intra refresh without a recovery point: after the first picture nothing is an entry."""

BY_NAME = {one.name: one for one in (*ENCODINGS, NAMELESS_REFRESH)}


@lru_cache(maxsize=8)
def clip_frames(
    clips: Path, clip: str, start: int, frames: int, width: int, height: int
) -> list[NDArray[np.uint8]]:
    """Frames of a real clip, scaled; planar 4:2:0, each (height * 3 / 2, width)."""
    found = []
    with av.open(clips / f"{clip}.mp4") as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index >= start:
                small = frame.reformat(width, height, "yuv420p")
                found.append(small.to_ndarray().astype(np.uint8))
            if len(found) == frames:
                return found
    raise ValueError(f"clip '{clip}' has {index + 1} frames, {start + frames} are needed")


def encode(encoding: Encoding, clips: Path, target: Path) -> None:
    """Writes an encoding into a file; one that is half written is never seen."""
    pictures = clip_frames(
        clips,
        encoding.clip,
        encoding.start,
        encoding.frames,
        encoding.width,
        encoding.height,
    )
    partial = target.with_name(f"{os.getpid()}-{target.name}")
    with av.open(partial, "w", options={"fflags": "bitexact"}) as container:
        stream = container.add_stream(encoding.encoder, rate=RATE)
        stream.width, stream.height = encoding.width, encoding.height
        stream.pix_fmt = "yuvj420p" if encoding.encoder == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "FRAME"  # slices would be x264's sliced threads
        stream.codec_context.options = dict(encoding.options)
        if encoding.encoder == "mpeg4":
            stream.codec_context.max_b_frames = int(encoding.options["bf"])
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    partial.replace(target)


class Encodings:
    """The encodings of one test session; each is made once, when it is first asked for.

    Args:
        clips: folder of the real clips.
        folder: where the encodings are kept; test processes may share it.
    """

    def __init__(self, clips: Path, folder: Path) -> None:
        self._clips = clips
        self._folder = folder

    def path(self, name: str) -> Path:
        """The file of an encoding."""
        encoding = BY_NAME[name]
        target = self._folder / encoding.filename
        if not target.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            encode(encoding, self._clips, target)
        return target

    def packets(self, name: str) -> Iterator[av.Packet]:
        """The demuxed packets of an encoding, without the empty one at the end."""
        with av.open(self.path(name)) as container:
            for packet in container.demux(video=0):
                if packet.size:
                    yield packet
