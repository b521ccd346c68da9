"""A made building: what was truly there, and what a gateway recorded of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from triparty.device.ask.coverage import gaps
from triparty.device.ask.places import Site, Task
from triparty.device.ask.times import Span
from triparty.device.events.event import Event, Wanted

ZONE = ZoneInfo("Europe/Berlin")


@dataclass(frozen=True)
class Stay:
    """Somebody or something that was somewhere.

    Attributes:
        camera: that saw it.
        zone: in which; "" for elsewhere in the picture.
        label: what it was.
        since: in seconds since 1970.
        until: in seconds since 1970.
    """

    camera: str
    zone: str
    label: str
    since: float
    until: float


class MadeEvents:
    """Events in a list, as a store answers."""

    def __init__(self, events: Iterable[Event], held: Mapping[str, Mapping[str, Any]]) -> None:
        """Sorts them; `held` is what tasks answer before their first event."""
        self.events = sorted(events, key=lambda one: one.id)
        self._held = held
        self.asked = list[Wanted]()

    def list(self, wanted: Wanted, *, limit: int = 100) -> Sequence[Event]:
        self.asked.append(wanted)
        found = [one for one in reversed(self.events) if _is_wanted(one, wanted)]
        return found[:limit]

    def get(self, event_id: int) -> Event | None:
        return next((one for one in self.events if one.id == event_id), None)

    def answers_at(
        self, wall: float, *, cameras: Sequence[str] = ()
    ) -> dict[str, dict[str, Any]]:
        found = {
            camera: dict(answers)
            for camera, answers in self._held.items()
            if not cameras or camera in cameras
        }
        for event in self.events:
            if event.wall <= wall and event.camera in found:
                key = event.task if event.zone is None else f"{event.task}@{event.zone}"
                found[event.camera][key] = event.after
        return found


def _is_wanted(event: Event, wanted: Wanted) -> bool:
    return (
        (wanted.since is None or event.wall >= wanted.since)
        and (wanted.until is None or event.wall < wanted.until)
        and (not wanted.cameras or event.camera in wanted.cameras)
        and (not wanted.zones or event.zone in wanted.zones)
        and (not wanted.tasks or event.task in wanted.tasks)
        and (not wanted.kinds or event.kind in wanted.kinds)
        and (not wanted.labels or event.label in wanted.labels)
        and (wanted.before_id is None or event.id < wanted.before_id)
        and (wanted.after_id is None or event.id > wanted.after_id)
    )


@dataclass
class MadeWatched:
    """When cameras were looked at."""

    stretches: Mapping[str, Sequence[tuple[float, float]]]
    kept_since: float | None = None

    def watched(self, camera: str, since: float, until: float) -> list[tuple[float, float]]:
        return [
            (max(a, since), min(b, until))
            for a, b in self.stretches.get(camera, ())
            if a < until and b > since
        ]


@dataclass
class Building:
    """A site, its truth and its record."""

    site: Site
    stays: tuple[Stay, ...]
    odd: tuple[tuple[str, float], ...] = ()
    events: MadeEvents = field(init=False)

    def __post_init__(self) -> None:
        self.events = recorded(self.site, self.stays, self.odd)

    def number(self, camera: str, zone: str | None, labels: Sequence[str], at: float) -> int:
        """How many were there at a moment: the oracle, which knows no events."""
        return sum(
            stay.since <= at < stay.until
            for stay in self.stays
            if stay.camera == camera
            and zone in (None, stay.zone)
            and (not labels or stay.label in labels)
        )


def recorded(
    site: Site, stays: Sequence[Stay], odd: Sequence[tuple[str, float]] = ()
) -> MadeEvents:
    """What tasks that count each object in each picture and zone record of the truth."""
    rows = list[tuple[float, str, str | None, str, int, int]]()
    held = dict[str, dict[str, Any]]()
    for place in site.places:
        for label in (thing.label for thing in site.things):
            task = f"{label}s"
            key = task if place.zone is None else f"{task}@{place.zone}"
            held.setdefault(place.camera, {})[key] = 0
            own = [
                stay
                for stay in stays
                if stay.camera == place.camera
                and stay.label == label
                and place.zone in (None, stay.zone)
            ]
            number = 0
            for at in sorted({t for stay in own for t in (stay.since, stay.until)}):
                new = sum(stay.since <= at < stay.until for stay in own)
                if new != number:
                    rows.append((at, place.camera, place.zone, label, number, new))
                    number = new
    rows.sort(key=lambda row: row[0])
    events = [
        Event(
            id=n + 1,
            wall=at,
            camera=camera,
            task=f"{label}s",
            kind="enter" if not before else "leave" if not after else "count",
            before=json.loads(json.dumps(before)),
            after=after,
            zone=zone,
            label=label,
            clip=f"{n}.mp4",
            confidence=0.9,
        )
        for n, (at, camera, zone, label, before, after) in enumerate(rows)
    ]
    events += [
        Event(len(events) + n + 1, at, camera, "odd", "anomaly", False, True)
        for n, (camera, at) in enumerate(odd)
    ]
    return MadeEvents(events, held)


def site(
    cameras: Mapping[str, Sequence[str]],
    labels: Sequence[str],
    descriptions: Mapping[str, str] | None = None,
) -> Site:
    """A site whose tasks count each object."""
    tasks = {f"{label}s": Task("count", label) for label in labels}
    tasks["odd"] = Task("anomaly", None)
    return Site.of(ZONE, cameras, labels, descriptions=descriptions, tasks=tasks)


def wall(text: str) -> float:
    """Seconds since 1970 of a time in the building's zone: `2026-11-19 14:05`."""
    return datetime.fromisoformat(text).replace(tzinfo=ZONE).timestamp()


def dark(stretches: Sequence[tuple[float, float]], span: Span) -> float:
    """How many seconds of a span no stretch covers."""
    return sum(b - a for a, b in gaps(stretches, span))
