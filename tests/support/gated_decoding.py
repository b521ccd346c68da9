"""Gated decoding of a file by random gates, and the full decode that it must equal."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import av

from triparty.common.errors import DecodeError
from triparty.device.streams.closure import Closures
from triparty.device.streams.decoder import Frame, StreamDecoder
from triparty.device.streams.packets import Packet, Picture
from triparty.device.streams.reachability import Unreachable
from triparty.device.streams.typer import Typer

Wants = Sequence[int | None]
DENSITIES = (0.03, 0.1, 0.3, 0.7, 1.0)


@dataclass(frozen=True)
class Stream:
    """A file, read and typed.

    Attributes:
        codec: FFmpeg's name.
        extradata: of the container.
        packets: in decode order, with their demuxed packets.
        whole_from: the number of the packet at which the typer finds that the stream cannot
            be gated; None if it can.
    """

    codec: str
    extradata: bytes | None
    packets: tuple[Packet, ...]
    whole_from: int | None = None

    def with_pictures(self, change: Callable[[Picture], Picture]) -> Stream:
        """The stream with other words about its pictures, for negative controls."""
        packets = [replace(one, picture=change(one.picture)) for one in self.packets]
        return replace(self, packets=tuple(packets))


def open_stream(path: Path) -> Stream:
    """Reads a file's video and types its packets."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context.codec.canonical_name
        extradata = stream.codec_context.extradata
        typer = Typer.of(codec, extradata)
        packets = []
        whole_from = None
        for demuxed in container.demux(stream):
            if not demuxed.size:
                continue
            number = len(packets)
            picture = typer.read(memoryview(demuxed), demuxed.is_keyframe)
            if typer.ungateable and whole_from is None:
                whole_from = number
            pts = number if demuxed.pts is None else demuxed.pts
            seconds = number / 25
            packets.append(
                Packet(number, demuxed.size, pts, seconds, seconds, picture, demuxed)
            )
    return Stream(codec, extradata, tuple(packets), whole_from)


def fingerprint(image: av.VideoFrame) -> str:
    """A hash of the visible samples of all planes and of their shape."""
    pixels = hashlib.blake2b(image.to_ndarray().tobytes(), digest_size=12).hexdigest()
    return f"{image.width}x{image.height}:{image.format.name}:{pixels}"


def full_decode(stream: Stream) -> dict[int, str]:
    """Fingerprints of all frames by packet number, from a context that knows no gating."""
    name = "libdav1d" if stream.codec == "av1" else stream.codec
    context = av.CodecContext.create(name, "r")
    if stream.extradata:
        context.extradata = stream.extradata
    context.thread_type = "NONE"
    found = {}
    for one in (*stream.packets, None):
        if one is None:
            images = context.decode(None)
        else:
            stamps = one.data.pts, one.data.dts
            one.data.pts = one.data.dts = one.number
            images = context.decode(one.data)
            one.data.pts, one.data.dts = stamps
        found.update({image.pts: fingerprint(image) for image in images})
    return found


def random_gate(seed: int, density: float, count: int) -> list[int | None]:
    """Which packet is wanted after each arrival: single ones, runs, or late ones."""
    rng = random.Random(seed)
    wants: list[int | None] = []
    is_on = False
    for newest in range(count):
        if seed % 3 == 0 or rng.random() < 0.15:
            is_on = rng.random() < density
        late = rng.choice([0, 0, 1, 2, 3, 6]) if seed % 3 == 2 else 0
        wants.append(max(0, newest - late) if is_on else None)
    return wants


@dataclass
class Outcome:
    """What gated decoding gave.

    Attributes:
        frames: fingerprints by packet number.
        asked: numbers whose closures were decoded as targets.
        refused: how often each reason was given.
        fed: packets that were decoded.
        surplus: frames that nobody could attribute.
        failures: packets that the decoder failed on.
    """

    frames: dict[int, str] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    refused: Counter[Unreachable] = field(default_factory=Counter)
    fed: int = 0
    surplus: int = 0
    failures: int = 0

    def differing(self, full: Mapping[int, str]) -> list[int]:
        """Frames that are not those of a full decode."""
        return [n for n, pixels in self.frames.items() if full.get(n) != pixels]

    @property
    def lost(self) -> list[int]:
        """Frames that were asked for, not refused, and never came."""
        return [number for number in self.asked if number not in self.frames]


def gated_decode(
    stream: Stream, wants: Wants, start: int = 0, *, reorders: bool = False
) -> Outcome:
    """Decodes the closures of what is wanted; a start later than 0 is a camera joined late."""
    closures, outcome = Closures(), Outcome()
    decoder = StreamDecoder(stream.codec, stream.extradata, reorders=reorders)
    for packet in stream.packets[start:]:
        if packet.number == stream.whole_from:
            closures.decode_whole()
        closures.add(packet)
        want = wants[packet.number]
        if want is None:
            continue
        answer = closures.closure(want)
        if isinstance(answer, Unreachable):
            outcome.refused[answer] += 1
            continue
        try:
            _keep(outcome, decoder.decode(answer, also=lambda packet: True))
        except DecodeError as error:
            closures.failed(error.extra["number"])
        else:
            closures.decoded([one.number for one in answer])
            outcome.asked.append(want)
    _keep(outcome, decoder.drain())
    counters = decoder.counters
    outcome.fed, outcome.surplus = counters.fed, counters.surplus
    outcome.failures = counters.failures
    return outcome


def _keep(outcome: Outcome, frames: Iterable[Frame]) -> None:
    for frame in frames:
        if frame.number in outcome.frames:
            raise AssertionError(f"frame {frame.number} came out twice")
        outcome.frames[frame.number] = fingerprint(frame.image)
