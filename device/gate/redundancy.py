"""Whether a picture was necessary: redundancy measures (thesis 2.4.1), two results at a time.

A picture is redundant if its result says what the one before it said, in presentation order.
Results come out of order: with B pictures, and whenever models are slower than rounds. A result
is then compared with the newest one that is known of an earlier picture (`History`).

These are the measures of a task (`traces.Task`) on results as they come. `states.py` numbers
the answers of a whole trace by the same rules.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from triparty.device.gate.detectors import Detections
from triparty.device.gate.states import LEAST_IOU
from triparty.device.gate.traces import Task

LONGEST_HISTORY: Final = 64


def is_necessary(task: Task, before: Detections | None, now: Detections) -> bool:
    """Whether a task needed a picture.

    Args:
        task: for `count`, `presence`, `labels`, `boxes` and `value` (objects in steps) its
            answer changed; for `anomaly` there is one.
        before: result of the picture before it; None if there is none, and the first result
            is always news.
        now: result of the picture.
    """
    now = _of(task, now)
    if task.measure == "anomaly":
        return len(now.labels) > 0
    if before is None:
        return True
    return _MEASURES[task.measure](task, _of(task, before), now)


def count_changed(task: Task, before: Detections, now: Detections) -> bool:
    """Whether there are more or fewer objects."""
    return len(before.labels) != len(now.labels)


def presence_changed(task: Task, before: Detections, now: Detections) -> bool:
    """Whether the first object came, or the last one went."""
    return (len(before.labels) > 0) != (len(now.labels) > 0)


def label_set_changed(task: Task, before: Detections, now: Detections) -> bool:
    """Whether other classes are there; for a classifier, whether the label changed."""
    return set(before.labels.tolist()) != set(now.labels.tolist())


def boxes_moved(task: Task, before: Detections, now: Detections) -> bool:
    """Whether an object came or went, or shares too little with where it was, by IoU.

    Each box is matched with one of its class, the best pairs first.
    """
    if len(before.labels) != len(now.labels):
        return True
    shared = _overlaps(before.boxes, now.boxes)
    shared[before.labels[:, None] != now.labels[None]] = 0.0
    for _ in range(len(now.labels)):
        one, other = np.unravel_index(np.argmax(shared), shared.shape)
        if not shared[one, other] >= LEAST_IOU:
            return True
        shared[one, :] = shared[:, other] = -1.0
    return False


def value_changed(task: Task, before: Detections, now: Detections) -> bool:
    """Whether the number of objects is nearest to another step."""
    return round(len(before.labels) / task.step) != round(len(now.labels) / task.step)


_MEASURES: Final[dict[str, Callable[[Task, Detections, Detections], bool]]] = {
    "count": count_changed,
    "presence": presence_changed,
    "labels": label_set_changed,
    "boxes": boxes_moved,
    "value": value_changed,
}


class History:
    """Results of one stream by presentation time, so that late ones find their predecessor.

    Args:
        task: whose rewards are asked for.
        length: results that are kept; one before all of them is too late to be judged.
    """

    def __init__(self, task: Task, *, length: int = LONGEST_HISTORY) -> None:
        """Nothing was seen yet."""
        self._task, self._length = task, length
        self._times: list[float] = []
        self._results: list[Detections] = []
        self._is_cut = False

    def reward(self, time: float, now: Detections) -> float:
        """1 if a picture was necessary, 0 if redundant; NaN if it comes too late to say.

        Args:
            time: presentation time in seconds.
            now: what its model saw; a second result of one picture takes the first's place.
        """
        place = bisect_left(self._times, time)
        if place == 0 and self._is_cut and self._task.measure != "anomaly":
            return float("nan")
        before = self._results[place - 1] if place else None
        if place < len(self._times) and self._times[place] == time:
            self._results[place] = now
        else:
            self._times.insert(place, time)
            self._results.insert(place, now)
        if len(self._times) > self._length:
            del self._times[0], self._results[0]
            self._is_cut = True
        return float(is_necessary(self._task, before, now))


def _of(task: Task, seen: Detections) -> Detections:
    """The objects that a task looks at."""
    if not task.classes:
        return seen
    kept = np.isin(seen.labels, task.classes)
    return Detections(seen.boxes[kept], seen.labels[kept], seen.scores[kept])


def _overlaps(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """(k, l) intersection over union of each pair of boxes."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(high - low, 0.0, None).prod(axis=2)
    areas = [(box[:, 2:] - box[:, :2]).prod(axis=1) for box in (one, other)]
    union = areas[0][:, None] + areas[1][None] - shared
    iou: NDArray[np.float32] = shared / np.maximum(union, 1e-12)
    return iou
