"""Supplemental enhancement information: the recovery point (H.264 D.1.8, H.265 D.2.8)."""

from __future__ import annotations

from typing import NamedTuple

from triparty.device.streams.bits import Bits, unescape

RECOVERY_POINT = 6
MESSAGES = 64  # looked at in one unit


class Recovery(NamedTuple):
    """From where on pictures are right when decoding starts at this one.

    Attributes:
        code: the Exp-Golomb code of the count of pictures until then: 0 for none.
        exact: whether they are then bit for bit those of a decode from the beginning.
    """

    code: int
    exact: bool


def recovery_point(unit: bytes, header: int) -> Recovery | None:
    """The recovery point in a unit of messages, None if it holds none.

    Args:
        unit: the whole NAL unit, emulation prevention still in it.
        header: bytes of its NAL header.

    Raises:
        PacketError: the message ends early.
    """
    unit = unescape(unit)
    at = header
    for _ in range(MESSAGES):
        kind, at = _number(unit, at)
        size, at = _number(unit, at)
        if kind == RECOVERY_POINT and at < len(unit):
            bits = Bits(unit[at : at + 8])
            return Recovery(bits.ue(), bits.flag())
        at += size
        if at + 2 >= len(unit):
            return None
    return None


def _number(unit: bytes, at: int) -> tuple[int, int]:
    """A number in SEI's own coding, and where it ends."""
    number = 0
    while at < len(unit) and unit[at] == 255:
        number += 255
        at += 1
    return (number + unit[at], at + 1) if at < len(unit) else (number, at)
