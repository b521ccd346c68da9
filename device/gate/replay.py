"""Replays a policy over recorded streams: what it would have seen, decoded, cost and missed.

The loop is that of the live gateway (`policy.py`), over columns: a round takes the packets
that arrived in a tick, offers the newest of each stream with the cost of its closure, lets
policy and optimizer choose under the budget, charges what decoding took, and gives feedback.

A closure's cost is one number per stream, because the target is always the newest packet: the
references since the last entry that were not decoded yet, and the target. That is what
`streams.closure.Closures` answers where headers do not name the pictures that are read (H.264);
where they do (VP9, AV1), it is a bound from above. One further restriction: pictures that lead
an open entry are on offer only if everything before that entry was decoded.

Nothing here decodes. Frames that are decoded only as dependencies are observed too, if wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import SettingsError
from triparty.device.gate.fleet import Flags, Floats, Integers, Streams, Tables
from triparty.device.gate.optimizer import choose
from triparty.device.gate.policy import Arrivals, Feedback, Offers, Policy, Rows
from triparty.device.gate.replay_audit import AuditCheck, check_audits
from triparty.device.gate.scoring import Looks, Score, scored
from triparty.device.gate.states import UNKNOWN
from triparty.device.streams.budget import TokenBucket

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Settings:
    """How a replay runs.

    Attributes:
        seconds: of wall clock that are replayed.
        budget_ms: CPU ms a round; infinity decodes whatever the policy likes.
        round_s: length of a round in seconds.
        leftover: of `optimizer.choose`.
        observe_dependencies: whether frames decoded as dependencies are observed.
        tolerances: seconds of delay that are forgiven, each scored.
        warm_up_s: seconds at the beginning that are not scored.
        audit_share: of all groups, audited beside the gate; 0 for none.
        audit_seed: of the coin.
    """

    seconds: float
    budget_ms: float
    round_s: float = 0.04
    leftover: str = "scan"
    observe_dependencies: bool = True
    tolerances: tuple[float, ...] = (0.0, 1.0)
    warm_up_s: float = 0.0
    audit_share: float = 0.0
    audit_seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot be run.

        Raises:
            SettingsError: a time or budget that is not positive, or a share that is none.
        """
        for name in ("seconds", "budget_ms", "round_s"):
            if not getattr(self, name) > 0:
                raise SettingsError(
                    f"{name} of a replay is {getattr(self, name)}: expected > 0"
                )
        if not 0 <= self.audit_share <= 1:
            raise SettingsError(f"audit share {self.audit_share}: expected 0 to 1")
        if not 0 <= self.warm_up_s < self.seconds:
            raise SettingsError("a replay's warm-up must end before the replay does")


@dataclass(eq=False)
class _Position:
    """Where each of m streams stands; packets are counted on through repetitions.

    Attributes:
        trace: (m,) its trace.
        base: (m,) first row of the trace.
        length: (m,) packets of the trace.
        place: (m,) place in the trace of the next packet.
        lap: (m,) repetition of the next packet.
        due: (m,) seconds when it arrives.
        shift: (m,) seconds between the trace's first packet and the loop's beginning.
        first: (m,) count of the stream's first packet.
        done: (m,) count of the packet after the last target.
        through: (m,) count of the entry up to which everything was decoded, -1 for none.
        row: (m,) policy's row, -1 while it is not there.
    """

    trace: Integers
    base: Integers
    length: Integers
    place: Integers
    lap: Integers
    due: Floats
    shift: Floats
    first: Integers
    done: Integers
    through: Integers
    row: Integers


@dataclass(eq=False)
class _Newest:
    """The newest packet of each stream that had one in a round, k of them.

    Attributes:
        stream: (k,) the stream.
        row: (k,) of the tables.
        lap: (k,) repetition.
        arrivals: (k,) place in the round's arrivals.
    """

    stream: Integers
    row: Integers
    lap: Integers
    arrivals: Integers


@dataclass
class _Totals:
    full_ms: float = 0.0
    charged: list[float] = field(default_factory=list)
    packets: int = 0
    decoded: int = 0
    targets: int = 0


