"""Hours of packets leave memory where it was."""

from __future__ import annotations

import gc
import random
import tracemalloc
from dataclasses import replace

import pytest
from gated_decoding import Stream, open_stream
from packet_graphs import entry, leading, packet, slotted, slotted_entry, trailing
from video_encodings import Encodings

from triparty.device.streams.closure import Closures
from triparty.device.streams.decoder import StreamDecoder
from triparty.device.streams.packets import Entry, Packet, Picture
from triparty.device.streams.reachability import Bound, Closure

HOUR = 25 * 3600
GROUPS: dict[str, list[Picture]] = {
    "gop 25": [entry(), *[trailing()] * 24],
    "gop 250": [entry(), *[trailing()] * 249],
    "open gop": [entry(Entry.OPEN), leading(True), leading(), *[trailing(), leading()] * 10],
    "slots": [slotted_entry(), *[slotted(15, 1), slotted(3, 2), slotted(12, 4)] * 20],
    "no second entry": [trailing()],
}


def _play(closures: Closures, pictures: list[Picture], first: int, count: int) -> int:
    """Plays packets with a gate that now and then forgets the stream for long."""
    rng = random.Random(first)
    most = 0
    density = 0.1
    for number in range(first, first + count):
        if number % 500 == 0:
            density = rng.choice([0, 0, 0.02, 0.2, 1])
        picture = pictures[number % len(pictures)] if number else entry()
        if rng.random() < 1e-3:
            closures.gap()
        closures.add(packet(number, picture, size=2000))
        most = max(most, closures.held_packets)
        if rng.random() >= density:
            continue
        answer = closures.closure(number)
        if isinstance(answer, Closure):
            closures.decoded([one.number for one in answer])
    closures.decoded([first + count - 1])  # past all of them: the same state each time
    return most


def _held_by_streams() -> int:
    """Bytes that the modules of streams have allocated and not given back."""
    gc.collect()
    ours = tracemalloc.Filter(True, "*/streams/*")
    snapshot = tracemalloc.take_snapshot().filter_traces([ours])
    return sum(trace.size for trace in snapshot.traces)


@pytest.mark.parametrize(
    ("name", "hours"),
    [
        *(("slots", 0.02), ("no second entry", 0.02)),
        *(pytest.param(name, 1, marks=pytest.mark.slow) for name in GROUPS),
    ],
)
def test_closures_of_an_endless_stream_stay_small(name: str, hours: float) -> None:
    closures = Closures(Bound(packets=300))
    count = int(HOUR * hours)
    warm = count // 2
    tracemalloc.start()
    try:
        _play(closures, GROUPS[name], 0, warm)
        before = _held_by_streams()
        most = _play(closures, GROUPS[name], warm, count - warm)
        after = _held_by_streams()
    finally:
        tracemalloc.stop()
    assert most <= 300
    assert after - before < 50_000
    assert closures.counters.arrived == count


def _stamps() -> int:
    gc.collect()
    return sum(type(one).__name__ == "_Stamp" for one in gc.get_objects())


def test_a_decoder_that_runs_for_long_keeps_nothing(encodings: Encodings) -> None:
    stream = open_stream(encodings.path("h264-b-pyramid"))
    closures, decoder = Closures(), StreamDecoder(stream.codec, stream.extradata)
    for number in range(10 * len(stream.packets)):
        closures.add(_looped(stream, number))
        if number % 7 < 3:
            answer = closures.closure(number)
            if isinstance(answer, Closure):
                decoder.decode(answer)
                closures.decoded([one.number for one in answer])
    assert _stamps() <= 8  # those of frames to come, and of references
    assert decoder.counters.missing == 0
    assert decoder.counters.frames > 150
    decoder.drain()
    assert _stamps() == 0


def _looped(stream: Stream, number: int) -> Packet:
    return replace(stream.packets[number % len(stream.packets)], number=number)
