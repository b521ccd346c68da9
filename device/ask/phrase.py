"""An answer in plain sentences: from templates, or by a model that has to keep to the facts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from triparty.device.ask.finding import Finding, Gap
from triparty.device.ask.intent import Intent
from triparty.device.ask.interpretation import Interpretation
from triparty.device.ask.times import Span

MOST_TOLD = 6
"""Stretches, places or gaps that a sentence lists; the rest is counted."""
Writer = Callable[[str], str]
"""Makes a text of a prompt."""


def told(asked: Interpretation, found: Finding, zone: ZoneInfo) -> str:
    """The answer in plain sentences.

    Args:
        asked: what was asked.
        found: what the events say.
        zone: of the cameras.
    """
    clock = Clockface(zone, asked.span)
    sentences = [_answer(asked, found, clock), _looked_at(asked, clock)]
    sentences += _without_record(found.gaps, clock, whole=found.covered <= 0)
    if found.is_cut:
        sentences.append("There were more events than are read at once: ask about less time.")
    return " ".join(sentences)


class Clockface:
    """Writes times as short as they can be.

    Args:
        zone: of the cameras.
        span: that is asked about: its day is not repeated.
    """

    def __init__(self, zone: ZoneInfo, span: Span) -> None:
        """Notes whether a span is within one day."""
        self._zone = zone
        first, last = self._wall(span.since), self._wall(max(span.since, span.until - 1e-3))
        self._day = first.date() if first.date() == last.date() else None
        self._span = span

    def time(self, at: float, *, to_the_second: bool = False) -> str:
        """A time; with its day if that is not clear."""
        wall = self._wall(at)
        clock = f"{wall:%H:%M:%S}" if to_the_second else f"{wall:%H:%M}"
        return clock if wall.date() == self._day else f"{clock} on {_date(wall)}"

    def stretch(self, since: float, until: float, *, goes_on: bool = False) -> str:
        """From when to when; to the second if minutes would read alike."""
        if goes_on:
            return f"from {self.time(since)} on"
        begin, end = self.time(since), self.time(until)
        if begin == end:
            begin = self.time(since, to_the_second=True)
            end = self.time(until, to_the_second=True)
        return f"from {begin} to {end}"

    def span(self) -> str:
        """When the question is about."""
        if self._span.is_now:
            return f"now ({self._wall(self._span.until):%H:%M})"
        if self._span.since <= 0:
            return f"until {self._full(self._span.until)}"
        begin, end = self._wall(self._span.since), self._wall(self._span.until)
        if self._day is None:
            return f"from {self._full(self._span.since)} to {self._full(self._span.until)}"
        hours = f"{begin:%H:%M} to {'24:00' if end.date() != begin.date() else f'{end:%H:%M}'}"
        return f"{_date(begin)}, {hours}"

    def _full(self, at: float) -> str:
        wall = self._wall(at)
        return f"{_date(wall)} {wall:%H:%M}"

    def _wall(self, at: float) -> datetime:
        return datetime.fromtimestamp(at, self._zone)


def _date(wall: datetime) -> str:
    return f"{wall:%A} {wall.day} {wall:%B}"


def _listed(parts: Sequence[str]) -> str:
    shown = list(parts[:MOST_TOLD])
    if len(parts) > MOST_TOLD:
        shown.append(f"{len(parts) - MOST_TOLD} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _thing(asked: Interpretation) -> str:
    if not asked.labels:
        return "something" if asked.least == 1 else f"{asked.least} or more things"
    names = " or ".join(asked.labels)
    return f"a {names}" if asked.least == 1 else f"{asked.least} or more ({names})"


def _nothing(asked: Interpretation) -> str:
    if asked.least > 1:
        return f"not {_thing(asked)}"
    return f"no {' or '.join(asked.labels)}" if asked.labels else "nothing"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _times(found: Finding, clock: Clockface) -> str:
    last = len(found.present) - 1
    return _listed(
        [
            clock.stretch(*one, goes_on=found.goes_on and n == last)
            for n, one in enumerate(found.present)
        ]
    )


def _length(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{round(seconds)} s"
    hours, rest = divmod(minutes, 60)
    return f"{minutes} min" if not hours else f"{hours} h {rest} min" if rest else f"{hours} h"


def _answer(asked: Interpretation, found: Finding, clock: Clockface) -> str:
    if found.verdict == "unknown":
        return "That cannot be said: nothing was recorded there then."
    seen = f"{_thing(asked)} was seen"
    match asked.intent:
        case Intent.PRESENT:
            if found.verdict == "no":
                return f"No: {_nothing(asked)} was seen."
            return f"Yes: {seen} {_times(found, clock)}."
        case Intent.VACANT:
            if found.verdict == "yes":
                return f"Yes: {_nothing(asked)} was seen."
            return f"No: {seen} {_times(found, clock)}."
        case Intent.CAME | Intent.WENT:
            return _moved(asked, found)
        case Intent.UNUSUAL:
            if found.verdict == "no":
                return "No: nothing unusual was reported."
            first = clock.time(found.evidence[0].wall)
            return f"Yes: {_counted(len(found.evidence), 'unusual event')}, first at {first}."
        case Intent.EVENTS:
            if not found.evidence:
                return f"Nothing happened: no event of {_thing(asked)} is recorded."
            came = _counted(found.arrivals, "arrival")
            went = _counted(found.departures, "departure")
            return f"{_counted(len(found.evidence), 'event')}: {came} and {went}."
        case Intent.WHERE:
            if not found.where:
                return f"Nowhere: {_nothing(asked)} was seen."
            return f"{_sentence(seen)} at {_listed(found.where)}."
    return _number_or_time(asked, found, clock)


def _moved(asked: Interpretation, found: Finding) -> str:
    came = asked.intent is Intent.CAME
    number = found.arrivals if came else found.departures
    if found.verdict == "yes":
        return f"Yes: {_counted(number, 'arrival' if came else 'departure')}."
    after = ""
    if found.present:
        after = f", though {_thing(asked)} was there" + (
            " from the beginning" if found.was_before else ""
        )
    return f"No: {_nothing(asked)} {'came' if came else 'left'}{after}."


def _number_or_time(asked: Interpretation, found: Finding, clock: Clockface) -> str:
    if found.verdict == "none" and not found.arrivals and not found.departures:
        return f"{_sentence(_nothing(asked))} was seen."
    match asked.intent:
        case Intent.HOW_MANY:
            return f"{found.peak} at most at once; {_counted(found.arrivals, 'arrival')}."
        case Intent.ARRIVALS:
            return f"{_counted(found.arrivals, 'arrival')}; {found.peak} at most at once."
        case Intent.DEPARTURES:
            return f"{_counted(found.departures, 'departure')}."
        case Intent.HOW_LONG:
            return f"{_length(found.seconds)} in all: {_times(found, clock)}."
        case Intent.WHEN:
            return f"{_sentence(_thing(asked))} was seen {_times(found, clock)}."
    return _one_time(asked, found, clock)


def _one_time(asked: Interpretation, found: Finding, clock: Clockface) -> str:
    if found.at is None:
        if asked.intent is Intent.LAST_SEEN:
            return f"{_sentence(_thing(asked))} was still there at the end."
        if found.was_before:
            return f"{_sentence(_thing(asked))} was there from the beginning."
        return "None came." if asked.intent is not Intent.FIRST_DEPARTURE else "None left."
    words = {
        Intent.FIRST_ARRIVAL: "The first arrival was",
        Intent.LAST_ARRIVAL: "The last arrival was",
        Intent.FIRST_DEPARTURE: "The first departure was",
        Intent.LAST_SEEN: f"{_sentence(_thing(asked))} was last seen",
    }[asked.intent]
    before = (
        f" ({_thing(asked)} was there before that)"
        if found.was_before and asked.intent is Intent.FIRST_ARRIVAL
        else ""
    )
    return f"{words} at {clock.time(found.at)}{before}."


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _looked_at(asked: Interpretation, clock: Clockface) -> str:
    where = _listed([place.name for place in asked.places]) if asked.places else "all cameras"
    return f"Looked at: {where}, {clock.span()}."


def _without_record(gaps: Sequence[Gap], clock: Clockface, *, whole: bool) -> list[str]:
    deleted = sorted({gap.camera for gap in gaps if gap.is_deleted})
    dark = [gap for gap in gaps if not gap.is_deleted]
    found = list[str]()
    if deleted:
        found.append(f"Older recordings of {_listed(deleted)} have been deleted.")
    if dark and whole:
        names = sorted({gap.camera for gap in dark})
        verb = "was" if len(names) == 1 else "were"
        found.append(f"{_sentence(_listed(names))} {verb} not looked at in that time.")
    elif dark:
        parts = [f"{gap.camera} {clock.stretch(gap.since, gap.until)}" for gap in dark]
        found.append(f"There is no record of {_listed(parts)}.")
    return found


_NUMBER = re.compile(r"\d+(?:[:.]\d+)*")
_NAME = re.compile(r"\b[A-Z]\w+")
_PROMPT = (
    "Facts: {facts}\nSay these facts in one or two friendly sentences. Add nothing, leave out "
    "no time and no number.\nAnswer:"
)


def phrased(facts: str, writer: Writer) -> str:
    """The facts as a model says them, if it keeps to them; otherwise as they are.

    A text is kept if it says yes where the facts do and no where they do, and if its numbers,
    times and names are among those of the facts, and all numbers of the first sentence are in
    it.

    Args:
        facts: an answer by `told`.
        writer: the model.
    """
    text = " ".join(writer(_PROMPT.format(facts=facts)).split())
    return text if is_faithful(text, facts) else facts


def is_faithful(text: str, facts: str) -> bool:
    """Whether a text says nothing but facts, as far as numbers, names, yes and no tell."""
    if not text or len(text) > 2 * len(facts) + 200 or not text.isprintable():
        return False
    numbers, known = _NUMBER.findall(text), _NUMBER.findall(facts)
    if set(numbers) - set(known):
        return False
    first = facts.split(" Looked at:")[0]
    if set(_NUMBER.findall(first)) - set(numbers):
        return False
    begin_of_sentence = {0} | {found.end() for found in re.finditer(r"[.!?:]\s+", text)}
    names = {
        found.group()
        for found in _NAME.finditer(text)
        if found.start() not in begin_of_sentence
    }
    if {name.lower() for name in names} - set(re.findall(r"\w+", facts.lower())):
        return False
    return _is_negative(text) == _is_negative(first)


def _is_negative(text: str) -> bool:
    found = set(re.findall(r"[a-z']+", text.lower()))
    return bool(
        found & {"no", "not", "nobody", "nothing", "none", "never", "nowhere", "cannot"}
    )
