"""Reading numbers out of header bits, most significant bit first."""

from __future__ import annotations

from triparty.common.errors import PacketError

Data = bytes | memoryview
MAX_ZEROS = 32


def unescape(payload: bytes) -> bytes:
    """A NAL unit's bytes without emulation prevention (H.264 7.3.1, H.265 7.3.1.1)."""
    if b"\0\0\3" in payload:
        return payload.replace(b"\0\0\3", b"\0\0")
    return payload


class Bits:
    """A header as one number, read from its front.

    Args:
        data: the header's bytes, a few hundred at most: each read costs time in its length.
    """

    __slots__ = ("_left", "_value")

    def __init__(self, data: bytes) -> None:
        """Starts at the first bit."""
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    @property
    def left(self) -> int:
        """How many bits are left."""
        return self._left

    def take(self, count: int) -> int:
        """The next `count` bits as an unsigned number.

        Raises:
            PacketError: the header ends before.
        """
        self._left -= count
        if self._left < 0:
            raise PacketError("a header ends early: the packet is damaged or cut")
        number = self._value >> self._left
        self._value &= (1 << self._left) - 1
        return number

    def flag(self) -> bool:
        """The next bit.

        Raises:
            PacketError: the header ends before.
        """
        return self.take(1) == 1

    def ue(self) -> int:
        """The next unsigned Exp-Golomb number (H.264 9.1).

        Raises:
            PacketError: the header ends before, or the number has more than 32 bits.
        """
        zeros = self._left - self._value.bit_length()
        if zeros > MAX_ZEROS:
            raise PacketError("a header holds a number of more than 32 bits: it is damaged")
        return self.take(2 * zeros + 1) - 1

    def se(self) -> int:
        """The next signed Exp-Golomb number (H.264 9.1.1).

        Raises:
            PacketError: as `ue`.
        """
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)