class Replay:
    """One policy over one fleet.

    Args:
        tables: of the traces.
        streams: made of them.
        policy: fresh; its rows are given by `join`.
        settings: of the run.
    """

    def __init__(
        self,
        tables: Tables,
        streams: Streams,
        policy: Policy,
        settings: Settings,
    ) -> None:
        """Puts every stream at its beginning; those that are there from the start join."""
        self._t = tables
        self._streams = streams
        self._policy = policy
        self._settings = settings
        self._bucket = TokenBucket(settings.budget_ms, 1 / settings.round_s)
        self._at = _beginning(tables, streams)
        self._stream_of_row = np.full(len(streams), -1, dtype=np.int64)
        self._looks = Looks(tables, streams)
        self._memory = _Memory(len(streams), len(tables.tasks))
        self._totals = _Totals()
        self._last_look = streams.joins.copy()
        self._staleness = np.zeros(len(streams))
        self._now = 0.0

    def run(self, progress: Progress | None = None) -> Score:
        """Replays it all.

        Args:
            progress: called now and then with the seconds replayed since the last call.
        """
        rounds = max(1, round(self._settings.seconds / self._settings.round_s))
        for number in range(rounds):
            self._come_and_go(number * self._settings.round_s)
            self._round((number + 1) * self._settings.round_s)
            if progress and number % 25 == 24:
                progress(25 * self._settings.round_s)
        self._end()
        return self._score(rounds)

    def _come_and_go(self, now: float) -> None:
        streams, at = self._streams, self._at
        absent = (at.row < 0) & (streams.joins <= now) & (streams.leaves > now)
        if absent.any():
            found = np.flatnonzero(absent)
            rows = self._policy.join(len(found))
            at.row[found] = rows
            if len(rows) and rows.max() >= len(self._stream_of_row):
                more = np.full(rows.max() + 1 - len(self._stream_of_row), -1)
                self._stream_of_row = np.concatenate([self._stream_of_row, more])
            self._stream_of_row[rows] = found
        gone = np.flatnonzero((at.row >= 0) & (streams.leaves <= now))
        for stream in gone.tolist():
            self._policy.leave(int(at.row[stream]))
            at.row[stream] = -1
            at.due[stream] = np.inf
            self._look_ended(np.array([stream]), now)

    def _round(self, now: float) -> None:
        self._now = now
        arrivals, newest = self._arrived(now)
        self._policy.see(arrivals)
        allowance = self._bucket.begin_round()
        spent = self._decide(arrivals, newest, allowance) if len(newest.stream) else 0.0
        self._totals.charged.append(spent)

    def _arrived(self, now: float) -> tuple[Arrivals, _Newest]:
        """Takes in what is due, in waves of at most one packet a stream."""
        at, t = self._at, self._t
        streams: list[Integers] = []
        rows: list[Integers] = []
        laps: list[Integers] = []
        due = np.flatnonzero((at.due <= now) & (at.row >= 0))
        while len(due):
            row = at.base[due] + at.place[due]
            streams.append(due)
            rows.append(row)
            laps.append(at.lap[due].copy())
            self._pass_entries(due, row)
            at.place[due] += 1
            ended = due[at.place[due] == at.length[due]]
            at.place[ended] = 0
            at.lap[ended] += 1
            at.due[due] = (
                t.arrival[at.base[due] + at.place[due]]
                + at.lap[due] * t.period[at.trace[due]]
                + at.shift[due]
            )
            due = due[at.due[due] <= now]
        return self._as_arrivals(streams, rows, laps)

    def _pass_entries(self, stream: Integers, row: Integers) -> None:
        """Notes at which open entries everything before was decoded."""
        opened = self._t.open[row]
        if not opened.any():
            return
        at, t = self._at, self._t
        stream, row = stream[opened], row[opened]
        place = at.place[stream]
        start = self._start(stream, np.maximum(row - 1, at.base[stream]), at.lap[stream])
        pending = t.references_before[row] - t.references_before[start]
        count = at.lap[stream] * at.length[stream] + place
        whole = (pending.sum(axis=1) == 0) & (place > 0) & (count > at.first[stream])
        began = at.lap[stream] * at.length[stream] + (start - at.base[stream])
        whole &= began >= at.first[stream]
        at.through[stream] = np.where(whole, count, -1)

    def _as_arrivals(
        self, streams: list[Integers], rows: list[Integers], laps: list[Integers]
    ) -> tuple[Arrivals, _Newest]:
        at, t = self._at, self._t
        none = np.empty(0, dtype=np.int64)
        stream = np.concatenate([*streams, none])
        row = np.concatenate([*rows, none])
        lap = np.concatenate([*laps, none])
        time = t.time[row] + lap * t.period[at.trace[stream]] + at.shift[stream]
        arrivals = Arrivals(
            stream=at.row[stream],
            time=time,
            size=t.size[row],
            type=t.type[row],
            reference=t.reference[row],
            entry=t.entry[row],
            slice_qp=t.slice_qp[row],
        )
        self._totals.full_ms += float(t.cost[row].sum())
        self._totals.packets += len(row)
        place = np.zeros(len(self._streams), dtype=np.int64)
        place[stream] = np.arange(len(stream))
        newest = streams[0] if streams else none
        places = place[newest]
        return arrivals, _Newest(newest, row[places], lap[places], places)

    def _start(self, stream: Integers, row: Integers, lap: Integers) -> Integers:
        """The row from which on references are still to be decoded: entry or after the last."""
        at = self._at
        done = at.done[stream] - lap * at.length[stream]
        return at.base[stream] + np.maximum(self._t.entry_place[row], done)

    def _decide(self, arrivals: Arrivals, newest: _Newest, allowance: float) -> float:
        at, t = self._at, self._t
        offered = newest
        start = self._start(newest.stream, newest.row, newest.lap)
        entry = newest.lap * at.length[newest.stream] + t.entry_place[newest.row]
        reachable = t.target[newest.row] & (entry >= at.first[newest.stream])
        reachable &= ~t.leading[newest.row] | (at.through[newest.stream] == entry)
        cost = self._chain(t.estimate_before, newest.row, start) + t.estimate[newest.row]
        reachable &= cost <= self._bucket.second_ms  # what is dearer waits for an entry
        if not reachable.all():
            offered = _Newest(
                newest.stream[reachable],
                newest.row[reachable],
                newest.lap[reachable],
                newest.arrivals[reachable],
            )
            start, cost = start[reachable], cost[reachable]
        row = offered.row
        offers = Offers(
            now=self._now,
            arrivals=offered.arrivals,
            stream=at.row[offered.stream],
            cost=cost,
            own_cost=t.estimate[row],
            entry=t.entry[row],
            reference=t.reference[row],
            saved=allowance / self._bucket.second_ms,
        )
        value = self._policy.value(arrivals, offers)
        waited = self._now - self._last_look[offered.stream]
        choice = choose(
            value, offers.cost, allowance, staleness=waited, leftover=self._settings.leftover
        )
        self._policy.chosen(offers, choice.picks)
        picks = choice.picks
        measured = self._chain(t.cost_before, row[picks], start[picks]) + t.cost[row[picks]]
        self._pay(offers.cost[picks], measured)
        self._decode(offered, start, picks)
        spent = float(measured.sum())
        if choice.invested is not None and choice.leftover > 0:
            spent += self._invest(offered, start, choice.invested, choice.leftover)
        return spent

    def _pay(self, expected: Floats, measured: Floats) -> None:
        """Charges closures one by one, then puts what they really took in their place."""
        for cost in expected.tolist():
            self._bucket.charge(cost)
        for cost, took in zip(expected.tolist(), measured.tolist(), strict=True):
            self._bucket.settle(cost, took)

    def _chain(self, before: Floats, row: Integers, start: Integers) -> Floats:
        """What the references from `start` to before `row` take."""
        both = before[row] - before[start]
        return both[:, 0] + np.where(self._t.leading[row], both[:, 1], 0.0)

    def _decode(self, offered: _Newest, start: Integers, picks: Rows) -> None:
        at, t = self._at, self._t
        stream, row, lap = offered.stream[picks], offered.row[picks], offered.lap[picks]
        at.done[stream] = lap * at.length[stream] + (row - at.base[stream]) + 1
        waited = self._now - self._last_look[stream]
        self._staleness[stream] = np.maximum(self._staleness[stream], waited)
        self._last_look[stream] = self._now
        frames = _Frames.of_closures(t, stream, row, start[picks], lap)
        self._totals.decoded += len(frames.row)
        self._totals.targets += len(picks)
        seen = t.target[frames.row]
        if not self._settings.observe_dependencies:
            seen = frames.selected
        frames = frames.only(seen)
        self._observe(frames, row[frames.pick], lap[frames.pick])

    def _invest(self, offered: _Newest, start: Integers, index: int, leftover: float) -> float:
        """Decodes the first part of a chain, as much as fits; nothing is looked at."""
        at, t = self._at, self._t
        stream, row = int(offered.stream[index]), int(offered.row[index])
        first = int(start[index])
        rows = np.arange(first, row)
        rows = rows[t.reference[rows] & ~t.leading[rows]]
        expected = np.cumsum(t.estimate[rows])
        count = int(np.searchsorted(expected, leftover, side="right"))
        if not count:
            return 0.0
        last = int(rows[count - 1])
        took = float(t.cost[rows[:count]].sum())
        self._pay(expected[count - 1 : count], np.array([took]))
        at.done[stream] = offered.lap[index] * at.length[stream] + (last - at.base[stream]) + 1
        self._totals.decoded += count
        return took

    def _observe(self, frames: _Frames, target_row: Integers, target_lap: Integers) -> None:
        """Compares frames with what was known, tells the policy, and keeps what they showed."""
        if not len(frames.row):
            return
        at, t = self._at, self._t
        laps_shown = t.frames[at.trace[frames.stream]]
        shown = frames.lap * laps_shown + t.rank[frames.row]
        passed = target_lap * laps_shown + t.passed[target_row]
        order = np.lexsort((shown, frames.stream))
        frames, shown, passed = frames.only(order), shown[order], passed[order]
        state = t.state[frames.row]
        before = self._memory.compare(frames.stream, shown, state)
        reward = np.where(t.wanted, state > 0, state != before).astype(np.float64)
        unknown = (state == UNKNOWN) | (~t.wanted & (before == UNKNOWN))
        reward[unknown] = np.nan
        time = t.time[frames.row] + frames.lap * t.period[at.trace[frames.stream]]
        self._policy.learn(
            Feedback(
                now=self._now,
                stream=at.row[frames.stream],
                time=time + at.shift[frames.stream],
                reward=reward,
                selected=frames.selected,
            )
        )
        effective = np.maximum(shown, passed)
        # Of frames that were shown already, the newest alone says what is held from now on.
        late = shown < passed
        superseded = late[:-1] & late[1:] & (frames.stream[1:] == frames.stream[:-1])
        useful = ~np.append(superseded, False)
        self._looks.add(
            frames.stream[useful], frames.row[useful], shown[useful], effective[useful]
        )

    def _look_ended(self, stream: Integers, now: float) -> None:
        waited = now - self._last_look[stream]
        self._staleness[stream] = np.maximum(self._staleness[stream], waited)

    def _end(self) -> None:
        there = np.flatnonzero(self._at.row >= 0)
        self._look_ended(there, self._now)

    def _score(self, rounds: int) -> Score:
        settings = self._settings
        charged = np.array(self._totals.charged)
        accuracy = scored(
            self._looks,
            tolerances=settings.tolerances,
            warm_up_s=settings.warm_up_s,
            seconds=rounds * settings.round_s,
        )
        audits: tuple[AuditCheck, ...] = ()
        if settings.audit_share > 0:
            audits = check_audits(
                self._looks,
                share=settings.audit_share,
                seed=settings.audit_seed,
                warm_up_s=settings.warm_up_s,
                seconds=rounds * settings.round_s,
            )
        window = max(1, round(1 / settings.round_s))
        sums = np.convolve(charged, np.ones(min(window, rounds)), mode="valid")
        there = self._streams.joins < rounds * settings.round_s
        return Score(
            streams=len(self._streams),
            seconds=rounds * settings.round_s,
            tasks=self._t.tasks,
            accuracy=accuracy,
            decode_ms=float(charged.sum()),
            full_decode_ms=self._totals.full_ms,
            max_staleness_s=float(self._staleness[there].max(initial=0.0)),
            staleness=self._staleness,
            rounds=rounds,
            rounds_over_budget=int((charged > settings.budget_ms * (1 + 1e-9)).sum()),
            worst_second=float(sums.max() / (settings.budget_ms * min(window, rounds))),
            packets=self._totals.packets,
            decoded=self._totals.decoded,
            targets=self._totals.targets,
            audits=audits,
        )


