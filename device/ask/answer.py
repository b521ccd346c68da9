"""The answer to an understood question, from the events."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from triparty.device.ask.coverage import Stretch, Watched, gaps
from triparty.device.ask.finding import Finding, Gap, Verdict
from triparty.device.ask.history import (
    Steps,
    TrackName,
    by_object,
    overlap_s,
    total,
    track,
)
from triparty.device.ask.intent import Intent
from triparty.device.ask.interpretation import Interpretation
from triparty.device.ask.places import Place, Site
from triparty.device.ask.times import Span
from triparty.device.events.event import Event, Events, Wanted

PAGE = 500
MOST_EVENTS = 20_000
"""Of one question; a longer history is cut, and the answer says so."""


def answered(
    asked: Interpretation,
    events: Events,
    site: Site,
    *,
    watched: Watched | None = None,
) -> Finding:
    """What the events say about a question.

    Args:
        asked: what is meant.
        events: of the site.
        site: its places and tasks.
        watched: knows when cameras were looked at; None: as far as events tell.
    """
    span = asked.span
    cameras = tuple(dict.fromkeys(place.camera for place in asked.places)) or site.cameras()
    found, is_cut = _read(events, cameras, span)
    found = [_named(event, site) for event in found]
    held = events.answers_at(span.since, cameras=cameras) if cameras else {}
    stretches = {camera: _recorded(found, held, watched, camera, span) for camera in cameras}
    without = _without_record(stretches, watched, span)
    covered = 1.0 - _share(without, cameras, span)
    if asked.intent is Intent.UNUSUAL:
        return _unusual(found, asked.places, without, covered, is_cut)
    odd = _odd_tasks(found, site)
    begun = _begun(held, stretches, found, site, events, span)
    tracks = _tracks(found, begun, stretches, asked, odd)
    evidence = _evidence(found, tracks, asked, events)
    finding = _finding(asked, tracks, evidence, covered)
    return replace(finding, gaps=without, covered=covered, is_cut=is_cut)


def _read(events: Events, cameras: Sequence[str], span: Span) -> tuple[list[Event], bool]:
    """All events of cameras in a span, the first first; whether there were too many."""
    found, before = list[Event](), None
    while len(found) < MOST_EVENTS:
        wanted = Wanted(span.since, span.until, cameras=cameras, before_id=before)
        page = events.list(wanted, limit=PAGE)
        found += page
        if len(page) < PAGE:
            return sorted(found, key=lambda one: (one.wall, one.id)), False
        before = page[-1].id
    return sorted(found, key=lambda one: (one.wall, one.id)), True


def _named(event: Event, site: Site) -> Event:
    """An event whose answers list labels by their names."""
    before, after = (_names(one, event.task, site) for one in (event.before, event.after))
    return replace(event, before=before, after=after)


def _names(answer: Any, task: str, site: Site) -> Any:
    names = site.tasks[task].names if task in site.tasks else ()
    if not isinstance(answer, list | tuple) or not names:
        return answer
    return [
        names[one] if isinstance(one, int) and 0 <= one < len(names) else one for one in answer
    ]


def _odd_tasks(found: Sequence[Event], site: Site) -> set[str]:
    """Tasks that tell of what is unusual, and so of nothing that is there."""
    odd = {name for name, task in site.tasks.items() if task.measure in ("anomaly", "value")}
    return odd | {event.task for event in found if event.kind == "anomaly"}


def _is_at(places: Sequence[Place], camera: str, zone: str) -> bool:
    return not places or any(
        place.camera == camera and place.zone in (None, zone) for place in places
    )


def _is_about(labels: Collection[str], name: TrackName, answers: Sequence[Any]) -> bool:
    """Whether a track tells of an object: by its label, or by labels in its answers."""
    if not labels or name.label in labels:
        return True
    return not name.label and any(isinstance(answer, list | tuple) for answer in answers)


def _tracks(
    found: Sequence[Event],
    begun: Mapping[TrackName, Mapping[float, Any]],
    stretches: Mapping[str, Sequence[Stretch]],
    asked: Interpretation,
    odd: Collection[str],
) -> dict[TrackName, Steps]:
    """The tracks that a question is about."""
    changes = dict[TrackName, list[Event]]()
    for event in found:
        changes.setdefault(TrackName.of(event), []).append(event)
    tracks = dict[TrackName, Steps]()
    for name in sorted(changes.keys() | begun.keys()):
        own, held = changes.get(name, []), begun.get(name, {})
        answers = [*held.values(), *(event.after for event in own)]
        if name.task in odd or not _is_at(asked.places, name.camera, name.zone):
            continue
        if not _is_about(asked.labels, name, answers):
            continue
        steps = track(own, held, asked.labels, stretches[name.camera], asked.span)
        if steps is not None:
            tracks[name] = steps
    return tracks


def _begun(
    held: Mapping[str, Mapping[str, Any]],
    stretches: Mapping[str, Sequence[Stretch]],
    found: Sequence[Event],
    site: Site,
    events: Events,
    span: Span,
) -> dict[TrackName, dict[float, Any]]:
    """What each track said when each stretch of its camera's record began."""
    labels = {(e.camera, e.zone or "", e.task): TrackName.of(e).label for e in found}
    begun = dict[TrackName, dict[float, Any]]()
    for camera, own in stretches.items():
        for since, _ in own:
            at = held if since <= span.since else events.answers_at(since, cameras=(camera,))
            for key, answer in at.get(camera, {}).items():
                task, _, zone = key.partition("@")
                place = (camera, zone, task)
                if place not in labels:
                    labels[place] = _label(task, camera, site, events, span)
                label = "" if isinstance(answer, list | tuple) else labels[place]
                name = TrackName(camera, zone, task, label)
                begun.setdefault(name, {})[since] = _names(answer, task, site)
    return begun


