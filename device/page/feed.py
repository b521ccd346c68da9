"""How the gateway stands, handed from its loop to the page: immutable, so nobody waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from triparty.device.gateway.status import GatewayStatus

SAMPLE_S: Final = 5.0
MOST_SAMPLES: Final = 720
"""An hour."""
WINDOW_S: Final = 10.0
"""Over which rates are means."""


@dataclass(frozen=True)
class Sample:
    """A point of the plots: totals so far, so that any two of them tell what was between.

    Attributes:
        wall: when, in seconds since 1970.
        measured_ms: CPU ms that decoding took.
        expected_ms: CPU ms that decoding all of it is expected to have taken.
        granted_ms: of the budget.
        packets: that arrived.
        decoded: of these.
        recall: by task, share, low and high; only what is known.
    """

    wall: float
    measured_ms: float
    expected_ms: float
    granted_ms: float
    packets: int
    decoded: int
    recall: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, wall: float, status: GatewayStatus) -> Sample:
        """What a status says."""
        return cls(
            wall,
            status.measured_ms,
            status.expected_ms,
            status.granted_ms,
            sum(camera.arrived for camera in status.cameras),
            sum(camera.decoded for camera in status.cameras),
            {
                task: (found.recall.share, found.recall.low, found.recall.high)
                for task, found in status.audits.items()
                if found.recall.share == found.recall.share
            },
        )


@dataclass(frozen=True)
class Moment:
    """How everything stands at a moment, and how it stood a little before.

    Attributes:
        wall: when, in seconds since 1970.
        status: then.
        before: of the window before it; the moment itself in the beginning.
    """

    wall: float
    status: GatewayStatus
    before: Moment | None = None


class Feed:
    """Hears the loop once a second, and shows others the last it heard.

    One thread hears, any may read: what is read is replaced, never changed.

    Args:
        status: with which it begins.
        wall: seconds since 1970.
    """

    def __init__(self, status: GatewayStatus, *, wall: Callable[[], float] = time.time) -> None:
        """Has heard the first status."""
        self._wall = wall
        self._now = Moment(wall(), status)
        self._recent: tuple[Moment, ...] = (self._now,)
        self._samples: tuple[Sample, ...] = (Sample.of(self._now.wall, status),)

    def hear(self, status: GatewayStatus) -> None:
        """Takes in how everything stands; called by the loop."""
        wall = self._wall()
        plain = Moment(wall, status)
        recent = [each for each in self._recent if wall - each.wall <= WINDOW_S]
        self._recent = (*recent, plain)
        self._now = Moment(wall, status, recent[0] if recent else None)
        if wall - self._samples[-1].wall >= SAMPLE_S:
            kept = self._samples[-(MOST_SAMPLES - 1) :]
            self._samples = (*kept, Sample.of(wall, status))

    @property
    def now(self) -> Moment:
        """The last that was heard."""
        return self._now

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Of the last hour, oldest first."""
        return self._samples