def _beginning(tables: Tables, streams: Streams) -> _Position:
    trace = streams.trace
    base = tables.base[trace]
    begin = tables.arrival[base + streams.offset]
    due = streams.joins + streams.delay
    return _Position(
        trace=trace,
        base=base,
        length=tables.lengths[trace],
        place=streams.offset.copy(),
        lap=np.zeros(len(streams), dtype=np.int64),
        due=due.copy(),
        shift=due - begin,
        first=streams.offset.copy(),
        done=np.zeros(len(streams), dtype=np.int64),
        through=np.full(len(streams), -1, dtype=np.int64),
        row=np.full(len(streams), -1, dtype=np.int64),
    )


@dataclass(eq=False)
class _Frames:
    """Decoded frames of a round, n of them.

    Attributes:
        pick: (n,) the choice to whose closure it belongs.
        stream: (n,)
        row: (n,) of the tables.
        lap: (n,) repetition.
        selected: (n,) whether it is the target.
    """

    pick: Integers
    stream: Integers
    row: Integers
    lap: Integers
    selected: Flags

    @classmethod
    def of_closures(
        cls, t: Tables, stream: Integers, row: Integers, start: Integers, lap: Integers
    ) -> _Frames:
        """The frames of closures: references from `start` on, and the targets."""
        counts = row - start + 1
        pick = np.repeat(np.arange(len(row)), counts)
        steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = start[pick] + steps
        selected = rows == row[pick]
        needed = t.reference[rows] & (~t.leading[rows] | t.leading[row][pick])
        frames = cls(pick, stream[pick], rows, lap[pick], selected)
        return frames.only(selected | needed)

    def only(self, kept: NDArray[np.generic]) -> _Frames:
        """Some of them, by flag or index."""
        return _Frames(
            self.pick[kept],
            self.stream[kept],
            self.row[kept],
            self.lap[kept],
            self.selected[kept],
        )


