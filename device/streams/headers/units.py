"""Finding NAL units in a packet: length-prefixed (avcC, hvcC) or after start codes (Annex B).

Only what precedes the first slice is looked at, and only its few bytes are copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from triparty.common.errors import PacketError
from triparty.device.streams.bits import Data

START = b"\0\0\1"
MAX_UNITS = 256  # before the first slice; standards and cameras stay below 20
MAX_PREFIX = 1 << 20  # bytes of Annex B before the first slice
WINDOW = 256


def first_slice(
    data: Data, length_size: int, slices: bytes, other: Callable[[bytes], None]
) -> tuple[int, int]:
    """Where the first slice of a packet begins, at its NAL header, and where it ends at most.

    Args:
        data: the packet.
        length_size: bytes of a unit's length, 0 for Annex B.
        slices: 256 flags: whether a unit whose header begins with this byte is a slice.
        other: is given every unit before the slice, emulation prevention still in it.

    Raises:
        PacketError: the packet holds no slice, or its units do not fit in it.
    """
    if not length_size:
        return _first_after_start(data, slices, other)
    at, size = 0, len(data)
    for _ in range(MAX_UNITS):
        begin = at + length_size
        if begin >= size:
            break
        at = begin + int.from_bytes(data[at:begin], "big")
        if at == begin:
            continue
        if slices[data[begin]]:
            return begin, min(at, size)
        other(bytes(data[begin : min(at, begin + MAX_PREFIX)]))
    raise PacketError(f"a packet of {size} bytes holds no slice among its first units")


def _first_after_start(
    data: Data, slices: bytes, other: Callable[[bytes], None]
) -> tuple[int, int]:
    window, start = _next_start(data, bytes(data[:WINDOW]), 0)
    for _ in range(MAX_UNITS):
        begin = start + len(START)
        if begin >= len(window):
            break
        if slices[window[begin]]:
            return begin, len(data)
        window, start = _next_start(data, window, begin)
        if start > begin:
            other(window[begin:start])
    raise PacketError(f"a packet of {len(data)} bytes holds no slice among its first units")


def _next_start(data: Data, window: bytes, at: int) -> tuple[bytes, int]:
    """The packet's front, longer if need be, and where in it the next start code begins."""
    while True:
        found = window.find(START, at)
        if 0 <= found < len(window) - len(START):
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
        for unit in bytes(data).split(START)[1:]:
            if unit:
                yield unit
        return
    at, size = 0, len(data)
    while at < size:
        begin = at + length_size
        at = begin + int.from_bytes(data[at:begin], "big")
        if begin > size or at > size:
            raise PacketError(f"a unit of {at - begin} bytes in a packet of {size}")
        if at > begin:
            yield bytes(data[begin:at])
