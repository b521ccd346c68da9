"""Many streams out of few traces: each repeats a trace from a random place on.

Made for replay at scale: what is known of a packet lies in columns over all traces, and a
stream is a few numbers, so that a thousand streams cost a few vectorised calls a round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import TraceError
from triparty.device.gate.states import UNKNOWN, is_wanted, states
from triparty.device.gate.traces import Trace
from triparty.device.streams.packets import Entry

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Tables:
    """What is known of the packets of all traces, one after the other, N in all.

    Attributes:
        base: (traces + 1,) first row of each trace.
        period: (traces,) seconds after which a trace begins again.
        frames: (traces,) how many frames a trace shows.
        time: (N,) presentation time in seconds since the trace's first frame.
        arrival: (N,) seconds since the trace's first packet: the trace's frame times, in order.
        size: (N,) bytes.
        type: (N,) `PictureType`.
        reference: (N,)
        entry: (N,) whether decoding may start there.
        slice_qp: (N,) NaN where unknown.
        target: (N,) whether a frame of its own comes out, so that it may be a target.
        leading: (N,) needs pictures before the last open entry.
        open: (N,) whether it is an open entry.
        cost: (N,) CPU ms that decoding it takes.
        estimate: (N,) CPU ms that its size lets expect.
        cost_before: (N, 2) sum of `cost` over the trace's references before it, first those
            that are not leading, then those that are.
        estimate_before: (N, 2) the same sums of `estimate`.
        references_before: (N, 2) how many these references are.
        entry_place: (N,) place in its trace of the last entry up to it, itself included.
        rank: (N,) place of its frame in presentation order within its trace.
        passed: (N,) how many frames had been shown without a gap before it arrived.
        state: (N, tasks) the answers, -1 where unknown.
        tasks: names.
        wanted: (tasks,) whether a frame is necessary for what it shows, not for a change.
    """

    base: Integers
    period: Floats
    frames: Integers
    time: Floats
    arrival: Floats
    size: Floats
    type: NDArray[np.int8]
    reference: Flags
    entry: Flags
    slice_qp: Floats
    target: Flags
    leading: Flags
    open: Flags
    cost: Floats
    estimate: Floats
    cost_before: Floats
    estimate_before: Floats
    references_before: Integers
    entry_place: Integers
    rank: Integers
    passed: Integers
    state: Integers
    tasks: tuple[str, ...]
    wanted: Flags

    @property
    def lengths(self) -> Integers:
        """(traces,) how many packets each trace has."""
        return np.diff(self.base)


def tables(traces: Sequence[Trace]) -> Tables:
    """The columns of traces; each is cut to begin at its first entry.

    A task is known by its name: traces that lack it count as not knowing its answers.

    Raises:
        TraceError: no trace, one without an entry or without any frame.
    """
    if not traces:
        raise TraceError("nothing to replay: no trace")
    cut = [trace.from_first_entry() for trace in traces]
    wanted = {task.name: is_wanted(task) for trace in cut for task in trace.tasks}
    names = tuple(wanted)
    parts = [_columns(trace, names) for trace in cut]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Tables(
        base=np.cumsum([0, *(len(trace.packets) for trace in cut)]),
        period=np.array([trace.duration for trace in cut]),
        frames=np.array([int(trace.packets.shown.sum()) for trace in cut]),
        tasks=names,
        wanted=np.array([wanted[name] for name in names], dtype=bool),
        **whole,
    )


def _columns(trace: Trace, names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    packets = trace.packets
    count = len(packets)
    if not packets.shown.any():
        raise TraceError(f"trace '{trace.origin.camera}' shows no frame")
    size = packets.size.astype(np.float64)
    estimate, cost = _costs(trace)
    time = packets.time - packets.time.min()
    rank = np.zeros(count, dtype=np.int64)
    shown = np.flatnonzero(packets.shown)
    rank[shown[np.argsort(time[shown], kind="stable")]] = np.arange(len(shown))
    counted = packets.reference[:, None] & np.stack([~packets.leading, packets.leading], axis=1)
    entry = packets.entry != Entry.NONE
    found = np.full((count, len(names)), UNKNOWN, dtype=np.int64)
    for task in trace.tasks:
        found[:, names.index(task.name)] = states(trace, task)
    return {
        "time": time,
        "arrival": np.sort(time),
        "size": size,
        "type": packets.type,
        "reference": packets.reference,
        "entry": entry,
        "slice_qp": packets.slice_qp.astype(np.float64),
        "target": packets.shown,
        "leading": packets.leading,
        "open": packets.entry == Entry.OPEN,
        "cost": cost,
        "estimate": estimate,
        "cost_before": _before(cost[:, None] * counted),
        "estimate_before": _before(estimate[:, None] * counted),
        "references_before": _before(counted.astype(np.int64)),
        "entry_place": np.maximum.accumulate(np.where(entry, np.arange(count), 0)),
        "rank": rank,
        "passed": _passed(rank, packets.shown),
        "state": found,
    }


def _before(values: NDArray[np.generic]) -> NDArray[np.generic]:
    sums = np.cumsum(values, axis=0)
    return np.concatenate([np.zeros_like(sums[:1]), sums[:-1]])


def _costs(trace: Trace) -> tuple[Floats, Floats]:
    """What each packet should cost by its size, and what it did where that was measured.

    Decode time is affine in kilobytes; intra pictures have a line of their own where enough of
    them were measured.
    """
    size = trace.packets.size / 1000.0
    measured = trace.packets.cost_ms.astype(np.float64)
    known = ~np.isnan(measured)
    if not known.any():
        estimate = 0.3 + 0.07 * size
        return estimate, estimate
    estimate = np.empty(len(size))
    intra = trace.packets.entry != Entry.NONE
    for kind in (intra, ~intra):
        used = known & kind if (known & kind).sum() >= 8 else known
        estimate[kind] = _affine(size[used], measured[used], size[kind])
    return estimate, np.where(known, measured, estimate)


def _affine(size: Floats, cost: Floats, asked: Floats) -> Floats:
    if len(size) < 2 or np.ptp(size) == 0:
        return np.full(len(asked), cost.mean())
    slope, offset = np.polyfit(size, cost, 1)
    if slope < 0:
        slope, offset = 0.0, float(cost.mean())
    expected: Floats = np.maximum(offset + slope * asked, cost.min() * 0.5)
    return expected


def _passed(rank: Integers, shown: Flags) -> Integers:
    """For each packet, the smallest rank that no packet before it has."""
    count = len(rank)
    there = np.zeros(count + 1, dtype=bool)
    passed = np.zeros(count, dtype=np.int64)
    reached = 0
    for place in range(count):
        passed[place] = reached
        if shown[place]:
            there[rank[place]] = True
            while there[reached]:
                reached += 1
    return passed


@dataclass(frozen=True, eq=False)
class Streams:
    """Which trace each of m streams repeats, and from where.

    Attributes:
        trace: (m,) place of the trace.
        offset: (m,) place of the stream's first packet in it.
        delay: (m,) seconds until the first packet arrives.
        joins: (m,) seconds when the stream is added; 0 for those that are there from the start.
        leaves: (m,) seconds when it is taken out again; infinity for never.
    """

    trace: Integers
    offset: Integers
    delay: Floats
    joins: Floats
    leaves: Floats

    def __len__(self) -> int:
        """How many streams."""
        return len(self.trace)


def spread(
    known: Tables, count: int, seed: int, *, shares: Sequence[float] | None = None
) -> Streams:
    """`count` streams, each from a random place of a trace; the traces take turns.

    Args:
        known: of the traces.
        count: of streams.
        seed: repeats the draw.
        shares: how often each trace is used, relative to the others; equally by default.
    """
    rng = np.random.default_rng(seed)
    kinds = len(known.period)
    weights = np.ones(kinds) if shares is None else np.asarray(shares, dtype=np.float64)
    bounds = np.cumsum(weights) / weights.sum()
    trace = np.searchsorted(bounds, (np.arange(count) + 0.5) / count).clip(0, kinds - 1)
    lengths = known.lengths[trace]
    return Streams(
        trace=trace.astype(np.int64),
        offset=(rng.random(count) * lengths).astype(np.int64),
        delay=rng.random(count) * (known.period / known.lengths)[trace],
        joins=np.zeros(count),
        leaves=np.full(count, np.inf),
    )


def full_rate(known: Tables, streams: Streams) -> float:
    """CPU ms a second that decoding everything of all streams takes."""
    totals = np.add.reduceat(known.cost, known.base[:-1])
    return float((totals / known.period)[streams.trace].sum())