class _Memory:
    """The newest frames, in presentation order, that were observed of each stream."""

    depth = 6  # frames that arrive before one that is shown earlier, and some to spare

    def __init__(self, streams: int, tasks: int) -> None:
        self._shown = np.full((streams, self.depth), -1, dtype=np.int64)
        self._state = np.full((streams, self.depth, tasks), UNKNOWN, dtype=np.int64)

    def compare(self, stream: Integers, shown: Integers, state: Integers) -> Integers:
        """(n, tasks) what was known before each frame; then keeps the frames.

        Args:
            stream: (n,) in rising order.
            shown: (n,) place in presentation order, rising within a stream.
            state: (n, tasks) what the frames show.
        """
        count = len(stream)
        rows = np.arange(count)
        begins = np.append(True, stream[1:] != stream[:-1])
        previous = np.where(begins, -1, np.append(-1, shown[:-1]))
        candidates = np.column_stack([previous, self._shown[stream]])
        candidates = np.where(candidates < shown[:, None], candidates, -1)
        best = candidates.argmax(axis=1)
        held = self._state[stream, np.maximum(best - 1, 0)]
        before = np.where((best == 0)[:, None], state[np.maximum(rows - 1, 0)], held)
        before[candidates[rows, best] < 0] = UNKNOWN
        self._keep(stream, shown, state, begins)
        return before

    def _keep(self, stream: Integers, shown: Integers, state: Integers, begins: Flags) -> None:
        ends = np.flatnonzero(np.append(begins[1:], True))
        starts = np.flatnonzero(begins)
        who = stream[ends]
        back = ends[:, None] - np.arange(self.depth)
        inside = back >= starts[:, None]
        back = np.where(inside, back, 0)
        all_shown = np.concatenate(
            [np.where(inside, shown[back], -1), self._shown[who]], axis=1
        )
        all_state = np.concatenate([state[back], self._state[who]], axis=1)
        order = np.argsort(-all_shown, axis=1, kind="stable")[:, : self.depth]
        self._shown[who] = np.take_along_axis(all_shown, order, axis=1)
        self._state[who] = np.take_along_axis(all_state, order[:, :, None], axis=1)
