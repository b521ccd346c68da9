"""Reading numbers out of header bits, most significant bit first."""

from __future__ import annotations

from triparty.common.errors import PacketError

Data = bytes | memoryview
MAX_ZEROS = 32
ESCAPE = b"\0\0\3"


def unescape(payload: bytes) -> bytes:
    """A NAL unit's bytes without emulation prevention (H.264 7.3.1, H.265 7.3.1.1)."""
    if ESCAPE in payload:
        return payload.replace(ESCAPE, b"\0\0")
    return payload


class Bits:
    """A header as one number, read from its front.

    Args:
        data: the header's bytes, a few hundred at most: each read costs time in its length.

    Attributes:
        left: how many bits are left.
    """

    __slots__ = ("_value", "left")

    def __init__(self, data: bytes) -> None:
        """Starts at the first bit."""
        self._value = int.from_bytes(data, "big")
        self.left = 8 * len(data)

    def take(self, count: int) -> int:
        """The next `count` bits as an unsigned number.

        Raises:
            PacketError: the header ends before.
        """
        self.left = left = self.left - count
        if left < 0:
            raise PacketError("a header ends early: the packet is damaged or cut")
        return self._value >> left & (1 << count) - 1

    def flag(self) -> bool:
        """The next bit.

        Raises:
            PacketError: the header ends before.
        """
        self.left = left = self.left - 1
        if left < 0:
            raise PacketError("a header ends early: the packet is damaged or cut")
        return self._value >> left & 1 == 1

    def ue(self) -> int:
        """The next unsigned Exp-Golomb number (H.264 9.1).

        Raises:
            PacketError: the header ends before, or the number has more than 32 bits.
        """
        left = self.left
        rest = self._value & (1 << left) - 1 if left > 0 else 0
        zeros = left - rest.bit_length()
        self.left = left = left - 2 * zeros - 1
        if left < 0 or zeros > MAX_ZEROS:
            raise PacketError("a header ends within a number: the packet is damaged or cut")
        return (rest >> left) - 1

    def se(self) -> int:
        """The next signed Exp-Golomb number (H.264 9.1.1).

        Raises:
            PacketError: as `ue`.
        """
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)
