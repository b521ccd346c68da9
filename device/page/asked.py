"""Which events somebody asks for: the fields of a form, or the query of an address; pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol, cast

from triparty.common.errors import RequestError
from triparty.device.events.event import KINDS, Kind, Wanted

MOST: Final = 200
"""Events in one answer."""
_LONGEST: Final = 128
_MOST_VALUES: Final = 100
_LISTS: Final = ("camera", "zone", "task", "kind", "label")
_SINGLE: Final = ("since", "until", "before", "after", "limit")


class Query(Protocol):
    """Names with values, some of them several."""

    def keys(self) -> object:
        """All names."""

    def getlist(self, key: str) -> list[str]:
        """All values of a name."""


def wanted_of(query: Query) -> Wanted:
    """The filter that a query describes; empty fields, as forms send them, exclude nothing.

    Args:
        query: `camera`, `zone`, `task`, `kind`, `label` (each may be given again), `since`
            and `until` (seconds since 1970, or a date and time in the gateway's zone),
            `before` and `after` (ids).

    Raises:
        RequestError: a name that nobody knows, or a value that cannot be.
    """
    for name in cast("Sequence[str]", list(query.keys())):  # type: ignore[call-overload]
        if name not in (*_LISTS, *_SINGLE):
            raise RequestError(
                f"unknown field {name[:_LONGEST]!r}: expected one of "
                f"{', '.join((*_LISTS, *_SINGLE))}"
            )
    lists = {name: _values(query, name) for name in _LISTS}
    for kind in lists["kind"]:
        if kind not in KINDS:
            raise RequestError(f"kind {kind!r}: expected one of {', '.join(KINDS)}")
    return Wanted(
        since=_time(_value(query, "since"), "since"),
        until=_time(_value(query, "until"), "until"),
        cameras=lists["camera"],
        zones=lists["zone"],
        tasks=lists["task"],
        kinds=cast("Sequence[Kind]", lists["kind"]),
        labels=lists["label"],
        before_id=_id(_value(query, "before"), "before"),
        after_id=_id(_value(query, "after"), "after"),
    )


def limit_of(query: Query, usual: int) -> int:
    """How many events are asked for, at most `MOST`.

    Raises:
        RequestError: no number.
    """
    given = _id(_value(query, "limit"), "limit")
    return usual if given is None else max(1, min(MOST, given))


def _values(query: Query, name: str) -> tuple[str, ...]:
    values = tuple(value for value in query.getlist(name) if value)
    if len(values) > _MOST_VALUES:
        raise RequestError(f"{name}: at most {_MOST_VALUES} values")
    if any(len(value) > _LONGEST or not value.isprintable() for value in values):
        raise RequestError(f"{name}: at most {_LONGEST} printable characters")
    return values


def _value(query: Query, name: str) -> str | None:
    values = _values(query, name)
    if len(values) > 1:
        raise RequestError(f"{name} is given {len(values)} times")
    return values[0] if values else None


def _time(value: str | None, name: str) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError, OSError):
            seconds = float("nan")
    if not 0 <= seconds < 1e11:  # also what is no number
        raise RequestError(
            f"{name} {value[:_LONGEST]!r}: expected a date and time like 2026-11-21T14:30, "
            "or seconds since 1970"
        )
    return seconds


def _id(value: str | None, name: str) -> int | None:
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise RequestError(f"{name} {value[:_LONGEST]!r}: expected a whole number")
    return int(value)
