"""Audits in a replay: what they would have said, beside what was true.

In a replay everything is known, so audits can be checked: groups of pictures are picked by a
coin, as live (`recall.AuditSchedule`), but of one probability; estimates are made from what
they show, and the same is counted over all groups. Audits change no answer, so they can be
drawn when the replay is over.

A group reaches here from the frame of an entry to that of the next, in presentation order;
groups that are cut by the beginning or end of what is scored are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from triparty.common.errors import SettingsError
from triparty.device.gate.fleet import Floats, Integers, Streams, Tables
from triparty.device.gate.recall import AuditedGroup, Estimate, accuracy, recall
from triparty.device.gate.scoring import Looks, held_answers, scored_frames, truth_of
from triparty.device.gate.states import UNKNOWN


@dataclass(frozen=True)
class AuditCheck:
    """What audits said of one task.

    Attributes:
        task: name.
        groups: of all streams.
        audited: of these, by the coin.
        audited_ms: CPU ms of decode that they would have taken.
        accuracy: share of frames at which the held answer was right, by the audits.
        true_accuracy: the same over all groups.
        recall: share of changes that were caught, by the audits.
        true_recall: the same over all groups; NaN where nothing changed.
    """

    task: str
    groups: int
    audited: int
    audited_ms: float
    accuracy: Estimate
    true_accuracy: float
    recall: Estimate
    true_recall: float


@dataclass(frozen=True, eq=False)
class _Groups:
    """All whole groups, g of them, stream by stream in order.

    Attributes:
        stream: (g,)
        start: (g,) first frame, counted on through repetitions.
        stop: (g,) the frame after the last.
        cost_ms: (g,) CPU ms of decoding all of it.
    """

    stream: Integers
    start: Integers
    stop: Integers
    cost_ms: Floats


def check_audits(
    looks: Looks, *, share: float, seed: int, warm_up_s: float, seconds: float
) -> tuple[AuditCheck, ...]:
    """Audits a replay that has ended, for each of its tasks.

    Args:
        looks: of the whole run.
        share: of groups that are audited.
        seed: of the coin.
        warm_up_s: seconds at the beginning that do not count.
        seconds: length of the run.

    Raises:
        SettingsError: a share that is none.
    """
    if not 0.0 < share <= 1.0:
        raise SettingsError(f"audit share {share}: expected above 0 to 1")
    tables, streams = looks.tables, looks.streams
    groups = _groups(tables, streams, scored_frames(tables, streams, warm_up_s, seconds))
    picked = np.flatnonzero(np.random.default_rng(seed).random(len(groups.stream)) < share)
    found = []
    for task, name in enumerate(tables.tasks):
        counts = np.stack([*_right(looks, groups, task), *_caught(looks, groups, task)], axis=1)
        audits = [AuditedGroup(share, *row) for row in counts[picked].tolist()]
        pictures, right, changes, caught = counts.sum(axis=0).tolist()
        found.append(
            AuditCheck(
                task=name,
                groups=len(groups.stream),
                audited=len(picked),
                audited_ms=float(groups.cost_ms[picked].sum()),
                accuracy=accuracy(audits),
                true_accuracy=right / pictures if pictures else float("nan"),
                recall=recall(audits),
                true_recall=caught / changes if changes else float("nan"),
            )
        )
    return tuple(found)


def _groups(tables: Tables, streams: Streams, spans: tuple[Integers, Integers]) -> _Groups:
    first, last = spans
    columns: list[tuple[Integers, Integers, Integers, Floats]] = []
    for trace in range(len(tables.period)):
        mine = np.flatnonzero(streams.trace == trace)
        rows = np.arange(tables.base[trace], tables.base[trace + 1])
        entries = rows[tables.entry[rows] & tables.target[rows]]
        ranks = tables.rank[entries]
        cost = np.add.reduceat(tables.cost[rows], entries - rows[0])
        frames = int(tables.frames[trace])
        for stream in mine.tolist():
            laps = np.arange(first[stream] // frames, last[stream] // frames + 1)
            starts = (laps[:, None] * frames + ranks).reshape(-1)
            costs = np.tile(cost, len(laps))
            order = np.argsort(starts, kind="stable")
            starts, costs = starts[order], costs[order]
            inside = (starts[:-1] >= first[stream]) & (starts[1:] <= last[stream])
            kept = np.flatnonzero(inside)
            who = np.full(len(kept), stream, dtype=np.int64)
            columns.append((who, starts[kept], starts[kept + 1], costs[kept]))
    whose, start, stop, cost_ms = (np.concatenate(one) for one in zip(*columns, strict=True))
    order = np.lexsort((start, whose))
    return _Groups(whose[order], start[order], stop[order], cost_ms[order])


def _right(looks: Looks, groups: _Groups, task: int) -> tuple[Integers, Integers]:
    """(g,) frames of each group whose truth is known, and at how many it was held."""
    tables, streams = looks.tables, looks.streams
    held = held_answers(tables, looks.columns(), task)
    pictures = np.zeros(len(groups.stream), dtype=np.int64)
    right = np.zeros(len(groups.stream), dtype=np.int64)
    reach = 1 + int(max(groups.stop.max(initial=0), held.start.max(initial=0)))
    keys = held.stream * reach + held.start
    for trace in range(len(tables.period)):
        truth = truth_of(tables, trace, task, 0.0)
        here = np.flatnonzero(streams.trace[groups.stream] == trace)
        stream, start, stop = groups.stream[here], groups.start[here], groups.stop[here]
        pictures[here] = truth.known(start, stop)
        # The answers held from before the group's beginning to its end, one after the other.
        begin = np.searchsorted(keys, stream * reach + start, side="right") - 1
        begin = np.maximum(begin, np.searchsorted(held.stream, stream))
        end = np.searchsorted(keys, stream * reach + stop)
        counts = np.maximum(end - begin, 0)
        group = np.repeat(np.arange(len(here)), counts)
        answer = (
            begin[group]
            + np.arange(counts.sum())
            - np.repeat(np.cumsum(counts) - counts, counts)
        )
        is_last = answer + 1 == end[group]
        until = np.where(
            is_last, stop[group], held.start[np.minimum(answer + 1, len(keys) - 1)]
        )
        since = np.clip(held.start[answer], start[group], stop[group])
        found = truth.right(held.state[answer], since, np.clip(until, since, stop[group]))
        right[here] = np.bincount(group, weights=found, minlength=len(here)).astype(np.int64)
    return pictures, right


def _caught(looks: Looks, groups: _Groups, task: int) -> tuple[Integers, Integers]:
    """(g,) changes within each group, and how many of them were looked at while they held."""
    tables = looks.tables
    stream, row, shown, _ = looks.columns()
    known = tables.state[row, task] != UNKNOWN
    reach = 1 + int(max(groups.stop.max(initial=0), shown.max(initial=0)))
    seen = np.sort(stream[known] * reach + shown[known])
    changes = np.zeros(len(groups.stream), dtype=np.int64)
    caught = np.zeros(len(groups.stream), dtype=np.int64)
    for trace in range(len(tables.period)):
        ranks = _changes(tables, trace, task)
        frames = int(tables.frames[trace])
        here = np.flatnonzero(looks.streams.trace[groups.stream] == trace)
        first = _count(ranks, frames, groups.start[here] + 1)
        counts = _count(ranks, frames, groups.stop[here]) - first
        group = np.repeat(here, counts)
        number = np.repeat(first, counts) + np.arange(counts.sum())
        number -= np.repeat(np.cumsum(counts) - counts, counts)
        begin, following = _nth(ranks, frames, number), _nth(ranks, frames, number + 1)
        end = np.minimum(following, groups.stop[group])
        who = groups.stream[group] * reach
        was_seen = np.searchsorted(seen, who + end) > np.searchsorted(seen, who + begin)
        changes[here] = counts
        caught += np.bincount(group[was_seen], minlength=len(caught))
    return changes, caught


def _changes(tables: Tables, trace: int, task: int) -> Integers:
    """Places in presentation order of frames that do not answer as the known one before."""
    rows = np.arange(tables.base[trace], tables.base[trace + 1])
    rows = rows[tables.target[rows]]
    rows = rows[np.argsort(tables.rank[rows])]
    state = tables.state[rows, task]
    places = np.flatnonzero(state != UNKNOWN)
    differs = state[places] != np.roll(state[places], 1)
    found: Integers = places[differs]
    return found


def _count(ranks: Integers, frames: int, before: Integers) -> Integers:
    """(n,) how many changes there are before each frame, counted on through repetitions."""
    laps, place = np.divmod(before, frames)
    found: Integers = laps * len(ranks) + np.searchsorted(ranks, place)
    return found


def _nth(ranks: Integers, frames: int, number: Integers) -> Integers:
    """(n,) the frame of each change by its number."""
    if not len(ranks):
        return number
    laps, place = np.divmod(number, len(ranks))
    found: Integers = laps * frames + ranks[place]
    return found
