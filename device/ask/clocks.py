"""Clock readings as people say them: "half past two", "2:30 pm", "noon"; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time

from triparty.device.ask.words import in_order, these

NUMBERS = {
    name: number
    for number, name in enumerate(
        in_order(
            "zero one two three four five six seven eight nine ten eleven twelve "
            "thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
        )
    )
} | {"twenty five": 25, "thirty": 30, "forty": 40, "forty five": 45, "fifty": 50, "sixty": 60}
WORKING_HOURS = range(7, 19)
"""Between which a clock reading is taken to be that nobody said am or pm of."""

# After an hour that stands alone: an end, or a word that begins something else. Otherwise it
# counts things: "between two and three people".
_AFTER_AN_HOUR = these(
    "and or to until till on in at by of for from the this that last "
    "yesterday today tonight was were is are did does do had has have could "
    "can there anybody anyone somebody someone nobody who what where when "
    "which how then before after between since a an"
)


@dataclass(frozen=True)
class Clock:
    """A clock reading.

    Attributes:
        hour: 0..23.
        minute: 0..59.
        is_exact: whether half of the day is known; otherwise it may be twelve hours later.
    """

    hour: int
    minute: int = 0
    is_exact: bool = False

    def readings(self, day: date) -> list[datetime]:
        """What it may mean on a day, in order."""
        hours = [self.hour] if self.is_exact else [self.hour % 12, self.hour % 12 + 12]
        return [datetime.combine(day, time(hour, self.minute)) for hour in hours]

    def working(self, day: date) -> datetime:
        """What it means on a day if nothing else is said: exact, or in working hours."""
        first, *second = self.readings(day)
        return first if not second or first.hour in WORKING_HOURS else second[0]


def number(words: Sequence[str], at: int) -> tuple[int, int] | None:
    """A number from 0 to 99 and where it ends; None if there is none."""
    if at >= len(words):
        return None
    two = " ".join(words[at : at + 2])
    if two in NUMBERS:
        return NUMBERS[two], at + 2
    if words[at] in NUMBERS:
        return NUMBERS[words[at]], at + 1
    if words[at].isdecimal() and words[at].isascii() and len(words[at]) <= 2:
        return int(words[at]), at + 1
    return None


def clock(
    words: Sequence[str], at: int, *, bare: bool, is_span: bool = False
) -> tuple[Clock, int] | None:
    """A clock reading and where it ends; None if there is none.

    Args:
        words: in lower case.
        at: where it would begin.
        bare: whether an hour alone is one, as after "at".
        is_span: whether "ten to two" is a span, as after "from".
    """
    if at >= len(words):
        return None
    if words[at] in ("noon", "midday"):
        return Clock(12, is_exact=True), at + 1
    if words[at] == "midnight":
        return Clock(0, is_exact=True), at + 1
    return (
        _past_or_to(words, at, is_span=is_span)
        or _digital(words, at)
        or _whole_hour(words, at, bare=bare)
    )


def _past_or_to(words: Sequence[str], at: int, *, is_span: bool) -> tuple[Clock, int] | None:
    start = at + 1 if words[at] == "a" else at
    if start >= len(words):
        return None
    if words[start] in ("half", "quarter"):
        minutes, end = (30 if words[start] == "half" else 15), start + 1
    else:
        counted = number(words, start)
        if counted is None:
            return None
        minutes, end = counted
        if end < len(words) and words[end] in ("minutes", "minute"):
            end += 1
        elif is_span or minutes % 5:
            return None
    if end >= len(words) or words[end] not in ("past", "to") or not 0 < minutes < 60:
        return None
    is_past = words[end] == "past"
    hour = number(words, end + 1)
    if hour is None or not 1 <= hour[0] <= 12:
        return None
    found, end = _with_half(words, hour[0], 0, hour[1])
    total = found.hour * 60 + (minutes if is_past else -minutes)
    day = 24 * 60 if found.is_exact else 12 * 60
    return Clock(total % day // 60, total % 60, found.is_exact), end


def _digital(words: Sequence[str], at: int) -> tuple[Clock, int] | None:
    hour, sign, minute = words[at].partition(":" if ":" in words[at] else ".")
    if not (sign and hour.isdecimal() and minute.isdecimal() and len(minute) == 2):
        return None
    if int(hour) > 23 or int(minute) > 59:
        return None
    if int(hour) > 12 or hour.startswith("0"):
        return Clock(int(hour), int(minute), is_exact=True), at + 1
    return _with_half(words, int(hour), int(minute), at + 1)


def _whole_hour(words: Sequence[str], at: int, *, bare: bool) -> tuple[Clock, int] | None:
    found = number(words, at)
    if found is None or found[0] > 23:
        return None
    hour, end = found
    following = words[end] if end < len(words) else "?"
    if following in ("am", "pm") and 1 <= hour <= 12:
        return _with_half(words, hour, 0, end)
    if following in ("o'clock", "hours") and (following == "o'clock" or hour > 12):
        return _with_half(words, hour, 0, end + 1)
    if bare and (not following[0].isalnum() or following in _AFTER_AN_HOUR):
        return Clock(hour, 0, is_exact=hour > 12 or hour == 0), end
    return None


def _with_half(words: Sequence[str], hour: int, minute: int, at: int) -> tuple[Clock, int]:
    if at < len(words) and words[at] == "o'clock":
        at += 1
    if at < len(words) and words[at] in ("am", "pm") and 1 <= hour <= 12:
        return Clock(hour % 12 + 12 * (words[at] == "pm"), minute, is_exact=True), at + 1
    return Clock(hour, minute, is_exact=hour > 12), at
