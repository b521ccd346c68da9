"""Makes a trace of a clip: types every packet, measures every decode, asks models every frame.

For files, which can be read again. A live camera's trace is written by the gateway as it goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from triparty.common.errors import TraceError
from triparty.device.gate.detectors import Detector
from triparty.device.gate.traces import (
    Origin,
    PacketColumns,
    Results,
    ResultsBuilder,
    Task,
    Trace,
)
from triparty.device.streams.packets import Packet
from triparty.device.streams.typer import Typer

Seen = Callable[[int], None]


@dataclass(frozen=True)
class Recording:
    """What a clip's packets say, before any frame is looked at."""

    origin: Origin
    packets: PacketColumns


def record(
    clip: Path,
    *,
    detectors: Sequence[Detector] = (),
    tasks: Sequence[Task] = (),
    camera: str | None = None,
    note: str = "",
    passes: int = 3,
    limit: int | None = None,
    seen: Seen | None = None,
) -> Trace:
    """The trace of a clip.

    Args:
        clip: a file that FFmpeg can read.
        detectors: each is asked about every frame.
        tasks: what their results answer; counting of all objects by default.
        camera: a name for people; the file's stem by default.
        note: how the clip was made, if a camera did not.
        passes: how often the whole clip is decoded to measure it; the smallest time of each
            packet is kept. 0 leaves costs unknown.
        limit: packets after so many are left out.
        seen: called after each frame that the detectors saw, with how many that are.

    Raises:
        TraceError: the file cannot be read, has no video, or no packet with a time.
        PacketError: headers that cannot be read.
    """
    plain = read_packets(clip, camera=camera or clip.stem, note=note, limit=limit)
    costs = [decode_costs(clip, len(plain.packets)) for _ in range(passes)]
    least = np.min(costs, axis=0) if costs else plain.packets.cost_ms
    columns = {name: getattr(plain.packets, name) for name in vars(plain.packets)}
    packets = PacketColumns(**columns | {"cost_ms": least.astype(np.float32)})
    wanted = tuple(tasks) or tuple(Task(f"count:{d.name}", d.name, "count") for d in detectors)
    return Trace(
        plain.origin,
        packets,
        tuple(detector.name for detector in detectors),
        wanted,
        _results(clip, packets, detectors, seen),
    )


def read_packets(
    clip: Path, *, camera: str, note: str = "", limit: int | None = None
) -> Recording:
    """The typed packets of a clip in decode order; nothing is decoded.

    Args:
        clip: a file that FFmpeg can read.
        camera: a name for people.
        note: how the clip was made.
        limit: packets after so many are left out.

    Raises:
        TraceError: the file cannot be read, has no video, or no packet with a time.
        PacketError: headers that cannot be read.
    """
    with _opened(clip) as (container, stream):
        context = stream.codec_context
        typer = Typer.of(context.name, context.extradata)
        packets = []
        for number, packet in enumerate(_demuxed(container, stream, limit)):
            if packet.pts is None or packet.time_base is None:
                raise TraceError(f"{clip}: packet {number} has no presentation time")
            seconds = float(packet.pts * packet.time_base)
            picture = typer.read(memoryview(packet), packet.is_keyframe)
            packets.append(Packet(number, packet.size, packet.pts, seconds, seconds, picture))
        if not packets:
            raise TraceError(f"{clip}: its video has no packet")
        origin = Origin(
            camera=camera,
            codec=context.name,
            container=container.format.name,
            width=context.width,
            height=context.height,
            fps=_rate(stream, packets),
            note=note,
            ungateable=typer.ungateable,
        )
    return Recording(origin, PacketColumns.of(packets))


def decode_costs(clip: Path, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(count,) float32 CPU ms of decoding each packet of a clip, all of them, on one thread.

    A decoder works when it is given a packet, also if the frame comes out later.
    """
    costs = np.zeros(count, dtype=np.float32)
    with _opened(clip) as (container, stream):
        context = stream.codec_context
        context.thread_type = "NONE"
        context.thread_count = 1
        for number, packet in enumerate(_demuxed(container, stream, count)):
            start = time.thread_time_ns()
            context.decode(packet)
            costs[number] = (time.thread_time_ns() - start) / 1e6
    return costs


def _results(
    clip: Path, packets: PacketColumns, detectors: Sequence[Detector], seen: Seen | None
) -> Results:
    results = ResultsBuilder()
    known = set(packets.pts.tolist())
    if not detectors:
        return results.build()
    with _opened(clip) as (container, stream):
        for number, frame in enumerate(container.decode(stream), start=1):
            if frame.pts not in known:
                break
            for model, detector in enumerate(detectors):
                found = detector.detect(frame)
                results.add(
                    frame.pts,
                    model,
                    boxes=found.boxes,
                    labels=found.labels,
                    scores=found.scores,
                )
            if seen:
                seen(number)
    return results.build()


@contextmanager
def _opened(clip: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        with av.open(str(clip)) as container:
            if not container.streams.video:
                raise TraceError(f"{clip}: holds no video")
            yield container, container.streams.video[0]
    except (av.error.FFmpegError, OSError) as error:
        raise TraceError(f"{clip}: cannot be read as video ({error.strerror})") from error


def _demuxed(
    container: InputContainer, stream: VideoStream, limit: int | None
) -> Iterator[av.Packet]:
    number = 0
    for packet in container.demux(stream):
        if packet.size == 0 or number == limit:  # size 0: the flushing packet at the end
            return
        number += 1
        yield packet


def _rate(stream: VideoStream, packets: Sequence[Packet]) -> float:
    """Frames a second as the container says, or as the times of packets do."""
    if stream.average_rate:
        return float(stream.average_rate)
    times = [packet.time for packet in packets]
    spread = max(times) - min(times)
    return min(1000.0, (len(packets) - 1) / spread) if spread > 0 else 25.0
