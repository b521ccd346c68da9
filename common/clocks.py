"""Two clocks: this party's, and the cloud's as its answers say (`Date`).

Whether something has expired is judged by the later of both, so that a clock that is behind
lets nothing pass that is over. The cloud could only make things seem expired by it, which it
can do in simpler ways. Where the clocks are apart, the error says how far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from triparty.common.errors import ExpiredError, TokenExpiredError

TOLERANCE = timedelta(minutes=5)
"""What requests take, and clocks that are set by hand."""


def time_of(date: str | None) -> datetime | None:
    """The time that a `Date` header says; None if it says none."""
    try:
        told = parsedate_to_datetime(date or "")
    except (ValueError, TypeError, OverflowError):
        return None
    return told.replace(tzinfo=UTC) if told.tzinfo is None else told.astimezone(UTC)


def judged_at(now: datetime, clouds: datetime | None) -> datetime:
    """The time by which expiry is judged: the cloud's if it is later than this one.

    Args:
        now: this party's.
        clouds: the cloud's, if it is known.
    """
    return clouds if clouds is not None and clouds - now > TOLERANCE else now


def apart(now: datetime, clouds: datetime | None) -> str:
    """In words how far the clocks are apart, and which is ahead; empty if they agree."""
    if clouds is None or abs(clouds - now) <= TOLERANCE:
        return ""
    which = "behind" if now < clouds else "ahead of"
    return (
        f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC and is {_span(abs(clouds - now))} "
        f"{which} the cloud's: if it is wrong, set it"
    )


@contextmanager
def naming_clocks(now: datetime, clouds: Callable[[], datetime | None]) -> Iterator[None]:
    """Has errors about expiry say how far the clocks are apart.

    Args:
        now: this party's time.
        clouds: tells the cloud's.
    """
    try:
        yield
    except (ExpiredError, TokenExpiredError) as error:
        if not (difference := apart(now, clouds())):
            raise
        raise type(error)(f"{error.message}; {difference}", **error.extra) from error


def _span(difference: timedelta) -> str:
    minutes = int(difference.total_seconds()) // 60
    days, hours = minutes // (24 * 60), minutes // 60
    if days >= 2:
        return f"{days} days"
    return f"{hours} hours" if hours >= 2 else f"{minutes} minutes"
