"""Whatever bytes arrive, a typer answers or raises `PacketError`, soon and in little memory."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import mutated
from typed_streams import Compressed, compressed
from video_encodings import Encodings

from triparty.common.errors import PacketError
from triparty.device.streams.packets import Entry, Picture
from triparty.device.streams.typer import HEADERS, Typer

NAMES = (
    "h264-main-b",
    "h264-open-gop",
    "h264-intra-refresh",
    "h264-slices",
    "h265-open",
    "h265-open-transport",
    "vp9-altref",
    "av1",
    "mpeg4-b",
    "mjpeg",
    "jpeg2000",
)
FRONT, BACK = 4000, 40  # bytes of a packet that mutations meet; more would rarely meet headers
HOSTILE = 6 << 20  # bytes
MEMORY = 3 << 20  # bytes: copies of the packet's front as it is searched


@pytest.fixture(scope="module")
def streams(encodings: Encodings) -> list[Compressed]:
    """Short real streams of every codec and packaging."""
    found = []
    for name in NAMES:
        stream = compressed(encodings.path(name))
        packets = tuple(
            one if len(one) < FRONT + BACK else one[:FRONT] + one[-BACK:]
            for one in stream.packets[:30]
        )
        found.append(Compressed(stream.codec, stream.extradata, packets))
    return found


def _read(typer: Typer, data: bytes) -> Picture | None:
    try:
        return typer.read(memoryview(data))
    except PacketError:
        return None


def _fuzz(streams: Sequence[Compressed], seed: int, count: int) -> tuple[int, int]:
    """How many mutated packets were read, and how many refused."""
    rng = random.Random(seed)
    read = 0
    spliced = [packet for stream in streams for packet in stream.packets[:5]]
    typer = None
    for number in range(count):
        if typer is None or number % 50 == 0:
            stream = rng.choice(streams)
            extradata = stream.extradata
            if extradata and rng.random() < 0.3:
                extradata = mutated(rng, extradata, spliced)
            try:
                typer = Typer.of(stream.codec, extradata)
            except PacketError:
                typer = Typer.of(stream.codec, stream.extradata)
        data = rng.choice(stream.packets)
        if rng.random() < 0.9:
            # A change near the front, or an index at the end.
            cut = rng.choice((16, 64, 256, len(data)))
            data = mutated(rng, data[:cut], spliced) + data[cut:]
        read += _read(typer, data) is not None
    return read, count - read


@pytest.mark.parametrize("seed", range(4))
def test_mutated_packets(seed: int, streams: list[Compressed]) -> None:
    read, refused = _fuzz(streams, seed, 2500)
    assert read > 250
    assert refused > 250


@pytest.mark.slow
def test_a_million_mutated_packets(streams: list[Compressed]) -> None:
    read, refused = _fuzz(streams, 1_000, 1_000_000)
    assert min(read, refused) > 100_000


@given(
    codec=st.sampled_from(sorted(HEADERS)),
    extradata=st.none() | st.binary(max_size=60),
    packets=st.lists(st.binary(max_size=80), max_size=6),
)
def test_any_bytes(codec: str, extradata: bytes | None, packets: list[bytes]) -> None:
    try:
        typer = Typer.of(codec, extradata)
    except PacketError:
        typer = Typer.of(codec, None)
    for packet in packets:
        _read(typer, packet)


@given(data=st.data())
def test_any_bytes_after_real_headers(data: st.DataObject, streams: list[Compressed]) -> None:
    stream = data.draw(st.sampled_from(streams))
    typer = Typer.of(stream.codec, stream.extradata)
    typer.read(stream.packets[0])
    front = data.draw(st.integers(0, 40))
    for packet in stream.packets[1:4]:
        _read(typer, packet[:front] + data.draw(st.binary(max_size=60)))


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "jpeg2000"])
def test_every_cut_of_a_packet(codec: str, streams: list[Compressed]) -> None:
    for stream in streams:
        if stream.codec != codec:
            continue
        for packet in stream.packets[:12]:
            typer = Typer.of(stream.codec, stream.extradata)
            _read(typer, stream.packets[0])
            for end in range(min(len(packet), 200)):
                _read(typer, packet[:end])


def test_a_damaged_stream_is_read_again_when_it_is_sent_again(
    streams: list[Compressed],
) -> None:
    """With its parameter sets in band, nothing that was read before matters."""
    rng = random.Random(5)
    in_band = [one for one in streams if one.packets[0].startswith((b"\0\0\1", b"\0\0\0\1"))]
    assert len(in_band) >= 4
    for stream in in_band:
        typer = Typer.of(stream.codec, stream.extradata)
        for _ in range(300):
            _read(typer, mutated(rng, rng.choice(stream.packets), stream.packets))
        again = [typer.read(packet) for packet in stream.packets]
        assert again == stream.typed()


def test_endless_slices_take_little_memory(streams: list[Compressed]) -> None:
    """A recovery point with millions of slices, each of which speaks for itself alone."""
    stream = next(one for one in streams if one.packets[0].startswith(b"\0\0\0\1\x09"))
    typer = Typer.of("h264", stream.extradata)
    typer.read(stream.packets[0])
    recovery, intra = b"\0\0\1\x06\x06\x01\xc4\x80", b"\0\0\1\x61\xb8\x40\x10"
    data = recovery + intra * (HOSTILE // len(intra))
    tracemalloc.start()
    picture = _read(typer, data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert picture is not None
    assert picture.entry is Entry.OPEN
    assert peak < HOSTILE + MEMORY


HOSTILE_UNITS = (
    b"\0",
    b"\xff",
    b"\0\0\1\x06",
    b"\0\0\1\x67" + b"\xff" * 5,
    b"\0\0\1\x42",
    b"\0\0\1\x09\0",
    b"\0\0\0\1\x06",
    b"\0\0\0\2\x06\xff",
    b"\x7a\0",
    b"\x0a\x01\0",
    b"\x12\0",
    b"\x88" * 64 + b"\xdf",
    b"\xff\xd8\xff\xe0\0\2",
    b"\0\0\1\x20\xff\xff",
)


@pytest.mark.parametrize("codec", sorted(HEADERS))
@pytest.mark.parametrize("unit", HOSTILE_UNITS, ids=lambda unit: unit[:8].hex())
def test_hostile_packets_take_little_memory(
    codec: str, unit: bytes, streams: list[Compressed]
) -> None:
    stream = next(one for one in streams if one.codec == codec)
    data = unit * (HOSTILE // len(unit))
    for extradata in (stream.extradata, None):
        typer = Typer.of(codec, extradata)
        begun = stream.packets[0][:4] + data
        tracemalloc.start()
        _read(typer, data)
        _read(typer, begun)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < MEMORY
