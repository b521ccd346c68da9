"""What the events say about a question: numbers, times and events, no sentences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from triparty.device.ask.coverage import Stretch
from triparty.device.ask.intent import Intent
from triparty.device.events.event import Event

Verdict = Literal["yes", "no", "found", "none", "unknown"]
"""Of a question that asks whether: yes or no; of others: whether something was found; `unknown`
where there is no record to tell from."""


@dataclass(frozen=True)
class Gap:
    """A stretch of which a camera has no record.

    Attributes:
        camera: its name.
        since: in seconds since 1970.
        until: in seconds since 1970.
        is_deleted: whether there may have been one that was deleted.
    """

    camera: str
    since: float
    until: float
    is_deleted: bool = False


@dataclass(frozen=True)
class Finding:
    """What the events say.

    Attributes:
        verdict: in a word.
        present: when there was at least one, at any of the places: (since, until).
        peak: the most at once, as far as cameras tell.
        arrivals: how many came.
        departures: how many left.
        at: the time that was asked for, in seconds since 1970; None if there is none.
        was_before: whether one was there when the time that is asked about began.
        goes_on: whether one was there when it ended.
        seconds: how long there was at least one.
        where: the places at which there was one, by their names, the first first.
        evidence: the events that say so, in order.
        gaps: of which there is no record.
        covered: the share of time and cameras of which there is one, 0..1.
        is_cut: whether there were more events than are read.
    """

    verdict: Verdict
    present: tuple[Stretch, ...] = ()
    peak: int = 0
    arrivals: int = 0
    departures: int = 0
    at: float | None = None
    was_before: bool = False
    goes_on: bool = False
    seconds: float = 0.0
    where: tuple[str, ...] = ()
    evidence: tuple[Event, ...] = field(default=(), repr=False)
    gaps: tuple[Gap, ...] = ()
    covered: float = 1.0
    is_cut: bool = False


Value = bool | int | float | tuple[Stretch, ...] | tuple[str, ...] | None


def value(intent: Intent, found: Finding) -> Value:
    """The one thing that a question asks for.

    Args:
        intent: what it wants to know.
        found: what the events say.
    """
    if found.verdict == "unknown":
        return None
    match intent:
        case Intent.PRESENT | Intent.VACANT | Intent.CAME | Intent.WENT | Intent.UNUSUAL:
            return found.verdict == "yes"
        case Intent.HOW_MANY:
            return found.peak
        case Intent.ARRIVALS:
            return found.arrivals
        case Intent.DEPARTURES:
            return found.departures
        case Intent.HOW_LONG:
            return found.seconds
        case Intent.WHEN:
            return found.present
        case Intent.WHERE:
            return found.where
        case Intent.EVENTS:
            return len(found.evidence)
    return found.at
