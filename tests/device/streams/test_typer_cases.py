"""Pictures that no encoder at hand makes, written bit by bit or put together of real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import pytest
from typed_streams import Compressed, compressed, read, traced, typed
from video_encodings import Encoding, Encodings, encode
from written_bits import Written

from triparty.common.errors import PacketError
from triparty.device.streams.bits import Bits
from triparty.device.streams.headers.h264 import FIELDS, INTRA_REFRESH
from triparty.device.streams.headers.intra import ABBREVIATED
from triparty.device.streams.headers.mpeg4 import INTERLACED, PACKED
from triparty.device.streams.headers.several import SEVERAL_SHOWN
from triparty.device.streams.headers.vp9 import STATE
from triparty.device.streams.packets import Entry, Picture, PictureType
from triparty.device.streams.typer import Typer

START = b"\0\0\0\1"
P, B, I = 0, 1, 2  # noqa: E741 - the standard's letters
UNIFORM = 5  # added to a slice type that all slices of the picture have


def _h264_sequence(order_type: int = 0, order_bits: int = 4, frames_only: int = 1) -> bytes:
    bits = Written().u(8, 77).u(16, 40).ue(0, 0, order_type)
    if order_type == 0:
        bits.ue(order_bits - 4)
    elif order_type == 1:
        bits.u(1, 0).se(0, 0).ue(1).se(2)
    return START + bits.ue(4).u(1, 0).ue(10, 10).u(1, frames_only).bytes(b"\x67", 0)


def _h264_pictures(number: int = 0, qp: int = 23, weighted: int = 0) -> bytes:
    bits = Written().ue(number, 0).u(2, 0).ue(0, 0, 0).u(1, weighted).u(2, 0)
    return START + bits.se(qp - 26, 0, 0).u(3, 0).bytes(b"\x68", 0)


def _h264_recovery(frames: int = 0, exact: int = 1) -> bytes:
    message = Written().ue(frames).u(1, exact).u(3, 0).bytes(padding=0)
    return START + b"\x06\x06" + bytes([len(message)]) + message + b"\x80"


def _h264_slice(
    slice_type: int,
    order: int,
    *,
    idr: bool = False,
    needed: bool = True,
    first: int = 0,
    field: int | None = None,
    order_bits: int = 4,
) -> bytes:
    bits = Written().ue(first, slice_type, 0).u(4, 0)
    if field is not None:
        bits.u(1, field).u(field, 0)
    if idr:
        bits.ue(0)
    return START + bits.u(order_bits, order).bytes(
        bytes([(0x60 if needed else 0) | (5 if idr else 1)])
    )


def _h264(*packets: bytes, sequence: bytes | None = None) -> tuple[list[Picture], str | None]:
    typer = Typer.of("h264", (sequence or _h264_sequence()) + _h264_pictures())
    return [typer.read(packet) for packet in packets], typer.ungateable


IDR = _h264_slice(I + UNIFORM, 0, idr=True)


def test_h264_an_exact_recovery_point_of_no_frames_is_an_open_entry() -> None:
    (_, opened), reason = _h264(IDR, _h264_recovery() + _h264_slice(I + UNIFORM, 8))
    assert (opened.entry, reason) == (Entry.OPEN, None)


def test_h264_a_recovery_point_may_follow_other_messages() -> None:
    """Of long types and sizes, with zeros that are written with emulation prevention."""
    long = b"\xff\x2d" + b"\xff\x0a" + b"\0\0\3\0" * 88 + b"\7"
    assert len(long.replace(b"\0\0\3", b"\0\0")) == 4 + 265
    recovery = _h264_recovery()
    messages = recovery[:5] + b"\x05\x03\0\0\3\0" + long + recovery[5:]
    (_, opened), _ = _h264(IDR, messages + _h264_slice(I + UNIFORM, 8))
    assert opened.entry is Entry.OPEN
    (_, other), _ = _h264(IDR, recovery[:5] + long + _h264_slice(I + UNIFORM, 8))
    assert other.entry is Entry.NONE


@pytest.mark.parametrize(("frames", "exact"), [(3, 1), (0, 0)])
def test_h264_other_recovery_points_are_no_entries(frames: int, exact: int) -> None:
    recovery = _h264_recovery(frames, exact)
    (_, picture), reason = _h264(IDR, recovery + _h264_slice(I + UNIFORM, 8))
    assert (picture.entry, reason) == (Entry.NONE, None)


def test_h264_an_i_picture_without_a_recovery_point_is_no_entry() -> None:
    (_, picture), reason = _h264(IDR, _h264_slice(I + UNIFORM, 8))
    assert (picture.type, picture.entry, reason) == (PictureType.I, Entry.NONE, None)


@pytest.mark.parametrize("slice_type", [P, P + UNIFORM, B])
def test_h264_a_recovery_point_at_a_predicted_picture_is_intra_refresh(slice_type: int) -> None:
    (_, picture), reason = _h264(IDR, _h264_recovery() + _h264_slice(slice_type, 8))
    assert (picture.entry, reason) == (Entry.NONE, INTRA_REFRESH)


def test_h264_slices_may_differ_in_type() -> None:
    """The decoder's letter is the first slice's; an entry needs them all."""
    first = _h264_recovery() + _h264_slice(I, 8)
    (_, whole), reason = _h264(IDR, first + _h264_slice(I, 8, first=5))
    assert (whole.entry, reason) == (Entry.OPEN, None)
    (_, mixed), reason = _h264(IDR, first + _h264_slice(P, 8, first=5))
    assert (mixed.type, mixed.entry) == (PictureType.I, Entry.NONE)
    assert reason == INTRA_REFRESH


def test_h264_picture_order_wraps() -> None:
    orders = {14: False, 10: True, 12: True, 2: False, 0: False, 6: False, 8: False}
    entry = _h264_recovery() + _h264_slice(I + UNIFORM, 14)
    after = [
        _h264_slice(B + UNIFORM if leads else P + UNIFORM, order, needed=not leads)
        for order, leads in list(orders.items())[1:]
    ]
    pictures, _ = _h264(IDR, _h264_slice(P + UNIFORM, 6), entry, *after)
    assert [one.leading for one in pictures[2:]] == list(orders.values())
    (*_, again), _ = _h264(entry, IDR, _h264_slice(P + UNIFORM, 12))
    assert not again.leading


def test_h264_picture_order_is_counted_from_references() -> None:
    entry = _h264_recovery() + _h264_slice(I + UNIFORM, 0)
    after = [(P, 6, True, False), (B, 15, False, True), (P, 12, True, False)]
    packets = [
        _h264_slice(kind + UNIFORM, order, needed=needed) for kind, order, needed, _ in after
    ]
    pictures, _ = _h264(IDR, entry, *packets)
    assert [one.leading for one in pictures[2:]] == [leads for *_, leads in after]


def test_h264_picture_sets_may_have_large_numbers() -> None:
    sets = b"".join(_h264_pictures(number, qp=number - 80) for number in (100, 101))
    typer = Typer.of("h264", _h264_sequence() + sets)
    for number in (100, 101, 100):
        bits = Written().ue(0, I + UNIFORM, number).u(4, 0).ue(0).u(4, 0).u(2, 0).se(1)
        assert typer.read(START + bits.bytes(b"\x65")).slice_qp == number - 79


@pytest.mark.parametrize("markings", [(1, 7, 2, 3, 3, 4, 5, 4, 6, 6, 8), (5,), (5, 1, 7), ()])
def test_h264_quantisers_behind_long_lists(markings: tuple[int, ...]) -> None:
    """Modified lists, weights and markings of every kind."""
    extradata = _h264_sequence() + _h264_pictures(weighted=1)
    bits = Written().ue(0, P + UNIFORM, 0).u(4, 3).u(4, 6)
    bits.u(1, 1).ue(1)  # two references
    bits.u(1, 1).ue(0, 5, 2, 1, 1, 9, 3)  # lists modified
    bits.ue(5, 4)  # weights: of luma, of chroma, none
    bits.u(1, 1).se(9, -9).u(1, 0)
    bits.u(1, 0).u(1, 1).se(1, -1, 2, -2)
    bits.u(1, 1).ue(*markings, 0).se(-4)
    typer = Typer.of("h264", extradata)
    assert typer.read(START + bits.bytes(b"\x61")).slice_qp == 19
    assert typer.read(START + bits.bytes(b"\x61")[:10]).slice_qp is None


@pytest.mark.parametrize("planes", [0, 1])
def test_h264_of_the_high_profiles(planes: int) -> None:
    """Scaling lists, given, by default and left out; colour planes with slices of their own."""
    bits = Written().u(8, 244).u(16, 40).ue(0, 3).u(1, planes).ue(2, 2).u(1, 0).u(1, 1)
    for place in range(12):
        if place % 3:
            bits.u(1, 0)
        elif place == 3:
            bits.u(1, 1).se(-8)  # by default
        else:
            bits.u(1, 1).se(*[1] * (16 if place < 6 else 64))
    bits.ue(0, 0, 4, 4).u(1, 0).ue(10, 10).u(1, 1)
    sequence = START + bits.bytes(b"\x67", 0)
    slice_bits = Written().ue(0, I + UNIFORM, 0).u(2 * planes, 0).u(4, 0).ue(0).u(8, 77)
    typer = Typer.of("h264", sequence + _h264_pictures())
    assert typer.read(START + slice_bits.u(2, 0).se(6).bytes(b"\x65")).slice_qp == 29


def test_h264_order_type_1_has_no_open_entries() -> None:
    packet = _h264_recovery() + _h264_slice(I + UNIFORM, 0, order_bits=0)
    (_, picture), _ = _h264(
        _h264_slice(I + UNIFORM, 0, idr=True, order_bits=0),
        packet,
        sequence=_h264_sequence(order_type=1),
    )
    assert picture.entry is Entry.NONE


def test_h264_field_pictures_are_refused_and_frames_of_fields_are_not() -> None:
    sequence = _h264_sequence(frames_only=0)
    frame = _h264_slice(I + UNIFORM, 0, idr=True, field=0)
    (picture,), reason = _h264(frame, sequence=sequence)
    assert (picture.slice_qp is not None, reason) == (True, None)
    (_, field), reason = _h264(frame, _h264_slice(P + UNIFORM, 2, field=1), sequence=sequence)
    assert (field.slice_qp, reason) == (None, FIELDS)


def test_a_number_of_more_than_32_bits_is_refused() -> None:
    assert Bits(b"\0\0\0\0\x80" + b"\0" * 8).ue() == 2**32 - 1
    with pytest.raises(PacketError, match="within a number"):
        Bits(b"\0\0\0\0\x40" + b"\0" * 8).ue()


def test_h264_a_slice_of_unknown_sets_is_refused() -> None:
    with pytest.raises(PacketError, match="set 0, which has not arrived"):
        Typer.of("h264", None).read(IDR)


@pytest.mark.parametrize("name", ["h265-open", "h265-open-transport"])
def test_h265_skipped_leading_pictures_of_a_late_start_are_not_shown(
    name: str, encodings: Encodings
) -> None:
    stream = compressed(encodings.path(name))
    opens = [n for n, one in enumerate(stream.typed()) if one.entry is Entry.OPEN]
    late = replace(stream, packets=stream.packets[opens[0] :])
    reading = read(late)
    hidden = [one for one in reading.pictures if not one.shown]
    assert reading.mismatches == 0
    assert len(hidden) >= 1
    assert all(one.leading and not one.reference for one in hidden)
    later = reading.pictures[opens[1] - opens[0] :]
    assert any(one.leading for one in later)
    assert all(one.shown for one in later)


@pytest.mark.parametrize("mark", [b"\x48\x01", b"\x4a\x01"])
def test_h265_an_end_of_sequence_hides_what_leads_the_next_entry(
    mark: bytes, encodings: Encodings
) -> None:
    for name, prefix in (("h265-open-transport", START), ("h265-open", b"\0\0\0\2")):
        stream = compressed(encodings.path(name))
        pictures = stream.typed()
        entry = [n for n, one in enumerate(pictures) if one.entry is Entry.OPEN][1]
        packets = list(stream.packets)
        packets[entry - 1] += prefix + mark
        reading = read(replace(stream, packets=tuple(packets)))
        hidden = [n for n, one in enumerate(reading.pictures) if not one.shown]
        led = [n for n, one in enumerate(pictures) if one.leading and n > entry]
        assert hidden
        assert hidden == led[: len(hidden)]
        # FFmpeg discards what it still held before such an entry.
        lost = set(range(len(packets))) - reading.letters.keys() - set(hidden)
        assert all(number < entry for number in lost)
        assert reading.letters.keys().isdisjoint(hidden)


def _h265_layered(top_layer: int, kind: int, layer: int) -> Picture:
    """A picture of some type and sub-layer, in a stream of some sub-layers."""
    sequence = Written().u(4, 0).u(3, top_layer).u(1, 1).u(96, 0)
    if top_layer:
        sequence.u(16, 0)
    sequence.ue(0, 1, 512, 256).u(1, 0).ue(0, 0, 4).u(1, 0).ue(4, 2, 0)
    sequence.ue(0, 3, 0, 3, 0, 0).u(1, 0).u(2, 1)
    pictures = Written().ue(0, 0).u(1, 1).u(1, 0).u(3, 2).u(2, 0).ue(0, 0).se(2)
    header = bytes([kind << 1, layer + 1])
    extradata = START + sequence.bytes(b"\x42\x01", 4) + START + pictures.bytes(b"\x44\x01", 4)
    # First a segment that depends on one before it, whose header was lost.
    lost = START + Written().u(1, 0).ue(0).u(1, 1).u(5, 3).bytes(header)
    whole = START + Written().u(1, 0).ue(0).u(1, 0).u(5, 4).u(2, 3).ue(1).bytes(header)
    with pytest.raises(PacketError, match="full header"):
        Typer.of("hevc", extradata).read(lost)
    (picture,) = typed("hevc", extradata, [lost + whole])
    return picture


def test_h265_a_sub_layer_non_reference_may_be_needed_by_higher_sub_layers() -> None:
    trail_n, trail_r = 0, 1
    assert not _h265_layered(0, trail_n, 0).reference
    assert _h265_layered(0, trail_r, 0).reference
    assert _h265_layered(2, trail_n, 1).reference
    assert not _h265_layered(2, trail_n, 2).reference
    assert _h265_layered(2, trail_n, 1).temporal_id == 1
    assert _h265_layered(2, trail_r, 1).type is PictureType.P


@pytest.mark.parametrize("name", ["mpeg4", "mpeg4-b"])
def test_mpeg4_quantisers_are_the_decoders(name: str, encodings: Encodings) -> None:
    stream = compressed(encodings.path(name))
    decoder = av.CodecContext.create("mpeg4", "r")
    decoder.extradata = stream.extradata
    decoder.options = {"export_side_data": "venc_params"}
    told = {}
    for number, data in enumerate((*stream.packets, None)):
        packet = None if data is None else av.Packet(data)
        if packet is not None:
            packet.pts = packet.dts = number
        for frame in decoder.decode(packet):
            parameters = frame.side_data.get("VIDEO_ENC_PARAMS")
            if parameters:
                told[frame.pts] = parameters.qp_map().flatten()[0] // 2  # FFmpeg doubles them
    pictures = stream.typed()
    assert {number: pictures[number].slice_qp for number in told} == told
    assert len(told) > len(pictures) / 4
    assert len(set(told.values())) > 3


def test_mpeg4_packed_pictures_are_refused(encodings: Encodings) -> None:
    stream = compressed(encodings.path("mpeg4-b"))
    for text, packed in (
        (b"DivX503b1393p", True),
        (b"DivX503b1393", False),
        (b"Lavc62", False),
    ):
        note = b"\0\0\1\xb2" + text
        for typer in (
            Typer.of("mpeg4", (stream.extradata or b"") + note),
            Typer.of("mpeg4", stream.extradata),
        ):
            typer.read(note + stream.packets[0])
            assert typer.ungateable == (PACKED if packed else None)


def test_mpeg4_interlaced_b_pictures_are_refused(clips: Path, tmp_path: Path) -> None:
    for b_pictures, reason in (("2", INTERLACED), ("0", None)):
        options = {"g": "6", "bf": b_pictures, "flags": "+ildct+ilme"}
        made = Encoding("interlaced", "mpeg4", "mp4", options, frames=12)
        encode(made, clips, tmp_path / made.filename)
        assert read(compressed(tmp_path / made.filename)).ungateable == reason


def test_mpeg4_a_picture_that_is_not_coded_is_not_shown(encodings: Encodings) -> None:
    stream = compressed(encodings.path("mpeg4"))
    time_bits = 5  # 25 pictures a second
    empty = Written().u(2, 1).u(1, 0).u(1, 1).u(time_bits, 3).u(1, 1).u(1, 0)
    packets = (*stream.packets[:3], empty.bytes(b"\0\0\1\xb6", 0), *stream.packets[3:])
    reading = read(replace(stream, packets=packets))
    assert reading.mismatches == 0
    assert [n for n, one in enumerate(reading.pictures) if not one.shown] == [3]


def test_jpeg_without_its_tables_is_refused(encodings: Encodings) -> None:
    stream = compressed(encodings.path("mjpeg"))
    packet = stream.packets[0]
    assert read(stream).ungateable is None
    for marker in (b"\xff\xdb", b"\xff\xc4"):
        short = packet
        while (at := short.find(marker)) >= 0:
            size = int.from_bytes(short[at + 2 : at + 4], "big")
            short = short[:at] + short[at + 2 + size :]
        typer = Typer.of("mjpeg", None)
        typer.read(packet)
        assert typer.ungateable is None
        typer.read(short)
        assert typer.ungateable == ABBREVIATED


def _superframe(*pictures: bytes) -> bytes:
    index = bytes([0xC0 | 3 << 3 | len(pictures) - 1])
    sizes = b"".join(len(one).to_bytes(4, "little") for one in pictures)
    return b"".join(pictures) + index + sizes + index


def _vp9_hidden_then_shown(packet: bytes, header_bits: int, slot: int) -> bytes:
    """A picture that is hidden, and a second one that shows what it wrote."""
    size = -(-header_bits // 8)
    bits = format(int.from_bytes(packet[:size], "big"), f"0{8 * size}b")[:header_bits]
    show_frame, intra_only = 6, 8
    bits = bits[:show_frame] + "0" + bits[show_frame + 1 : intra_only] + "0" + bits[intra_only:]
    bits += "0" * (-len(bits) % 8)
    hidden = int(bits, 2).to_bytes(len(bits) // 8, "big") + packet[size:]
    return _superframe(hidden, bytes([0b10001000 | slot]))


def _vp9_with_hidden(path: Path) -> tuple[Compressed, list[int]]:
    """An error-resilient stream, every third picture of which is hidden and then shown."""
    stream = compressed(path)
    packets, changed = list(stream.packets), []
    values, places = traced(path), traced(path, "place")
    for number in range(1, len(packets), 3):
        fields = values[number]
        refreshed = fields.get("refresh_frame_flags", (0,))[0]
        if fields["frame_type"] == [1] and refreshed:
            end = places[number]["header_size_in_bytes"][0] + 16
            slot = (refreshed & -refreshed).bit_length() - 1
            packets[number] = _vp9_hidden_then_shown(packets[number], end, slot)
            changed.append(number)
    return replace(stream, packets=tuple(packets)), changed


def test_vp9_superframes_with_hidden_pictures(encodings: Encodings) -> None:
    path = encodings.path("vp9-realtime")
    plain = compressed(path).typed()
    stream, changed = _vp9_with_hidden(path)
    assert len(changed) > 10
    reading = read(stream)
    assert reading.mismatches == 0
    assert reading.ungateable is None
    assert [replace(one, slice_qp=None) for one in reading.pictures] == [
        replace(one, slice_qp=None) for one in plain
    ]


def test_vp9_hidden_pictures_may_come_in_packets_of_their_own(encodings: Encodings) -> None:
    """Some muxers do not make superframes."""
    stream, changed = _vp9_with_hidden(encodings.path("vp9-realtime"))
    packets: list[bytes] = []
    hidden, shown = set(), set()
    for number, packet in enumerate(stream.packets):
        if number in changed:
            hidden.add(len(packets))
            shown.add(len(packets) + 1)
            packets += [packet[:-11], packet[-11:-10]]
        else:
            packets.append(packet)
    reading = read(replace(stream, packets=tuple(packets)))
    assert reading.mismatches == 0
    assert {n for n, one in enumerate(reading.pictures) if not one.shown} == hidden
    for number in shown:
        picture = reading.pictures[number]
        assert (picture.writes, picture.reference) == (0, False)
        assert picture.reads is not None
        assert picture.reads & (reading.pictures[number - 1].writes or 0)


@pytest.mark.parametrize("profile", [0, 1, 2, 3])
def test_vp9_headers_of_all_kinds(profile: int) -> None:
    def begin(inter: int, shown: int, resilient: int) -> Written:
        bits = Written().u(2, 2).u(1, profile & 1).u(1, profile >> 1)
        return bits.u(profile == 3, 0).u(1, 0).u(1, inter).u(1, shown).u(1, resilient)

    def colours(bits: Written) -> Written:
        bits.u(24, 0x498342).u(profile >= 2, 0).u(3, 1)
        return bits.u(1, 0).u(3 if profile & 1 else 0, 0)

    def end(bits: Written, resilient: int, quantiser: int) -> bytes:
        bits.u(0 if resilient else 2, 0).u(2, 0).u(6, 10).u(3, 0).u(1, 1).u(1, 1)
        bits.u(1, 1).u(7, 9).u(3, 0).u(1, 1).u(7, 3).u(1, 0)
        return bits.u(8, quantiser).bytes()

    def inter(resilient: int, writes: int) -> bytes:
        bits = begin(1, 1, resilient).u(0 if resilient else 2, 0).u(8, writes)
        for slot in (1, 4, 4):
            bits.u(3, slot).u(1, 1)
        bits.u(3, 0).u(32, 0).u(1, 1).u(32, 0).u(1, 0).u(1, 0).u(2, 1)
        return end(bits, resilient, 77)

    key = end(colours(begin(0, 1, 0)).u(32, 0).u(1, 0), 0, 11)
    intra = begin(1, 0, 0).u(1, 1).u(2, 0)
    if profile:
        colours(intra)
    else:
        intra.u(24, 0x498342)
    intra_only = end(intra.u(8, 2).u(32, 0).u(1, 1).u(32, 0), 0, 22)
    typer = Typer.of("vp9", None)
    first, resilient, alone = typer.read(key), typer.read(inter(1, 0)), typer.read(intra_only)
    assert (first.entry, first.reads, first.writes) == (Entry.CLEAN, 0, 0xFF | STATE)
    assert (resilient.reads, resilient.writes) == (1 << 1 | 1 << 4, STATE)
    assert (alone.type, alone.shown, alone.entry) == (PictureType.I, False, Entry.NONE)
    assert (alone.reads, alone.writes) == (STATE, 2 | STATE)
    # After a picture that is not resilient, what passed through a resilient one is needed.
    assert typer.read(inter(1, 0)).reads == 1 << 1 | 1 << 4 | STATE
    assert typer.read(inter(0, 8)).reads == 1 << 1 | 1 << 4 | STATE
    shows = Written().u(2, 2).u(1, profile & 1).u(1, profile >> 1)
    shows.u(profile == 3, 0).u(1, 1).u(3, 1)
    assert typer.read(shows.bytes(padding=0)).type is PictureType.I
    typer.read(inter(0, 2))
    assert typer.read(shows.bytes(padding=0)).type is PictureType.P
    shown_first = typer.read(_superframe(inter(1, 1), b"", intra_only))
    assert (shown_first.type, shown_first.shown) == (PictureType.P, True)
    quantisers = [one.slice_qp for one in (first, resilient, alone)]
    assert quantisers == [11, 77, 22]


def test_vp9_several_shown_pictures_in_one_packet_are_refused(encodings: Encodings) -> None:
    stream = compressed(encodings.path("vp9-realtime"))
    typer = Typer.of("vp9", None)
    picture = typer.read(_superframe(*stream.packets[:2]))
    assert typer.ungateable == SEVERAL_SHOWN
    assert (picture.type, picture.entry, picture.reads) == (PictureType.P, Entry.CLEAN, 0)


def _av1_sequence() -> Written:
    """Ids, a decoder model for two operating points, and short signalling of references."""
    bits = Written().u(3, 0).u(1, 0).u(1, 0)
    bits.u(1, 1).u(32, 1).u(32, 25).u(1, 0)  # timing
    bits.u(1, 1).u(5, 9).u(32, 1).u(5, 6).u(5, 11)  # decoder model: 10, 7 and 12 bits
    bits.u(1, 1).u(5, 1)
    for point in (0x103, 0x101):
        bits.u(12, point).u(5, 8).u(1, 0).u(1, 1).u(10, 3).u(10, 4).u(1, 0)
        bits.u(1, 1).u(4, 2)
    bits.u(4, 8).u(4, 7).u(9, 255).u(8, 143)
    bits.u(1, 1).u(4, 3).u(3, 1)  # ids: 5 bits of delta, 7 in all
    bits.u(3, 0).u(4, 0).u(1, 1).u(2, 0)
    bits.u(1, 1).u(1, 1).u(3, 4)  # order hints of 5 bits
    return bits


def _av1_unit(kind: int, payload: bytes, layers: tuple[int, int] | None = None) -> bytes:
    extension = bytes([layers[0] << 5 | layers[1] << 3]) if layers else b""
    header = bytes([kind << 3 | 4 * bool(layers) | 2])
    return header + extension + bytes([len(payload)]) + payload


def _av1_frame(
    kind: int,
    order: int,
    writes: int,
    *,
    short: tuple[int, int] | None = None,
    slots: tuple[int, ...] = (),
    shown: int = 1,
    layer: int = 0,
) -> bytes:
    """A frame of temporal layer `layer`, with everything that the sequence allows."""
    bits = Written().u(1, 0).u(2, kind).u(1, shown)
    bits.u(12 if shown else 1, 1)  # presentation time, or showable
    if kind != 0 or not shown:
        bits.u(1, 0)  # not resilient
    bits.u(1, 0).u(1, 1).u(1, 0)  # screen content, vectors not whole
    bits.u(7, 5).u(1, 0).u(5, order)
    if kind == 1:
        bits.u(3, 0)
    bits.u(1, 1).u(7, 9)  # removal times, of the points that the frame is part of
    bits.u(0 if layer else 7, 9)
    if kind != 0 or not shown:
        bits.u(8, writes)
    if kind == 1:
        bits.u(1, short is not None)
        if short:
            bits.u(3, short[0]).u(3, short[1])
        for slot in slots:
            bits.u(0 if short else 3, slot).u(5, 0)
    return _av1_unit(6, bits.bytes(padding=4), (layer, 0))


def test_av1_headers_of_all_kinds() -> None:
    sequence = _av1_unit(1, _av1_sequence().bytes(padding=2))
    key, inter, intra = 0, 1, 2
    typer = Typer.of("av1", None)
    with pytest.raises(PacketError, match="sequence header"):
        typer.read(_av1_frame(key, 0, 0xFF))
    first = typer.read(_av1_unit(2, b"") + sequence + _av1_frame(key, 0, 0xFF))
    assert (first.entry, first.reads, first.writes) == (Entry.CLEAN, 0, 0xFF)
    orders = [8, 4, 2, 1, 6]
    for slot, order in enumerate(orders):
        frame = _av1_frame(inter, order, 1 << slot, slots=(7,) * 7, shown=0)
        hidden = typer.read(frame)
        assert (hidden.reads, hidden.writes, hidden.shown) == (1 << 7, 1 << slot, False)
    # Before picture 3: 2, 1 and 0 (slots 2, 3, and 5 to 7); after it: 4, 6 and 8.
    short = typer.read(_av1_frame(inter, 3, 0, short=(2, 3), slots=(0,) * 7))
    assert (short.reads, short.reference) == (0b11011111, False)
    layered = typer.read(_av1_frame(inter, 5, 0b10, slots=(1, 2, 3, 4, 4, 4, 4), layer=1))
    assert (layered.reads, layered.writes) == (0b11110, 0b10)
    alone = typer.read(_av1_frame(intra, 9, 1 << 6))
    assert (alone.type, alone.reads, alone.writes) == (PictureType.I, 0, 1 << 6)
    shows = Written().u(1, 1).u(3, 0).bytes(padding=2)
    existing = typer.read(_av1_unit(3, shows))
    assert (existing.type, existing.reads, existing.writes) == (PictureType.P, 1, 0)
    # A hidden keyframe that is shown later fills all slots.
    typer.read(_av1_frame(key, 12, 1, shown=0))
    forward = typer.read(_av1_unit(3, shows))
    assert (forward.type, forward.reads, forward.writes) == (PictureType.I, 1, 0xFF)
    assert forward.entry is Entry.NONE
    # Layers outside the first operating point are not decoded.
    with pytest.raises(PacketError, match="no picture"):
        typer.read(_av1_frame(inter, 13, 0, slots=(0,) * 7, layer=2))
