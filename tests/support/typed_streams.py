"""Streams with what the typer, the decoder and FFmpeg's own header reader say of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
from av.bitstream import BitStreamFilterContext

from triparty.device.streams.packets import Picture
from triparty.device.streams.typer import Typer

FIELD = re.compile(r"(?P<place>\d+)\s+(?P<name>\S+)\s+\S+ = (?P<value>-?\d+)")
VERBOSE = 48


@dataclass(frozen=True)
class Compressed:
    """A stream taken out of its container.

    Attributes:
        codec: FFmpeg's name.
        extradata: of the container.
        packets: their bytes, in decode order.
    """

    codec: str
    extradata: bytes | None
    packets: tuple[bytes, ...]

    def typed(self) -> list[Picture]:
        """What a new typer says of each packet."""
        return typed(self.codec, self.extradata, self.packets)


def typed(codec: str, extradata: bytes | None, packets: Iterable[bytes]) -> list[Picture]:
    """What a new typer says of each packet."""
    typer = Typer.of(codec, extradata)
    return [typer.read(memoryview(packet)) for packet in packets]


def compressed(path: Path, bitstream_filter: str | None = None) -> Compressed:
    """The packets of a file, through a filter that repackages them if one is named."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        demuxed = [packet for packet in container.demux(stream) if packet.size]
        if bitstream_filter is None:
            return Compressed(
                context.codec.canonical_name, context.extradata, tuple(map(bytes, demuxed))
            )
        repackage = BitStreamFilterContext(bitstream_filter, stream)
        packets = [bytes(out) for one in demuxed for out in repackage.filter(one)]
        return Compressed(context.codec.canonical_name, None, tuple(packets))


@dataclass
class Reading:
    """A stream, packet by packet: what the typer says and what the decoder makes of it.

    Attributes:
        pictures: by number of the packet.
        letters: the decoder's own, by number of the packet that its frame came from.
        ungateable: what the typer says at the end.
    """

    pictures: list[Picture]
    letters: dict[int, int]
    ungateable: str | None

    @property
    def mismatches(self) -> int:
        """How many frames were typed otherwise than the decoder does."""
        shown = {n: int(one.type) for n, one in enumerate(self.pictures) if one.shown}
        assert shown.keys() == self.letters.keys()
        return sum(shown[number] != letter for number, letter in self.letters.items())


def read(stream: Compressed) -> Reading:
    """Types and decodes a stream."""
    decoder = av.CodecContext.create("libdav1d" if stream.codec == "av1" else stream.codec, "r")
    if stream.extradata:
        decoder.extradata = stream.extradata
    typer = Typer.of(stream.codec, stream.extradata)
    pictures, letters = [], {}
    for number, data in enumerate(stream.packets):
        packet = av.Packet(data)
        packet.pts = packet.dts = number
        pictures.append(typer.read(memoryview(packet)))
        letters |= {frame.pts: int(frame.pict_type) for frame in decoder.decode(packet)}
    letters |= {frame.pts: int(frame.pict_type) for frame in decoder.decode(None)}
    return Reading(pictures, letters, typer.ungateable)


def traced(path: Path, what: str = "value") -> list[dict[str, Sequence[int]]]:
    """The header fields of each packet of a file, by name, as FFmpeg reads them.

    Those of the container's own headers are among the first packet's.

    Args:
        path: the file.
        what: of each field: its `value`, or its `place` in bits.
    """
    level = av.logging.get_level()
    av.logging.set_level(VERBOSE)
    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            with av.logging.Capture() as lines:
                tracer = BitStreamFilterContext("trace_headers", stream)
            found = []
            for packet in container.demux(stream):
                if packet.size:
                    with av.logging.Capture() as more:
                        list(tracer.filter(packet))
                    found.append([*lines, *more])
                    lines = []
    finally:
        av.logging.set_level(level)
    return [
        _fields(what, (text for _, name, text in one if name == "trace_headers"))
        for one in found
    ]


def _fields(what: str, lines: Iterable[str]) -> dict[str, Sequence[int]]:
    fields = defaultdict(list)
    for line in lines:
        match = FIELD.match(line)
        if match:
            fields[match["name"]].append(int(match[what]))
    return fields
