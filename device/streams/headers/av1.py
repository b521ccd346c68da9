"""AV1: frame headers with the slots that each picture reads and writes (specification, 5.9).

All that a picture needs from others lies in its slots: pixels, motion vectors, probabilities,
segments, filter deltas and film grain.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from triparty.common.errors import PacketError
from triparty.device.streams.bits import Bits, Data
from triparty.device.streams.headers.av1_sequence import SELECT, Sequence, sequence_header
from triparty.device.streams.headers.several import SEVERAL_SHOWN, Coded, named_slots, together
from triparty.device.streams.packets import Picture, PictureType

HEAD = 64  # bytes of a frame header that are read
MAX_SEQUENCE = 1024  # bytes of a sequence header
MAX_UNITS = 4096  # in one packet
SLOTS, REFERENCES, ALL = 8, 7, 0xFF
SEQUENCE, FRAME_HEADER, FRAME = 1, 3, 6
KEY, INTER, INTRA_ONLY, SWITCH = range(4)
TYPES = (PictureType.I, PictureType.P, PictureType.I, PictureType.P)


class Unit(NamedTuple):
    """One open bitstream unit: its type, layers (temporal, spatial), first and end byte."""

    type: int
    layers: tuple[int, int] | None
    begin: int
    end: int


class Held(NamedTuple):
    """What a slot holds: `frame_type` and order hint."""

    type: int = KEY
    order: int = 0


class Av1:
    """The headers of one AV1 stream.

    Args:
        extradata: av1C or a sequence header unit, or None.

    Attributes:
        ungateable: why the stream must be decoded whole, None as long as nothing says so.

    Raises:
        PacketError: extradata that cannot be read.
    """

    def __init__(self, extradata: bytes | None) -> None:
        """Reads the sequence header that came with the container."""
        self.ungateable: str | None = None
        self._sequence: Sequence | None = None
        self._sequence_unit = b""
        self._held = [Held()] * SLOTS
        if extradata:
            # av1C is a byte with a set marker bit, three more, and units (AV1-ISOBMFF 2.3).
            self._coded(extradata[4:] if extradata[0] & 128 else extradata)

    def read(self, data: Data, keyframe: bool = False) -> Picture:
        """What the headers of a packet say: a temporal unit, hidden pictures among it.

        Args:
            data: the packet.
            keyframe: the container's flag, not believed.

        Raises:
            PacketError: damaged headers, or no sequence header yet.
        """
        said, shows = together(self._coded(data))
        if shows > 1:
            self.ungateable = SEVERAL_SHOWN
        return said

    def _coded(self, data: Data) -> list[Coded]:
        found = []
        for unit in open_units(data):
            if unit.type == SEQUENCE:
                self._read_sequence(bytes(data[unit.begin : unit.end]))
            elif unit.type in (FRAME_HEADER, FRAME) and self._is_decoded(unit):
                head = bytes(data[unit.begin : min(unit.end, unit.begin + HEAD)])
                found.append(self._read_frame(Bits(head), unit.layers or (0, 0)))
        return found

    def _is_decoded(self, unit: Unit) -> bool:
        """Whether a unit is part of the first operating point (5.3.1)."""
        target = self._sequence.target if self._sequence else 0
        return not target or not unit.layers or _is_in(target, unit.layers)

    def _read_sequence(self, unit: bytes) -> None:
        if unit == self._sequence_unit:
            return
        if len(unit) > MAX_SEQUENCE:
            raise PacketError(f"a sequence header of {len(unit)} bytes, above {MAX_SEQUENCE}")
        self._sequence, self._sequence_unit = sequence_header(Bits(unit)), unit

    def _read_frame(self, bits: Bits, layers: tuple[int, int]) -> Coded:
        """One frame header up to its references (5.9.2)."""
        sequence = self._sequence
        if sequence is None:
            raise PacketError("a picture before any sequence header")
        kind, shown, resilient = KEY, True, True
        if not sequence.still:
            if bits.flag():
                return self._show_existing(bits.take(3))
            kind, shown = bits.take(2), bits.flag()
            bits.take(sequence.time_bits if shown else 1)
            resilient = kind == SWITCH or (kind == KEY and shown) or bits.flag()
        whole = kind == SWITCH or (kind == KEY and shown)
        intra = kind in (KEY, INTRA_ONLY)
        bits.flag()
        if bits.flag() if sequence.screen == SELECT else sequence.screen:
            bits.take(sequence.whole_vectors == SELECT)
        bits.take(sequence.id_bits)
        if kind != SWITCH and not sequence.still:
            bits.flag()
        order = bits.take(sequence.order_bits)
        if not intra and not resilient:
            bits.take(3)
        if sequence.points and bits.flag():
            _skip_removal(bits, sequence, layers)
        writes = ALL if whole else bits.take(8)
        if resilient and sequence.order_bits and not (intra and writes == ALL):
            self._correct_orders(bits, sequence.order_bits)
        reads = 0 if intra else self._references(bits, sequence, order)
        if writes:
            new = Held(kind, order)
            self._held = [
                new if writes >> slot & 1 else held for slot, held in enumerate(self._held)
            ]
        return Coded(TYPES[kind], shown, kind == KEY and shown, reads, writes)

    def _show_existing(self, slot: int) -> Coded:
        """A hidden picture is shown; a keyframe then fills all slots (7.21)."""
        held = self._held[slot]
        writes = 0
        if held.type == KEY:
            self._held = [held] * SLOTS
            writes = ALL
        return Coded(TYPES[held.type], True, False, 1 << slot, writes)

    def _correct_orders(self, bits: Bits, order_bits: int) -> None:
        for slot in range(SLOTS):
            order = bits.take(order_bits)
            if order != self._held[slot].order:
                self._held[slot] = Held(self._held[slot].type, order)

    def _references(self, bits: Bits, sequence: Sequence, order: int) -> int:
        if sequence.order_bits and bits.flag():
            last, golden = bits.take(3), bits.take(3)
            orders = [held.order for held in self._held]
            return short_references(orders, order, sequence.order_bits, last, golden)
        width = 3 + sequence.delta_bits
        fields = bits.take(REFERENCES * width) >> sequence.delta_bits
        return named_slots(fields, REFERENCES, width)


def open_units(data: Data) -> Iterator[Unit]:
    """The open bitstream units of a packet (5.3).

    Raises:
        PacketError: a unit that reaches past the end, or too many.
    """
    at, size = 0, len(data)
    for _ in range(MAX_UNITS):
        if at >= size:
            return
        header = data[at]
        at += 1
        layers = None
        if header & 4:
            if at >= size:
                raise PacketError("a unit ends within its header: the packet is cut")
            layers, at = (data[at] >> 5, data[at] >> 3 & 3), at + 1
        end = size
        if header & 2:
            length, at = _leb128(data, at)
            end = at + length
        if end > size or header & 128:
            raise PacketError(f"a unit that ends at byte {end} of {size}: it is damaged")
        yield Unit(header >> 3 & 15, layers, at, end)
        at = end
    raise PacketError(f"a packet of more than {MAX_UNITS} units")


def short_references(
    orders: list[int], order: int, order_bits: int, last: int, golden: int
) -> int:
    """The slots that a picture reads which names two of its seven references (7.8).

    Args:
        orders: order hint of each slot.
        order: of the picture.
        order_bits: of an order hint.
        last: the slot named as LAST.
        golden: the slot named as GOLDEN.
    """
    half = 1 << (order_bits - 1)
    away = [((held - order) & (half - 1)) - ((held - order) & half) for held in orders]
    ranked = sorted(range(SLOTS), key=lambda slot: (away[slot], slot))
    free = [slot for slot in ranked if slot not in (last, golden)]
    after = [slot for slot in free if away[slot] >= 0]
    before = [slot for slot in reversed(free) if away[slot] < 0]
    # Of those shown later: the latest, then the two nearest; then the nearest shown before.
    # Where these are too few the earliest of all is named again.
    picks = (after[-1:] + after[:-1][:2] + before)[: REFERENCES - 2]
    return sum({1 << slot for slot in (last, golden, *picks)})


def _is_in(point: int, layers: tuple[int, int]) -> bool:
    temporal, spatial = layers
    return bool(point >> temporal & 1 and point >> (spatial + 8) & 1)


def _skip_removal(bits: Bits, sequence: Sequence, layers: tuple[int, int]) -> None:
    """Buffer removal times of the operating points that this picture is part of."""
    for point, removal_bits in sequence.points:
        if not point or _is_in(point, layers):
            bits.take(removal_bits)


def _leb128(data: Data, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, and where it ends (4.10.5)."""
    number = 0
    for place in range(8):
        if at + place >= len(data):
            break
        byte = data[at + place]
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, at + place + 1
    raise PacketError("a unit's size has no end: the packet is damaged or cut")
