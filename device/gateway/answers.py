"""What a task answers on a frame, whether that is new, and when a change is an event; pure.

A frame is necessary if its answer differs from the one before (thesis 2.4.1), or for `anomaly`
if there is one. `gate/states.py` numbers the answers of a whole trace by the same rules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.device.gate.boxes import DIGITS, in_place
from triparty.device.gate.detectors import Detections
from triparty.device.gate.traces import Task
from triparty.device.gateway.stages import Seen

Answer = bool | int | float | tuple[Any, ...]
"""What a task says: comparable by `differs`, and readable in JSON."""


def answer(task: Task, seen: Seen) -> Answer:
    """A task's answer to what its model saw.

    Args:
        task: the question.
        seen: objects, or for `value` a number; a number of objects also counts.
    """
    if not isinstance(seen, Detections):
        return _of_number(task, seen)
    chosen = _chosen(task, seen)
    if task.measure == "count":
        return len(chosen)
    if task.measure == "labels":
        return tuple(sorted({int(label) for label in seen.labels[chosen]}))
    if task.measure == "boxes":
        return tuple(
            (int(seen.labels[n]), *(round(float(edge), DIGITS) for edge in seen.boxes[n]))
            for n in chosen
        )
    if task.measure == "value":
        return float(len(chosen))
    return bool(len(chosen))


def confidence(task: Task, seen: Seen) -> float | None:
    """The score of the most certain object that a task looks at; None without one."""
    if not isinstance(seen, Detections) or not len(chosen := _chosen(task, seen)):
        return None
    return float(seen.scores[chosen].max())


def differs(task: Task, one: Answer, other: Answer) -> bool:
    """Whether two answers of a task are different ones."""
    if task.measure == "value":
        return round(float(one) / task.step) != round(float(other) / task.step)  # type: ignore[arg-type]
    if task.measure == "boxes":
        return not in_place(*_boxes(one), *_boxes(other))  # type: ignore[arg-type]
    return one != other


def nothing(task: Task) -> Answer:
    """The answer to a frame in which there is nothing; what a camera is taken to begin with."""
    return answer(task, 0.0)


@dataclass(frozen=True)
class Held:
    """The last answer of each of a stream's tasks, and when it was given.

    Attributes:
        answers: by task.
        time: of the frame, in seconds.
    """

    answers: Mapping[str, Answer]
    time: float = -np.inf


def judge(
    tasks: Sequence[Task],
    held: Held,
    answers: Mapping[str, Answer],
    time: float,
    *,
    redundant: bool = False,
    filtered: Collection[str] = (),
) -> tuple[Held, list[float]]:
    """What is held after a frame, and its reward for each task.

    Args:
        tasks: in the order of the rewards.
        held: what the stream answered before.
        answers: of this frame, by task; a task without one did not look.
        time: of this frame.
        redundant: a stage says that nothing is new: tasks without an answer keep theirs.
        filtered: tasks of which a filter says the same.

    Boxes that stay in place keep the answer that they began with, so that slow motion is new in
    the end.

    Returns:
        What is held now; 1 for each task to which the frame was necessary, 0 where it was
        redundant, NaN where the task did not look or the frame is older than what is held.
    """
    if time <= held.time:
        return held, [np.nan] * len(tasks)
    rewards, kept = [], dict[str, Answer]()
    for task in tasks:
        if task.name not in answers:
            rewards.append(0.0 if redundant or task.name in filtered else np.nan)
        elif task.measure == "anomaly":
            rewards.append(float(bool(answers[task.name])))
        else:
            before = held.answers.get(task.name)
            new = before is None or differs(task, before, answers[task.name])
            rewards.append(float(new))
            if task.measure == "boxes" and before is not None and not new:
                kept[task.name] = before
    if not answers:
        return held, rewards
    return Held({**held.answers, **answers, **kept}, time), rewards


@dataclass(frozen=True)
class Change:
    """A task's answer changed for good.

    Attributes:
        before: the answer until now.
        after: the answer from now on.
        time: when it was first seen, in seconds on the stream's clock.
    """

    before: Answer
    after: Answer
    time: float


@dataclass(frozen=True)
class Debounce:
    """Lets a change through when it has held: one odd frame is no event.

    Attributes:
        task: whose answers.
        hold_s: how long a new answer must hold.
        looks: how often it must be seen.
        answer: that holds.
        candidate: another that was seen last; None if the last look agreed.
        since: when the candidate was first seen.
        seen: how often in a row.
    """

    task: Task
    hold_s: float
    looks: int
    answer: Answer
    candidate: Answer | None = None
    since: float = 0.0
    seen: int = 0

    def look(self, answer: Answer, time: float) -> tuple[Debounce, Change | None]:
        """After one more answer: the new state, and the change if it is one now."""
        if not differs(self.task, self.answer, answer):
            return replace(self, candidate=None, seen=0), None
        if self.candidate is None or differs(self.task, self.candidate, answer):
            waits = replace(self, candidate=answer, since=time, seen=1)
        else:
            waits = replace(self, seen=self.seen + 1)
        if waits.seen < self.looks or time - waits.since < self.hold_s:
            return waits, None
        change = Change(self.answer, answer, waits.since)
        return replace(self, answer=answer, candidate=None, seen=0), change


def _of_number(task: Task, seen: float) -> Answer:
    if task.measure == "value":
        return float(seen)
    if task.measure == "count":
        return round(seen)
    if task.measure in ("labels", "boxes"):
        return ()
    return bool(seen)


def _chosen(task: Task, seen: Detections) -> NDArray[np.intp]:
    if not task.classes:
        return np.arange(len(seen.labels))
    return np.flatnonzero(np.isin(seen.labels, task.classes))


def _boxes(boxes: tuple[Any, ...]) -> tuple[list[Any], list[int]]:
    """Edges and labels of an answer."""
    return [box[1:] for box in boxes], [box[0] for box in boxes]
