"""Made-up cameras with a known truth, and the smallest loop that a policy can be run in.

Answers change by chance, often in busy spells and rarely between them; sizes follow, each
camera's in its own measure, some the wrong way round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from triparty.device.gate.optimizer import choose
from triparty.device.gate.policy import Arrivals, Feedback, Offers, Policy
from triparty.device.gate.training import Recording
from triparty.device.streams.packets import PictureType

FPS = 25.0
BURST_ROUNDS = 25


@dataclass(frozen=True, eq=False)
class Cameras:
    """m cameras, a packet of each a round, n rounds; all arrays are (n, m)."""

    size: np.ndarray
    entry: np.ndarray
    answer: np.ndarray
    cost: np.ndarray

    @classmethod
    def made(
        cls,
        count: int,
        rounds: int,
        *,
        seed: int = 0,
        groups: tuple[int, ...] = (25, 50, 100),
        busy: float = 0.2,
    ) -> Cameras:
        rng = np.random.default_rng(seed)
        group = rng.choice(groups, count)
        entry = (np.arange(rounds)[:, None] + rng.integers(group)) % group == 0
        entry[0] = True
        answer, is_busy = _answers(rng, count, rounds, busy)
        changed = np.diff(answer, axis=0, prepend=answer[:1]) != 0
        recent = np.zeros(count)
        size = np.empty((rounds, count))
        base, sign = rng.uniform(6, 9, count), rng.uniform(-0.3, 1.0, count)
        for number in range(rounds):
            recent = 0.8 * recent + 2.0 * changed[number]
            size[number] = base + sign * (recent + 0.7 * is_busy[number])
        size += rng.normal(0, 0.25, size.shape)
        size = np.where(entry, base + 2.2 + rng.normal(0, 0.05, size.shape), size)
        size = np.exp(size)
        cost = rng.choice([1.0, 0.4], count) * np.where(entry, 12.0, 1.2) + size / 20_000
        return cls(size, entry, answer, cost)

    @property
    def keyframe_share(self) -> float:
        """What decoding entries alone costs, as a share of decoding everything."""
        return float(self.cost[self.entry].sum() / self.cost.sum())

    def arrivals(self, number: int, rows: np.ndarray) -> Arrivals:
        """The packets of a round."""
        entry = self.entry[number]
        count = len(rows)
        return Arrivals(
            stream=rows,
            time=np.full(count, number / FPS),
            size=self.size[number],
            type=np.where(entry, PictureType.I, PictureType.P).astype(np.int8),
            reference=np.ones(count, bool),
            entry=entry,
            slice_qp=np.full(count, np.nan),
        )

    def recordings(self) -> list[Recording]:
        """What training takes."""
        rounds, count = self.size.shape
        return [
            Recording(
                time=np.arange(rounds) / FPS,
                size=self.size[:, row],
                type=np.where(self.entry[:, row], 1, 2).astype(np.int8),
                reference=np.ones(rounds, bool),
                entry=self.entry[:, row],
                slice_qp=np.full(rounds, np.nan),
                answer=self.answer[:, row : row + 1],
                sought=np.array([False]),
            )
            for row in range(count)
        ]


def _answers(
    rng: np.random.Generator, count: int, rounds: int, busy: float
) -> tuple[np.ndarray, np.ndarray]:
    spell = 20 * FPS  # rounds of a busy spell
    often = 10.0 ** rng.uniform(-1, 0.5, count) / FPS
    is_busy = rng.random(count) < busy
    answers, spells = np.empty((rounds, count), np.int64), np.empty((rounds, count), bool)
    answer = np.zeros(count, np.int64)
    for number in range(rounds):
        draw = rng.random(count)
        starts = busy / (1 - busy) / spell
        is_busy = np.where(is_busy, draw > 1 / spell, draw < starts)
        changes = rng.random(count) < np.where(is_busy, often, 0.01 / FPS)
        answer = np.where(changes, np.maximum(0, answer + rng.choice([-1, 1], count)), answer)
        answers[number], spells[number] = answer, is_busy
    return answers, spells


@dataclass(frozen=True)
class Run:
    """What a policy did.

    Attributes:
        accuracy: share of cameras and rounds in which the held answer was the true one, after
            the first tenth.
        cost: share of decoding everything.
        longest: rounds that a camera went without a look.
        picks: (n, m) what was decoded.
    """

    accuracy: float
    cost: float
    longest: int
    picks: np.ndarray


def run(
    cameras: Cameras, policy: Policy, share: float, *, leftover: str = "scan", delay: int = 0
) -> Run:
    """Rounds under a budget that is a share of decoding everything and is kept for a second."""
    rounds, count = cameras.size.shape
    rows = policy.join(count)
    budget = share * float(cameras.cost.sum()) / rounds
    saved, spent = 0.0, 0.0
    pending, held = np.zeros(count), np.full(count, -1)
    right, picks = np.zeros((rounds, count), bool), np.zeros((rounds, count), bool)
    late: list[tuple[int, Feedback]] = []
    for number in range(rounds):
        saved = min(saved + budget, BURST_ROUNDS * budget)
        arrivals, entry = cameras.arrivals(number, rows), cameras.entry[number]
        pending = np.where(entry, 0.0, pending) + cameras.cost[number]
        offers = Offers(
            now=number / FPS,
            arrivals=np.arange(count),
            stream=rows,
            cost=pending.copy(),
            own_cost=cameras.cost[number],
            entry=entry,
            reference=arrivals.reference,
            saved=saved / (BURST_ROUNDS * budget),
        )
        policy.see(arrivals)
        value = policy.value(arrivals, offers)
        choice = choose(value, offers.cost, max(saved, 0.0), leftover=leftover)
        policy.chosen(offers, choice.picks)
        saved, spent = saved - choice.cost, spent + choice.cost
        picked = choice.picks
        answer = cameras.answer[number, picked]
        reward = (held[picked] != answer).astype(np.float64)[:, None]
        held[picked], pending[picked] = answer, 0.0
        feedback = Feedback(
            offers.now, rows[picked], arrivals.time[picked], reward, np.ones(len(picked), bool)
        )
        late.append((number + delay, feedback))
        while late and late[0][0] <= number:
            policy.learn(late.pop(0)[1])
        picks[number, picked] = True
        right[number] = held == cameras.answer[number]
    return Run(
        accuracy=float(right[rounds // 10 :].mean()),
        cost=spent / float(cameras.cost.sum()),
        longest=_longest_gap(picks),
        picks=picks,
    )


def _longest_gap(picks: np.ndarray) -> int:
    longest = waiting = np.zeros(picks.shape[1], np.int64)
    for row in picks:
        waiting = np.where(row, 0, waiting + 1)
        longest = np.maximum(longest, waiting)
    return int(longest.max())
