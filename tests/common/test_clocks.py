"""Two clocks: expiry is judged by the later one, and an error says how far they are apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.common.clocks import TOLERANCE, apart, judged_at, naming_clocks, time_of
from triparty.common.errors import ExpiredError, RollbackError, TokenExpiredError

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


@given(seconds=st.integers(-(10**8), 10**8))
def test_expiry_is_never_judged_earlier_than_by_this_clock(seconds: int) -> None:
    clouds = NOW + timedelta(seconds=seconds)
    judged = judged_at(NOW, clouds)
    assert judged >= NOW
    assert clouds - judged <= TOLERANCE
    assert bool(apart(NOW, clouds)) == (abs(clouds - NOW) > TOLERANCE)
    assert judged_at(NOW, None) == NOW


@pytest.mark.parametrize(
    ("difference", "says"),
    [
        (timedelta(minutes=6), "6 minutes behind the cloud's"),
        (-timedelta(hours=30), "30 hours ahead of the cloud's"),
        (timedelta(days=400), "400 days behind the cloud's"),
    ],
)
def test_the_difference_is_said(difference: timedelta, says: str) -> None:
    for kind in (ExpiredError, TokenExpiredError):
        with (
            pytest.raises(kind, match=rf"it is over; .*2026-05-04 03:02 UTC.*{says}") as caught,
            naming_clocks(NOW, lambda: NOW + difference),
        ):
            raise kind("it is over", retry_after_s=3)
        assert caught.value.extra == {"retry_after_s": 3}


def test_other_errors_and_clocks_that_agree_say_nothing() -> None:
    for error, clouds in (
        (RollbackError("older"), NOW + timedelta(days=9)),
        (ExpiredError("over"), NOW + timedelta(minutes=4)),
        (ExpiredError("over"), None),
    ):
        with pytest.raises(type(error)) as caught, naming_clocks(NOW, lambda at=clouds: at):
            raise error
        assert caught.value is error


@pytest.mark.parametrize(
    ("date", "time"),
    [
        ("Mon, 04 May 2026 03:02:01 GMT", NOW),
        ("Mon, 04 May 2026 05:02:01 +0200", NOW),
        ("Mon, 04 May 2026 03:02:01 -0000", NOW),
        ("yesterday", None),
        ("Mon, 04 May 99999 03:02:01 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_the_header_is_read_or_not(date: str | None, time: datetime | None) -> None:
    assert time_of(date) == time
