"""What a site has: cameras and their zones, objects, and what people may call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo


@dataclass(frozen=True)
class Place:
    """A camera's picture, or a zone of it.

    Attributes:
        camera: its name.
        zone: None for the whole picture.
        phrases: what it is called: its name, and a description if there is one.
    """

    camera: str
    zone: str | None
    phrases: tuple[str, ...]

    @property
    def name(self) -> str:
        """What an answer calls it."""
        return self.camera if self.zone is None else f"{self.zone} ({self.camera})"


@dataclass(frozen=True)
class Thing:
    """An object that a model knows.

    Attributes:
        label: its name in events.
        phrases: what it is called.
    """

    label: str
    phrases: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """What a task of the gateway answers.

    Attributes:
        measure: what it says of a frame (`presence`, `count`, ...).
        label: the object it is about; None if it is about no single one.
        names: of the model's classes, where an answer lists their numbers.
    """

    measure: str
    label: str | None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Site:
    """What is known of a site beforehand.

    Attributes:
        zone: the time zone of its cameras.
        places: cameras and their zones.
        things: objects.
        tasks: by name.
    """

    zone: ZoneInfo
    places: tuple[Place, ...]
    things: tuple[Thing, ...]
    tasks: Mapping[str, Task] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        zone: ZoneInfo,
        cameras: Mapping[str, Sequence[str]],
        labels: Sequence[str],
        *,
        descriptions: Mapping[str, str] | None = None,
        tasks: Mapping[str, Task] | None = None,
    ) -> Site:
        """A site of names.

        Args:
            zone: the time zone of its cameras.
            cameras: zones of each camera.
            labels: of objects.
            descriptions: what cameras, zones and labels are, in plain words, by name.
            tasks: by name.
        """
        more = descriptions or {}
        places = [
            Place(camera, zone_name, _phrases(zone_name or camera, more))
            for camera, zones in cameras.items()
            for zone_name in (None, *zones)
        ]
        things = [Thing(label, _phrases(label, more)) for label in dict.fromkeys(labels)]
        return cls(zone, tuple(places), tuple(things), dict(tasks or {}))

    def cameras(self) -> tuple[str, ...]:
        """The names of all cameras."""
        return tuple(dict.fromkeys(place.camera for place in self.places))


def _phrases(name: str, descriptions: Mapping[str, Any]) -> tuple[str, ...]:
    """A name as words, and the parts of its description, which commas separate."""
    plain = " ".join(name.replace("_", " ").replace("-", " ").split())
    parts = [part.strip() for part in str(descriptions.get(name, "")).split(",")]
    return tuple(dict.fromkeys(part for part in (plain, *parts) if part))
