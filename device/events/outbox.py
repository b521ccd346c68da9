"""Events that webhooks have not delivered yet, in the database that holds the events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, delete, func, select, update

from triparty.device.events.tables import OUTBOX


@dataclass(frozen=True)
class Letter:
    """An event that is to be delivered.

    Attributes:
        id: of the delivery.
        event: id of the event.
        body: to be sent, JSON.
        tries: that have failed.
    """

    id: int
    event: int
    body: str
    tries: int


class Outbox:
    """What one webhook has to deliver; raises SQLAlchemy's errors.

    Args:
        engine: of the database.
        hook: name of the webhook.
    """

    def __init__(self, engine: Engine, hook: str) -> None:
        """Reads nothing yet."""
        self._writer, self._reader = engine.execution_options(writes=True), engine
        self._mine = OUTBOX.c.hook == hook

    def due(self, now: float, *, limit: int) -> Sequence[Letter]:
        """The oldest that may be tried now."""
        query = (
            select(OUTBOX.c.id, OUTBOX.c.event, OUTBOX.c.body, OUTBOX.c.tries)
            .where(self._mine, OUTBOX.c.due <= now)
            .order_by(OUTBOX.c.id)
            .limit(limit)
        )
        with self._reader.connect() as connection:
            return [Letter(*row) for row in connection.execute(query)]

    def waiting(self) -> int:
        """How many there are."""
        with self._reader.connect() as connection:
            query = select(func.count()).select_from(OUTBOX).where(self._mine)
            return int(connection.scalar(query) or 0)

    def delivered(self, letter: Letter) -> None:
        """Forgets one that was taken."""
        with self._writer.begin() as connection:
            connection.execute(delete(OUTBOX).where(OUTBOX.c.id == letter.id))

    def postpone(self, letter: Letter, due: float) -> None:
        """One that was not taken is due again at a time."""
        with self._writer.begin() as connection:
            connection.execute(
                update(OUTBOX)
                .where(OUTBOX.c.id == letter.id)
                .values(due=due, tries=letter.tries + 1)
            )

    def hasten(self, now: float) -> None:
        """The other side is there again: all that wait are due."""
        with self._writer.begin() as connection:
            connection.execute(
                update(OUTBOX).where(self._mine, OUTBOX.c.due > now).values(due=now)
            )

    def expire(self, before: float, *, most: int) -> int:
        """Gives up those made before a time, and the oldest beyond a number.

        Returns:
            How many were given up.
        """
        with self._writer.begin() as connection:
            newest = select(OUTBOX.c.id).where(self._mine).order_by(OUTBOX.c.id.desc())
            last = connection.scalar(newest.offset(most).limit(1))
            old = OUTBOX.c.made < before
            too_many = old if last is None else old | (OUTBOX.c.id <= last)
            return connection.execute(delete(OUTBOX).where(self._mine, too_many)).rowcount
