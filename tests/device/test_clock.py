"""A device whose clock is wrong: it is told, and takes nothing that has expired."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from cloud_on_wire import Forward
from exchanges import NOW, Exchange

from triparty.common.connection import translate
from triparty.common.errors import CertificateError, ExpiredError, TokenExpiredError
from triparty.device.enroll import enroll
from triparty.device.home import Home
from triparty.device.pull import pull

DAY = timedelta(days=1)


def telling(time: Callable[[], datetime]):
    """A cloud that says what time it is, as servers do."""

    def fault(request: httpx.Request, forward: Forward) -> httpx.Response:
        answer = forward(request)
        answer.headers["Date"] = format_datetime(time(), usegmt=True)
        return answer

    return fault


@pytest.fixture
def home(exchange: Exchange) -> Home:
    developer = exchange.developer()
    exchange.publish(developer)
    home = exchange.device(developer)
    exchange.grant(developer, "phone")
    return home


def test_a_clock_that_is_ahead_is_named(exchange: Exchange, home: Home) -> None:
    with (
        exchange.wire.fault(telling(lambda: NOW)),
        pytest.raises(ExpiredError, match="40 days ahead of the cloud's: if it is wrong"),
    ):
        pull(home, name=None, now=NOW + 40 * DAY)  # the latest statement lives 30 days
    assert not home.held()
    with pytest.raises(ExpiredError) as caught:  # a cloud that says no time
        pull(home, name=None, now=NOW + 40 * DAY)
    assert "clock" not in caught.value.message


def test_a_clock_that_is_behind_lets_nothing_expired_pass(
    exchange: Exchange, home: Home
) -> None:
    with (
        exchange.wire.fault(telling(lambda: NOW + 31 * DAY)),
        pytest.raises(ExpiredError, match="31 days behind the cloud's"),
    ):
        pull(home, name=None, now=NOW)
    assert not home.held()
    with exchange.wire.fault(telling(lambda: NOW + 3 * DAY)):  # behind, and nothing is over
        assert [model.name for model in pull(home, name=None, now=NOW).taken] == ["tiny"]


def test_at_enrolment_too(exchange: Exchange) -> None:
    developer = exchange.developer()
    invite = exchange.invite(developer)
    folder = exchange.folder / "late"
    with (
        exchange.wire.fault(telling(lambda: NOW)),
        pytest.raises(ExpiredError, match="1000 days ahead of the cloud's"),
    ):
        enroll(Home(folder), invite, cloud=invite.url, name="late", now=NOW + 1000 * DAY)
    assert not folder.exists()


def test_a_token_that_ran_out_under_a_wrong_clock(exchange: Exchange, home: Home) -> None:
    exchange.wire.now = NOW + 4000 * DAY
    with (
        exchange.wire.fault(telling(lambda: exchange.wire.now)),
        pytest.raises(TokenExpiredError, match="4000 days behind the cloud's"),
    ):
        pull(home, name=None, now=NOW)


@pytest.mark.parametrize(("code", "names_clock"), [(9, True), (10, True), (18, False)])
def test_a_certificate_out_of_its_time_names_the_clock(code: int, names_clock: bool) -> None:
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_code, error.verify_message = code, "as it is"
    wrapped = httpx.ConnectError("no")
    wrapped.__cause__ = error
    told = translate(wrapped, "https://cloud.example")
    assert isinstance(told, CertificateError)
    assert (f"{datetime.now(UTC):%Y-%m-%d}" in told.message) == names_clock
    assert ("trust --pin" in told.message) != names_clock
