"""VP9: uncompressed headers with the slots that each picture reads and writes.

Section numbers are those of the VP9 bitstream specification, version 0.6. Beside its eight
reference slots a decoder carries probabilities, motion vectors, filter deltas and a map of
segments from each picture to the next; one more slot, `STATE`, stands for all of them. Only
pictures in error-resilient mode, and keyframes, do without it.
"""

from __future__ import annotations

from collections.abc import Iterator

from triparty.common.errors import PacketError
from triparty.device.streams.bits import Bits, Data
from triparty.device.streams.headers.several import SEVERAL_SHOWN, Coded, named_slots, together
from triparty.device.streams.packets import Picture, PictureType

HEAD = 48  # bytes of a picture that are read
SLOTS = 0xFF
STATE = 1 << 8
MARKER, SYNC, RGB = 2, 0x498342, 7
REFERENCES = 3


class Vp9:
    """The headers of one VP9 stream.

    Args:
        extradata: not needed.

    Attributes:
        ungateable: why the stream must be decoded whole, None as long as nothing says so.
    """

    def __init__(self, extradata: bytes | None = None) -> None:
        """Starts before the first keyframe."""
        self.ungateable: str | None = None
        self._intra = SLOTS
        self._chained = False

    def read(self, data: Data, keyframe: bool = False) -> Picture:
        """What the headers of a packet say: a picture, or a superframe with hidden ones.

        Args:
            data: the packet.
            keyframe: the container's flag, not believed.

        Raises:
            PacketError: damaged headers.
        """
        said, shows = together([self._read_one(head) for head in heads(data)])
        if shows > 1:
            self.ungateable = SEVERAL_SHOWN
        return said

    def _read_one(self, head: bytes) -> Coded:
        """One uncompressed header (6.2)."""
        bits = Bits(head)
        if bits.take(2) != MARKER:
            raise PacketError("a VP9 picture does not begin with its marker: it is damaged")
        profile = bits.take(1) | bits.take(1) << 1
        if profile == 3:
            bits.flag()
        if bits.flag():
            slot = bits.take(3)
            kind = PictureType.I if self._intra >> slot & 1 else PictureType.P
            return Coded(kind, True, False, 1 << slot, 0)
        inter, shown, resilient = bits.flag(), bits.flag(), bits.flag()
        if not inter:
            self._chained = False
            return self._read_key(bits, profile, shown, resilient)
        intra = not shown and bits.flag()
        if not resilient:
            bits.take(2)
        reads = 0
        if intra:
            _sync(bits)
            if profile:
                _skip_colours(bits, profile)
            writes = bits.take(8)
            _skip_size(bits)
        else:
            writes = bits.take(8)
            reads = named_slots(bits.take(4 * REFERENCES) >> 1, REFERENCES, 4)
            _skip_inter(bits)
        self._chained |= not resilient
        if self._chained:
            reads |= STATE
        kind = PictureType.I if intra else PictureType.P
        self._intra = self._intra | writes if intra else self._intra & ~writes
        return Coded(kind, shown, False, reads, writes | STATE, _quantiser(bits, resilient))

    def _read_key(self, bits: Bits, profile: int, shown: bool, resilient: bool) -> Coded:
        _sync(bits)
        _skip_colours(bits, profile)
        _skip_size(bits)
        self._intra = SLOTS
        quantiser = _quantiser(bits, resilient)
        return Coded(PictureType.I, shown, True, 0, SLOTS | STATE, quantiser)


def heads(data: Data) -> Iterator[bytes]:
    """The first bytes of each picture of a packet (annex B: superframes).

    Raises:
        PacketError: an empty packet, or pictures that do not fit in it.
    """
    size = len(data)
    if not size:
        raise PacketError("an empty VP9 packet")
    last = data[size - 1]
    count, width = (last & 7) + 1, (last >> 3 & 3) + 1
    index = size - 2 - count * width
    if last >> 5 != 6 or index < 0 or data[index] != last:
        yield bytes(data[:HEAD])
        return
    at = 0
    for begin in range(index + 1, size - 1, width):
        length = int.from_bytes(data[begin : begin + width], "little")
        if at + length > index:
            raise PacketError(f"a picture of {length} bytes in a superframe of {size}")
        if length:
            yield bytes(data[at : at + min(HEAD, length)])
        at += length


def _sync(bits: Bits) -> None:
    if bits.take(24) != SYNC:
        raise PacketError("a VP9 picture has no sync code: it is damaged")


def _skip_colours(bits: Bits, profile: int) -> None:
    """`color_config` (6.2.2), which an intra-only picture of profile 0 does not have."""
    if profile >= 2:
        bits.flag()
    if bits.take(3) != RGB:
        bits.take(4 if profile & 1 else 1)
    elif profile & 1:
        bits.flag()


def _skip_size(bits: Bits) -> None:
    bits.take(32)
    if bits.flag():
        bits.take(32)


def _skip_inter(bits: Bits) -> None:
    """From the size, which a reference may tell, to the interpolation filter (6.2)."""
    for _ in range(REFERENCES):
        if bits.flag():
            break
    else:
        bits.take(32)
    if bits.flag():
        bits.take(32)
    bits.flag()
    if not bits.flag():
        bits.take(2)


def _quantiser(bits: Bits, resilient: bool) -> int | None:
    """`base_q_idx`, behind the loop filter (6.2.8); None if the header ends before."""
    try:
        bits.take(2 if resilient else 4)
        bits.take(9)
        if bits.flag() and bits.flag():
            for _ in range(6):
                if bits.flag():
                    bits.take(7)
        return bits.take(8)
    except PacketError:
        return None