def _label(task: str, camera: str, site: Site, events: Events, span: Span) -> str:
    if task in site.tasks:
        return site.tasks[task].label or ""
    wanted = Wanted(until=span.since, cameras=(camera,), tasks=(task,))
    return next((event.label or "" for event in events.list(wanted, limit=1)), "")


def _without_record(
    stretches: Mapping[str, Sequence[Stretch]], watched: Watched | None, span: Span
) -> tuple[Gap, ...]:
    """What there is no record of."""
    kept = watched.kept_since if watched is not None else None
    return tuple(
        Gap(camera, since, until, kept is not None and since < kept)
        for camera, own in stretches.items()
        for since, until in gaps(own, span)
        if since > 0  # "ever" begins with the record
    )


def _recorded(
    found: Sequence[Event],
    held: Mapping[str, Any],
    watched: Watched | None,
    camera: str,
    span: Span,
) -> Sequence[Stretch]:
    if watched is not None:
        found_by = watched.watched(camera, span.since, span.until)
        clipped = [(max(a, span.since), min(b, span.until)) for a, b in found_by]
        return [(since, until) for since, until in clipped if since < until]
    if camera in held:
        return [(span.since, span.until)]
    first = min((event.wall for event in found if event.camera == camera), default=None)
    return [] if first is None else [(first, span.until)]


def _share(without: Sequence[Gap], cameras: Sequence[str], span: Span) -> float:
    whole = (span.until - span.since) * len(cameras)
    if span.since <= 0 or whole <= 0:
        return 0.0
    return sum(gap.until - gap.since for gap in without) / whole


def _unusual(
    found: Sequence[Event],
    places: Sequence[Place],
    without: tuple[Gap, ...],
    covered: float,
    is_cut: bool,
) -> Finding:
    odd = [
        event
        for event in found
        if event.kind == "anomaly" and _is_at(places, event.camera, event.zone or "")
    ]
    return Finding(
        _whether(bool(odd), covered),
        arrivals=len(odd),
        at=odd[0].wall if odd else None,
        evidence=tuple(odd),
        gaps=without,
        covered=covered,
        is_cut=is_cut,
    )


def _whether(is_so: bool, covered: float) -> Verdict:
    """Yes or no, or unknown: what was seen was seen, but no record is no "no"."""
    if is_so:
        return "yes"
    return "no" if covered > 0 else "unknown"


