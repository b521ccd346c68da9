"""Where events lie on a line of time, a lane for each camera; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from triparty.device.events.event import Event

WIDTH: Final = 1000
LEAST_SPAN_S: Final = 60.0


@dataclass(frozen=True)
class Mark:
    """An event on the line.

    Attributes:
        event: that happened.
        place: from 0 to `WIDTH`.
    """

    event: Event
    place: float


@dataclass(frozen=True)
class Lane:
    """The events of one camera."""

    camera: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Timeline:
    """All lanes over one span of time.

    Attributes:
        since: where it begins, in seconds since 1970.
        until: where it ends.
        lanes: by camera, in the order of their names.
    """

    since: float
    until: float
    lanes: tuple[Lane, ...]


def timeline(
    events: Sequence[Event], *, since: float | None = None, until: float | None = None
) -> Timeline | None:
    """Lays out events.

    Args:
        events: in any order.
        since: where the line begins; by default with the first event.
        until: where it ends; by default with the last one.

    Returns:
        None without events.
    """
    if not events:
        return None
    first = min(event.wall for event in events) if since is None else since
    last = max(event.wall for event in events) if until is None else until
    span = max(LEAST_SPAN_S, last - first)
    lanes = [
        Lane(
            camera,
            tuple(
                Mark(event, round(WIDTH * (event.wall - first) / span, 2))
                for event in events
                if event.camera == camera
            ),
        )
        for camera in sorted({event.camera for event in events})
    ]
    return Timeline(first, first + span, tuple(lanes))
