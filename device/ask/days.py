"""Days and parts of days as people say them: "last night", "on Tuesday", "3 May"; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Literal

from triparty.device.ask.clocks import number
from triparty.device.ask.words import in_order, these

Part = Literal["morning", "lunchtime", "afternoon", "evening", "night", "tonight"]
DAY = timedelta(days=1)
WEEKDAYS = in_order("monday tuesday wednesday thursday friday saturday sunday")
MONTHS = in_order(
    "january february march april may june july august september october november december"
)
ORDINALS = tuple(f"{n}{end}" for n in range(1, 32) for end in ("st", "nd", "rd", "th"))

# In hours from the day's beginning: what a part is, and where a clock reading in it may lie.
_PARTS: dict[Part, tuple[int, int]] = {
    "morning": (5, 12),
    "lunchtime": (12, 14),
    "afternoon": (12, 18),
    "evening": (18, 23),
    "night": (22, 30),
    "tonight": (18, 30),
}
_READINGS: dict[Part, tuple[int, int]] = {
    "morning": (0, 12),
    "lunchtime": (11, 15),
    "afternoon": (12, 19),
    "evening": (16, 24),
    "night": (18, 30),
    "tonight": (16, 30),
}
_PART_WORDS: dict[str, Part] = {
    "morning": "morning",
    "mornings": "morning",
    "lunchtime": "lunchtime",
    "lunch": "lunchtime",
    "afternoon": "afternoon",
    "evening": "evening",
    "night": "night",
}


@dataclass(frozen=True)
class Named:
    """A day, a part of a day, or both.

    Attributes:
        day: None if only the part is said.
        part: None if only the day is said.
        days: how many days from `day` on.
    """

    day: date | None = None
    part: Part | None = None
    days: int = 1


def window(day: date, part: Part | None, days: int = 1) -> tuple[datetime, datetime]:
    """From when to when a day or a part of it lasts, by the clock on the wall."""
    begin = datetime.combine(day, time())
    if part is None:
        return begin, begin + days * DAY
    first, last = _PARTS[part]
    return begin + timedelta(hours=first), begin + timedelta(hours=last)


def reading_window(day: date, part: Part) -> tuple[datetime, datetime]:
    """Between when a clock reading said with this part lies: "two in the morning"."""
    begin = datetime.combine(day, time())
    first, last = _READINGS[part]
    return begin + timedelta(hours=first), begin + timedelta(hours=last)


def named(words: Sequence[str], at: int, today: date) -> tuple[Named, int] | None:
    """A day or a part of one, and where it ends; None if there is none.

    Args:
        words: in lower case.
        at: where it would begin; prepositions and articles are passed before.
        today: the day of the question.
    """
    if at >= len(words):
        return None
    return (
        _of_night(words, at, today)
        or _relative(words, at, today)
        or _weekday(words, at, today)
        or _date(words, at, today)
        or _part(words, at)
    )


def _of_night(words: Sequence[str], at: int, today: date) -> tuple[Named, int] | None:
    two = tuple(words[at : at + 2])
    if two == ("last", "night"):
        return Named(today - DAY, "night"), at + 2
    if two == ("last", "evening"):
        return Named(today - DAY, "evening"), at + 2
    if words[at] == "overnight":
        return Named(today - DAY, "night"), at + 1
    if words[at] == "tonight":
        return Named(today, "tonight"), at + 1
    if words[at] == "this" and len(two) == 2 and two[1] in _PART_WORDS:
        return Named(today, _PART_WORDS[two[1]]), at + 2
    return None


def _relative(words: Sequence[str], at: int, today: date) -> tuple[Named, int] | None:
    text = " ".join(words[at : at + 4])
    if text == "the day before yesterday":
        return _then_part(words, at + 4, today - 2 * DAY)
    if text.startswith("day before yesterday"):
        return _then_part(words, at + 3, today - 2 * DAY)
    for name, days in (("today", 0), ("yesterday", -1), ("tomorrow", 1)):
        if words[at] in (name, f"{name}'s"):
            return _then_part(words, at + 1, today + days * DAY)
    return _weeks(words, at, today) or _ago(words, at, today)


def _weeks(words: Sequence[str], at: int, today: date) -> tuple[Named, int] | None:
    which, unit = words[at], words[at + 1] if at + 1 < len(words) else ""
    monday = today - today.weekday() * DAY
    if unit == "week" and which in ("this", "last"):
        return Named(monday - 7 * DAY * (which == "last"), days=7), at + 2
    if unit == "month" and which in ("this", "last"):
        first = today.replace(day=1)
        begin = first if which == "this" else (first - DAY).replace(day=1)
        end = (begin + 31 * DAY).replace(day=1)
        return Named(begin, days=(end - begin).days), at + 2
    if which == "weekend" or (which in ("this", "last") and unit == "weekend"):
        saturday = monday + 5 * DAY
        is_begun = saturday <= today and which != "last"
        return Named(saturday - 7 * DAY * (not is_begun), days=2), at + 1 + (unit == "weekend")
    return None


def _ago(words: Sequence[str], at: int, today: date) -> tuple[Named, int] | None:
    count = (1, at + 1) if words[at] in ("a", "one") else number(words, at)
    if count is None or " ".join(words[count[1] + 1 : count[1] + 2]) != "ago":
        return None
    unit = words[count[1]].rstrip("s")
    if unit not in ("day", "week"):
        return None
    day = today - count[0] * (7 if unit == "week" else 1) * DAY
    return _then_part(words, count[1] + 2, day)


def _weekday(words: Sequence[str], at: int, today: date) -> tuple[Named, int] | None:
    which = words[at] if words[at] in ("last", "this") else None
    at += which is not None
    if at >= len(words) or (name := words[at].removesuffix("'s")) not in WEEKDAYS:
        return None
    back = (today.weekday() - WEEKDAYS.index(name)) % 7
    if which == "last" and back == 0:
        back = 7
    return _then_part(words, at + 1, today - back * DAY)


def _date(words: Sequence[str], at: int, today: date) -> tuple[Named, int] | None:
    try:
        if len(words[at]) == 10 and words[at][4] == "-":
            return _then_part(words, at + 1, date.fromisoformat(words[at]))
        if words[at] in MONTHS and at + 1 < len(words):
            day = _day_number(words[at + 1])
            if day is not None:
                return _dated(words, at + 2, day, MONTHS.index(words[at]) + 1, today)
        day = _day_number(words[at])
        if day is None:
            return None
        end = at + 1 + (list(words[at + 1 : at + 2]) == ["of"])
        if end < len(words) and words[end] in MONTHS:
            return _dated(words, end + 1, day, MONTHS.index(words[end]) + 1, today)
        if words[at] in ORDINALS and list(words[at - 1 : at]) == ["the"]:
            here = today if day <= today.day else today.replace(day=1) - DAY
            return _then_part(words, at + 1, here.replace(day=day))
    except ValueError:  # no such day
        return None
    return None


def _day_number(word: str) -> int | None:
    digits = word[:-2] if word in ORDINALS else word
    if digits.isdecimal() and digits.isascii() and 1 <= int(digits) <= 31:
        return int(digits)
    return None


def _dated(
    words: Sequence[str], at: int, day: int, month: int, today: date
) -> tuple[Named, int]:
    year = at + (list(words[at : at + 1]) == [","])
    if year < len(words) and words[year].isdecimal() and len(words[year]) == 4:
        return _then_part(words, year + 1, date(int(words[year]), month, day))
    found = date(today.year, month, day)
    return _then_part(words, at, found if found <= today else date(today.year - 1, month, day))


def _part(words: Sequence[str], at: int) -> tuple[Named, int] | None:
    if words[at] in _PART_WORDS and words[at] != "lunch":
        return Named(part=_PART_WORDS[words[at]]), at + 1
    if words[at] == "lunch" and tuple(words[at - 1 : at]) in _BEFORE_LUNCH:
        return Named(part="lunchtime"), at + 1 + (list(words[at + 1 : at + 2]) == ["time"])
    return None


_BEFORE_LUNCH = tuple(
    (word,) for word in in_order("during over at after before since until by")
)


def _then_part(words: Sequence[str], at: int, day: date) -> tuple[Named, int]:
    if at < len(words) and words[at] in _PART_WORDS:
        return Named(day, _PART_WORDS[words[at]]), at + 1
    return Named(day), at


TIME_WORDS = frozenset((*WEEKDAYS, *MONTHS, *ORDINALS, *_PART_WORDS)) - {
    "lunch",
    "may",
    "march",
} | these(
    "am pm o'clock ago yesterday tomorrow tonight overnight noon midday midnight week "
    "weeks month months year years weekend today"
)
"""Words that speak of time: one that nothing was made of is a time that was not understood."""
