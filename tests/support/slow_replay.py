"""A replay as one would write it down first: object by object, frame by frame.

Slow and plain on purpose; the vectorised replay must come to the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from triparty.device.gate.fleet import Streams, Tables
from triparty.device.gate.optimizer import choose
from triparty.device.gate.policy import Arrivals, Feedback, Offers, Policy
from triparty.device.gate.replay import Settings
from triparty.device.gate.states import UNKNOWN
from triparty.device.streams.budget import TokenBucket
from triparty.device.streams.closure import Closures
from triparty.device.streams.packets import Entry, Packet, Picture, PictureType
from triparty.device.streams.reachability import Closure


@dataclass
class Arrived:
    """A packet of a stream: its row in the tables, its number, and where its frame is shown."""

    row: int
    number: int
    lap: int
    time: float
    shown: int


@dataclass
class Camera:
    """One stream."""

    index: int
    trace: int
    place: int
    lap: int
    due: float
    shift: float
    row: int = -1
    closures: Closures = field(default_factory=Closures)
    packets: dict[int, Arrived] = field(default_factory=dict)
    number: int = 0
    looked: dict[int, tuple[int, ...]] = field(default_factory=dict)
    held: list[tuple[int, ...] | None] = field(default_factory=list)
    passed: int = 0
    last_look: float = 0.0
    staleness: float = 0.0
    looks: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)


@dataclass
class SlowScore:
    """What the slow replay came to."""

    accuracy: dict[tuple[str, float], list[float]]
    decode_ms: float
    full_decode_ms: float
    max_staleness_s: float
    decoded: int
    targets: int
    charged: list[float]


class SlowReplay:
    """Same arguments as `Replay`."""

    def __init__(
        self, tables: Tables, streams: Streams, policy: Policy, settings: Settings
    ) -> None:
        self.t, self.streams, self.policy, self.settings = tables, streams, policy, settings
        self.bucket = TokenBucket(settings.budget_ms, 1 / settings.round_s)
        self.cameras = []
        for index in range(len(streams)):
            trace = int(streams.trace[index])
            place = int(streams.offset[index])
            due = float(streams.joins[index] + streams.delay[index])
            begin = float(tables.arrival[tables.base[trace] + place])
            self.cameras.append(
                Camera(index, trace, place, 0, due, due - begin, last_look=streams.joins[index])
            )
        self.full = 0.0
        self.decoded = self.targets = 0
        self.charged: list[float] = []
        self.now = 0.0

    def run(self) -> SlowScore:
        rounds = round(self.settings.seconds / self.settings.round_s)
        for number in range(rounds):
            self.come_and_go(number * self.settings.round_s)
            self.round((number + 1) * self.settings.round_s)
        for camera in self.cameras:
            if camera.row >= 0:
                camera.staleness = max(camera.staleness, self.now - camera.last_look)
        return SlowScore(
            accuracy=self.accuracy(rounds * self.settings.round_s),
            decode_ms=sum(self.charged),
            full_decode_ms=self.full,
            max_staleness_s=max(camera.staleness for camera in self.cameras),
            decoded=self.decoded,
            targets=self.targets,
            charged=self.charged,
        )

    def come_and_go(self, now: float) -> None:
        for camera in self.cameras:
            joins, leaves = self.streams.joins[camera.index], self.streams.leaves[camera.index]
            if camera.row < 0 and joins <= now < leaves:
                camera.row = int(self.policy.join(1)[0])
        for camera in self.cameras:
            if camera.row >= 0 and self.streams.leaves[camera.index] <= now:
                self.policy.leave(camera.row)
                camera.row = -1
                camera.due = math.inf
                camera.staleness = max(camera.staleness, now - camera.last_look)

    def round(self, now: float) -> None:
        self.now = now
        arrived: list[tuple[Camera, Arrived]] = []
        wave = [camera for camera in self.cameras if camera.row >= 0 and camera.due <= now]
        while wave:
            arrived += [(camera, self.take(camera)) for camera in wave]
            wave = [camera for camera in wave if camera.due <= now]
        arrivals = self.arrivals(arrived)
        self.policy.see(arrivals)
        allowance = self.bucket.begin_round()
        spent = self.decide(arrived, arrivals, allowance) if arrived else 0.0
        self.charged.append(spent)

    def take(self, camera: Camera) -> Arrived:
        t = self.t
        row = int(t.base[camera.trace]) + camera.place
        period = float(t.period[camera.trace])
        frames = int(t.frames[camera.trace])
        time = float(t.time[row]) + camera.lap * period + camera.shift
        one = Arrived(
            row, camera.number, camera.lap, time, camera.lap * frames + int(t.rank[row])
        )
        entry = Entry.NONE
        if t.entry[row]:
            entry = Entry.OPEN if t.open[row] else Entry.CLEAN
        picture = Picture(
            PictureType(int(t.type[row])),
            bool(t.reference[row]),
            entry,
            leading=bool(t.leading[row]),
            shown=bool(t.target[row]),
        )
        packet = Packet(camera.number, int(t.size[row]), row, time, time, picture)
        camera.closures.add(packet, float(t.estimate[row]))
        camera.packets[camera.number] = one
        camera.number += 1
        camera.place += 1
        if t.base[camera.trace] + camera.place == t.base[camera.trace + 1]:
            camera.place, camera.lap = 0, camera.lap + 1
        following = int(t.base[camera.trace]) + camera.place
        camera.due = float(t.arrival[following]) + camera.lap * period + camera.shift
        self.full += float(t.cost[row])
        return one

    def arrivals(self, arrived: list[tuple[Camera, Arrived]]) -> Arrivals:
        rows = np.array([one.row for _, one in arrived], dtype=np.int64)
        t = self.t
        return Arrivals(
            stream=np.array([camera.row for camera, _ in arrived], dtype=np.int64),
            time=np.array([one.time for _, one in arrived]),
            size=t.size[rows],
            type=t.type[rows],
            reference=t.reference[rows],
            entry=t.entry[rows],
            slice_qp=t.slice_qp[rows],
        )

    def decide(
        self, arrived: list[tuple[Camera, Arrived]], arrivals: Arrivals, allowance: float
    ) -> float:
        newest = {camera.index: place for place, (camera, _) in enumerate(arrived)}
        offered: list[tuple[Camera, Arrived, Closure, int]] = []
        for camera in (c for c in self.cameras if c.index in newest):
            place = newest[camera.index]
            one = arrived[place][1]
            closure = camera.closures.closure(one.number)
            if isinstance(closure, Closure) and self.allowed(one, closure):
                offered.append((camera, one, closure, place))
        rows = [[p.pts for p in closure] for _, _, closure, _ in offered]
        estimates = [self.t.estimate[one] for one in rows]
        offers = Offers(
            now=self.now,
            arrivals=np.array([place for *_, place in offered], dtype=np.int64),
            stream=np.array([camera.row for camera, *_ in offered], dtype=np.int64),
            cost=np.array([one.sum() for one in estimates]),
            own_cost=np.array([one[-1] for one in estimates]),
            entry=np.array([self.t.entry[one[-1]] for one in rows], dtype=bool),
            reference=np.array([self.t.reference[one[-1]] for one in rows], dtype=bool),
            saved=allowance / self.bucket.second_ms,
        )
        value = self.policy.value(arrivals, offers)
        waited = np.array([self.now - camera.last_look for camera, *_ in offered])
        choice = choose(
            value,
            offers.cost,
            allowance,
            staleness=waited,
            leftover=self.settings.leftover,
        )
        self.policy.chosen(offers, choice.picks)
        spent = 0.0
        told: list[tuple[Camera, Arrived, bool, list[float]]] = []
        for pick in choice.picks:
            self.bucket.charge(float(offers.cost[pick]))
        for pick in choice.picks:
            took = float(sum(self.t.cost[p.pts] for p in offered[pick][2]))
            self.bucket.settle(float(offers.cost[pick]), took)
            spent += took
        for pick in sorted(choice.picks.tolist(), key=lambda one: offered[one][0].index):
            camera, one, closure, _ = offered[pick]
            told += self.look(camera, one, closure)
        self.tell(told)
        return spent

    def allowed(self, one: Arrived, closure: Closure) -> bool:
        """Not what is dearer than a second; of leading pictures, what needs no older group."""
        if sum(self.t.estimate[p.pts] for p in closure) > self.bucket.second_ms:
            return False
        if not self.t.leading[one.row]:
            return True
        trace = int(np.searchsorted(self.t.base, one.row, side="right")) - 1
        entry = int(self.t.base[trace] + self.t.entry_place[one.row])
        return all(packet.pts >= entry for packet in closure)

    def look(
        self, camera: Camera, target: Arrived, closure: Closure
    ) -> list[tuple[Camera, Arrived, bool, list[float]]]:
        camera.staleness = max(camera.staleness, self.now - camera.last_look)
        camera.last_look = self.now
        numbers = [packet.number for packet in closure]
        camera.closures.decoded(numbers)
        self.decoded += len(numbers)
        self.targets += 1
        told = []
        ones = [camera.packets[number] for number in numbers]
        ones = [one for one in ones if self.t.target[one.row]]
        if not self.settings.observe_dependencies:
            ones = [target]
        passed = self.shown_before(camera, target.row, target.lap)
        for one in sorted(ones, key=lambda each: each.shown):
            state = tuple(self.t.state[one.row].tolist())
            earlier = sorted(shown for shown in camera.looked if shown < one.shown)
            before = camera.looked[earlier[-1]] if earlier else None
            camera.looked[one.shown] = state
            told.append((camera, one, one is target, self.reward(state, before)))
            camera.looks.append((max(one.shown, passed), one.shown, state))
        return told

    def shown_before(self, camera: Camera, row: int, lap: int) -> int:
        """The first frame, in presentation order, that had not arrived before a packet did."""
        t = self.t
        before = range(int(t.base[camera.trace]), row)
        ranks = {int(t.rank[one]) for one in before if t.target[one]}
        first = next(rank for rank in range(len(ranks) + 1) if rank not in ranks)
        return lap * int(t.frames[camera.trace]) + first

    def reward(self, state: tuple[int, ...], before: tuple[int, ...] | None) -> list[float]:
        rewards = []
        for task, answer in enumerate(state):
            old = UNKNOWN if before is None else before[task]
            if answer == UNKNOWN or (old == UNKNOWN and not self.t.wanted[task]):
                rewards.append(math.nan)
            elif self.t.wanted[task]:
                rewards.append(float(answer > 0))
            else:
                rewards.append(float(answer != old))
        return rewards

    def tell(self, told: list[tuple[Camera, Arrived, bool, list[float]]]) -> None:
        if told:
            self.policy.learn(
                Feedback(
                    now=self.now,
                    stream=np.array([camera.row for camera, *_ in told], dtype=np.int64),
                    time=np.array([one.time for _, one, *_ in told]),
                    reward=np.array([reward for *_, reward in told]),
                    selected=np.array([selected for _, _, selected, _ in told]),
                )
            )

    def accuracy(self, seconds: float) -> dict[tuple[str, float], list[float]]:
        found: dict[tuple[str, float], list[float]] = {}
        for task, name in enumerate(self.t.tasks):
            for tolerance in self.settings.tolerances:
                shares = [self.share(camera, task, tolerance) for camera in self.cameras]
                found[name, tolerance] = [one for one in shares if not math.isnan(one)]
        return found

    def share(self, camera: Camera, task: int, tolerance: float) -> float:
        """Walks over every frame that a camera showed."""
        t, trace = self.t, camera.trace
        base, frames = int(t.base[trace]), int(t.frames[trace])
        rows = sorted(
            (row for row in range(base, int(t.base[trace + 1])) if t.target[row]),
            key=lambda row: int(t.rank[row]),
        )
        first = self.shown_before(camera, base + int(self.streams.offset[camera.index]), 0)
        if camera.place == 0:
            last = camera.lap * frames
        else:
            last = self.shown_before(camera, base + camera.place, camera.lap)
        right = counted = 0
        for shown in range(first, last):
            lap, place = divmod(shown, frames)
            now = float(t.time[rows[place]]) + lap * float(t.period[trace])
            if int(t.state[rows[place], task]) == UNKNOWN:
                continue
            counted += 1
            known = [
                look for look in camera.looks if look[0] <= shown and look[2][task] != UNKNOWN
            ]
            if not known:
                continue
            answer = max(known, key=lambda look: look[1])[2][task]
            back = shown
            while back > shown - frames:
                back_lap, back_place = divmod(back, frames)
                then = float(t.time[rows[back_place]]) + back_lap * float(t.period[trace])
                if now - then > tolerance + 1e-6:
                    break
                if int(t.state[rows[back_place], task]) == answer:
                    right += 1
                    break
                back -= 1
        return right / counted if counted else math.nan
