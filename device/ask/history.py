"""What the recorded changes say of a stretch of time: how many there were at each moment; pure.

A track is what one task said of one object before one camera, in one zone: a number that steps.
Several tracks of one object before one camera see the same things, so the largest counts; of
several cameras, or of several objects, the numbers add up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triparty.device.ask.times import Span
from triparty.device.events.event import Event


@dataclass(frozen=True, order=True)
class TrackName:
    """What a track is about.

    Attributes:
        camera: that saw it.
        zone: "" for the whole picture.
        task: that said it.
        label: the object; "" if the task is about no single one.
    """

    camera: str
    zone: str
    task: str
    label: str

    @classmethod
    def of(cls, event: Event) -> TrackName:
        """The track that an event belongs to; an answer that lists labels is of all of them."""
        label = "" if isinstance(event.after, list | tuple) else event.label or ""
        return cls(event.camera, event.zone or "", event.task, label)


@dataclass(frozen=True)
class Steps:
    """A number over time.

    Attributes:
        first: from the beginning on.
        changes: (second since 1970, number from then on), in order, each another number.
        cuts: times at which it changes because the record ends or begins there, and not
            because anything came or left.
    """

    first: int = 0
    changes: tuple[tuple[float, int], ...] = ()
    cuts: frozenset[float] = frozenset()

    def at(self, wall: float) -> int:
        """The number at a time."""
        number = self.first
        for since, level in self.changes:
            if since > wall:
                break
            number = level
        return number

    def moves(self) -> list[tuple[float, int]]:
        """How many came (or left: below 0), and when."""
        before, found = self.first, list[tuple[float, int]]()
        for at, level in self.changes:
            if at not in self.cuts:
                found.append((at, level - before))
            before = level
        return found

    def peak(self, span: Span) -> int:
        """The largest number that held for a while."""
        starts = [(span.since, self.first), *self.changes]
        ends = [*(at for at, _ in self.changes), span.until]
        return max(n for (at, n), end in zip(starts, ends, strict=True) if end > at or n == 0)

    def intervals(self, span: Span, least: int = 1) -> tuple[tuple[float, float], ...]:
        """When there were at least so many, in order: (since, until)."""
        found, begin = list[tuple[float, float]](), span.since if self.first >= least else None
        for at, level in self.changes:
            if level >= least and begin is None:
                begin = at
            elif level < least and begin is not None:
                found.append((begin, at))
                begin = None
        if begin is not None:
            found.append((begin, span.until))
        return tuple((since, until) for since, until in found if until > since)


def level(answer: Any, labels: Collection[str]) -> int | None:
    """How many an answer of a task says there are; None if it says nothing of that.

    Args:
        answer: JSON: whether, how many, which labels, or boxes with a label first.
        labels: objects that count in lists; empty: all.
    """
    if isinstance(answer, bool | int):
        return max(0, int(answer))
    if isinstance(answer, list | tuple):
        names = [str(one[0]) if isinstance(one, list | tuple) else str(one) for one in answer]
        return sum(not labels or name in labels for name in names)
    return None


def track(
    events: Sequence[Event],
    begun: Mapping[float, Any],
    labels: Collection[str],
    stretches: Sequence[tuple[float, float]],
    span: Span,
) -> Steps | None:
    """The number of a track; None if its task says nothing of numbers.

    Args:
        events: of the track, in order.
        begun: what the task last said by the beginning of a stretch, if that is known. An event
            knows better what was before it, because it is told only when an answer has held.
        labels: objects that are asked for; empty: all.
        stretches: of which there is a record, in order: (since, until). Outside of them nothing
            is known to be there.
        span: that is asked about; stretches are within it.
    """
    said = [*begun.values(), *(event.after for event in events)]
    if not any(level(answer, labels) is not None for answer in said):
        return None
    first = 0
    moves, cuts = list[tuple[float, int, bool]](), set[float]()
    for since, until in stretches:
        own = [event for event in events if since <= event.wall < until]
        known = level(own[0].before if own else begun.get(since), labels) or 0
        if since <= span.since:
            first = known
        else:
            moves.append((since, known, True))
        moves += [(event.wall, level(event.after, labels) or 0, False) for event in own]
        if until < span.until:
            moves.append((until, 0, True))
    number, changes = first, list[tuple[float, int]]()
    for at, new, is_cut in moves:
        if new != number:
            changes.append((at, new))
            cuts |= {at} if is_cut else set()
            number = new
    return Steps(first, tuple(changes), frozenset(cuts))


def largest(some: Sequence[Steps]) -> Steps:
    """The largest of several numbers at each time."""
    return _combined(some, max)


def total(some: Sequence[Steps]) -> Steps:
    """The sum of several numbers at each time."""
    return _combined(some, sum)


def _combined(some: Sequence[Steps], how: Any) -> Steps:
    if not some:
        return Steps()
    number = first = int(how([one.first for one in some]))
    now = [one.first for one in some]
    steps = [(at, n, new) for n, one in enumerate(some) for at, new in one.changes]
    moves = sorted(steps, key=lambda one: one[0])  # of one time, each in its own order
    changes = list[tuple[float, int]]()
    for place, (at, n, new) in enumerate(moves):
        now[n] = new
        is_last = place + 1 == len(moves) or moves[place + 1][0] > at
        if is_last and (level := int(how(now))) != number:
            changes.append((at, level))
            number = level
    cuts = frozenset(at for one in some for at in one.cuts)
    return Steps(first, tuple(changes), cuts)


def by_object(
    tracks: Mapping[TrackName, Steps], labels: Sequence[str] = ()
) -> dict[tuple[str, str], Steps]:
    """One number for each object before each camera.

    Args:
        tracks: that count.
        labels: objects that are asked for. What tells of no single object counts as the one
            that is asked for, or for what it sees more than the others do.
    """
    groups = dict[tuple[str, str], list[Steps]]()
    only = labels[0] if len(labels) == 1 else ""
    for name, steps in tracks.items():
        groups.setdefault((name.camera, name.label or only), []).append(steps)
    found = {key: largest(group) for key, group in sorted(groups.items())}
    for camera in {camera for camera, label in found if not label}:
        named = [steps for (of, label), steps in found.items() if of == camera and label]
        found[camera, ""] = _combined([found[camera, ""], *named], _excess)
    return found


def _excess(numbers: Sequence[int]) -> int:
    return max(0, numbers[0] - sum(numbers[1:]))


def overlap_s(intervals: Iterable[tuple[float, float]]) -> float:
    """How long intervals of one number last together, in seconds."""
    return sum(until - since for since, until in intervals)
