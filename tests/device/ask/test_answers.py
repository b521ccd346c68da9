"""Answers from events against the truth, second by second, which knows no events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_building import Building, MadeEvents, MadeWatched, Stay, site

from triparty.device.ask.answer import answered
from triparty.device.ask.finding import Finding, value
from triparty.device.ask.intent import Intent
from triparty.device.ask.interpretation import Interpretation
from triparty.device.ask.places import Place
from triparty.device.ask.times import Span
from triparty.device.events.event import Event

BEGIN = 1_000_000
LAST = 90
CAMERAS = {"hall": ("desk",), "yard": ()}
LABELS = ("person", "dog")
SITE = site(CAMERAS, LABELS)


def asked(
    intent: Intent,
    span: tuple[float, float],
    places: Sequence[Place] = (),
    labels: Sequence[str] = (),
    least: int = 1,
) -> Interpretation:
    return Interpretation(
        intent, 1.0, Span(*span), True, tuple(places), tuple(labels), (), least
    )


@st.composite
def buildings(draw: st.DrawFn) -> Building:
    stays = draw(
        st.lists(
            st.builds(
                lambda place, label, since, length: Stay(
                    *place, label, BEGIN + since, BEGIN + since + length
                ),
                st.sampled_from([("hall", ""), ("hall", "desk"), ("yard", "")]),
                st.sampled_from(LABELS),
                st.integers(0, LAST - 1),
                st.integers(1, 40),
            ),
            max_size=8,
        )
    )
    return Building(SITE, tuple(stays))


SPANS = st.tuples(st.integers(0, LAST), st.integers(1, 50)).map(
    lambda pair: (float(BEGIN + pair[0]), float(BEGIN + pair[0] + pair[1]))
)
PLACES = st.sampled_from(
    [(), (SITE.places[0],), (SITE.places[1],), SITE.places[:1] + SITE.places[2:]]
)
CHOSEN = st.sampled_from([(), ("person",), ("dog",), ("person", "dog")])


def truth(
    building: Building,
    span: tuple[float, float],
    places: Sequence[Place],
    labels: Sequence[str],
) -> list[int]:
    """How many there are in each second; cameras add up."""
    some = places or [place for place in SITE.places if place.zone is None]
    return [
        sum(building.number(place.camera, place.zone, labels, second) for place in some)
        for second in range(round(span[0]), round(span[1]))
    ]


def seconds_of(found: Finding) -> set[int]:
    return {s for since, until in found.present for s in range(round(since), round(until))}


@settings(max_examples=80, deadline=None)
@given(buildings(), SPANS, PLACES, CHOSEN, st.integers(1, 3))
def test_presence_and_numbers_are_those_of_each_second(
    building: Building,
    span: tuple[float, float],
    places: Sequence[Place],
    labels: Sequence[str],
    least: int,
) -> None:
    numbers = truth(building, span, places, labels)
    there = {n + round(span[0]) for n, number in enumerate(numbers) if number >= least}
    found = answered(asked(Intent.PRESENT, span, places, labels, least), building.events, SITE)
    assert seconds_of(found) == there
    assert found.verdict == ("yes" if there else "no")
    assert found.peak == max(numbers)
    assert found.seconds == len(there)
    just_before = (span[0] - 1, span[0])
    assert found.was_before == (truth(building, just_before, places, labels)[0] >= least)
    vacant = answered(asked(Intent.VACANT, span, places, labels, least), building.events, SITE)
    assert vacant.verdict == ("no" if there else "yes")
    assert value(Intent.HOW_MANY, found) == max(numbers)


@settings(max_examples=60, deadline=None)
@given(buildings(), SPANS, st.sampled_from(LABELS))
def test_arrivals_and_departures_are_the_steps_of_the_truth(
    building: Building, span: tuple[float, float], label: str
) -> None:
    yard = SITE.places[2]
    before = [
        building.number("yard", None, (label,), second - 1)
        for second in range(round(span[0]), round(span[1]))
    ]
    numbers = truth(building, span, [yard], [label])
    steps = [new - old for old, new in zip(before, numbers, strict=True)]
    # A change at the very beginning belongs to the span; the number before it is not asked.
    found = answered(asked(Intent.ARRIVALS, span, [yard], [label]), building.events, SITE)
    assert found.arrivals == sum(step for step in steps if step > 0)
    assert found.departures == -sum(step for step in steps if step < 0)
    first = answered(asked(Intent.FIRST_ARRIVAL, span, [yard], [label]), building.events, SITE)
    came = [n + span[0] for n, step in enumerate(steps) if step > 0]
    assert first.at == (came[0] if came else None)
    last = answered(asked(Intent.LAST_SEEN, span, [yard], [label]), building.events, SITE)
    there = [n for n, number in enumerate(numbers) if number]
    if there and numbers[-1] == 0:
        assert last.at == span[0] + there[-1] + 1
    else:
        assert last.at is None


@settings(max_examples=60, deadline=None)
@given(
    buildings(),
    SPANS,
    st.lists(st.tuples(st.integers(0, 120), st.integers(1, 40)), min_size=1, max_size=3),
)
def test_where_there_is_no_record_nothing_is_said(
    building: Building, span: tuple[float, float], parts: list[tuple[int, int]]
) -> None:
    stretches, at = list[tuple[float, float]](), float(BEGIN)
    for gap, length in parts:
        stretches.append((at + gap + 1, at + gap + 1 + length))
        at = stretches[-1][1]
    watched = MadeWatched({"yard": stretches})
    yard = SITE.places[2]
    lit = {
        second
        for second in range(round(span[0]), round(span[1]))
        if any(since <= second < until for since, until in stretches)
    }
    # What happens in the dark is told by no event; what tasks hold is told again afterwards.
    told = MadeEvents(
        [e for e in building.events.events if any(a <= e.wall < b for a, b in stretches)],
        building.events.answers_at(0.0),
    )
    told.answers_at = building.events.answers_at  # type: ignore[method-assign]
    found = answered(
        asked(Intent.PRESENT, span, [yard], ["person"]), told, SITE, watched=watched
    )
    numbers = truth(building, span, [yard], ["person"])
    there = {n + round(span[0]) for n, number in enumerate(numbers) if number} & lit
    assert seconds_of(found) == there
    whole = round(span[1] - span[0])
    assert found.covered == pytest.approx(len(lit) / whole)
    assert sum(gap.until - gap.since for gap in found.gaps) == whole - len(lit)
    expected = "yes" if there else "no" if lit else "unknown"
    assert found.verdict == expected


def test_a_span_without_record_is_unknown_and_not_empty() -> None:
    building = Building(SITE, ())
    dark = MadeWatched({"hall": (), "yard": ()})
    span = (float(BEGIN), float(BEGIN + 60))
    lit = MadeWatched({"hall": [span], "yard": [span]})
    for intent in (Intent.PRESENT, Intent.VACANT, Intent.HOW_MANY, Intent.WHEN):
        question = asked(intent, span)
        assert answered(question, building.events, SITE, watched=dark).verdict == "unknown"
        assert answered(question, building.events, SITE, watched=lit).verdict != "unknown"


def test_what_was_deleted_is_told_apart_from_what_was_dark() -> None:
    building = Building(SITE, ())
    watched = MadeWatched({}, kept_since=BEGIN + 30.0)
    span = (float(BEGIN), float(BEGIN + 20))
    found = answered(asked(Intent.PRESENT, span), building.events, SITE, watched=watched)
    assert found.gaps
    assert all(gap.is_deleted for gap in found.gaps)
    later = (float(BEGIN + 40), float(BEGIN + 60))
    found = answered(asked(Intent.PRESENT, later), building.events, SITE, watched=watched)
    assert not any(gap.is_deleted for gap in found.gaps)


def test_evidence_is_what_makes_the_answer_so() -> None:
    stay = Stay("yard", "", "person", BEGIN + 10.0, BEGIN + 50.0)
    other = Stay("yard", "", "dog", BEGIN + 20.0, BEGIN + 25.0)
    building = Building(SITE, (stay, other))
    # The span begins while somebody is there: the event since which that is so is evidence.
    span = (BEGIN + 20.0, BEGIN + 40.0)
    found = answered(asked(Intent.PRESENT, span, (), ["person"]), building.events, SITE)
    assert [event.wall for event in found.evidence] == [stay.since]
    assert all(event.label == "person" for event in found.evidence)


def _event(**changes: Any) -> Event:
    made = Event(1, BEGIN + 5.0, "yard", "seen", "enter", [], [16], label="dog")
    return replace(made, **changes)


def test_answers_that_list_labels_count_by_name() -> None:
    names = ("x",) * 16 + ("dog", "cat")
    listing = replace(
        SITE,
        tasks={"seen": replace(SITE.tasks["dogs"], measure="labels", label=None, names=names)},
    )
    events = MadeEvents(
        [_event(), _event(id=2, wall=BEGIN + 8.0, before=[16], after=[16, 17], label="cat")],
        {"yard": {"seen": []}},
    )
    span = (float(BEGIN), BEGIN + 20.0)
    dogs = answered(asked(Intent.PRESENT, span, (), ["dog"]), events, listing)
    assert dogs.present == ((BEGIN + 5.0, BEGIN + 20.0),)
    assert dogs.peak == 1
    people = answered(asked(Intent.PRESENT, span, (), ["person"]), events, listing)
    assert people.verdict == "no"
    assert answered(asked(Intent.HOW_MANY, span), events, listing).peak == 2


def test_what_is_unusual_is_nobody() -> None:
    building = Building(SITE, (), odd=(("yard", BEGIN + 5.0),))
    span = (float(BEGIN), BEGIN + 20.0)
    assert answered(asked(Intent.PRESENT, span), building.events, SITE).verdict == "no"
    assert answered(asked(Intent.UNUSUAL, span), building.events, SITE).verdict == "yes"


def test_long_histories_are_cut_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triparty.device.ask.answer.PAGE", 2)
    stays = [Stay("yard", "", "dog", BEGIN + 3.0 * n, BEGIN + 3.0 * n + 1) for n in range(5)]
    building = Building(SITE, tuple(stays))
    span = (float(BEGIN), BEGIN + 90.0)
    whole = answered(asked(Intent.ARRIVALS, span), building.events, SITE)
    assert (whole.arrivals, whole.is_cut) == (5, False)
    monkeypatch.setattr("triparty.device.ask.answer.MOST_EVENTS", 4)
    assert answered(asked(Intent.ARRIVALS, span), building.events, SITE).is_cut
