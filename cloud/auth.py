"""Who asks, on every request: the bearer token becomes a `Principal`."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from triparty.cloud.accounts import (
    SCOPES,
    KnownToken,
    Principal,
    authenticate,
    hash_token,
)
from triparty.cloud.database import Database
from triparty.cloud.rates import RequestRates
from triparty.cloud.state import Now
from triparty.common.errors import AuthError, ForbiddenError, UnauthenticatedError

CACHE_S = 1.0
_MOST_CACHED = 10_000
MOST_FAMILIAR = 100_000

_bearer = HTTPBearer(auto_error=False, description="A token of this cloud (`tpt_...`).")
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


class TokenCache:
    """Tokens found good within the last second, so that a step does not wait for the database.

    Every write to the database calls `forget_all` before its request is answered, so that a
    revoked token stops at once; the second bounds what a change made by another process, such
    as an operator's database shell, can do.
    """

    def __init__(self, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        """An empty cache."""
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, KnownToken]] = {}
        self._familiar: OrderedDict[str, bool] = OrderedDict()
        self._generation = 0

    def known(self, token: str, *, now: datetime) -> Principal | None:
        """The principal of a token found good a moment ago; None: ask the database."""
        found = self._known.get(hash_token(token))
        if found is None or found[0] < self._clock_s() or found[1].expires <= now:
            return None
        return found[1].principal

    def look_up(self, token: str, store: Database, clock: Now) -> Principal:
        """The principal of a token, from the database; see `authenticate`."""
        generation = self._generation
        try:
            with store.reading() as session:
                found = authenticate(session, token, now=clock())
        except AuthError:
            with self._lock:
                self._familiar.pop(hash_token(token), None)
            raise
        self.introduce(hash_token(token), is_used=True)
        with self._lock:
            if generation == self._generation:  # else it may have been revoked meanwhile
                if len(self._known) >= _MOST_CACHED:
                    self._known.clear()
                self._known[hash_token(token)] = self._clock_s() + CACHE_S, found
        return found.principal

    def was_good(self, token: str) -> bool:
        """Whether a token was good when it was last heard of; it need not be good now."""
        with self._lock:
            return hash_token(token) in self._familiar

    def was_used(self, token_hash: str) -> bool:
        """Whether a token came with a request to this process, and was good."""
        with self._lock:
            return self._familiar.get(token_hash, False)

    def introduce(self, token_hash: str, *, is_used: bool) -> None:
        """Remembers a token as good; of too many, the least recently looked up goes."""
        with self._lock:
            self._familiar[token_hash] = is_used or self._familiar.get(token_hash, False)
            self._familiar.move_to_end(token_hash)
            while len(self._familiar) > MOST_FAMILIAR:
                self._familiar.popitem(last=False)

    def forget_all(self) -> None:
        """Makes every token be looked up again."""
        with self._lock:
            self._generation += 1
            self._known.clear()


async def _token_cache(request: Request) -> TokenCache:
    return cast(TokenCache, request.app.state.tokens)


Tokens = Annotated[TokenCache, Depends(_token_cache)]


async def authenticated(request: Request, credentials: Bearer = None) -> Principal:
    """Whoever sent the request.

    Args:
        request: whose header has the token.
        credentials: what the published API says of that header; the header itself is read.

    Raises:
        UnauthenticatedError, TokenRevokedError, TokenExpiredError: it is nobody now.
        LimitError: it sends too much.
    """
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token:
        raise UnauthenticatedError("the request has no token: send 'Authorization: Bearer ...'")
    state = request.app.state
    tokens: TokenCache = state.tokens
    principal = tokens.known(token, now=state.clock())
    if principal is None:
        principal = await run_in_threadpool(tokens.look_up, token, state.database, state.clock)
    request.state.principal = principal  # for the access log
    rates: RequestRates = state.rates
    rates.take(principal)
    return principal


def require(*scopes: str) -> Callable[..., Awaitable[Principal]]:
    """A dependency: the principal, if its token has one of the scopes.

    Args:
        scopes: operate, publish, invite, pull, infer or train.
    """

    async def allowed(request: Request, credentials: Bearer = None) -> Principal:
        principal = await authenticated(request)
        if principal.scopes.isdisjoint(scopes):
            wanted = "' or '".join(scopes)
            remedy = (
                ": it is older than this route, 'triparty device enroll --again' gets another"
                if not SCOPES[principal.role].isdisjoint(scopes)
                else ""
            )
            raise ForbiddenError(f"a {principal.role} token has no scope '{wanted}'{remedy}")
        return principal

    return allowed
