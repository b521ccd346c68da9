"""What is said of time, against the clock on the wall and rules written down apart from it."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triparty.common.errors import TimeError
from triparty.device.ask.times import Span, spoken
from triparty.device.ask.words import in_order, tidied, words

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "UTC")
HOURS = in_order("twelve one two three four five six seven eight nine ten eleven")
FRIDAY = datetime(2026, 11, 20, 16, 40)


def span(question: str, now: datetime = FRIDAY, zone: ZoneInfo = BERLIN) -> Span | None:
    found = spoken(words(tidied(question)), now.replace(tzinfo=zone).timestamp(), zone)
    return None if found is None else found.span


def walls(question: str, now: datetime = FRIDAY) -> str:
    found = span(question, now)
    assert found is not None, question
    since, until = (datetime.fromtimestamp(at, BERLIN) for at in (found.since, found.until))
    return f"{since:%m-%d %H:%M} {until:%m-%d %H:%M}"


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("was anybody in the meeting room between two and three?", "11-20 14:00 11-20 15:00"),
        ("yesterday evening", "11-19 18:00 11-19 23:00"),
        ("who came this morning?", "11-20 05:00 11-20 12:00"),
        ("last night", "11-19 22:00 11-20 06:00"),
        ("on Tuesday", "11-17 00:00 11-18 00:00"),
        ("on Friday", "11-20 00:00 11-20 16:40"),
        ("last Friday", "11-13 00:00 11-14 00:00"),
        ("in the last half hour", "11-20 16:10 11-20 16:40"),
        ("since noon", "11-20 12:00 11-20 16:40"),
        ("at 14:30", "11-20 14:30 11-20 14:31"),
        ("at half past two", "11-20 14:30 11-20 14:31"),
        ("between 11 and 1", "11-20 11:00 11-20 13:00"),
        ("from nine to five yesterday", "11-19 09:00 11-19 17:00"),
        ("between 2 and 3 pm", "11-20 14:00 11-20 15:00"),
        ("from 10 to 2 am", "11-19 22:00 11-20 02:00"),
        ("2 to 3 p.m. yesterday", "11-19 14:00 11-19 15:00"),
        ("tuesday night at 1", "11-18 01:00 11-18 01:01"),
        ("after six yesterday", "11-19 18:00 11-20 00:00"),
        ("before eight this morning", "11-20 00:00 11-20 08:00"),
        ("after ten last night", "11-19 22:00 11-20 06:00"),
        ("last week", "11-09 00:00 11-16 00:00"),
        ("at the weekend", "11-14 00:00 11-16 00:00"),
        ("from Monday to Wednesday", "11-16 00:00 11-19 00:00"),
        ("yesterday between quarter to nine and ten past ten", "11-19 08:45 11-19 10:10"),
        ("in the night from Thursday to Friday", "11-19 22:00 11-20 06:00"),
        ("two days ago", "11-18 00:00 11-19 00:00"),
        ("between ten and midnight yesterday", "11-19 22:00 11-20 00:00"),
        ("from 22:00 yesterday to 6 this morning", "11-19 22:00 11-20 06:00"),
        ("on 3 November", "11-03 00:00 11-04 00:00"),
        ("around three", "11-20 14:45 11-20 15:15"),
        ("yesterday, was it busy at seven in the evening?", "11-19 19:00 11-19 19:01"),
    ],
)
def test_what_people_say(question: str, expected: str) -> None:
    assert walls(question) == expected


@pytest.mark.parametrize(
    ("question", "now", "expected"),
    [
        # Without am or pm: in working hours, the last that has begun.
        ("between two and three", datetime(2026, 11, 20, 10), "11-19 14:00 11-19 15:00"),
        ("at seven", datetime(2026, 11, 20, 10), "11-20 07:00 11-20 07:01"),
        # On a day that is named, the half of it that has begun.
        ("today at two", datetime(2026, 11, 20, 10), "11-20 02:00 11-20 02:01"),
        # The part of the day decides.
        ("at two in the morning", datetime(2026, 11, 20, 10), "11-20 02:00 11-20 02:01"),
        ("at eight in the evening", datetime(2026, 11, 20, 10), "11-19 20:00 11-19 20:01"),
        # Within a night, the night that runs.
        ("last night", datetime(2026, 11, 20, 2), "11-19 22:00 11-20 02:00"),
    ],
)
def test_what_is_not_said_is_read_by_the_rules(
    question: str, now: datetime, expected: str
) -> None:
    assert walls(question, now) == expected


@pytest.mark.parametrize(
    "question",
    ["was anybody there", "between two and three people were there", "room 2 at the camera 14"],
)
def test_numbers_that_are_no_times(question: str) -> None:
    assert span(question) is None


@pytest.mark.parametrize(
    "question",
    [
        "tomorrow",
        "the year before last",
        "yesterday at two and at four",
        "Monday at 3 and Tuesday at 4",
    ],
)
def test_a_time_that_is_not_understood_is_an_error(question: str) -> None:
    with pytest.raises(TimeError):
        span(question)


def minutes(day: date, first: int, last: int, zone: ZoneInfo) -> list[int]:
    """All minutes since 1970 at which clocks of a zone show an hour of a day: the oracle."""
    begin = int(datetime(day.year, day.month, day.day).timestamp()) // 60 - 26 * 60
    found = []
    for minute in range(begin, begin + 78 * 60):
        wall = datetime.fromtimestamp(minute * 60, zone)
        if wall.date() == day and first <= wall.hour < last:
            found.append(minute)
    return found


@settings(max_examples=40, deadline=None)
@given(
    zone=st.sampled_from(ZONES).map(ZoneInfo),
    day=st.one_of(
        st.dates(date(2024, 1, 1), date(2028, 12, 31)),
        # Days on which clocks are changed.
        st.sampled_from([date(2026, 3, 29), date(2026, 10, 25), date(2026, 11, 1)]),
    ),
    first=st.integers(0, 22),
    length=st.integers(1, 6),
)
def test_hours_of_a_day_are_those_that_clocks_show(
    zone: ZoneInfo, day: date, first: int, length: int
) -> None:
    last = min(24, first + length)
    end = "midnight" if last == 24 else f"{last}:00"
    now = datetime(day.year, day.month, day.day) + timedelta(days=40)
    found = span(f"between {first:02d}:00 and {end} on {day.isoformat()}", now, zone)
    expected = minutes(day, first, last, zone)
    assert found is not None
    got = range(round(found.since) // 60, round(found.until) // 60)
    # Where clocks skip or repeat an hour, more may be meant than they show, and never less.
    assert set(expected) <= set(got)
    assert len(got) - len(expected) <= 60


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 11), st.integers(0, 11), st.integers(0, 23), st.booleans())
def test_two_hours_without_halves_are_the_nearest_after_each_other(
    first: int, last: int, hour: int, has_day: bool
) -> None:
    now = FRIDAY.replace(hour=hour)
    question = f"between {HOURS[first]} and {HOURS[last]}" + (" yesterday" if has_day else "")
    found = span(question, now)
    assert found is not None
    at = now.replace(tzinfo=BERLIN).timestamp()
    since, until = (datetime.fromtimestamp(t, BERLIN) for t in (found.since, found.until))
    assert since.hour % 12 == first
    assert since.minute == 0
    assert 7 <= since.hour < 19
    assert since.timestamp() < at
    length = (last - first) % 12 or 12
    assert found.until == min(at, found.since + length * 3600), (since, until)
    if has_day:
        assert since.date() == now.date() - timedelta(days=1)
    else:
        assert at - found.since <= 86_400


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            in_order(
                "between and at from to two 3 14:30 half past pm yesterday last night tuesday "
                "ago morning since the of hour minutes week 2026-11-03 noon , - 99 a room"
            )
        ),
        max_size=9,
    ).map(" ".join)
)
def test_any_words_make_a_span_or_an_error(question: str) -> None:
    try:
        found = span(question)
    except TimeError:
        return
    if found is not None:
        now = FRIDAY.replace(tzinfo=BERLIN).timestamp()
        assert found.since <= found.until <= now


def test_the_day_on_which_clocks_go_back_has_25_hours() -> None:
    found = span("on Sunday", datetime(2026, 10, 27, 12))
    assert found is not None
    assert found.until - found.since == 25 * 3600
    # "In the last day" has 24, whatever clocks do.
    lasted = span("in the last day", datetime(2026, 10, 25, 20))
    assert lasted is not None
    assert lasted.until - lasted.since == 24 * 3600


def test_what_clocks_show_twice_is_meant_twice() -> None:
    found = span("between 01:30 and 02:30 on 2026-10-25", datetime(2026, 10, 27, 12))
    assert found is not None
    assert found.until - found.since == 2 * 3600
