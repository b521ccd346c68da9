"""What integrations have in common: what they are told of, and what they tell of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Point:
    """Something of a site that has a state: an answer of a camera, or of one of its zones.

    Attributes:
        camera: name of the camera.
        task: that answers.
        measure: of the task.
        zone: of the camera; None for the whole picture.
        labels: names of the classes of the task's model.
    """

    camera: str
    task: str
    measure: str
    zone: str | None = None
    labels: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its answer: the task's, or `task@zone`."""
        return self.task if self.zone is None else f"{self.task}@{self.zone}"


@dataclass(frozen=True)
class Site:
    """What there is to tell of.

    Attributes:
        cameras: their names.
        points: with a state.
    """

    cameras: tuple[str, ...] = ()
    points: tuple[Point, ...] = ()


@dataclass(frozen=True)
class OutletStatus:
    """How an integration stands.

    Attributes:
        name: of it.
        kind: `mqtt` or `webhook`.
        well: whether the other side took what it was sent last.
        sent: events that the other side took.
        waiting: events that it has not taken yet.
        dropped: events that were thrown away.
        failures: tries that failed.
        last_error: of the last one, while it is not well.
    """

    name: str
    kind: str
    well: bool
    sent: int = 0
    waiting: int = 0
    dropped: int = 0
    failures: int = 0
    last_error: str | None = None


class Outlet(Protocol):
    """An integration. None of its methods waits for anybody."""

    def hear_site(self, site: Site) -> None:
        """Another set of cameras, tasks and zones is watched from now on."""

    def write(self, documents: Sequence[Mapping[str, Any]], now: float) -> None:
        """Takes documents; as `gateway.results.Sink`."""

    def status(self) -> OutletStatus:
        """How it stands."""

    def close(self) -> None:
        """Says farewell, within seconds, and ends its thread."""
