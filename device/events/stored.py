"""Events that can be read from their database, by any number of readers while it is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, Select, func, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from triparty.common.errors import UnavailableError
from triparty.device.events.database import open_database, reason
from triparty.device.events.event import Event, Wanted
from triparty.device.events.tables import EVENTS, RESULTS

LOOKS_BACK: Final = 64
"""Results, and events, of a camera before a time in which the answer of a task is sought."""


class StoredEvents:
    """Events of a site, read from its database; safe to use from several threads.

    Args:
        engine: of a database whose tables are those of this version.
    """

    def __init__(self, engine: Engine) -> None:
        """Reads nothing yet."""
        self._engine = engine

    @classmethod
    def open(cls, url: URL) -> StoredEvents:
        """Opens a database.

        Raises:
            SettingsError: its driver is not installed.
            StateError: it cannot be opened, or is of another kind.
        """
        return cls(open_database(url))

    @property
    def engine(self) -> Engine:
        """Of the database."""
        return self._engine

    def list(self, wanted: Wanted, *, limit: int = 100) -> Sequence[Event]:
        """The newest of those that are wanted, newest first.

        Raises:
            UnavailableError: the database does not answer.
        """
        query = _narrowed(select(EVENTS), wanted).order_by(EVENTS.c.id.desc()).limit(limit)
        with self._reading() as connection:
            return [event_of(row) for row in connection.execute(query)]

    def get(self, event_id: int) -> Event | None:
        """One event, or None if there is none of that id (any more).

        Raises:
            UnavailableError: the database does not answer.
        """
        with self._reading() as connection:
            row = connection.execute(select(EVENTS).where(EVENTS.c.id == event_id)).first()
        return None if row is None else event_of(row)

    def answers_at(
        self, wall: float, *, cameras: Sequence[str] = ()
    ) -> dict[str, dict[str, Any]]:
        """What held at a time: by camera, the last answer of each task not after it.

        Answers in a zone are named `task@zone`. Each is sought in the last 64 results and the
        last 64 events of a camera before that time.

        Args:
            wall: seconds since 1970.
            cameras: to be asked; default: all.

        Raises:
            UnavailableError: the database does not answer.
        """
        with self._reading() as connection:
            names = cameras or _cameras(connection)
            found = {name: _answers(connection, name, wall) for name in names}
        return {name: answers for name, answers in found.items() if answers}

    def looked(
        self, camera: str, since: float, until: float, *, longest_s: float
    ) -> Sequence[tuple[float, float]]:
        """When a camera was looked at between two times: (since, until), in order.

        Args:
            camera: its name.
            since: in seconds since 1970.
            until: in seconds since 1970.
            longest_s: between two looks of one stretch; so long does one look hold.

        Raises:
            UnavailableError: the database does not answer.
        """
        before = func.lag(RESULTS.c.wall).over(order_by=RESULTS.c.wall)
        looks = (
            select(RESULTS.c.wall.label("wall"), before.label("before"))
            .where(
                RESULTS.c.camera == camera,
                RESULTS.c.wall >= since - longest_s,
                RESULTS.c.wall < until,
            )
            .subquery()
        )
        begins = (
            select(looks.c.wall, looks.c.before)
            .where(looks.c.before.is_(None) | (looks.c.wall - looks.c.before > longest_s))
            .order_by(looks.c.wall)
        )
        with self._reading() as connection:
            rows = [(row.wall, row.before) for row in connection.execute(begins)]
            last = connection.scalar(select(func.max(looks.c.wall)))
        if last is None:
            return []
        ends = [before + longest_s for _, before in rows[1:]] + [last + longest_s]
        found = [(max(a, since), min(b, until)) for (a, _), b in zip(rows, ends, strict=True)]
        return [(a, b) for a, b in found if a < b]

    def close(self) -> None:
        """Lets the database go."""
        self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise UnavailableError(
                f"the database of events does not answer: {reason(error)}"
            ) from error


def event_of(row: Row[Any]) -> Event:
    """The event of a row of the table."""
    return Event(
        id=row.id,
        wall=row.wall,
        camera=row.camera,
        task=row.task,
        kind=row.kind,
        before=json.loads(row.before),
        after=json.loads(row.after),
        zone=row.zone,
        label=row.label,
        clip=row.clip,
        snapshot=row.snapshot,
        measured=row.measured,
        confidence=row.confidence,
    )


def _narrowed(query: Select[Any], wanted: Wanted) -> Select[Any]:
    columns = EVENTS.c
    if wanted.since is not None:
        query = query.where(columns.wall >= wanted.since)
    if wanted.until is not None:
        query = query.where(columns.wall < wanted.until)
    if wanted.before_id is not None:
        query = query.where(columns.id < wanted.before_id)
    if wanted.after_id is not None:
        query = query.where(columns.id > wanted.after_id)
    for column, values in (
        (columns.camera, wanted.cameras),
        (columns.zone, wanted.zones),
        (columns.task, wanted.tasks),
        (columns.kind, wanted.kinds),
        (columns.label, wanted.labels),
    ):
        if values:
            query = query.where(column.in_(values))
    return query


def _cameras(connection: Connection) -> Sequence[str]:
    """All cameras with results or events, a step in an index for each."""
    found = set[str]()
    for table in (RESULTS, EVENTS):
        last = connection.scalar(select(func.min(table.c.camera)))
        while last is not None:
            found.add(last)
            query = select(func.min(table.c.camera)).where(table.c.camera > last)
            last = connection.scalar(query)
    return sorted(found)


def _answers(connection: Connection, camera: str, wall: float) -> dict[str, Any]:
    """The last answer of each task of a camera not after a time."""
    told: list[tuple[float, dict[str, Any]]] = []
    for table in (RESULTS, EVENTS):
        query = (
            select(table)
            .where(table.c.camera == camera, table.c.wall <= wall)
            .order_by(table.c.wall.desc())
            .limit(LOOKS_BACK)
        )
        told += [(row.wall, _told(row)) for row in connection.execute(query)]
    answers = dict[str, Any]()
    for _, each in sorted(told, key=lambda one: one[0]):
        answers |= each
    return answers


def _told(row: Row[Any]) -> dict[str, Any]:
    """The answers of a result, or the one of an event."""
    if hasattr(row, "answers"):
        return dict(json.loads(row.answers))
    name = row.task if row.zone is None else f"{row.task}@{row.zone}"
    return {name: json.loads(row.after)}
