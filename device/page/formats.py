"""How the page writes times, shares and answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

from triparty.device.events.event import Event

NOTHING = "-"
_LONGEST = 80


def clock(wall: float) -> str:
    """A time in the gateway's zone."""
    return datetime.fromtimestamp(wall).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def stamp(wall: float) -> str:
    """The same for machines."""
    return datetime.fromtimestamp(wall).astimezone().isoformat(timespec="seconds")


def zone(wall: float) -> str:
    """The gateway's time zone."""
    local = datetime.fromtimestamp(wall).astimezone()
    return f"{local.tzname()}, UTC{local.strftime('%z')[:3]}:{local.strftime('%z')[3:5]}"


def percent(share: float | None) -> str:
    """A share in percent; more digits where few are left."""
    if share is None or math.isnan(share):
        return NOTHING
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def amount(value: float | None) -> str:
    """A number of ms or MiB; a decimal where it is small."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def answer(value: Any) -> str:
    """What a task said, in words."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        text = ", ".join(answer(each) for each in value) or "nothing"
    else:
        text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def headline(event: Event) -> str:
    """An event in a few words."""
    about = f"{event.label} " if event.label else ""
    where = f" in {event.zone}" if event.zone else ""
    told = {
        "enter": f"{about or 'something '}came into view{where}",
        "leave": f"{about or 'something '}went out of view{where}",
        "count": f"{about or event.task + ' '}{answer(event.before)} → "
        f"{answer(event.after)}{where}",
        "anomaly": f"something unusual{where}",
        "change": f"{event.task} {answer(event.before)} → {answer(event.after)}{where}",
    }
    return told[event.kind]


FORMATS: dict[str, Callable[..., Any]] = {
    "clock": clock,
    "stamp": stamp,
    "zone": zone,
    "percent": percent,
    "amount": amount,
    "answer": answer,
    "headline": headline,
}
