"""What a replay came to: how often the held answers were right, at what cost, how stale.

State accuracy: at every frame a stream shows, gated or not, the answer that is held there, i.e.
that of the newest frame in presentation order that was looked at by then, is compared with the
frame's own (`truth.Truth` says when it is right). Frames count alike within a stream, streams
count alike, tasks count alike. Nothing held yet is wrong.

A look takes effect at its own frame, or, if that was shown before the decode (a dependency), at
the next one shown: nobody learns of a change before it was decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from triparty.device.gate.fleet import Floats, Integers, Streams, Tables
from triparty.device.gate.states import UNKNOWN
from triparty.device.gate.truth import Truth

if TYPE_CHECKING:
    from triparty.device.gate.replay_audit import AuditCheck


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Of one task under one tolerance.

    Attributes:
        task: name.
        tolerance_s: seconds of delay that are forgiven.
        value: mean over streams of the share of frames whose held answer was right.
        per_stream: (m,) the shares, NaN where nothing was scored.
    """

    task: str
    tolerance_s: float
    value: float
    per_stream: Floats


@dataclass(frozen=True, eq=False)
class Score:
    """What a policy came to.

    Attributes:
        streams: how many.
        seconds: replayed.
        tasks: names.
        accuracy: one for each task and tolerance.
        decode_ms: CPU ms that decoding took.
        full_decode_ms: CPU ms that decoding everything would have taken.
        max_staleness_s: the longest time that a stream was not looked at.
        staleness: (m,) the same for each stream.
        rounds: how many.
        rounds_over_budget: in how many more was spent than one round's budget; what earlier
            rounds left over may be spent.
        worst_second: most that was spent in a second, as a share of a second's budget.
        packets: that arrived.
        decoded: packets that were decoded.
        targets: frames that were chosen.
        audits: what audits said of each task, if there were any.
    """

    streams: int
    seconds: float
    tasks: tuple[str, ...]
    accuracy: tuple[Accuracy, ...]
    decode_ms: float
    full_decode_ms: float
    max_staleness_s: float
    staleness: Floats
    rounds: int
    rounds_over_budget: int
    worst_second: float
    packets: int
    decoded: int
    targets: int
    audits: tuple[AuditCheck, ...] = ()

    def mean_accuracy(self, tolerance_s: float = 0.0) -> float:
        """Over the tasks, under one tolerance; NaN without any task."""
        found = [one.value for one in self.accuracy if one.tolerance_s == tolerance_s]
        return float(np.mean(found)) if found else float("nan")

    @property
    def decode_share(self) -> float:
        """What decoding took, as a share of decoding everything."""
        return self.decode_ms / self.full_decode_ms if self.full_decode_ms else 0.0


class Looks:
    """Every frame that was looked at, in the order of the looks."""

    def __init__(self, tables: Tables, streams: Streams) -> None:
        """Nothing yet."""
        self.tables = tables
        self.streams = streams
        self._parts: list[tuple[Integers, Integers, Integers, Integers]] = []

    def add(
        self, stream: Integers, row: Integers, shown: Integers, effective: Integers
    ) -> None:
        """Adds looks.

        Args:
            stream: (n,)
            row: (n,) of the tables.
            shown: (n,) place of the frame in the stream's presentation order.
            effective: (n,) place from which on it is known.
        """
        self._parts.append((stream, row, shown, effective))

    def columns(self) -> tuple[Integers, Integers, Integers, Integers]:
        """All looks, in the order in which they take effect, stream by stream."""
        none = np.empty(0, dtype=np.int64)
        parts = [np.concatenate([*column, none]) for column in zip(*self._parts, strict=True)]
        if not parts:
            return none, none, none, none
        stream, row, shown, effective = parts
        order = np.lexsort((shown, effective, stream))
        return stream[order], row[order], shown[order], effective[order]


