"""Who has which session, where it stands, and when it is dropped.

The registry decides and remembers; it runs nothing. A session that is unknown and one that
belongs to somebody else are the same answer, so that nobody can tell that another's exists.
When all are taken, they are shared fairly: a developer with fewer gets the place of a session
on the models of the developer with the most, whose client opens another and replays it, or
waits. Everything here runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from triparty.common.errors import (
    LimitError,
    NotFoundError,
    RetiredError,
    SpentError,
    TripartyError,
)

HostedT = TypeVar("HostedT")

SESSION_ID_BYTES = 32
MOST_RETIRED = 4096
"""Sessions that ended with their version and whose clients can still be told so."""


class Ending(StrEnum):
    """Why a session ended."""

    CLOSED = "closed"
    IDLE = "idle"
    REPLACED = "replaced"
    RETIRED = "retired"
    REVOKED = "revoked"
    STOPPED = "stopped"


@dataclass(frozen=True)
class SessionLimits:
    """How many sessions there may be, and for how long.

    Attributes:
        per_principal: most open sessions of one principal.
        per_developer: most open sessions on the models of one developer.
        in_all: most open sessions of everybody.
        idle_s: seconds without a request after which a session is dropped.
    """

    per_principal: int
    per_developer: int
    in_all: int
    idle_s: float


@dataclass(frozen=True)
class StoredReply:
    """The answer to a session's last step, for a client that did not receive it.

    Attributes:
        request_id: the client's name for the step.
        body: the frames as sent.
        position: the session's position after the step.
    """

    request_id: str
    body: bytes
    position: int


@dataclass(eq=False)
class Session(Generic[HostedT]):
    """One sequence of one principal on one model.

    Attributes:
        id: unguessable name.
        principal: whose it is.
        developer: whose model it is.
        hosted: the loaded model that it runs on.
        reserved_bytes: memory that its developer's share counts for it.
        position: rows that the model has seen and the client knows of.
        source_rows: of the text that it answers, once the model's encoder has read it.
        last_used: the clock's seconds of the last request.
        stored: the answer to the last step.
        pending: requests that wait for the lock or hold it.
        running: the step that is waiting for the model or in it.
        closed: true from the moment it is closed or dropped.
        once: whether the model is for this session alone.
        asked: of an encoder's session, request id of the one request that it answers.
        because: what whoever uses it from then on is told.
        lock: one step at a time.
    """

    id: str
    principal: str
    developer: str
    hosted: HostedT
    last_used: float
    reserved_bytes: int = 0
    position: int = 0
    source_rows: int = 0
    stored: StoredReply | None = None
    pending: int = 0
    running: Future[Any] | None = None
    closed: bool = False
    once: bool = False
    asked: str | None = None
    because: TripartyError = field(default_factory=lambda: session_not_found())
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def is_idle(self, now: float, idle_s: float) -> bool:
        """Whether it may be dropped."""
        return self.running is None and now - self.last_used >= idle_s


class Sessions(Generic[HostedT]):
    """All open sessions."""

    def __init__(
        self,
        limits: SessionLimits,
        *,
        on_close: Callable[[Session[HostedT]], None],
        clock: Callable[[], float],
    ) -> None:
        """An empty registry.

        Args:
            limits: how many, how long.
            on_close: frees what a closed session holds; called once per session.
            clock: seconds that never go back.
        """
        self._limits = limits
        self._on_close = on_close
        self._clock = clock
        self._sessions: dict[str, Session[HostedT]] = {}
        self._retired: OrderedDict[str, str] = OrderedDict()
        self.opened = 0
        self.endings: Counter[Ending] = Counter()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._sessions)

    def open(self, principal: str, hosted: HostedT, *, developer: str) -> Session[HostedT]:
        """A new session at position 0.

        Raises:
            LimitError: too many are open; `extra["retry_after_s"]` is when the next one
                may be dropped for idleness.
        """
        self.check_room(principal, developer=developer)
        if len(self._sessions) >= self._limits.in_all:
            self._close(self._in_excess(developer)[0], Ending.REPLACED)
        session = Session(
            id=secrets.token_urlsafe(SESSION_ID_BYTES),
            principal=principal,
            developer=developer,
            hosted=hosted,
            last_used=self._clock(),
        )
        self._sessions[session.id] = session
        self.opened += 1
        return session

    def check_room(self, principal: str, *, developer: str) -> None:
        """Raises LimitError unless `principal` may open one more session of `developer`'s."""
        self.drop_idle()
        everybody = list(self._sessions.values())
        own = [session for session in everybody if session.principal == principal]
        if len(own) >= self._limits.per_principal:
            raise LimitError(
                f"{len(own)} sessions are open, the limit of one principal is "
                f"{self._limits.per_principal}: close one",
                retry_after_s=self._next_idle_s(own),
            )
        shared = [session for session in everybody if session.developer == developer]
        if len(shared) >= self._limits.per_developer:
            raise LimitError(
                f"{len(shared)} sessions are open on this developer's models, which is the "
                "limit: wait",
                retry_after_s=self._next_idle_s(shared),
            )
        if len(everybody) >= self._limits.in_all and not self._in_excess(developer):
            raise LimitError(
                f"the cloud's {self._limits.in_all} sessions are all taken: wait",
                retry_after_s=self._next_idle_s(everybody),
            )

    def find(self, session_id: str, principal: str) -> Session[HostedT]:
        """An open session of `principal`; marks it as used.

        Raises:
            RetiredError: it ended with the version that it ran on.
            NotFoundError: no such session, or not this principal's.
        """
        session = self._sessions.get(session_id)
        if self._retired.get(session_id) == principal:
            raise retired_error()
        if session is None or session.principal != principal:
            raise session_not_found()
        now = self._clock()
        if session.is_idle(now, self._limits.idle_s):
            self._close(session, Ending.IDLE)
            raise session_not_found()
        session.last_used = now
        return session

    def touch(self, session: Session[HostedT]) -> None:
        """Marks a session as used."""
        session.last_used = self._clock()

    def close(self, session: Session[HostedT]) -> None:
        """Closes a session; nothing if it is closed."""
        if not session.closed:
            self._close(session, Ending.CLOSED)

    def retire(self, hosted: HostedT) -> int:
        """Closes all sessions on a loaded model that is taken out of use; returns how many.

        Whoever goes on with one is told so.
        """
        chosen = [session for session in self._sessions.values() if session.hosted is hosted]
        for session in chosen:
            session.because = retired_error()
            self._retired[session.id] = session.principal
            self._close(session, Ending.RETIRED)
        while len(self._retired) > MOST_RETIRED:
            self._retired.popitem(last=False)
        return len(chosen)

    def close_of(self, principal: str) -> int:
        """Closes all sessions of a principal; returns how many."""
        return self._close_all(lambda session: session.principal == principal, Ending.REVOKED)

    def close_of_developer(self, developer: str) -> int:
        """Closes all sessions on a developer's models; returns how many."""
        return self._close_all(lambda session: session.developer == developer, Ending.REVOKED)

    def close_all(self) -> int:
        """Closes all sessions; returns how many."""
        return self._close_all(lambda _: True, Ending.STOPPED)

    def drop_idle(self) -> int:
        """Closes the sessions that have been idle for too long; returns how many."""
        now, idle_s = self._clock(), self._limits.idle_s
        return self._close_all(lambda session: session.is_idle(now, idle_s), Ending.IDLE)

    def __iter__(self) -> Iterator[Session[HostedT]]:
        """All that are open."""
        return iter(self._sessions.values())

    def has_any_on(self, hosted: HostedT) -> bool:
        """Whether any session runs on a loaded model."""
        return any(session.hosted is hosted for session in self._sessions.values())

    def _in_excess(self, developer: str) -> list[Session[HostedT]]:
        """What may be closed for one more of a developer's, best first; often nothing.

        All on the models of whoever has most, if that leaves it no fewer than the developer
        has then. Those at rest come first, and of them the one that was used longest ago.
        """
        held = Counter(session.developer for session in self._sessions.values())
        (largest, most), *_ = held.most_common(1)
        if most <= held[developer] + 1:
            return []
        theirs = [each for each in self._sessions.values() if each.developer == largest]
        return sorted(theirs, key=lambda each: (each.pending > 0, each.last_used))

    def _close_all(self, wanted: Callable[[Session[HostedT]], bool], ending: Ending) -> int:
        chosen = [session for session in self._sessions.values() if wanted(session)]
        for session in chosen:
            self._close(session, ending)
        return len(chosen)

    def _close(self, session: Session[HostedT], ending: Ending) -> None:
        del self._sessions[session.id]
        session.closed = True
        self.endings[ending] += 1
        self._on_close(session)

    def _next_idle_s(self, sessions: list[Session[HostedT]]) -> int:
        oldest = min((session.last_used for session in sessions), default=self._clock())
        return max(1, math.ceil(oldest + self._limits.idle_s - self._clock()))


def session_not_found() -> NotFoundError:
    """The one answer for a session that is unknown, foreign, closed or dropped."""
    return NotFoundError("no such session: open one and replay the rows sent so far")


def retired_error() -> RetiredError:
    """The answer for a session whose version was taken out of use while it was open."""
    return RetiredError(
        "the key epoch of this session has ended: run 'triparty device pull', open another "
        "session and replay what was sent so far"
    )


def answered_error() -> SpentError:
    """The answer for a second request in a session that is for one."""
    return SpentError(
        "this session was for one request, which it had: take the next one-time instance "
        "('triparty device pull'), or ask the developer for more ('triparty developer grant')"
    )
