"""Why a picture can or cannot be decoded, and what has been given up so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from triparty.device.streams.packets import Packet


class Unreachable(Enum):
    """Why a picture cannot be decoded exactly; the value says it to people."""

    UNKNOWN = "it has not arrived"
    NO_ENTRY = "nothing arrived yet where decoding may start"
    PASSED = "it was decoded, or decoding went past it, or two entries followed it"
    HIDDEN = "it yields no frame"
    LEADING = "it needs pictures before the open entry where decoding started"
    SKIPPED = "a picture it needs was passed over"
    LOST = "packets before it are missing"
    EVICTED = "its group outgrew the bound of held packets"
    FAILED = "the decoder failed in its group"


@dataclass(frozen=True, slots=True)
class Closure:
    """What must be decoded for one picture.

    Attributes:
        packets: in decode order; the last one is the target, the others are references that
            it needs and that were not decoded yet.
        restart: the first entry among them is where decoding starts anew: the decoder must
            forget what it holds, for what lies between was not decoded.
        part: it is the beginning of a closure, decoded ahead of the rest: its last packet is
            a reference like the others, and no frame is wanted.
    """

    packets: tuple[Packet, ...]
    restart: bool = False
    part: bool = False

    def __iter__(self) -> Iterator[Packet]:
        """The packets in decode order."""
        return iter(self.packets)

    def __len__(self) -> int:
        """How many packets it takes."""
        return len(self.packets)

    @property
    def target(self) -> Packet:
        """The packet whose frame is wanted."""
        return self.packets[-1]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """How much of one stream is held for pictures that may be wanted later.

    Attributes:
        packets: most of them, at least 1.
        size: most compressed bytes.
    """

    packets: int = 1500
    size: int = 16 << 20


@dataclass(slots=True)
class Counters:
    """What happened to the packets of one stream since it was opened.

    Attributes:
        arrived: all of them.
        decoded: handed to the decoder.
        gaps: times that packets were missing.
        failures: times that the decoder failed.
        overflows: times that the bound was reached.
        evicted: packets given up at the bound.
        unreachable: packets that could not be decoded when they arrived.
    """

    arrived: int = 0
    decoded: int = 0
    gaps: int = 0
    failures: int = 0
    overflows: int = 0
    evicted: int = 0
    unreachable: int = 0
