"""H.265: what a packet says before its first slice's data (ITU-T H.265, 7.3 and 7.4).

A picture can be left out if it is a sub-layer non-reference picture of the highest sub-layer:
pictures of a higher sub-layer may refer to it otherwise. Decoding may start at IDR and BLA
pictures, and at CRA pictures, whose skipped leading pictures (RASL) need what was before. The
quantiser is read of IDR pictures alone: in all others it lies behind sets of references.
"""

from __future__ import annotations

from itertools import islice

from triparty.common.errors import PacketError
from triparty.device.streams.bits import Bits, Data, unescape
from triparty.device.streams.headers.h264 import INTRA_REFRESH
from triparty.device.streams.headers.hevc_sets import (
    PictureSet,
    SequenceSet,
    picture_set,
    sequence_set,
)
from triparty.device.streams.headers.picture import picture
from triparty.device.streams.headers.sei import recovery_point
from triparty.device.streams.headers.sets import Sets, at_most
from triparty.device.streams.headers.units import (
    MAX_UNITS,
    READ,
    SLICE,
    START,
    first_slice,
    units,
)
from triparty.device.streams.packets import Entry, Picture, PictureType

HEAD = 32  # bytes of a slice that are read
NAL_HEADER = 2
RASL = (8, 9)
BLA_FIRST, IDR_FIRST, CRA, INTRA_LAST = 16, 19, 21, 23
SEQUENCE_SET, PICTURE_SET, MESSAGES = 33, 34, 39
ENDS = (36, 37)
KIND = dict.fromkeys((SEQUENCE_SET, PICTURE_SET, MESSAGES, *ENDS), READ)
SLICE_KINDS = 64  # the first byte of a slice's header is below
KINDS = bytes(
    SLICE if header < SLICE_KINDS else KIND.get(header >> 1, 0) for header in range(256)
)
TYPES = (PictureType.B, PictureType.P, PictureType.I)


