"""The recall audit of the loop: what gating held against what a whole decode shows.

Now and then, by a coin at its entry, a group of a camera is decoded whole beside what the gate
does (`gate/recall.py` has the coin and the estimates). A decoder of its own does that, only
models look at its frames, and neither the policy nor the held answers hear of them: gating goes
on as if nobody watched, so what is found stands for all groups. Pure bookkeeping: no thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from triparty.device.gate.policy import Column, Flags, Rows
from triparty.device.gate.recall import (
    AuditedGroup,
    AuditSchedule,
    Estimate,
    accuracy,
    recall,
)
from triparty.device.gate.traces import Task
from triparty.device.gateway.answers import Answer, differs

MOST_GROUPS = 2000
"""The last groups, of all cameras, that estimates rest on."""
Answers = Mapping[str, Answer]


@dataclass(eq=False)
class Group:
    """A group that is being audited.

    Attributes:
        probability: with which it was to be.
        held: what gating answered, (time of the frame, answers), the first before the group.
        truth: what models said of its frames, (time, answers).
        shown: time of the last frame that was handed to models.
        awaited: frames whose answers have not come.
        decoded: whether no more frames come.
    """

    probability: float
    held: list[tuple[float, Answers]]
    truth: list[tuple[float, Answers]] = field(default_factory=list)
    shown: float = -np.inf
    awaited: int = 0
    decoded: bool = False

    @property
    def is_done(self) -> bool:
        """Whether all is known that will be."""
        return self.decoded and not self.awaited

    def found(self, task: Task) -> AuditedGroup:
        """What it says of a task.

        A change counts as caught if gating looked at a frame of the group before the answer
        changed again.
        """
        name = task.name
        truth = [(time, of[name]) for time, of in sorted(self.truth, key=_time) if name in of]
        right = sum(not self._is_wrong(task, time, answer) for time, answer in truth)
        changes = [
            time
            for (_, before), (time, after) in pairwise(truth)
            if differs(task, before, after)
        ]
        last = truth[-1][0] if truth else -np.inf
        looks = np.array([time for time, _ in self.held[1:] if time <= last])
        caught = sum(
            bool(((looks >= begin) & (looks < end)).any())
            for begin, end in pairwise([*changes, np.inf])
        )
        return AuditedGroup(self.probability, len(truth), right, len(changes), caught)

    def _is_wrong(self, task: Task, time: float, answer: Answer) -> bool:
        """Whether gating held another answer at a time, or none yet."""
        held = next(of for then, of in reversed(self.held) if then <= time)
        return task.name not in held or differs(task, held[task.name], answer)


@dataclass(frozen=True)
class Audited:
    """What audits say of a task so far.

    Attributes:
        accuracy: share of the pictures at which the held answer was right.
        recall: share of the changes that gating caught.
    """

    accuracy: Estimate
    recall: Estimate


class Auditor:
    """Chooses groups, and gathers what they say.

    Args:
        tasks: that are compared.
        share: of the decode budget.
        budget_ms: of a round.
        seed: of the coin; None takes the system's.

    Attributes:
        budget_ms: of a round, now.
    """

    def __init__(
        self, tasks: Sequence[Task], *, share: float, budget_ms: float, seed: int | None = None
    ) -> None:
        """Nothing was audited yet."""
        self._tasks = tasks
        self._schedule = AuditSchedule(share=share, seed=seed)
        self.budget_ms = budget_ms
        self._found: dict[str, deque[AuditedGroup]] = {
            task.name: deque(maxlen=MOST_GROUPS) for task in tasks
        }
        self.is_on = share > 0 and bool(tasks)
        self.groups = 0

    def join(self, row: int) -> None:
        """Makes room for a stream."""
        self._schedule.grow(row + 1)

    def forget(self, row: int) -> None:
        """Audits a stream from its next entry on at the earliest."""
        self._schedule.forget(np.array([row]))

    def begin_round(self) -> None:
        """Grants audits their share of a round."""
        none = np.zeros(0)
        self._schedule.packets(
            none.astype(np.int64), none.astype(np.bool_), none, self.budget_ms
        )

    def packets(self, rows: Rows, entry: Flags, cost: Column) -> dict[int, float]:
        """Takes in a packet of each of some streams.

        Args:
            rows: (n,) of the streams, each once.
            entry: (n,) whether a group begins.
            cost: (n,) CPU ms of each packet.

        Returns:
            The streams whose packet is to be decoded, and with which probability its group was.
        """
        picked = self._schedule.packets(rows, entry, cost, 0.0)
        chances = self._schedule.probability(picked).tolist()
        return dict(zip(picked.tolist(), chances, strict=True))

    def add(self, group: Group, tasks: Sequence[Task]) -> None:
        """Takes in a group that is done.

        Args:
            group: of any stream.
            tasks: that are asked of the stream.
        """
        self.groups += 1
        for task in tasks:
            self._found[task.name].append(group.found(task))

    def estimates(self) -> dict[str, Audited]:
        """What is known of each task."""
        return {
            name: Audited(accuracy(groups), recall(groups))
            for name, groups in ((name, list(of)) for name, of in self._found.items())
        }


def _time(of: tuple[float, Answers]) -> float:
    return of[0]
