"""When a question is about: what its words about time say, as exact times; pure.

English. What is not said is read by the rules of `moments.py`; a time that is not understood is
an error, never a guess. Days are calendar days where the cameras are: when clocks are changed
they have 23 or 25 hours, and what clocks show twice is meant twice. "In the last two hours" is
two hours whatever clocks do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from triparty.common.errors import TimeError
from triparty.device.ask.clocks import number
from triparty.device.ask.days import DAY, TIME_WORDS
from triparty.device.ask.moments import NOTHING, Moment, instant, lasting, moment, span_of
from triparty.device.ask.words import Word

AROUND = timedelta(minutes=15)
NOW_S = 1.0
_UNITS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 7 * 86_400}
_NOW = (
    ("right", "now"),
    ("just", "now"),
    ("at", "the", "moment"),
    ("at", "this", "moment"),
    ("at", "present"),
    ("now",),
    ("currently",),
)
_FROM = ("between", "from")
_TO = ("and", "to", "until", "till", "-", "–", "through")  # noqa: RUF001
_UP_TO = (["to"], ["-"], ["until"], ["till"])
_AROUND = ("around", "about", "roughly", "approximately", "near")
_SINCE = ("since",)
_AFTER = ("after", "past")
_BEFORE = ("before", "until", "till", "by")


@dataclass(frozen=True)
class Span:
    """A stretch of time.

    Attributes:
        since: in seconds since 1970, within it.
        until: in seconds since 1970, after it.
        is_now: whether the present moment is meant.
    """

    since: float
    until: float
    is_now: bool = False


@dataclass(frozen=True)
class Spoken:
    """What a question says about time.

    Attributes:
        span: that is meant.
        words: numbers of the words that say so.
    """

    span: Span
    words: frozenset[int]


@dataclass(frozen=True)
class _Found:
    """A piece of a question about time.

    Attributes:
        relation: how the moments are meant: `at`, `from` (to), `around`, `since`, `after`,
            `before`, `last` (so long until now), `now`, `ago`.
        at: its first word.
        end: after its last word.
        first: the moment, or the first of two.
        second: of `from`.
        length: of `last` and `ago`.
    """

    relation: str
    at: int
    end: int
    first: Moment = NOTHING
    second: Moment = NOTHING
    length: timedelta = timedelta()


def spoken(words: Sequence[Word], now: float, zone: ZoneInfo) -> Spoken | None:
    """When a question is about; None if it does not say.

    Args:
        words: of the question.
        now: in seconds since 1970.
        zone: where the cameras are.

    Raises:
        TimeError: a time that was not understood, two different ones, or one to come.
    """
    wall = datetime.fromtimestamp(now, zone).replace(tzinfo=None)
    texts = [word.text for word in words]
    found = _pieces(texts, wall)
    taken = frozenset(n for piece in found for n in range(piece.at, piece.end))
    for n, text in enumerate(texts):
        if n not in taken and text in TIME_WORDS:
            raise TimeError(f"'{text}' was not understood as a time: say when in other words")
    if not found:
        return None
    return Spoken(_span(_joined(found), now, wall, zone), taken)


def today(now: float, zone: ZoneInfo) -> Span:
    """The day of the question, until now."""
    midnight = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0)
    return Span(midnight.replace(microsecond=0, fold=0).timestamp(), now)


def _pieces(texts: Sequence[str], wall: datetime) -> list[_Found]:
    found, at = list[_Found](), 0
    while at < len(texts):
        piece = _piece(texts, at, wall)
        if piece is None:
            at += 1
        else:
            found.append(piece)
            at = piece.end
    return found


def _piece(texts: Sequence[str], at: int, wall: datetime) -> _Found | None:
    for phrase in _NOW:
        if tuple(texts[at : at + len(phrase)]) == phrase:
            return _Found("now", at, at + len(phrase))
    if (lasted := _last_so_long(texts, at) or _so_long_ago(texts, at)) is not None:
        return lasted
    day = wall.date()
    if texts[at] in _FROM:
        is_span = texts[at] == "from"
        first, end = moment(texts, at + 1, day, bare=True, is_span=is_span)
        if not first.is_empty and end < len(texts) and texts[end] in _TO:
            second, last = moment(texts, end + 1, day, bare=True)
            if not second.is_empty:
                return _Found("from", at, last, first, second)
        if texts[at] == "from" and not first.is_empty:
            return _Found("since" if texts[end : end + 1] == ["on"] else "at", at, end, first)
        return None
    for relation, prepositions in (
        ("around", _AROUND),
        ("since", _SINCE),
        ("after", _AFTER),
        ("before", _BEFORE),
    ):
        if texts[at] in prepositions:
            said, end = moment(texts, at + 1, day, bare=True)
            return None if said.is_empty else _Found(relation, at, end, said)
    if number(texts, at) is not None and (hours := _two_hours(texts, at, day)) is not None:
        return hours
    said, end = moment(texts, at, day, bare=False)
    return None if said.is_empty else _plain(texts, at, end, said, wall)


def _plain(texts: Sequence[str], at: int, end: int, said: Moment, wall: datetime) -> _Found:
    """A moment without a preposition, or with "at": "2 to 3 pm" is a span."""
    if said.clock is not None and texts[end : end + 1] in _UP_TO:
        second, last = moment(texts, end + 1, wall.date(), bare=True)
        if second.clock is not None:
            return _Found("from", at, last, said, second)
    return _Found("at", at, end, said)


def _two_hours(texts: Sequence[str], at: int, day: date) -> _Found | None:
    """From an hour that stands alone to a clock reading that does not: "2 to 3 pm"."""
    said, end = moment(texts, at, day, bare=True, is_span=True)
    if said.clock is None or texts[end : end + 1] not in _UP_TO:
        return None
    second, last = moment(texts, end + 1, day, bare=False)
    return None if second.clock is None else _Found("from", at, last, said, second)


def _last_so_long(texts: Sequence[str], at: int) -> _Found | None:
    """In the last half hour, within the past 20 minutes."""
    if texts[at] not in ("last", "past", "previous"):
        return None
    if (length := _length(texts, at + 1)) is None:
        return None
    if length[0] == timedelta(weeks=1) and texts[at + 1] == "week":
        return None if texts[at] == "last" else _Found("last", at, length[1], length=length[0])
    return _Found("last", at, length[1], length=length[0])


def _so_long_ago(texts: Sequence[str], at: int) -> _Found | None:
    length = _length(texts, at)
    if length is None or texts[length[1] : length[1] + 1] != ["ago"] or length[0] >= DAY:
        return None
    return _Found("ago", at, length[1] + 1, length=length[0])


def _length(texts: Sequence[str], at: int) -> tuple[timedelta, int] | None:
    """A length of time and where it ends."""
    at += texts[at : at + 1] in (["the"], ["about"])
    if texts[at : at + 3] in (["half", "an", "hour"], ["half", "a", "hour"]):
        return timedelta(minutes=30), at + 3
    if texts[at : at + 2] in (["half", "hour"], ["half", "day"]):
        return timedelta(minutes=30 if texts[at + 1] == "hour" else 720), at + 2
    if texts[at : at + 4] == ["quarter", "of", "an", "hour"]:
        return timedelta(minutes=15), at + 4
    if texts[at : at + 1] in (["a"], ["an"]) and texts[at + 1 : at + 2] != ["couple"]:
        count, end = 1.0, at + 1
        if texts[end : end + 4] == ["quarter", "of", "an", "hour"]:
            return timedelta(minutes=15), end + 4
    elif texts[at : at + 2] == ["couple", "of"] or texts[at : at + 2] == ["a", "couple"]:
        count, end = 2.0, at + 2 + (texts[at + 2 : at + 3] == ["of"])
    elif (found := number(texts, at)) is not None:
        count, end = float(found[0]), found[1]
    elif texts[at : at + 1] and texts[at].isdecimal() and texts[at].isascii():
        count, end = float(texts[at]), at + 1
    else:
        count, end = 1.0, at
    if texts[end : end + 3] == ["and", "a", "half"]:
        count, end = count + 0.5, end + 3
    if end >= len(texts) or texts[end].removesuffix("s") not in _UNITS_S:
        return None
    unit, end = texts[end].removesuffix("s"), end + 1
    if texts[end : end + 3] == ["and", "a", "half"]:
        count, end = count + 0.5, end + 3
    if count * _UNITS_S[unit] > 3650 * 86_400:
        return None
    return timedelta(seconds=count * _UNITS_S[unit]), end


def _joined(found: Sequence[_Found]) -> _Found:
    """One time of all that a question says: "yesterday, between two and three"."""
    whole = found[0]
    for piece in found[1:]:
        has_more = whole.first.clock or whole.relation != "at"
        one, other = (whole, piece) if has_more else (piece, whole)
        outer = other.first
        if other.relation != "at" or outer.clock is not None or one.relation in _WITHOUT_DAY:
            raise TimeError("two different times were said: ask about one at a time")
        if (night := _night_between(one, outer)) is not None:
            whole = night
            continue
        if (one.first.day and outer.day) or (one.first.part and outer.part):
            raise TimeError("two different days were said: ask about one at a time")
        whole = _Found(
            one.relation,
            one.at,
            one.end,
            one.first.within(outer),
            one.second.within(outer) if not one.second.is_empty else one.second,
            one.length,
        )
    return whole


def _night_between(one: _Found, outer: Moment) -> _Found | None:
    """In the night from one day to the next."""
    first, second = one.first, one.second
    if outer != Moment(part="night") or first.day is None or second.day is None:
        return None
    if first != Moment(first.day) or second != Moment(first.day + DAY):
        return None
    return _Found("at", one.at, one.end, Moment(first.day, "night"))


_WITHOUT_DAY = ("now", "last", "ago")


def _span(said: _Found, now: float, wall: datetime, zone: ZoneInfo) -> Span:
    if said.relation == "now":
        return Span(now - NOW_S, now, is_now=True)
    if said.relation == "last":
        return Span(now - said.length.total_seconds(), now)
    if said.relation == "ago":
        about = max(60.0, min(AROUND.total_seconds(), said.length.total_seconds() / 8))
        at = now - said.length.total_seconds()
        return Span(at - about, min(now, at + about))
    since, until = _walls(said, wall)
    begin = _seconds(since, zone, fold=0) if since is not None else 0.0
    if begin >= now:
        raise TimeError(f"{since:%A %H:%M, %d %B} is still to come")
    end = now if until is None else min(now, _seconds(until, zone, fold=1))
    return Span(begin, max(begin, end))


def _walls(said: _Found, wall: datetime) -> tuple[datetime | None, datetime | None]:
    """From when to when, by the clock on the wall; None: no such end."""
    match said.relation:
        case "from":
            return span_of(said.first, said.second, wall)
        case "around" if said.first.clock is not None:
            at = instant(said.first, wall)
            return at - AROUND, at + AROUND
        case "since":
            return lasting(said.first, wall)[0], None
        case "after":
            begin, end = lasting(said.first, wall)
            if said.first.clock is None:
                return end, None
            return begin, _end_of_day(said.first, begin, wall)
        case "before":
            begin, end = lasting(said.first, wall)
            if said.first.clock is None and said.first.part is None:
                return None, begin
            return _begin_of_day(said.first, begin, wall), begin
    return lasting(said.first, wall)


def _end_of_day(said: Moment, at: datetime, wall: datetime) -> datetime:
    if said.part is not None:
        day = said.day or (at.date() if said.part not in ("night", "tonight") else None)
        if day is not None:
            end = lasting(Moment(day, said.part), wall)[1]
            if at < end:
                return end
    return lasting(Moment(at.date()), wall)[1]


def _begin_of_day(said: Moment, at: datetime, wall: datetime) -> datetime:
    if said.part in ("night", "tonight", "evening", "afternoon"):
        begin = lasting(Moment(said.day, said.part), wall)[0]
        if begin < at:
            return begin
    begin = lasting(Moment(at.date()), wall)[0]
    return begin if begin < at else begin - DAY


def _seconds(wall: datetime, zone: ZoneInfo, *, fold: int) -> float:
    return wall.replace(tzinfo=zone, fold=fold).timestamp()
