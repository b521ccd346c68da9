"""Makes a trace of a video: types every packet, decodes all, asks models about every frame.

For files and for a look at a live camera. The trace of a stream that is gated is written by the
gateway as it goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from triparty.common.errors import TraceError
from triparty.device.gate.detectors import Detector
from triparty.device.gate.traces import (
    Origin,
    PacketColumns,
    ResultsBuilder,
    Task,
    Trace,
)
from triparty.device.streams.packets import Packet
from triparty.device.streams.typer import Typer

MOTION = "motion"
THUMBNAIL = (64, 36)  # columns and rows of luma that motion is measured on
LIVE_TIMEOUT_S = 10
Seen = Callable[[int], None]


def record(
    source: str | Path,
    *,
    detectors: Sequence[Detector] = (),
    tasks: Sequence[Task] = (),
    camera: str | None = None,
    note: str = "",
    passes: int = 1,
    limit: int | None = None,
    seen: Seen | None = None,
) -> Trace:
    """The trace of a video, with motion (mean change of luma from frame to frame) as a model.

    Args:
        source: a file, or a URL that FFmpeg can read.
        detectors: each is asked about every frame.
        tasks: what their results answer; by default counting what each detector sees.
        camera: a name for people; by default the file's stem, or the URL's host.
        note: how the video was made, if a camera did not.
        passes: how often a file is decoded to measure it; the smallest time of each packet is
            kept. A URL is read once.
        limit: packets after so many are left out.
        seen: called after each frame with how many were seen.

    Raises:
        TraceError: it cannot be read, has no video, or no packet with a time.
        PacketError: headers that cannot be read.
    """
    name = camera or shown_name(source)
    course = _Course(detectors=detectors, seen=seen)
    with _opened(source) as (container, stream):
        course.run(container, stream, limit)
        if not course.packets:
            raise TraceError(f"{name}: its video has no packet")
        origin = Origin(
            camera=name,
            codec=stream.codec_context.codec.canonical_name,
            container=container.format.name,
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            fps=_rate(stream, course.packets),
            note=note,
            ungateable=course.ungateable,
        )
    costs = [np.array(course.costs, dtype=np.float32)]
    if not is_url(source):
        costs += [decode_costs(Path(source), len(course.packets)) for _ in range(passes - 1)]
    plain = PacketColumns.of(course.packets, np.min(costs, axis=0).tolist())
    wanted = tuple(tasks) or tuple(
        Task(f"count-{one.name.lower()}", one.name, "count") for one in detectors
    )
    models = (MOTION, *(detector.name for detector in detectors))
    results = course.results.build()
    # Of frames whose packets came before the recording began, nothing is kept.
    kept = np.isin(results.pts, plain.pts)
    return Trace(origin, plain, models, wanted, results.chosen(np.flatnonzero(kept)))


def is_url(source: str | Path) -> bool:
    """Whether a source is a URL, not a file."""
    return isinstance(source, str) and "://" in source


def shown_name(source: str | Path) -> str:
    """What a source may be called in a report: never a user name, password or query."""
    if isinstance(source, str) and is_url(source):
        return urlsplit(source).hostname or "camera"
    return Path(source).stem


def decode_costs(clip: Path, count: int) -> NDArray[np.float32]:
    """(count,) float32 CPU ms of decoding each packet of a file, all of them, on one thread."""
    course = _Course(only_costs=True)
    with _opened(clip) as (container, stream):
        course.run(container, stream, count)
    return np.array(course.costs, dtype=np.float32)


@dataclass
class _Course:
    """One reading of a video from beginning to end."""

    detectors: Sequence[Detector] = ()
    seen: Seen | None = None
    only_costs: bool = False
    packets: list[Packet] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    results: ResultsBuilder = field(default_factory=ResultsBuilder)
    ungateable: str | None = None
    _thumbnail: NDArray[np.int16] | None = None
    _frames: int = 0

    def run(self, container: InputContainer, stream: VideoStream, limit: int | None) -> None:
        context = stream.codec_context
        context.thread_type = "NONE"
        context.thread_count = 1
        typer = Typer.of(context.codec.canonical_name, context.extradata)
        for number, packet in enumerate(_demuxed(container, stream, limit)):
            if not self.only_costs:
                self.packets.append(_typed(number, packet, typer))
            # A decoder works when it is given a packet, also if the frame comes out later.
            start = time.thread_time_ns()
            frames = context.decode(packet)
            self.costs.append((time.thread_time_ns() - start) / 1e6)
            self._look(frames)
        self.ungateable = typer.ungateable
        self._look(context.decode(None))

    def _look(self, frames: Sequence[av.VideoFrame]) -> None:
        if self.only_costs:
            return
        for frame in frames:
            if frame.pts is None:
                continue
            self.results.add(frame.pts, 0, value=self._motion(frame))
            for model, detector in enumerate(self.detectors, start=1):
                found = detector.detect(frame)
                self.results.add(
                    frame.pts,
                    model,
                    boxes=found.boxes,
                    labels=found.labels,
                    scores=found.scores,
                )
            self._frames += 1
            if self.seen:
                self.seen(self._frames)

    def _motion(self, frame: av.VideoFrame) -> float:
        """Mean absolute change of luma since the frame before, 0 to 255."""
        width, height = THUMBNAIL
        small = frame.to_ndarray(width=width, height=height, format="gray").astype(np.int16)
        before, self._thumbnail = self._thumbnail, small
        return 0.0 if before is None else float(np.abs(small - before).mean())


def _typed(number: int, packet: av.Packet[VideoStream], typer: Typer) -> Packet:
    if packet.pts is None or packet.time_base is None:
        raise TraceError(f"packet {number} of the video has no presentation time")
    seconds = float(packet.pts * packet.time_base)
    picture = typer.read(memoryview(packet), packet.is_keyframe)
    return Packet(number, packet.size, packet.pts, seconds, seconds, picture)


@contextmanager
def _opened(source: str | Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    options = {}
    if is_url(source):
        options = {"timeout": str(LIVE_TIMEOUT_S * 1_000_000), "rtsp_transport": "tcp"}
    try:
        with av.open(str(source), options=options) as container:
            if not container.streams.video:
                raise TraceError(f"{shown_name(source)}: holds no video")
            yield container, container.streams.video[0]
    except (av.error.FFmpegError, OSError) as error:
        reason = error.strerror or type(error).__name__
        raise TraceError(f"{shown_name(source)}: cannot be read as video ({reason})") from None


def _demuxed(
    container: InputContainer, stream: VideoStream, limit: int | None
) -> Iterator[av.Packet[VideoStream]]:
    for number, packet in enumerate(container.demux(stream)):
        if packet.size == 0 or number == limit:  # size 0: the flushing packet at the end
            return
        yield packet


def _rate(stream: VideoStream, packets: Sequence[Packet]) -> float:
    """Frames a second as the container says, or as the times of packets do."""
    if stream.average_rate:
        return float(stream.average_rate)
    times = [packet.time for packet in packets]
    spread = max(times) - min(times)
    return min(1000.0, (len(packets) - 1) / spread) if spread > 0 else 25.0
