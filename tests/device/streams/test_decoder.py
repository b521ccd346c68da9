"""The decoder of one stream: delays, attribution, failures, owners, other parameters."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import pytest
from gated_decoding import Stream, fingerprint, full_decode, gated_decode, open_stream
from video_encodings import BY_NAME, Encodings, encode

from triparty.common.errors import DecodeError
from triparty.device.streams.closure import Closures
from triparty.device.streams.decoder import Frame, StreamDecoder
from triparty.device.streams.packets import Packet
from triparty.device.streams.reachability import Closure, Unreachable


def _decoder(stream: Stream) -> StreamDecoder:
    return StreamDecoder(stream.codec, stream.extradata)


def _one_by_one(decoder: StreamDecoder, packets: tuple[Packet, ...]) -> Iterator[list[Frame]]:
    for packet in packets:
        yield decoder.decode(Closure((packet,)))


def _every(packet: Packet) -> bool:
    return True


def _damaged(packet: Packet) -> Packet:
    data = av.Packet(bytes(packet.data)[: packet.size // 2])
    data.time_base = packet.data.time_base
    return replace(packet, data=data)


def test_frames_come_out_late_and_are_known_by_their_packet(encodings: Encodings) -> None:
    stream = open_stream(encodings.path("h264-b-pyramid"))
    decoder = _decoder(stream)
    outputs = list(_one_by_one(decoder, stream.packets))
    assert any(not frames for frames in outputs)
    frames = [frame for some in outputs for frame in some]
    assert 0 < len(stream.packets) - len(frames) <= 3
    frames += decoder.drain()
    times = [frame.pts for frame in frames]
    assert times == sorted(times)
    assert {frame.number: fingerprint(frame.image) for frame in frames} == full_decode(stream)
    for frame in frames:
        assert frame.pts == stream.packets[frame.number].pts
    assert decoder.counters.missing == 0


def test_repeated_presentation_times_do_not_mix_up_frames(encodings: Encodings) -> None:
    stream = open_stream(encodings.path("h265-closed"))
    for packet in stream.packets:
        packet.data.pts = packet.data.dts = 7
    decoder = _decoder(stream)
    frames = [f for some in _one_by_one(decoder, stream.packets) for f in some]
    frames += decoder.drain()
    found = {frame.number: fingerprint(frame.image) for frame in frames}
    assert found == full_decode(stream)


def test_two_decoders_of_the_same_numbers_do_not_mix_up_frames(encodings: Encodings) -> None:
    """PyAV keeps what goes with packets in one table by identity; small numbers are shared."""
    streams = [open_stream(encodings.path(name)) for name in ("h264-main-b", "h265-closed")]
    decoders = [_decoder(stream) for stream in streams]
    found: list[dict[int, str]] = [{}, {}]
    for pair in zip(*(stream.packets for stream in streams), strict=True):
        for decoder, packet, frames in zip(decoders, pair, found, strict=True):
            for frame in decoder.decode(Closure((packet,))):
                frames[frame.number] = fingerprint(frame.image)
    for decoder, frames in zip(decoders, found, strict=True):
        frames.update({f.number: fingerprint(f.image) for f in decoder.drain()})
    assert found == [full_decode(stream) for stream in streams]


def test_the_packet_is_left_as_it_was(encodings: Encodings) -> None:
    stream = open_stream(encodings.path("h264-b-transport"))
    before = [(one.data.pts, one.data.dts, bytes(one.data)) for one in stream.packets]
    gated_decode(stream, range(len(stream.packets)))
    assert [(one.data.pts, one.data.dts, bytes(one.data)) for one in stream.packets] == before
    assert all(one.data.opaque is None for one in stream.packets)


def test_targets_and_dependencies_are_told_apart(encodings: Encodings) -> None:
    stream = open_stream(encodings.path("h264-baseline"))
    frames = _decoder(stream).decode(Closure(stream.packets[:4]), also=_every)
    assert [frame.target for frame in frames] == [False, False, False, True]


def test_frames_of_dependencies_come_only_on_request(encodings: Encodings) -> None:
    stream = open_stream(encodings.path("h264-b-pyramid"))
    full = full_decode(stream)
    for also, numbers in ((None, [9]), (lambda one: one.number % 4 == 0, [0, 4, 8, 9])):
        decoder = _decoder(stream)
        frames = decoder.decode(Closure(stream.packets[:10]), also) + decoder.drain()
        found = {frame.number: fingerprint(frame.image) for frame in frames}
        assert found == {n: full[n] for n in numbers}


def test_cpu_time_is_measured_packet_by_packet(encodings: Encodings) -> None:
    stream = open_stream(encodings.path("h264-baseline"))
    decoder = _decoder(stream)
    decoder.decode(Closure(stream.packets[:4]))
    assert [one.packet.number for one in decoder.spent] == [0, 1, 2, 3]
    assert sum(one.cpu_ms for one in decoder.spent) == pytest.approx(decoder.cpu_ms)
    assert decoder.cpu_ms > 0


def test_another_thread_is_refused(encodings: Encodings) -> None:
    stream = open_stream(encodings.path("h264-baseline"))
    decoder = _decoder(stream)
    decoder.decode(Closure(stream.packets[:1]))
    refusals: list[str] = []

    def intrude() -> None:
        for act in (lambda: decoder.decode(Closure(stream.packets[1:2])), decoder.drain):
            try:
                act()
            except RuntimeError as error:
                refusals.append(str(error))

    thread = threading.Thread(target=intrude)
    thread.start()
    thread.join()
    assert len(refusals) == 2
    assert "one thread" in refusals[0]


@pytest.mark.parametrize(
    "name", ["h264-baseline", "h264-b-pyramid", "h265-closed", "h265-open", "av1", "mpeg4-b"]
)
def test_after_a_damaged_packet_the_next_entry_is_exact_again(
    name: str, encodings: Encodings
) -> None:
    stream = open_stream(encodings.path(name))
    full = full_decode(stream)
    broken = next(one.number for one in stream.packets[4:] if one.picture.reference)
    resume = next(one.number for one in stream.packets[broken:] if one.picture.entry)
    closures, decoder, frames = Closures(), _decoder(stream), list[Frame]()
    failed_at = -1
    refused: set[Unreachable] = set()
    for packet in stream.packets:
        closures.add(_damaged(packet) if packet.number == broken else packet)
        answer = closures.closure(packet.number)
        if isinstance(answer, Unreachable):
            refused.add(answer)
            continue
        try:
            frames += decoder.decode(answer)
        except DecodeError as error:
            failed_at = error.extra["number"]
            closures.failed(failed_at)
        else:
            closures.decoded([packet.number])
    frames += decoder.drain()
    found = {frame.number: fingerprint(frame.image) for frame in frames}
    assert decoder.counters.failures == closures.counters.failures == 1
    assert broken <= failed_at <= broken + 3
    assert Unreachable.FAILED in refused
    assert refused <= {Unreachable.FAILED, Unreachable.LEADING}
    trailing = [n for n in full if n >= resume and not stream.packets[n].picture.leading]
    assert {n: found.get(n) for n in trailing} == {n: full[n] for n in trailing}


def test_after_a_failure_an_entry_starts_anew_even_unasked(encodings: Encodings) -> None:
    stream = open_stream(encodings.path("h264-open-gop-mp4"))
    entries = [one for one in stream.packets if one.picture.entry]
    decoder = _decoder(stream)
    with pytest.raises(DecodeError):
        decoder.decode(Closure((stream.packets[0], _damaged(stream.packets[1]))))
    decoder.decode(Closure((entries[1],)))
    decoder.decode(Closure((entries[2],)))
    assert decoder.counters.restarts == 1


def test_a_damaged_picture_that_nobody_needs_costs_only_itself(encodings: Encodings) -> None:
    stream = open_stream(encodings.path("mpeg4-b"))
    full = full_decode(stream)
    victim = next(one.number for one in stream.packets if one.picture.reference is False)
    packets = [_damaged(one) if one.number == victim else one for one in stream.packets]
    decoder = _decoder(stream)
    frames = [f for some in _one_by_one(decoder, tuple(packets)) for f in some]
    frames += decoder.drain()
    found = {frame.number: fingerprint(frame.image) for frame in frames}
    assert found == {n: pixels for n, pixels in full.items() if n != victim}
    assert decoder.counters.corrupt == 1


@pytest.mark.parametrize("name", ["h264-b-raw", "h265-raw", "h264-slices"])
def test_another_size_within_the_stream(
    name: str, encodings: Encodings, clips: Path, tmp_path: Path
) -> None:
    """A camera that is set to another resolution says so in its own bytes."""
    small = replace(BY_NAME[name], name="small", width=128, height=80)
    encode(small, clips, tmp_path / small.filename)
    first, second = open_stream(encodings.path(name)), open_stream(tmp_path / small.filename)
    count = len(first.packets)
    moved = [replace(one, number=one.number + count) for one in second.packets]
    both = replace(first, extradata=None, packets=(*first.packets, *moved))
    full = full_decode(first)
    full |= {n + count: pixels for n, pixels in full_decode(second).items()}
    for seed in range(4):
        wants = [n if (n + seed) % 4 == 0 else None for n in range(len(both.packets))]
        outcome = gated_decode(both, wants)
        assert outcome.differing(full) == []
        assert outcome.lost == []
    assert gated_decode(both, range(len(both.packets))).differing(full) == []


def test_other_parameters_need_another_decoder(encodings: Encodings) -> None:
    old, new = (open_stream(encodings.path(name)) for name in ("h264-main-b", "h265-closed"))
    decoder = _decoder(old)
    frames = decoder.decode(Closure(old.packets), also=_every)
    frames += decoder.reopen(new.codec, new.extradata)
    assert {f.number: fingerprint(f.image) for f in frames} == full_decode(old)
    frames = decoder.decode(Closure(new.packets), also=_every)
    frames += decoder.reopen(new.codec, new.extradata)
    assert {f.number: fingerprint(f.image) for f in frames} == full_decode(new)
    assert decoder.counters.rebuilds == 2


class Mallinfo(ctypes.Structure):
    """What glibc's `mallinfo2` tells."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def test_another_connection_gives_back_the_room_of_frames(encodings: Encodings) -> None:
    """FFmpeg keeps room for as many frames as one context ever had out at once."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("only glibc tells how much memory is in use")
    libc.mallinfo2.restype = Mallinfo

    def in_use() -> int:
        gc.collect()
        told = libc.mallinfo2()
        return int(told.uordblks + told.hblkhd)

    old = open_stream(encodings.path("h264-baseline"))
    decoder = _decoder(old)
    frames = decoder.decode(Closure(old.packets), also=_every)
    count, size = len(frames), frames[0].image.width * frames[0].image.height * 3 // 2
    frames.clear()
    held = in_use()
    decoder.reopen(old.codec, old.extradata)
    assert held - in_use() > count * size // 2


@pytest.mark.parametrize("codec", ["nonsense", "aac"])
def test_a_codec_without_a_decoder_is_named(codec: str) -> None:
    with pytest.raises(DecodeError, match=codec):
        StreamDecoder(codec, None)
