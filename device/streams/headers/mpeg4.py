"""MPEG-4 part 2: the header of a packet's picture (ISO/IEC 14496-2, 6.2.3 and 6.2.5).

A B picture may follow an I picture in decode order and refer to what was before it, so an I
picture is an open entry, unless the stream says that it holds no B pictures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from triparty.common.errors import PacketError
from triparty.device.streams.bits import Bits, Data
from triparty.device.streams.headers.picture import picture
from triparty.device.streams.headers.sets import Sets
from triparty.device.streams.headers.units import READ, SLICE, first_slice, units
from triparty.device.streams.packets import Entry, Picture, PictureType

HEAD = 24  # bytes of a picture that are read
PICTURE, USER_DATA = 0xB6, 0xB2
LAYERS = range(0x20, 0x30)
KIND = {PICTURE: SLICE, USER_DATA: READ} | dict.fromkeys(LAYERS, READ)
KINDS = bytes(KIND.get(code, 0) for code in range(256))
I, P, B = 0, 1, 2  # noqa: E741 - the standard's letters
TYPES = (PictureType.I, PictureType.P, PictureType.B, PictureType.P)
RECTANGLE, EXTENDED_ASPECT = 0, 15
PACKED = "packed B pictures: one packet holds two pictures and the next none"
# FFmpeg measures time in fields by the first B picture that it decodes.
INTERLACED = "interlaced B pictures: how they are decoded depends on the first of them"
# How encoders tell decoders that they pack, which then look for a second picture.
PACKING = re.compile(rb"DivX\d+(?:Build|b)\d+p")


@dataclass(frozen=True, slots=True)
class Layer:
    """A video object layer: what picture headers need.

    Attributes:
        time_bits: of `vop_time_increment`.
        low_delay: whether the stream says that it holds no B pictures.
        interlaced: whether pictures say how their fields lie.
        qp_bits: of a picture's quantiser, 0 where it cannot be found cheaply.
    """

    time_bits: int
    low_delay: bool
    interlaced: bool
    qp_bits: int


class Mpeg4:
    """The headers of one MPEG-4 part 2 stream.

    Args:
        extradata: the layer's header, or None.

    Attributes:
        ungateable: why the stream must be decoded whole, None as long as nothing says so.

    Raises:
        PacketError: extradata that cannot be read.
    """

    def __init__(self, extradata: bytes | None) -> None:
        """Reads the headers that came with the container."""
        self.ungateable: str | None = None
        self._layer: Layer | None = None
        self._sets = Sets()
        self._follows_entry = False
        for unit in units(extradata or b"", 0):
            self._read_other(unit)

    def read(self, data: Data, keyframe: bool = False) -> Picture:
        """What the headers of a packet say.

        Args:
            data: the packet; one picture with what precedes it.
            keyframe: the container's flag, not needed.

        Raises:
            PacketError: no picture, a damaged header, or none of the layer yet.
        """
        begin = first_slice(data, 0, KINDS, self._read_other)
        layer = self._layer
        if layer is None:
            raise PacketError("an MPEG-4 picture before the header of its layer")
        bits = Bits(bytes(data[begin + 1 : begin + 1 + HEAD]))
        kind = bits.take(2)
        while bits.flag():
            pass
        bits.take(2 + layer.time_bits)
        coded = bits.flag()
        entry = Entry.NONE
        if kind == I and coded:
            entry = Entry.CLEAN if layer.low_delay else Entry.OPEN
        leading = kind == B and self._follows_entry
        if kind != B:
            self._follows_entry = entry is Entry.OPEN
        return picture(
            TYPES[kind],
            kind != B,
            entry,
            leading,
            0,
            _quantiser(bits, kind, layer) if coded else None,
            None,
            None,
            coded,
        )

    def _read_other(self, unit: bytes) -> None:
        if unit[0] == USER_DATA:
            if PACKING.match(unit, 1):
                self.ungateable = PACKED
        elif unit[0] in LAYERS and self._sets.is_new(unit):
            self._layer = layer = read_layer(Bits(unit[1:]))
            if layer.interlaced and not layer.low_delay:
                self.ungateable = self.ungateable or INTERLACED
            self._sets.put(unit[0], 0, unit)


def read_layer(bits: Bits) -> Layer:
    """Reads `VideoObjectLayer`.

    Args:
        bits: after its start code.

    Raises:
        PacketError: it ends early, or describes shapes other than rectangles.
    """
    bits.take(9)
    version = 1
    if bits.flag():
        version = bits.take(4)
        bits.take(3)
    if bits.take(4) == EXTENDED_ASPECT:
        bits.take(16)
    low_delay = False
    if bits.flag():
        bits.take(2)
        low_delay = bits.flag()
        if bits.flag():
            bits.take(79)
    if bits.take(2) != RECTANGLE:
        raise PacketError("an MPEG-4 layer of shaped objects, which nobody decodes")
    bits.flag()
    time_bits = max(1, (bits.take(16) - 1).bit_length())
    bits.flag()
    if bits.flag():
        bits.take(time_bits)
    bits.take(29)
    interlaced = bits.flag()
    return Layer(time_bits, low_delay, interlaced, _qp_bits(bits, version))


def _qp_bits(bits: Bits, version: int) -> int:
    """Bits of a quantiser; 0 where pictures hold sprites or estimates of complexity."""
    bits.flag()
    if bits.take(1 if version == 1 else 2):
        return 0
    qp_bits = 5
    if bits.flag():
        qp_bits = bits.take(4)
        bits.take(4)
    if bits.flag():
        for _ in range(2):
            if bits.flag():
                _skip_matrix(bits)
    if version != 1:
        bits.flag()
    return qp_bits if bits.flag() else 0


def _skip_matrix(bits: Bits) -> None:
    for _ in range(64):
        if not bits.take(8):
            return


def _quantiser(bits: Bits, kind: int, layer: Layer) -> int | None:
    if not layer.qp_bits:
        return None
    bits.take((kind == P) + 3 + 2 * layer.interlaced)
    return bits.take(layer.qp_bits)
