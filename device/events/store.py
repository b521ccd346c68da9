"""Where results and events are kept: a database that forgets what is old.

Law: an event that was taken is there after any crash, once. What cannot be written, because the
disk is full or PostgreSQL is away, waits within bounds, in memory and in a journal on the disk,
and is written when there is room again, by this process or the next; where too much waits,
results are dropped first, and all that is dropped is counted.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Protocol

from sqlalchemy import Connection, delete, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    SQLAlchemyError,
    StatementError,
)

from triparty.device.events.database import open_database, reason
from triparty.device.events.event import Event
from triparty.device.events.journal import Journal, Row
from triparty.device.events.stored import StoredEvents
from triparty.device.events.tables import EVENTS, OUTBOX, RESULTS

COMMIT_S: Final = 1.0
RETRY_S: Final = 1.0
RETRY_LONGEST_S: Final = 30.0
MOST_EVENTS: Final = 10_000
MOST_RESULTS: Final = 2_000
BATCH: Final = 500
_MORE: Final = ("zone", "label", "clip", "snapshot", "confidence")

log = logging.getLogger(__name__)


class Recipient(Protocol):
    """Who is delivered events, at least once."""

    @property
    def name(self) -> str:
        """Of it; unique."""

    def body(self, event: Event) -> str | None:
        """What is sent of an event; None if this one is not wanted."""


@dataclass
class StoreStatus:
    """How the store stands.

    Attributes:
        events: written.
        waiting: events that are not written yet.
        results_dropped: results that were thrown away because too much waited.
        events_lost: events that were thrown away, or that the database cannot hold.
        failures: times that it could not be written.
        last_error: of the last time; None when all is well.
    """

    events: int = 0
    waiting: int = 0
    results_dropped: int = 0
    events_lost: int = 0
    failures: int = 0
    last_error: str | None = None


class EventStore(StoredEvents):
    """The database of a gateway: takes its documents, and can be read.

    `write` and `close` are for one thread; reading is safe from any.

    Args:
        url: of the database (`database.database_url`).
        keep_s: rows older than this are deleted.
        recipients: whom events are delivered to; each event is put into their outbox in
            the transaction that writes it.
        journal: keeps events that wait from being lost with the process; None: nothing does.
        most_events: that may wait.
        most_results: that may wait.

    Raises:
        SettingsError: the database's driver is not installed.
        StateError: it cannot be opened, or is of another kind.
    """

    def __init__(
        self,
        url: URL,
        *,
        keep_s: float,
        recipients: Sequence[Recipient] = (),
        journal: Journal | None = None,
        most_events: int = MOST_EVENTS,
        most_results: int = MOST_RESULTS,
    ) -> None:
        """Opens it."""
        super().__init__(open_database(url))
        self._writer = self._engine.execution_options(writes=True)
        self._keep_s, self._recipients = keep_s, tuple(recipients)
        self._most_events, self._most_results = most_events, most_results
        self._events, self._results = deque[Row](), deque[Row]()
        self._journal, self._journalled = journal, 0  # of those that wait, the first so many
        if journal is not None:
            self._events.extend(journal.rows())
            self._journalled = len(self._events)
        self._committed = self._pruned = self._retry = float("-inf")
        self._wait_s = RETRY_S
        self._listeners: list[Callable[[], None]] = []
        self.status = StoreStatus(waiting=len(self._events))

    def after_events(self, listener: Callable[[], None]) -> None:
        """Has `listener` called in the writing thread after events were committed."""
        self._listeners.append(listener)

    def write(self, documents: Sequence[Mapping[str, Any]], now: float) -> None:
        """Takes documents: events are committed at once, results within a second.

        Args:
            documents: each with `type`; results and events are kept.
            now: seconds since 1970.
        """
        for document in documents:
            if document["type"] == "event":
                self._events.append(_event_row(document))
            elif document["type"] == "result":
                self._results.append(_result_row(document))
        if self._events or not 0 <= now - self._committed < COMMIT_S:
            self._flush(now)
        self._bound()
        self._secure()

    def close(self) -> None:
        """Writes what waits, if that can be, and lets the database go."""
        self._retry = float("-inf")
        self._flush(self._committed, prune=False)
        self._secure()
        if self._events:
            self._leave()
        self.status.results_dropped += len(self._results)
        self._events.clear()
        self._results.clear()
        if self._journal is not None:
            self._journal.close()
        super().close()

    def _leave(self) -> None:
        """Says what becomes of events that still wait at the end."""
        lost = len(self._events) - self._journalled
        if self._journal is not None and self._journalled:
            where = self._journal.path
            log.warning("%d events wait in %s for the next start", self._journalled, where)
        if lost:
            log.error("%d events could not be written and are lost", lost)
            self.status.events_lost += lost

    def _secure(self) -> None:
        """Has the journal hold all that waits, and nothing if nothing does."""
        if self._journal is None:
            return
        if not self._events:
            self._journal.clear()
        elif self._journalled < len(self._events):
            self._journalled += self._journal.append(
                list(islice(self._events, self._journalled, None))
            )

    def _forget_first(self, rows: deque[Row]) -> None:
        rows.popleft()
        if rows is self._events:
            self._journalled = max(0, self._journalled - 1)

    def _bound(self) -> None:
        while len(self._results) > self._most_results:
            self._results.popleft()
            self.status.results_dropped += 1
        while len(self._events) > self._most_events:
            self._forget_first(self._events)
            self.status.events_lost += 1
        self.status.waiting = len(self._events)

    def _flush(self, now: float, *, prune: bool = True) -> None:
        """Writes what waits, events first, unless the last failure was just now."""
        if now < self._retry <= now + RETRY_LONGEST_S:
            return
        try:
            while self._events:
                self._write_first(self._events, self._insert_events)
            while self._results:
                self._write_first(self._results, self._insert_results)
            if prune and now - self._pruned >= max(COMMIT_S, self._keep_s / 1000):
                self._prune(now)
        except SQLAlchemyError as error:
            self._fail(error, now)
        else:
            self._committed, self._wait_s = now, RETRY_S
            if self.status.last_error is not None:
                log.warning("the database of events is written again")
                self.status.last_error = None
        self.status.waiting = len(self._events)

    def _fail(self, error: SQLAlchemyError, now: float) -> None:
        self._retry = now + self._wait_s
        self._wait_s = min(2 * self._wait_s, RETRY_LONGEST_S)
        self.status.failures += 1
        if self.status.last_error is None:
            log.error("the database of events cannot be written: %s", reason(error))
        self.status.last_error = reason(error)

    def _write_first(
        self, rows: deque[Row], insert_rows: Callable[[Connection, Iterable[Row]], int]
    ) -> None:
        """Commits the first rows that wait; one that the database cannot hold is dropped."""
        batch = list(islice(rows, BATCH))
        try:
            made = self._commit(batch, insert_rows)
        except StatementError as error:
            if not _is_refusal(error):
                raise
            made, batch = self._commit_one(rows[0], insert_rows), batch[:1]
        for _ in batch:
            self._forget_first(rows)
        if rows is self._events and made:
            self.status.events += made
            for listener in self._listeners:
                listener()

    def _commit(
        self, rows: Iterable[Row], insert_rows: Callable[[Connection, Iterable[Row]], int]
    ) -> int:
        with self._writer.begin() as connection:
            return insert_rows(connection, rows)

    def _commit_one(
        self, row: Row, insert_rows: Callable[[Connection, Iterable[Row]], int]
    ) -> int:
        try:
            return self._commit([row], insert_rows)
        except StatementError as error:
            if not _is_refusal(error):
                raise
            log.error("the database cannot hold a row: %s", reason(error))
            if insert_rows == self._insert_events:
                self.status.events_lost += 1
            else:
                self.status.results_dropped += 1
            return 0

    def _insert_results(self, connection: Connection, rows: Iterable[Row]) -> int:
        found = list(rows)
        connection.execute(insert(RESULTS), found)
        return len(found)

    def _insert_events(self, connection: Connection, rows: Iterable[Row]) -> int:
        """Inserts events that are not there yet, and what recipients are to be sent of them."""
        made = 0
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        for row in rows:
            statement = dialect.insert(EVENTS).values(row)
            number = connection.scalar(
                statement.on_conflict_do_nothing(index_elements=["key"]).returning(EVENTS.c.id)
            )
            if number is None:
                continue  # a commit whose answer was lost did write it
            made += 1
            event = _event(int(number), row)
            for recipient in self._recipients:
                if (body := recipient.body(event)) is not None:
                    connection.execute(insert(OUTBOX).values(_letter(recipient, event, body)))
        return made

    def _prune(self, now: float) -> None:
        with self._writer.begin() as connection:
            for table, column in (
                (RESULTS, RESULTS.c.wall),
                (EVENTS, EVENTS.c.wall),
                (OUTBOX, OUTBOX.c.made),
            ):
                connection.execute(delete(table).where(column < now - self._keep_s))
        self._pruned = now


def _is_refusal(error: StatementError) -> bool:
    """Whether the row is what is wrong, and not the database."""
    return isinstance(error, DataError | IntegrityError) or not isinstance(error, DBAPIError)


def _result_row(document: Mapping[str, Any]) -> Row:
    return {
        **{key: document[key] for key in ("wall", "camera", "time")},
        **{key: json.dumps(document[key]) for key in ("answers", "seen")},
        **{key: json.dumps(document.get(key, {})) for key in ("filtered", "predicted")},
    }


def _event_row(document: Mapping[str, Any]) -> Row:
    return {
        "key": secrets.token_hex(16),
        **{key: document[key] for key in ("wall", "camera", "time", "task", "kind")},
        **{key: json.dumps(document[key]) for key in ("before", "after")},
        **{key: document.get(key) for key in _MORE},
        "measured": document.get("measured", True),
    }


def _event(number: int, row: Row) -> Event:
    shared = {key: row[key] for key in ("wall", "camera", "task", "kind", "measured", *_MORE)}
    before, after = json.loads(row["before"]), json.loads(row["after"])
    return Event(id=number, before=before, after=after, **shared)


def _letter(recipient: Recipient, event: Event, body: str) -> Row:
    made = {"hook": recipient.name, "event": event.id, "body": body, "tries": 0}
    return {**made, "made": event.wall, "due": 0.0}
