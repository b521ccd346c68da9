"""What a packet costs from its container to the gate's choice, beside decoding it.

Cases for the suite `gating`: CPU time of demuxing and typing a 1080p camera's packets, in
each container, and of the gate among 200 and 1,000 streams, measured in the same run. The film
is a real clip scaled up, 4 Mb/s, a group of two seconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import av

from benchmarks.gating_decode import camera_file
from benchmarks.gating_overhead import microseconds, ours
from benchmarks.harness import Case, Effort, case, cpu_time
from triparty.device.streams.typer import Typer

CONTAINERS = {"mp4": 10.0, "mpegts": 15.0}
"""With the most that a packet may cost, in us (spec)."""
NAMES = {"mp4": "mp4", "mpegts": "transport stream"}
STREAMS = (200, 1000)


def _copied(source: Path, container: str) -> Path:
    target = source.with_suffix(f".copy.{container}")
    with av.open(source) as read, av.open(target, "w", format=container) as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.size:
                packet.stream = stream
                written.mux(packet)
    return target


def _demuxed_and_typed(file: Path, repeats: int) -> float:
    """CPU us a packet; opening the container is left out: a camera is opened once."""
    spent, packets = 0, 0
    for _ in range(repeats):
        with av.open(file) as container:
            stream = container.streams.video[0]
            codec = stream.codec_context.codec.canonical_name
            read = Typer.of(codec, stream.codec_context.extradata).read
            start = time.process_time_ns()
            for packet in container.demux(stream):
                if packet.size:
                    read(memoryview(packet), packet.is_keyframe)
                    packets += 1
            spent += time.process_time_ns() - start
    return spent / 1000 / packets


def _decoded(file: Path) -> float:
    """CPU us a frame of demuxing and decoding all."""
    spent: list[float] = []
    with av.open(file) as container:
        container.streams.video[0].codec_context.thread_count = 1
        with cpu_time(spent):
            frames = sum(1 for _ in container.decode(video=0))
    return 1e6 * spent[0] / frames


def _whole(container: str, streams: int) -> Case:
    @case(
        f"CPU a packet: demux, header, gate among {streams} streams, {NAMES[container]}",
        unit="us",
        better="lower",
        target=CONTAINERS[container],
        reference="thesis 2.5.2: 7 us a frame without demuxing, on an edge server",
    )
    def measure(effort: Effort) -> Iterator[float]:
        file = _copied(camera_file(effort), container)
        for _ in range(effort.runs):
            before = _demuxed_and_typed(file, 1 if effort.quick else 5)
            yield before + microseconds(ours, "scan", streams, 50 if effort.quick else 200)

    return measure


@case(
    "CPU of demux, header and gate among 200 streams over full decode, 1080p H.264, mp4",
    unit="%",
    better="lower",
    target=1.0,
    reference="spec: at most 1 % of full decode at 1080p",
)
def share(effort: Effort) -> Iterator[float]:
    """In the same run."""
    file = _copied(camera_file(effort), "mp4")
    for _ in range(effort.runs):
        before = _demuxed_and_typed(file, 1 if effort.quick else 5)
        gated = before + microseconds(ours, "scan", 200, 50 if effort.quick else 200)
        yield 100 * gated / statistics.median(_decoded(file) for _ in range(3))


PATH = (*(_whole(name, count) for name in CONTAINERS for count in STREAMS), share)