def scored(
    looks: Looks, *, tolerances: tuple[float, ...], warm_up_s: float, seconds: float
) -> tuple[Accuracy, ...]:
    """The accuracies of all tasks under all tolerances.

    Args:
        looks: of the whole run.
        tolerances: seconds.
        warm_up_s: seconds at the beginning that do not count.
        seconds: length of the run.
    """
    tables, streams = looks.tables, looks.streams
    spans = scored_frames(tables, streams, warm_up_s, seconds)
    columns = looks.columns()
    found = []
    for task, name in enumerate(tables.tasks):
        held = held_answers(tables, columns, task)
        for tolerance in tolerances:
            shares = _shares(tables, streams, task, tolerance, held, spans)
            value = float(np.nanmean(shares)) if not np.isnan(shares).all() else float("nan")
            found.append(Accuracy(name, tolerance, value, shares))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Held:
    """Answers in the order in which they were held, stream by stream, n of them.

    Attributes:
        stream: (n,)
        state: (n,)
        start: (n,) place in the stream's presentation order from which on it is held.
    """

    stream: Integers
    state: Integers
    start: Integers


def scored_frames(
    tables: Tables, streams: Streams, warm_up_s: float, seconds: float
) -> tuple[Integers, Integers]:
    """The first frame of each stream that counts, and the one after the last."""
    start = np.zeros(len(streams), dtype=np.int64)
    stop = np.zeros(len(streams), dtype=np.int64)
    for trace in range(len(tables.period)):
        mine = np.flatnonzero(streams.trace == trace)
        rows = slice(tables.base[trace], tables.base[trace + 1])
        arrival = tables.arrival[rows]
        origin = arrival[streams.offset[mine]]
        begun = streams.joins[mine] + streams.delay[mine]
        for bound, into in (
            (np.maximum(warm_up_s, begun), start),
            (np.minimum(seconds, streams.leaves[mine]), stop),
        ):
            local = np.maximum(bound - begun, 0.0) + origin
            laps, rest = np.divmod(local, tables.period[trace])
            # The first packet that has not arrived by then, and what was shown before it.
            place = np.searchsorted(arrival, rest, side="left" if into is start else "right")
            ended = place == len(arrival)
            passed = np.append(tables.passed[rows], tables.frames[trace])
            into[mine] = laps * tables.frames[trace] + passed[np.where(ended, -1, place)]
    return start, np.maximum(start, stop)


def held_answers(
    tables: Tables, columns: tuple[Integers, Integers, Integers, Integers], task: int
) -> Held:
    """What is held of a task, by `Looks.columns`."""
    stream, row, shown, effective = columns
    state = tables.state[row, task]
    known = state != UNKNOWN
    stream, shown, effective, state = (
        stream[known],
        shown[known],
        effective[known],
        state[known],
    )
    if not len(stream):
        return Held(stream, state, effective)
    # Of what is known at a time, the newest frame in presentation order holds.
    reach = int(shown.max()) + 1
    newest = np.maximum.accumulate(stream * reach + shown)
    index = np.where(newest == stream * reach + shown, np.arange(len(stream)), 0)
    return Held(stream, state[np.maximum.accumulate(index)], effective)


def _shares(
    tables: Tables,
    streams: Streams,
    task: int,
    tolerance: float,
    held: Held,
    spans: tuple[Integers, Integers],
) -> Floats:
    """(m,) share of each stream's frames whose held answer is right; NaN where none counts."""
    first, last = spans
    shares = np.full(len(streams), np.nan)
    stop = np.where(
        np.append(held.stream[1:], -1) == held.stream,
        np.append(held.start[1:], 0),
        last[held.stream],
    )
    start = np.clip(held.start, first[held.stream], last[held.stream])
    stop = np.clip(stop, start, last[held.stream])
    for trace in range(len(tables.period)):
        truth = truth_of(tables, trace, task, tolerance)
        mine = streams.trace == trace
        known = truth.known(first[mine], last[mine])
        here: NDArray[np.bool_] = mine[held.stream]
        right = truth.right(held.state[here], start[here], stop[here])
        totals = np.bincount(held.stream[here], weights=right, minlength=len(streams))[mine]
        shares[mine] = np.where(known > 0, totals / np.maximum(known, 1), np.nan)
    return shares


def truth_of(tables: Tables, trace: int, task: int, tolerance: float) -> Truth:
    """What is right at each frame of a trace."""
    rows = np.arange(tables.base[trace], tables.base[trace + 1])
    rows = rows[tables.target[rows]]
    rows = rows[np.argsort(tables.rank[rows])]
    return Truth(
        tables.state[rows, task], tables.time[rows], float(tables.period[trace]), tolerance
    )