def _finding(
    asked: Interpretation,
    tracks: Mapping[TrackName, Steps],
    evidence: tuple[Event, ...],
    covered: float,
) -> Finding:
    objects = by_object(tracks, asked.labels)
    whole = total(list(objects.values()))
    present = whole.intervals(asked.span, asked.least)
    moves = sorted(move for steps in objects.values() for move in steps.moves())
    came = [(at, by) for at, by in moves if by > 0]
    went = [(at, -by) for at, by in moves if by < 0]
    goes_on = bool(present) and present[-1][1] >= asked.span.until
    at = _time(asked.intent, present, [t for t, _ in came], [t for t, _ in went], goes_on)
    is_found = {
        Intent.CAME: sum(by for _, by in came) >= asked.least,
        Intent.WENT: sum(by for _, by in went) >= asked.least,
        Intent.EVENTS: bool(evidence),
    }.get(asked.intent, bool(present))
    return Finding(
        verdict=_verdict(asked.intent, is_found, covered),
        present=present,
        peak=whole.peak(asked.span),
        arrivals=sum(by for _, by in came),
        departures=sum(by for _, by in went),
        at=at,
        was_before=whole.first >= asked.least,
        goes_on=goes_on,
        seconds=overlap_s(present),
        where=_where(tracks, asked.span),
        evidence=_telling(asked.intent, evidence, at),
    )


def _verdict(intent: Intent, is_found: bool, covered: float) -> Verdict:
    if intent in (Intent.PRESENT, Intent.CAME, Intent.WENT):
        return _whether(is_found, covered)
    if intent is Intent.VACANT:
        if is_found:
            return "no"
        return "yes" if covered > 0 else "unknown"
    if is_found:
        return "found"
    return "none" if covered > 0 else "unknown"


def _time(
    intent: Intent,
    present: Sequence[Stretch],
    came: Sequence[float],
    went: Sequence[float],
    goes_on: bool,
) -> float | None:
    """The one time that a question asks for."""
    match intent:
        case Intent.FIRST_ARRIVAL:
            return came[0] if came else None
        case Intent.LAST_ARRIVAL:
            return came[-1] if came else None
        case Intent.FIRST_DEPARTURE:
            return went[0] if went else None
        case Intent.LAST_SEEN:
            return None if goes_on or not present else present[-1][1]
    return None


def _where(tracks: Mapping[TrackName, Steps], span: Span) -> tuple[str, ...]:
    """The cameras, and zones of them, at which there was one; the first first."""
    begun = dict[str, float]()
    for name, steps in tracks.items():
        intervals = steps.intervals(span)
        if intervals:
            place = f"{name.zone} ({name.camera})" if name.zone else name.camera
            begun[place] = min(intervals[0][0], begun.get(place, span.until))
    return tuple(sorted(begun, key=lambda place: (begun[place], place)))


def _evidence(
    found: Sequence[Event],
    tracks: Mapping[TrackName, Steps],
    asked: Interpretation,
    events: Events,
) -> tuple[Event, ...]:
    """The events of the tracks, and those since which something is there from the beginning."""
    inside = [event for event in found if TrackName.of(event) in tracks]
    if asked.intent is Intent.EVENTS:
        inside = [
            event
            for event in found
            if _is_at(asked.places, event.camera, event.zone or "")
            and (not asked.labels or event.label in asked.labels)
        ]
        return tuple(inside)
    before = list[Event]()
    for name, steps in tracks.items():
        if steps.first > 0:
            wanted = Wanted(
                until=asked.span.since,
                cameras=(name.camera,),
                tasks=(name.task,),
                zones=(name.zone,) if name.zone else (),
                labels=(name.label,) if name.label else (),
            )
            newest = events.list(wanted, limit=8)
            before += [one for one in newest if TrackName.of(one) == name][:1]
    return tuple(sorted([*before, *inside], key=lambda one: (one.wall, one.id)))


def _telling(
    intent: Intent, evidence: tuple[Event, ...], at: float | None
) -> tuple[Event, ...]:
    """Of a question for one time the events of that time."""
    if at is None or intent is Intent.WHEN:
        return evidence
    return tuple(event for event in evidence if event.wall == at)
