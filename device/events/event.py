"""What an event is, and how events are asked for; no database in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

Kind = Literal["enter", "leave", "count", "anomaly", "change"]
"""What happened: something came into view, went out of it, a number of things changed,
something unusual was seen, or an answer of another sort changed."""

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Event:
    """Something that happened before a camera.

    Attributes:
        id: in its store; later ones are larger.
        wall: when, in seconds since 1970 (UTC).
        camera: that saw it.
        zone: of the camera's picture where it happened; None for the whole picture.
        task: whose answer changed.
        kind: what happened.
        label: the object it is about ("person"); None if the task is about no single one.
        before: the answer before; JSON.
        after: the answer after; JSON.
        clip: name of a file in the folder of clips.
        snapshot: name of a file in the folder of snapshots.
        measured: whether a model saw it; otherwise a link predicted it from what another saw.
        confidence: in 0..1, of what was seen or predicted; None if nobody said.
    """

    id: int
    wall: float
    camera: str
    task: str
    kind: Kind
    before: Any
    after: Any
    zone: str | None = None
    label: str | None = None
    clip: str | None = None
    snapshot: str | None = None
    measured: bool = True
    confidence: float | None = None


@dataclass(frozen=True)
class Wanted:
    """Which events are asked for; what is None or empty excludes nothing.

    Attributes:
        since: not before this time, in seconds since 1970.
        until: before this time.
        cameras: of these cameras.
        zones: in these zones.
        tasks: of these tasks.
        kinds: of these kinds.
        labels: about these objects.
        before_id: of smaller ids, for the page after one that ended there.
        after_id: of larger ids, for what is new.
    """

    since: float | None = None
    until: float | None = None
    cameras: Sequence[str] = ()
    zones: Sequence[str] = ()
    tasks: Sequence[str] = ()
    kinds: Sequence[Kind] = ()
    labels: Sequence[str] = ()
    before_id: int | None = None
    after_id: int | None = None


class Events(Protocol):
    """Events of a site that can be read."""

    def list(self, wanted: Wanted, *, limit: int = 100) -> Sequence[Event]:
        """The newest of those that are wanted, newest first."""

    def get(self, event_id: int) -> Event | None:
        """One event, or None if there is none of that id (any more)."""

    def answers_at(
        self, wall: float, *, cameras: Sequence[str] = ()
    ) -> dict[str, dict[str, Any]]:
        """What held at a time: by camera, the last answer of each task not after it."""
