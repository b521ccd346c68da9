"""Redundancy measures, results out of order, and agreement with the states of a trace."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_traces import PYRAMID, made_trace

from triparty.device.gate.detectors import Detections
from triparty.device.gate.redundancy import History, is_necessary
from triparty.device.gate.states import is_wanted, states
from triparty.device.gate.traces import Task, Trace

PEOPLE, WHERE, KINDS, ANY, ODD, STEPS = (
    Task("people", "m", "count", classes=(0,)),
    Task("where", "m", "boxes"),
    Task("kinds", "m", "labels"),
    Task("any", "m", "presence"),
    Task("odd", "m", "anomaly", classes=(7,)),
    Task("steps", "m", "value", step=2.0),
)


def seen(*objects: tuple[int, float, float]) -> Detections:
    """Objects as (class, left, top), a fifth of the frame wide and high."""
    boxes = [[x, y, x + 0.2, y + 0.2] for _, x, y in objects]
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([label for label, *_ in objects], np.int32),
        np.ones(len(objects), np.float32),
    )


NOTHING, ONE, TWO = seen(), seen((0, 0.1, 0.1)), seen((0, 0.1, 0.1), (0, 0.6, 0.6))


@pytest.mark.parametrize(
    ("task", "before", "now", "necessary"),
    [
        (PEOPLE, ONE, ONE, False),
        (PEOPLE, ONE, TWO, True),
        (PEOPLE, ONE, seen((0, 0.8, 0.8)), False),  # elsewhere, but still one
        (PEOPLE, ONE, seen((0, 0.1, 0.1), (7, 0.5, 0.5)), False),  # of another class
        (WHERE, ONE, seen((0, 0.12, 0.1)), False),
        (WHERE, ONE, seen((0, 0.3, 0.1)), True),
        (WHERE, ONE, seen((7, 0.1, 0.1)), True),
        (WHERE, TWO, seen((0, 0.6, 0.6), (0, 0.1, 0.1)), False),  # in another order
        (WHERE, TWO, seen((0, 0.1, 0.1), (0, 0.1, 0.1)), True),
        (WHERE, seen((0, 0.1, 0.1), (0, 0.12, 0.1)), TWO, True),  # both stood at one place
        (WHERE, NOTHING, NOTHING, False),
        (KINDS, ONE, TWO, False),
        (KINDS, ONE, seen((7, 0.1, 0.1)), True),
        (ANY, NOTHING, ONE, True),
        (ANY, ONE, TWO, False),
        (ODD, ONE, ONE, False),
        (ODD, seen((7, 0.1, 0.1)), seen((7, 0.1, 0.1)), True),  # sought, not its change
        (STEPS, ONE, NOTHING, False),
        (STEPS, NOTHING, TWO, True),
    ],
)
def test_measures(task: Task, before: Detections, now: Detections, necessary: bool) -> None:
    assert is_necessary(task, before, now) == necessary


def test_the_first_result_is_news_unless_something_is_sought() -> None:
    assert is_necessary(PEOPLE, None, NOTHING)
    assert not is_necessary(ODD, None, NOTHING)


def results_of(trace: Trace) -> list[tuple[float, Detections]]:
    """Every frame's result in presentation order."""
    found = []
    for row in np.argsort(trace.results.pts):
        span = slice(trace.results.first[row], trace.results.first[row + 1])
        parts = (trace.results.box, trace.results.label, trace.results.score)
        found.append((float(trace.results.pts[row]), Detections(*(p[span] for p in parts))))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_states_of_a_trace_change_where_a_result_is_necessary(seed: int) -> None:
    trace = made_trace(PYRAMID, seed=seed)
    order = np.argsort(trace.packets.pts)
    for task in trace.tasks:
        if task.measure == "boxes":
            continue  # its states are measured from where a state began, not from one before
        history = History(task, length=1000)
        rewards = [history.reward(time, now) for time, now in results_of(trace)]
        numbers = states(trace, task)[order]
        if is_wanted(task):
            assert rewards == (numbers > 0).tolist()
        else:
            assert rewards[0] == 1
            assert rewards[1:] == (np.diff(numbers) != 0).tolist()


@settings(max_examples=50, deadline=None)
@given(st.permutations(list(range(12))), st.integers(0, 5))
def test_a_late_result_is_compared_with_the_newest_before_it_that_is_known(
    arrival: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    frames = [seen(*[(0, 0.1, 0.1)] * int(rng.integers(3))) for _ in arrival]
    history, known = History(PEOPLE), dict[int, Detections]()
    for number in arrival:
        earlier = [time for time in known if time < number]
        before = known[max(earlier)] if earlier else None
        expected = is_necessary(PEOPLE, before, frames[number])
        assert history.reward(float(number), frames[number]) == expected
        known[number] = frames[number]


def test_what_comes_after_everything_before_it_was_forgotten_is_not_judged() -> None:
    history = History(PEOPLE, length=3)
    for number in range(1, 6):
        history.reward(float(number), ONE)
    assert math.isnan(history.reward(0.5, TWO))
    assert history.reward(3.5, TWO) == 1
    assert history.reward(6.0, ONE) == 0
    assert History(ODD, length=1).reward(0.0, NOTHING) == 0


def test_a_second_result_of_a_picture_takes_the_place_of_the_first() -> None:
    history = History(PEOPLE)
    history.reward(1.0, ONE)
    assert history.reward(2.0, TWO) == 1
    assert history.reward(2.0, ONE) == 0
    assert history.reward(3.0, ONE) == 0
