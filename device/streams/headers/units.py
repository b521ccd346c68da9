"""Finding NAL units in a packet: length-prefixed (avcC, hvcC) or after start codes (Annex B).

Only what precedes the first slice is looked at, and only its few bytes are copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct

from triparty.common.errors import PacketError
from triparty.device.streams.bits import Data

START = b"\0\0\1"
MAX_UNITS = 256  # before the first slice; standards and cameras stay below 20
MAX_PREFIX = 1 << 20  # bytes of Annex B before the first slice
WINDOW = 64
SLICE, READ = 1, 2
NO_SLICE = "a packet of {} bytes holds no slice among its first units: it is damaged or cut"
four_bytes = Struct(">I").unpack_from


def first_slice(
    data: Data, length_size: int, kinds: bytes, read: Callable[[bytes], None]
) -> int:
    """Where the first slice of a packet begins, at its NAL header.

    Args:
        data: the packet.
        length_size: bytes of a unit's length, 0 for Annex B.
        kinds: for each first byte of a unit, whether it is a `SLICE`, or one to `READ`.
        read: is given every unit to read before the slice, emulation prevention still in it.

    Raises:
        PacketError: the packet holds no slice.
    """
    if not length_size:
        return _first_after_start(data, kinds, read)
    at, size = 0, len(data)
    for _ in range(MAX_UNITS):
        begin = at + length_size
        if begin >= size:
            break
        if length_size == 4:
            at = begin + four_bytes(data, at)[0]
        else:
            at = begin + int.from_bytes(data[at:begin], "big")
        if at == begin:
            continue
        kind = kinds[data[begin]]
        if kind == SLICE:
            return begin
        if kind:
            read(bytes(data[begin : min(at, begin + MAX_PREFIX)]))
    raise PacketError(NO_SLICE.format(size))


def _first_after_start(data: Data, kinds: bytes, read: Callable[[bytes], None]) -> int:
    window, start = _next_start(data, bytes(data[:WINDOW]), 0)
    for _ in range(MAX_UNITS):
        begin = start + 3
        if begin >= len(window):
            break
        kind = kinds[window[begin]]
        if kind == SLICE:
            return begin
        start = window.find(START, begin)
        if not 0 <= start < len(window) - 3:
            window, start = _next_start(data, window, begin)
        if kind and start > begin:
            read(window[begin:start])
    raise PacketError(NO_SLICE.format(len(data)))


def _next_start(data: Data, window: bytes, at: int) -> tuple[bytes, int]:
    """The packet's front, longer if need be, and where in it the next start code begins."""
    while True:
        found = window.find(START, at)
        if 0 <= found < len(window) - 3:
            return window, found
        if len(window) >= min(len(data), MAX_PREFIX):
            return window, len(window)
        window = bytes(data[: 8 * len(window)])


def units(data: Data, length_size: int) -> Iterator[bytes]:
    """Every unit of a packet or of parameter sets, its bytes copied.

    Raises:
        PacketError: a unit reaches past the end.
    """
    if not length_size:
        yield from _units_after_start(bytes(data))
        return
    at, size = 0, len(data)
    while at < size:
        begin = at + length_size
        at = begin + int.from_bytes(data[at:begin], "big")
        if begin > size or at > size:
            raise PacketError(f"a unit of {at - begin} bytes in a packet of {size}")
        if at > begin:
            yield bytes(data[begin:at])


def _units_after_start(data: bytes) -> Iterator[bytes]:
    begin = data.find(START) + len(START)
    while begin >= len(START):
        start = data.find(START, begin)
        end = start if start >= 0 else len(data)
        if end > begin:
            yield data[begin:end]
        begin = start + len(START)
