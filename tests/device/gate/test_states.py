"""Equal numbers for equal answers; a held answer is right as often as counting by hand says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_traces import FREE_B, made_trace

from triparty.device.gate.states import states
from triparty.device.gate.traces import ResultsBuilder, Task, Trace
from triparty.device.gate.truth import Truth

ONE = np.array([[0.1, 0.1, 0.3, 0.3]])
MOVED = ONE + 0.15
NUDGED = ONE + 0.02
TWO = np.concatenate([ONE, ONE + 0.5])


def answered(seen: list[tuple[np.ndarray, list[int]] | None]) -> Trace:
    """A trace of P pictures on whose frames a model saw these boxes and classes."""
    trace = made_trace(groups=2)
    results = ResultsBuilder()
    for pts, one in zip(np.sort(trace.packets.pts).tolist(), seen, strict=False):
        if one is not None:
            results.add(pts, 0, boxes=one[0], labels=np.array(one[1], dtype=np.int32))
    return replace(trace, results=results.build(), tasks=())


def of(trace: Trace, task: Task) -> list[int]:
    return states(trace, task).tolist()[:7]


SEEN = [
    (ONE, [0]),
    (NUDGED, [0]),
    (MOVED, [0]),
    (MOVED[:0], []),
    None,
    (TWO, [7, 0]),
    (TWO[::-1], [0, 7]),
]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (Task("a", "detector", "count"), [1, 1, 1, 0, -1, 2, 2]),
        (Task("a", "detector", "count", classes=(7,)), [0, 0, 0, 0, -1, 1, 1]),
        (Task("a", "detector", "presence"), [1, 1, 1, 0, -1, 1, 1]),
        (Task("a", "detector", "anomaly", classes=(7,)), [0, 0, 0, 0, -1, 1, 1]),
        (Task("a", "detector", "labels"), [1, 1, 1, 0, -1, 2, 2]),
        (Task("a", "detector", "boxes"), [1, 1, 2, 0, -1, 3, 3]),
        (Task("a", "detector", "boxes", classes=(0,)), [1, 1, 2, 0, -1, 3, 3]),
    ],
)
def test_answers_are_numbered_by_the_measure(task: Task, expected: list[int]) -> None:
    assert of(answered(SEEN), task) == expected


def test_a_change_of_class_in_place_is_a_new_answer() -> None:
    trace = answered([(ONE, [0]), (ONE, [1])])
    assert of(trace, Task("a", "detector", "boxes"))[:2] == [1, 2]


def test_slow_motion_is_noticed_in_the_end() -> None:
    steps = [(ONE + 0.01 * step, [0]) for step in range(12)]
    found = states(answered(steps), Task("a", "detector", "boxes"))[:12]
    assert found[0] == found[3]
    assert found[0] != found[11]


def test_numbers_go_in_steps() -> None:
    trace = made_trace(groups=1, tasks=())
    results = ResultsBuilder()
    for pts, value in zip(np.sort(trace.packets.pts).tolist(), [0, 4, 6, 14, 16, np.nan]):  # noqa: B905
        results.add(pts, 0, value=value)
    trace = replace(trace, results=results.build())
    task = Task("a", "detector", "value", step=10.0)
    assert states(trace, task).tolist() == [0, 0, 1, 1, 2, -1]


def test_states_stand_in_decode_order() -> None:
    trace = made_trace(FREE_B)
    found = states(trace, trace.tasks[0])
    rows = {pts: row for row, pts in enumerate(trace.results.pts.tolist())}
    for packet, pts in enumerate(trace.packets.pts.tolist()):
        first, last = trace.results.first[rows[pts] : rows[pts] + 2]
        assert found[packet] == (trace.results.label[first:last] == 0).sum()


@given(
    state=st.lists(st.integers(-1, 3), min_size=1, max_size=12),
    gaps=st.lists(st.sampled_from([0.04, 0.1, 0.5]), min_size=12, max_size=12),
    tolerance=st.sampled_from([0.0, 0.04, 0.3, 1.0, 100.0]),
    held=st.integers(-1, 4),
    start=st.integers(0, 30),
    length=st.integers(0, 40),
)
def test_truth_counts_as_by_hand(
    state: list[int], gaps: list[float], tolerance: float, held: int, start: int, length: int
) -> None:
    frames = len(state)
    time = np.cumsum([0.0, *gaps[: frames - 1]])
    period = float(time[-1] + 0.04)
    truth = Truth(np.array(state), time, period, tolerance)

    def right(shown: int) -> bool:
        lap, place = divmod(shown, frames)
        now = time[place] + lap * period
        for back in range(shown, shown - frames, -1):
            back_lap, back_place = divmod(back, frames)
            if now - (time[back_place] + back_lap * period) > tolerance + 1e-6:
                return False
            if state[back_place] == held and held != -1:
                return True
        return False

    spans = np.array([start]), np.array([start + length])
    shown = range(start, start + length)
    counted = [one for one in shown if state[one % frames] != -1]
    assert truth.known(*spans).tolist() == [len(counted)]
    assert truth.right(np.array([held]), *spans).tolist() == [sum(map(right, counted))]
