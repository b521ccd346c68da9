"""The token cache: quick, and never later than a revocation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from triparty.cloud.accounts import (
    OPERATOR,
    PrincipalRow,
    add_operator,
    issue_token,
    revoke,
)
from triparty.cloud.auth import CACHE_S, TokenCache
from triparty.cloud.database import Database
from triparty.common.errors import TokenExpiredError, TokenRevokedError

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Ticks:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def store(tmp_path):
    store = Database(f"sqlite:///{tmp_path / 'x.db'}")
    yield store
    store.close()


@pytest.fixture
def token(store):
    with store.writing() as session:
        operator = add_operator(session, now=NOW)
        return issue_token(session, operator, life=timedelta(days=1), now=NOW).token


def take_back(store):
    with store.writing() as session:
        revoke(session, session.get_one(PrincipalRow, OPERATOR), now=NOW)


def test_a_known_token_is_known_for_a_second(store, token):
    ticks = Ticks()
    cache = TokenCache(clock_s=ticks)
    assert cache.known(token, now=NOW) is None
    found = cache.look_up(token, store, lambda: NOW)
    assert cache.known(token, now=NOW) == found
    ticks.now_s = CACHE_S + 0.01
    assert cache.known(token, now=NOW) is None


def test_expiry_is_judged_on_every_request(store, token):
    cache = TokenCache(clock_s=Ticks())
    cache.look_up(token, store, lambda: NOW)
    assert cache.known(token, now=NOW + timedelta(days=1)) is None
    with pytest.raises(TokenExpiredError):
        cache.look_up(token, store, lambda: NOW + timedelta(days=1))


def test_a_revoked_token_is_forgotten(store, token):
    cache = TokenCache(clock_s=Ticks())
    cache.look_up(token, store, lambda: NOW)
    take_back(store)
    cache.forget_all()
    assert cache.known(token, now=NOW) is None
    with pytest.raises(TokenRevokedError):
        cache.look_up(token, store, lambda: NOW)


def test_a_look_up_that_a_revocation_overtakes_is_not_kept(store, token):
    cache = TokenCache(clock_s=Ticks())

    def now() -> datetime:  # called while the look-up is under way
        cache.forget_all()
        return NOW

    cache.look_up(token, store, now)
    assert cache.known(token, now=NOW) is None
