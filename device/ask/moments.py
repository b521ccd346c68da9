"""A moment as people say it ("yesterday at three"), and when that was by the clock; pure.

What is left open is read by these rules, and every answer says how it was read:

- An hour that nobody said am or pm of lies between 7:00 and 18:59; with a part of the day
  ("at eight in the evening") in that part; on a day that is named, where that is still to come,
  in the other half.
- A time without a day is the last one that has begun; a weekday the last one, today included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from triparty.device.ask.clocks import Clock, clock
from triparty.device.ask.days import DAY, Named, Part, named, reading_window, window

MINUTE = timedelta(minutes=1)
_FILLERS = frozenset(["on", "in", "at", "the", "of", "during", "over", ",", "and", "for"])


@dataclass(frozen=True)
class Moment:
    """A clock reading, a day, a part of a day, or what is said of these.

    Attributes:
        day: None if it is not said.
        part: None if it is not said.
        clock: None if it is not said.
        days: how many days from `day` on.
    """

    day: date | None = None
    part: Part | None = None
    clock: Clock | None = None
    days: int = 1

    def within(self, outer: Moment) -> Moment:
        """This moment, with the day and the part of another where it has none."""
        if self.day is None and self.part is None:
            return replace(self, day=outer.day, part=outer.part)
        return replace(self, day=self.day or outer.day)

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing."""
        return self == NOTHING


NOTHING = Moment()


def moment(
    words: Sequence[str], at: int, today: date, *, bare: bool, is_span: bool = False
) -> tuple[Moment, int]:
    """The moment that begins at a word, and where it ends; empty if there is none.

    Args:
        words: in lower case.
        at: where it would begin.
        today: the day of the question.
        bare: whether an hour alone is a clock reading, as after "since".
        is_span: whether "ten to two" is a span, as after "from".
    """
    found, end = NOTHING, at
    while True:
        start, is_bare = end, bare
        while start < len(words) and words[start] in _FILLERS:
            if words[start] == "and" and not found.is_empty:
                return found, end  # "between two and three"
            is_bare = is_bare or words[start] == "at"
            start += 1
        if (grown := _grown(found, words, start, today, is_bare, is_span)) is None:
            return found, end
        found, end = grown


def _grown(
    found: Moment, words: Sequence[str], at: int, today: date, bare: bool, is_span: bool
) -> tuple[Moment, int] | None:
    if (day := named(words, at, today)) is not None:
        return _with_day(found, *day)
    time = clock(words, at, bare=bare, is_span=is_span)
    if found.clock is None and time is not None:
        return replace(found, clock=time[0]), time[1]
    return None


def _with_day(found: Moment, day: Named, end: int) -> tuple[Moment, int] | None:
    if (day.day and found.day) or (day.part and found.part):
        return None
    days = day.days if day.day else found.days
    return replace(found, day=found.day or day.day, part=found.part or day.part, days=days), end


def lasting(said: Moment, now: datetime) -> tuple[datetime, datetime]:
    """From when to when a moment lasts: a clock reading for a minute.

    Args:
        said: not empty.
        now: by the clock on the wall.
    """
    if said.clock is not None:
        at = instant(said, now)
        return at, at + MINUTE
    if said.day is not None:
        return window(said.day, said.part, said.days)
    begun = [window(now.date() - n * DAY, said.part) for n in range(2)]
    return next((one for one in begun if one[0] <= now), begun[-1])


def instant(said: Moment, now: datetime) -> datetime:
    """When a clock reading was.

    Args:
        said: with a clock reading; otherwise it is the beginning.
        now: by the clock on the wall.
    """
    if said.clock is None:
        return lasting(said, now)[0]
    days = [said.day] if said.day else [now.date() - n * DAY for n in range(2)]
    choices = [_on(said, said.clock, day, now) for day in days]
    return next((one for one in choices if one <= now), choices[-1])


def _on(said: Moment, clock: Clock, day: date, now: datetime) -> datetime:
    if said.part is not None:
        first, last = reading_window(day, said.part)
        readings = clock.readings(day) + clock.readings(day + DAY)
        inside = [one for one in readings if first <= one < last]
        return inside[0] if inside else clock.working(day)
    working = clock.working(day)
    earlier = clock.readings(day)[0]
    return earlier if said.day is not None and earlier <= now < working else working


def span_of(first: Moment, last: Moment, now: datetime) -> tuple[datetime, datetime]:
    """From one moment to another: the hours "two" and "three" are in the same half.

    Args:
        first: not empty.
        last: not empty.
        now: by the clock on the wall.
    """
    ends_itself = last.day is not None and last.day != first.day
    if last.part and not first.part and first.day is None and last.clock:
        first = replace(first, part=last.part if first.clock else None)
    begin_said, end_said = first.within(last), last.within(first)
    if begin_said.clock and end_said.clock and not (ends_itself and first.day):
        return _between_clocks(begin_said, begin_said.clock, end_said.clock, now)
    begin, _ = lasting(begin_said, now)
    if end_said.clock:
        end = instant(end_said, now)
    else:
        _, end = lasting(end_said, now)
    while begin >= end:
        begin -= 7 * DAY
    return begin, end


def _between_clocks(
    first: Moment, opens: Clock, closes: Clock, now: datetime
) -> tuple[datetime, datetime]:
    if closes.is_exact and not opens.is_exact and first.part is None:
        day = first.day or now.date()
        spans = []
        for back in range(1 if first.day else 3):
            on = day - back * DAY
            for end in (closes.readings(on)[0], closes.readings(on + DAY)[0]):
                begin = max(
                    one
                    for other in (end.date() - DAY, end.date())
                    for one in opens.readings(other)
                    if one < end
                )
                if begin.date() == on:
                    spans.append((begin, end))
        begun = [span for span in spans if span[0] <= now]
        return max(begun) if begun and first.day is None else (begun or spans)[0]
    begin = instant(first, now)
    ends = [
        one for n in range(2) for one in closes.readings(begin.date() + n * DAY) if one > begin
    ]
    return begin, ends[0]
