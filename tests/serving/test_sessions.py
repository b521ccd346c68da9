"""The registry of sessions: limits, owners, idleness."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from triparty.cloud.serving.sessions import Session, SessionLimits, Sessions
from triparty.common.errors import LimitError, NotFoundError


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def closed() -> list[str]:
    return []


@pytest.fixture
def sessions(clock: Clock, closed: list[str]) -> Sessions[str]:
    def on_close(session: Session[str]) -> None:
        closed.append(session.id)

    limits = SessionLimits(per_principal=2, per_developer=3, in_all=4, idle_s=60)
    return Sessions(limits, on_close=on_close, clock=clock)


def test_ids_are_long_and_never_the_same(sessions: Sessions[str]) -> None:
    ids = set()
    for _ in range(50):
        session = sessions.open("a", "model", developer="d")
        ids.add(session.id)
        sessions.close(session)
    assert len(ids) == 50
    assert min(len(name) for name in ids) >= 43


def test_foreign_and_unknown_sessions_look_alike(sessions: Sessions[str]) -> None:
    session = sessions.open("a", "model", developer="d")
    with pytest.raises(NotFoundError) as foreign:
        sessions.find(session.id, "b")
    with pytest.raises(NotFoundError) as unknown:
        sessions.find("nothing", "b")
    assert foreign.value.message == unknown.value.message
    assert foreign.value.extra == unknown.value.extra
    assert sessions.find(session.id, "a") is session


def test_one_principal_has_its_limit(sessions: Sessions[str], clock: Clock) -> None:
    sessions.open("a", "model", developer="d")
    clock.now += 10
    sessions.open("a", "model", developer="d")
    with pytest.raises(LimitError) as error:
        sessions.open("a", "model", developer="d")
    assert error.value.extra == {"retry_after_s": 50}
    sessions.open("b", "model", developer="d")


def test_the_cloud_has_its_limit(sessions: Sessions[str]) -> None:
    for name in "abcd":
        sessions.open(name, "model", developer=name)
    with pytest.raises(LimitError, match="all taken"):
        sessions.open("e", "model", developer="e")
    assert len(sessions) == 4


def names_of(sessions: Sessions[str]) -> str:
    return "".join(sorted(session.developer for session in sessions))


def test_a_developer_with_all_sessions_leaves_each_other_its_share(
    clock: Clock, closed: list[str]
) -> None:
    limits = SessionLimits(per_principal=9, per_developer=9, in_all=6, idle_s=60)
    sessions: Sessions[str] = Sessions(
        limits, on_close=lambda session: closed.append(session.id), clock=clock
    )
    greedy = [sessions.open("a", "model", developer="A") for _ in range(6)]
    for session in greedy:
        clock.now += 1
        sessions.touch(session)
    for session in greedy[:5]:
        session.pending = 1  # at its worst: all but the one used last are busy
    with pytest.raises(LimitError, match="all taken"):
        sessions.open("a", "model", developer="A")
    first = sessions.open("b", "model", developer="B")
    assert closed == [greedy[5].id]
    for _ in range(2):
        sessions.open("b", "model", developer="B")
    assert closed == [greedy[5].id, greedy[0].id, greedy[1].id]
    assert names_of(sessions) == "AAABBB"
    for name in "AB":  # nobody takes from an equal
        with pytest.raises(LimitError, match="all taken"):
            sessions.open(name.lower(), "model", developer=name)
    assert not first.closed
    for _ in range(2):
        sessions.open("c", "model", developer="C")
    assert names_of(sessions) == "AABBCC"
    with pytest.raises(LimitError, match="all taken"):
        sessions.open("c", "model", developer="C")


def test_looking_whether_there_is_room_closes_nothing(clock: Clock, closed: list[str]) -> None:
    limits = SessionLimits(per_principal=9, per_developer=9, in_all=2, idle_s=60)
    sessions: Sessions[str] = Sessions(
        limits, on_close=lambda session: closed.append(session.id), clock=clock
    )
    for _ in range(2):
        sessions.open("a", "model", developer="A")
    sessions.check_room("b", developer="B")  # its model may still fail to load
    assert closed == []


def test_a_developer_at_its_limit_leaves_room_for_others(
    sessions: Sessions[str], clock: Clock
) -> None:
    for name in "aab":
        sessions.open(name, "model", developer="d")
    with pytest.raises(LimitError, match="this developer's") as error:
        sessions.open("c", "model", developer="d")
    assert error.value.extra == {"retry_after_s": 60}
    sessions.open("e", "model", developer="other")


def test_a_developers_sessions_are_closed_together(
    sessions: Sessions[str], closed: list[str]
) -> None:
    gone = [sessions.open(name, "model", developer="d") for name in "ab"]
    kept = sessions.open("e", "model", developer="other")
    assert sessions.close_of_developer("d") == 2
    assert closed == [session.id for session in gone]
    assert not kept.closed


def test_an_idle_session_makes_room(
    sessions: Sessions[str], clock: Clock, closed: list[str]
) -> None:
    old = sessions.open("a", "model", developer="d")
    sessions.open("a", "model", developer="d")
    clock.now += 59
    assert sessions.drop_idle() == 0
    clock.now += 1
    sessions.open("a", "model", developer="d")
    assert len(closed) == 2
    assert old.closed


def test_an_idle_session_is_gone_before_anybody_sweeps(
    sessions: Sessions[str], clock: Clock, closed: list[str]
) -> None:
    session = sessions.open("a", "model", developer="d")
    clock.now += 60
    with pytest.raises(NotFoundError):
        sessions.find(session.id, "a")
    assert closed == [session.id]


def test_use_keeps_a_session(sessions: Sessions[str], clock: Clock) -> None:
    session = sessions.open("a", "model", developer="d")
    for _ in range(5):
        clock.now += 40
        sessions.find(session.id, "a")
    assert not session.closed


def test_a_session_that_runs_is_not_idle(sessions: Sessions[str], clock: Clock) -> None:
    session = sessions.open("a", "model", developer="d")
    session.running = Future()
    clock.now += 600
    assert sessions.drop_idle() == 0
    session.running = None
    assert sessions.drop_idle() == 1


def test_closing_happens_once(sessions: Sessions[str], closed: list[str]) -> None:
    session = sessions.open("a", "model", developer="d")
    sessions.close(session)
    sessions.close(session)
    assert closed == [session.id]


def test_all_sessions_of_one_principal_close(sessions: Sessions[str]) -> None:
    sessions.open("a", "old", developer="d")
    sessions.open("a", "old", developer="d")
    kept = sessions.open("b", "new", developer="d")
    assert sessions.close_of("a") == 2
    assert sessions.close_of("a") == 0
    assert sessions.find(kept.id, "b") is kept
    assert sessions.has_any_on("new")
    assert not sessions.has_any_on("old")
