"""H.264: what a packet says before its first slice's data (ITU-T H.264, 7.3 and 7.4).

A picture can be left out if `nal_ref_idc` is 0, whatever its letter: P pictures refer to B
pictures under a B pyramid. Decoding may start at an IDR picture, or at an I picture that is an
exact recovery point at once, whose leading pictures (earlier in picture order) need what was
before. The container's key flag is not believed: it names P pictures of intra refresh too.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from triparty.common.errors import PacketError
from triparty.device.streams.bits import Bits, Data, unescape
from triparty.device.streams.headers.h264_qp import slice_qp
from triparty.device.streams.headers.h264_sets import (
    Layout,
    PictureSet,
    SequenceSet,
    picture_set,
    sequence_set,
)
from triparty.device.streams.headers.picture import picture
from triparty.device.streams.headers.sei import Recovery, recovery_point
from triparty.device.streams.headers.sets import Sets, at_most
from triparty.device.streams.headers.units import MAX_UNITS, READ, SLICE, first_slice, units
from triparty.device.streams.packets import Entry, Picture, PictureType

HEAD = 48  # bytes of a slice that are read: its header without long tables of weights
IDR, MESSAGES, SEQUENCE_SET, PICTURE_SET = 5, 6, 7, 8
KIND = {1: SLICE, 2: SLICE, IDR: SLICE, MESSAGES: READ, SEQUENCE_SET: READ, PICTURE_SET: READ}
KINDS = bytes(KIND.get(header & 31, 0) if header < 128 else 0 for header in range(256))
TYPES = (PictureType.P, PictureType.B, PictureType.I, PictureType.P, PictureType.I)
INTRA = (2, 4)
AT_ONCE = Recovery(code=0, exact=True)
INTRA_REFRESH = "intra refresh: no picture after the first one is whole by itself"
FIELDS = "field pictures: two pictures make one frame"


class Start(NamedTuple):
    """What a slice header begins with.

    Attributes:
        type: `slice_type`.
        bits: how many it takes to `pic_parameter_set_id`, with it.
        layout: of what follows.
    """

    type: int
    bits: int
    layout: Layout


class H264:
    """The headers of one H.264 stream.

    Args:
        extradata: avcC, or parameter sets after start codes, or None.

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
        self._starts: dict[bytes, Start] = {}
        self._recovery: Recovery | None = None
        self._leading: Leading | None = None
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
        self._recovery = None
        begin = self._length_size
        if not begin or len(data) <= begin or KINDS[data[begin]] != SLICE:
            begin = first_slice(data, begin, KINDS, self._read_other)
        header = data[begin]
        idr, reference = header & 31 == IDR, header & 0x60 != 0
        head = unescape(bytes(data[begin + 1 : begin + 1 + HEAD]))
        start = self._starts.get(head[:2]) or self._start(head)
        slice_type, layout = start.type % 5, start.layout
        value = int.from_bytes(head, "big")
        left = 8 * len(head) - start.bits - layout.number_bits
        field = False
        if layout.fields and left > 0:
            left -= 1
            field = value >> left & 1 == 1
            if field:
                self.ungateable = FIELDS
                left -= 1
        if idr and left > 0:
            left = 2 * (value & (1 << left) - 1).bit_length() - left - 1  # idr_pic_id
        left -= layout.order_bits
        if left < 0:
            raise PacketError("a slice ends within its header: the packet is damaged or cut")
        entry = Entry.CLEAN if idr else Entry.NONE
        if self._recovery is not None and not idr:
            entry = self._entry_at_recovery(data, start)
        leading = False
        if entry or self._leading is not None:
            order = value >> left & (1 << layout.order_bits) - 1
            leading = self._leads(entry, order, reference, layout)
        qp = None if field else slice_qp(value, left, slice_type, idr, reference, layout)
        return picture(TYPES[slice_type], reference, entry, leading, 0, qp)

    def _start(self, head: bytes) -> Start:
        bits = Bits(head)
        bits.ue()
        slice_type = at_most(bits.ue(), 9, "slice_type")
        number = bits.ue()
        pictures = self._picture_sets.get(number)
        sequence = self._sequence_sets.get(pictures.sequence_set) if pictures else None
        if pictures is None or sequence is None:
            raise PacketError(f"a slice needs parameter set {number}, which has not arrived")
        start = Start(slice_type, 8 * len(head) - bits.left, Layout.of(sequence, pictures))
        if start.bits <= 16:
            self._starts[head[:2]] = start
        return start

    def _entry_at_recovery(self, data: Data, start: Start) -> Entry:
        if not all(kind % 5 in INTRA for kind in self._slice_types(data, start.type)):
            self.ungateable = self.ungateable or INTRA_REFRESH
        elif self._recovery == AT_ONCE and start.layout.order_type != 1:
            return Entry.OPEN
        return Entry.NONE

    def _slice_types(self, data: Data, first: int) -> list[int]:
        """The types of all slices; 5 and above speaks for all, below each for itself."""
        if first >= 5:
            return [first]
        return [
            self._start(unescape(unit[1 : 1 + HEAD])).type
            for unit in islice(units(data, self._length_size), MAX_UNITS)
            if KINDS[unit[0]] == SLICE
        ]

    def _leads(self, entry: Entry, order: int, reference: bool, layout: Layout) -> bool:
        if entry is Entry.OPEN:
            self._leading = Leading(order, layout.order_bits)
        elif entry is Entry.CLEAN:
            self._leading = None
        elif self._leading is not None:
            return self._leading.leads(order, reference)
        return False

    def _read_other(self, unit: bytes) -> None:
        kind = unit[0] & 31
        if kind == MESSAGES:
            self._recovery = recovery_point(unit, 1) or self._recovery
        elif kind in (SEQUENCE_SET, PICTURE_SET) and self._sets.is_new(unit):
            bits = Bits(unescape(unit[1:]))
            if kind == SEQUENCE_SET:
                sequence = sequence_set(bits)
                self._sequence_sets[sequence.id] = sequence
                self._sets.put(kind, sequence.id, unit)
            else:
                pictures = picture_set(bits)
                self._picture_sets[pictures.id] = pictures
                self._sets.put(kind, pictures.id, unit)
            self._starts.clear()

    def _read_extradata(self, extradata: bytes) -> None:
        if extradata[0] != 1:
            for unit in units(extradata, 0):
                self._read_other(unit)
            return
        if len(extradata) < 7:
            raise PacketError(f"avcC of {len(extradata)} bytes, expected at least 7")
        self._length_size = (extradata[4] & 3) + 1
        at = 5
        for mask in (31, 255):
            count, at = extradata[at] & mask if at < len(extradata) else 0, at + 1
            for _ in range(count):
                size = int.from_bytes(extradata[at : at + 2], "big")
                unit = extradata[at + 2 : at + 2 + size]
                if not unit or len(unit) < size:
                    raise PacketError("avcC ends within a parameter set: it is damaged")
                self._read_other(unit)
                at += 2 + size


class Leading:
    """Which pictures precede an open entry in picture order (ITU-T H.264, 8.2.1.1).

    Args:
        order: `pic_order_cnt_lsb` of the entry.
        bits: how many bits it has, 0 if decode order is picture order.
    """

    def __init__(self, order: int, bits: int) -> None:
        """Counts from the entry on."""
        self._entry = self._last = order
        self._turn = 1 << bits

    def leads(self, order: int, reference: bool) -> bool:
        """Whether the next picture in decode order precedes the entry in picture order."""
        half = self._turn >> 1
        full = self._last + (order - self._last + half) % self._turn - half if half else order
        if reference:
            self._last = full
        return full < self._entry
