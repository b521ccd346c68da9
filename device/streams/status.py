"""What is known of a camera at a moment: its state, since when, and what it has sent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where a stream stands."""

    CONNECTING = "connecting"
    LIVE = "live"
    STALLED = "stalled"
    """Connected, but no picture came for a while."""
    WAITING = "waiting"
    """Not connected; will be tried again."""
    ENDED = "ended"
    """A file that was read to its end."""
    FAILED = "failed"
    """Will not be tried again."""
    REMOVED = "removed"


FINAL = frozenset({State.ENDED, State.FAILED, State.REMOVED})


@dataclass(frozen=True, slots=True)
class Status:
    """A camera's state.

    Attributes:
        name: of the camera.
        address: without credentials.
        state: where it stands.
        since: when that began, in seconds of the monotonic clock.
        attempts: times that it was opened or tried to be.
        connections: times that this succeeded.
        last_error: of the last failure, without credentials; None if there was none.
        packets: received of the video stream.
        size_bytes: of these packets.
        corrupt: packets that were damaged or that nobody could read; not used.
        gaps: times that pictures were lost and the next entry had to be waited for.
        overflows: times that packets were thrown away because nobody took them.
        last_packet: when the last packet came, in seconds of the monotonic clock.
        codec: FFmpeg's name of it; None before the first connection.
        width: pixels; 0 before the first connection.
        height: pixels; 0 before the first connection.
        ungateable: why the stream must be decoded whole; None if it need not.
    """

    name: str
    address: str
    state: State
    since: float
    attempts: int = 0
    connections: int = 0
    last_error: str | None = None
    packets: int = 0
    size_bytes: int = 0
    corrupt: int = 0
    gaps: int = 0
    overflows: int = 0
    last_packet: float | None = None
    codec: str | None = None
    width: int = 0
    height: int = 0
    ungateable: str | None = None
