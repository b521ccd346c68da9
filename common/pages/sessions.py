"""Who is logged in: random names in cookies, everything else on the server."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

TOKEN_BYTES: Final = 32
IDLE_S: Final = 30 * 60.0
LONGEST_S: Final = 12 * 3600.0
MOST_SESSIONS: Final = 64


@dataclass(frozen=True)
class Session:
    """Somebody who is logged in.

    Attributes:
        who: logged in, as the login's check said.
        csrf: what each request that changes something has to bring.
        began_s: when, on the store's clock.
        seen_s: when a person last asked for something.
    """

    who: str
    csrf: str
    began_s: float
    seen_s: float


class Sessions:
    """All who are logged in; any thread may call.

    Args:
        idle_s: a session ends after so long without a request of a person.
        longest_s: and in any case.
        clock_s: seconds.
    """

    def __init__(
        self,
        *,
        idle_s: float = IDLE_S,
        longest_s: float = LONGEST_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nobody is."""
        self._idle_s, self._longest_s, self._clock_s = idle_s, longest_s, clock_s
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Session] = OrderedDict()

    def open(self, who: str) -> str:
        """Begins a session; returns what its cookie holds.

        Of too many the one that was longest without a request ends.
        """
        token = secrets.token_urlsafe(TOKEN_BYTES)
        now = self._clock_s()
        session = Session(who, secrets.token_urlsafe(TOKEN_BYTES), now, now)
        with self._lock:
            self._open[_name(token)] = session
            while len(self._open) > MOST_SESSIONS:
                self._open.popitem(last=False)
        return token

    def find(self, token: str, *, by_person: bool = True) -> Session | None:
        """The session of a cookie, if it has not ended.

        Args:
            token: the cookie's value.
            by_person: False for what a page asks by itself, which keeps nobody logged in.
        """
        name, now = _name(token), self._clock_s()
        with self._lock:
            session = self._open.get(name)
            if session is None:
                return None
            is_idle = now - session.seen_s >= self._idle_s
            if is_idle or now - session.began_s >= self._longest_s:
                del self._open[name]
                return None
            if by_person:
                session = self._open[name] = replace(session, seen_s=now)
                self._open.move_to_end(name)
            return session

    def close(self, token: str) -> None:
        """Ends a session, if there is one."""
        with self._lock:
            self._open.pop(_name(token), None)

    def close_all(self) -> None:
        """Ends all sessions."""
        with self._lock:
            self._open.clear()


def _name(token: str) -> str:
    """Under which a session is kept: looking up a hash compares nothing secret."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
