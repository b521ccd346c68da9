"""What a task answers on each frame of a trace, as numbers that are equal where answers are.

A state lasts until the task's redundancy measure (thesis 2.4.1) calls a frame's result new. So
every task, counting or placing, becomes one column of whole numbers, and a held answer is right
where its number is the frame's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from triparty.device.gate.boxes import in_place
from triparty.device.gate.traces import Results, Task, Trace

States = NDArray[np.int64]
UNKNOWN = -1


def states(trace: Trace, task: Task) -> States:
    """(n,) int64 the state of each packet's frame in decode order, -1 where none is known.

    `count`: how many objects. `presence`, `anomaly`: 0 or 1. `value`: the nearest step.
    `labels`: a number for each set of classes. `boxes`: 0 for an empty frame, else a number
    that stays until an object came, went, or moved from where it was when the number began.

    Args:
        trace: with results of the task's model; the last result of a frame holds.
        task: one of the trace's.
    """
    results = trace.results
    model = trace.models.index(task.model)
    rows = np.flatnonzero(results.model == model)
    counted = _counted(results, task)
    answers = _ANSWERS[task.measure](results, rows, counted, task, _order(results, rows))
    found = np.full(len(trace.packets), UNKNOWN, dtype=np.int64)
    order = np.argsort(trace.packets.pts)
    place = order[np.searchsorted(trace.packets.pts, results.pts[rows], sorter=order)]
    found[place] = answers
    return found


def is_wanted(task: Task) -> bool:
    """Whether a frame is necessary for what it shows, not for what it changes."""
    return task.measure == "anomaly"


def _order(results: Results, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.argsort(results.pts[rows], kind="stable")


def _counted(results: Results, task: Task) -> NDArray[np.bool_]:
    """(b,) whether a box is of a class that the task looks at."""
    if not task.classes:
        return np.ones(len(results.label), dtype=np.bool_)
    return np.isin(results.label, task.classes)


def _count(
    results: Results,
    rows: NDArray[np.intp],
    counted: NDArray[np.bool_],
    task: Task,
    order: NDArray[np.intp],
) -> States:
    totals = np.append(0, np.cumsum(counted)).astype(np.int64)
    found: States = totals[results.first[rows + 1]] - totals[results.first[rows]]
    return found


def _presence(
    results: Results,
    rows: NDArray[np.intp],
    counted: NDArray[np.bool_],
    task: Task,
    order: NDArray[np.intp],
) -> States:
    return (_count(results, rows, counted, task, order) > 0).astype(np.int64)


def _value(
    results: Results,
    rows: NDArray[np.intp],
    counted: NDArray[np.bool_],
    task: Task,
    order: NDArray[np.intp],
) -> States:
    steps = np.round(results.value[rows].astype(np.float64) / task.step)
    kept = np.clip(np.nan_to_num(steps, nan=UNKNOWN), UNKNOWN, 2**40)
    return kept.astype(np.int64)


def _labels(
    results: Results,
    rows: NDArray[np.intp],
    counted: NDArray[np.bool_],
    task: Task,
    order: NDArray[np.intp],
) -> States:
    numbers: dict[frozenset[int], int] = {frozenset(): 0}
    found = np.empty(len(rows), dtype=np.int64)
    for place in order:
        span = slice(results.first[rows[place]], results.first[rows[place] + 1])
        seen = frozenset(results.label[span][counted[span]].tolist())
        found[place] = numbers.setdefault(seen, len(numbers))
    return found


def _boxes(
    results: Results,
    rows: NDArray[np.intp],
    counted: NDArray[np.bool_],
    task: Task,
    order: NDArray[np.intp],
) -> States:
    found = np.empty(len(rows), dtype=np.int64)
    box, label = results.box[:0], results.label[:0]
    current = last = 0
    for place in order:
        span = slice(results.first[rows[place]], results.first[rows[place] + 1])
        new_box, new_label = (
            results.box[span][counted[span]],
            results.label[span][counted[span]],
        )
        if not in_place(box, label, new_box, new_label):
            box, label = new_box, new_label
            current = last + 1 if len(box) else 0
            last = max(last, current)
        found[place] = current
    return found


_ANSWERS = {
    "count": _count,
    "presence": _presence,
    "labels": _labels,
    "boxes": _boxes,
    "anomaly": _presence,
    "value": _value,
}