class Hevc:
    """The headers of one H.265 stream.

    Args:
        extradata: hvcC, or parameter sets after start codes, or None.

    Attributes:
        ungateable: why the stream must be decoded whole, None as long as nothing says so.

    Raises:
        PacketError: extradata that cannot be read.
    """

    def __init__(self, extradata: bytes | None) -> None:
        """Reads the parameter sets that came with the container."""
        self.ungateable: str | None = None
        self._length_size = 0
        self._sequence_sets: dict[int, SequenceSet] = {}
        self._picture_sets: dict[int, PictureSet] = {}
        self._sets = Sets()
        self._layouts: dict[int, tuple[SequenceSet, PictureSet]] = {}
        self._recovers = False
        self._after_end = True
        self._skips_leading = False
        if extradata:
            self._read_extradata(extradata)

    def read(self, data: Data, keyframe: bool = False) -> Picture:
        """What the headers of a packet say.

        Args:
            data: the packet; one picture with what precedes it.
            keyframe: the container's flag, not believed.

        Raises:
            PacketError: no slice, or a damaged header.
        """
        self._recovers = False
        begin = self._length_size
        # A first byte of 0 may be a slice's, or the next length after a unit of none.
        if not begin or len(data) <= begin or not 0 < data[begin] < SLICE_KINDS:
            begin = first_slice(data, begin, KINDS, self._read_other)
        head = bytes(data[begin : begin + HEAD])
        if len(head) <= NAL_HEADER:
            raise PacketError("a slice without a header: the packet is damaged or cut")
        kind, layer = head[0] >> 1, (head[1] & 7) - 1
        slice_type, qp, top_layer = self._read_slice(head) or self._first_whole(data)
        entry = Entry.OPEN if kind == CRA else Entry.NONE
        if BLA_FIRST <= kind < CRA:
            entry = Entry.CLEAN
        if entry:
            self._skips_leading = entry is Entry.CLEAN or self._after_end
        elif self._recovers and slice_type is not PictureType.I:
            self.ungateable = INTRA_REFRESH
        self._after_end = data[-2] >> 1 in ENDS and self._ends(data)
        leading = kind in RASL
        shown = not (leading and self._skips_leading)
        needed = kind & 1 == 1 or kind >= BLA_FIRST or layer < top_layer
        return picture(
            slice_type, needed and shown, entry, leading, layer, qp, None, None, shown
        )

    def _read_slice(self, head: bytes) -> tuple[PictureType, int | None, int] | None:
        """Type, quantiser and highest sub-layer by a slice; None if it has no full header."""
        kind = head[0] >> 1
        bits = Bits(unescape(head[NAL_HEADER:]))
        first = bits.flag()
        if BLA_FIRST <= kind <= INTRA_LAST:
            bits.flag()
        number = bits.ue()
        sequence, pictures = self._layouts.get(number) or self._layout(number)
        if not first:
            if pictures.dependent and bits.flag():
                return None
            bits.take(sequence.address_bits)
        bits.take(pictures.extra_bits)
        slice_type = at_most(bits.ue(), 2, "slice_type")
        qp = None
        if IDR_FIRST <= kind < CRA:
            bits.take(pictures.output_flag + 2 * sequence.planes)
            if sequence.offsets:
                bits.take(1 + (sequence.chroma != 0))
            qp = pictures.qp + bits.se()
        return TYPES[slice_type], qp, sequence.top_layer

    def _first_whole(self, data: Data) -> tuple[PictureType, int | None, int]:
        """The first slice with a full header, in a packet that begins with one without."""
        for unit in islice(units(data, self._length_size), MAX_UNITS):
            if KINDS[unit[0]] == SLICE:
                found = self._read_slice(unit[:HEAD])
                if found:
                    return found
        raise PacketError("no slice of the packet has a full header: its beginning was lost")

    def _layout(self, number: int) -> tuple[SequenceSet, PictureSet]:
        pictures = self._picture_sets.get(number)
        sequence = self._sequence_sets.get(pictures.sequence_set) if pictures else None
        if pictures is None or sequence is None:
            raise PacketError(f"a slice needs parameter set {number}, which has not arrived")
        self._layouts[number] = sequence, pictures
        return sequence, pictures

    def _ends(self, data: Data) -> bool:
        """Whether the last unit, of two bytes, ends the sequence."""
        size = self._length_size or len(START)
        mark = START if not self._length_size else NAL_HEADER.to_bytes(size, "big")
        return bytes(data[-2 - size : -2]) == mark

    def _read_other(self, unit: bytes) -> None:
        if len(unit) <= NAL_HEADER or unit[0] & 1 or unit[1] >> 3:
            self._after_end |= len(unit) == NAL_HEADER and unit[0] >> 1 in ENDS
            return
        kind = unit[0] >> 1
        if kind == MESSAGES:
            self._recovers |= recovery_point(unit, NAL_HEADER) is not None
        elif kind in (SEQUENCE_SET, PICTURE_SET) and self._sets.is_new(unit):
            bits = Bits(unescape(unit[NAL_HEADER:]))
            if kind == SEQUENCE_SET:
                sequence = sequence_set(bits)
                self._sequence_sets[sequence.id] = sequence
                self._sets.put(kind, sequence.id, unit)
            else:
                pictures = picture_set(bits)
                self._picture_sets[pictures.id] = pictures
                self._sets.put(kind, pictures.id, unit)
            self._layouts.clear()

    def _read_extradata(self, extradata: bytes) -> None:
        if extradata[:3] in (b"\0\0\1", b"\0\0\0"):
            for unit in units(extradata, 0):
                self._read_other(unit)
            return
        if len(extradata) < 23:
            raise PacketError(f"hvcC of {len(extradata)} bytes, expected at least 23")
        self._length_size = (extradata[21] & 3) + 1
        at = 23
        for _ in range(extradata[22]):
            count, at = int.from_bytes(extradata[at + 1 : at + 3], "big"), at + 3
            for _ in range(count):
                size = int.from_bytes(extradata[at : at + 2], "big")
                unit = extradata[at + 2 : at + 2 + size]
                if not unit or len(unit) < size:
                    raise PacketError("hvcC ends within a parameter set: it is damaged")
                self._read_other(unit)
                at += 2 + size
