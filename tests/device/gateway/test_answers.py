"""Answers, what is new about them, and which change is an event."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_traces import PYRAMID, made_trace

from triparty.device.gate.detectors import Detections
from triparty.device.gate.states import is_wanted, states
from triparty.device.gate.traces import MEASURES, ResultsBuilder, Task, Trace
from triparty.device.gateway.answers import (
    Debounce,
    Held,
    answer,
    differs,
    judge,
    nothing,
)


def seen(*objects: tuple[int, float, float]) -> Detections:
    """Objects of a label with their left top corner, a fifth of the frame wide and high."""
    boxes = [[x, y, x + 0.2, y + 0.2] for _, x, y in objects]
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([label for label, _, _ in objects], np.int32),
        np.ones(len(objects), np.float32),
    )


def task(measure: str, **more: object) -> Task:
    return Task("t", "m", measure, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("expected", "asked"),
    [
        (2, task("count")),
        (1, task("count", classes=(7,))),
        (True, task("presence")),
        (False, task("presence", classes=(9,))),
        (True, task("anomaly", classes=(3,))),
        ((3, 7), task("labels")),
        ((3,), task("labels", classes=(3, 9))),
        (2.0, task("value")),
    ],
)
def test_answers_to_objects(expected: object, asked: Task) -> None:
    assert answer(asked, seen((7, 0, 0), (3, 0.5, 0.5))) == expected


@pytest.mark.parametrize(
    ("expected", "measure"),
    [(2, "count"), (True, "presence"), (True, "anomaly"), ((), "labels"), (2.4, "value")],
)
def test_answers_to_a_number(expected: object, measure: str) -> None:
    assert answer(task(measure), 2.4) == expected


@pytest.mark.parametrize("measure", MEASURES)
def test_nothing_differs_from_itself_alone(measure: str) -> None:
    asked = task(measure)
    assert not differs(asked, nothing(asked), nothing(asked))
    something = answer(asked, 3.0 if measure == "value" else seen((1, 0, 0)))
    assert differs(asked, nothing(asked), something)


def test_boxes_differ_if_one_moved_or_changed_its_label() -> None:
    asked = task("boxes")
    before = answer(asked, seen((1, 0, 0), (1, 0.5, 0.5)))
    for same in (seen((1, 0.5, 0.5), (1, 0, 0)), seen((1, 0.02, 0), (1, 0.5, 0.51))):
        assert not differs(asked, before, answer(asked, same))
    for other in (
        seen((1, 0.2, 0), (1, 0.5, 0.5)),
        seen((2, 0, 0), (1, 0.5, 0.5)),
        seen((1, 0, 0)),
        seen((1, 0, 0), (1, 0, 0)),
    ):
        assert differs(asked, before, answer(asked, other))


def test_a_value_differs_by_its_step() -> None:
    asked = task("value", step=10.0)
    assert not differs(asked, 31.0, 34.0)
    assert differs(asked, 31.0, 36.0)


TASKS = [task("count"), Task("odd", "m", "anomaly"), Task("other", "n", "presence")]


def test_a_frame_is_necessary_if_its_answer_is_new() -> None:
    held, first = judge(TASKS, Held({}), {"t": 2, "odd": False}, 1.0)
    assert first[:2] == [1, 0]
    assert np.isnan(first[2])
    held, again = judge(TASKS, held, {"t": 2, "odd": True}, 2.0)
    assert again[:2] == [0, 1]
    held, third = judge(TASKS, held, {"t": 3, "odd": True}, 3.0)
    assert third[:2] == [1, 1]
    assert held.answers == {"t": 3, "odd": True}


def test_what_comes_too_late_says_nothing() -> None:
    held, _ = judge(TASKS, Held({}), {"t": 2}, 5.0)
    again, rewards = judge(TASKS, held, {"t": 9}, 4.0)
    assert np.isnan(rewards).all()
    assert again == held


def test_what_a_filter_calls_redundant_is_so_for_all_tasks() -> None:
    held, _ = judge(TASKS, Held({}), {"t": 2}, 1.0)
    again, rewards = judge(TASKS, held, {}, 2.0, redundant=True)
    assert rewards == [0, 0, 0]
    assert again.answers == {"t": 2}


def looked(answers: list[object], *, hold_s: float = 1.0, looks: int = 2) -> list[object]:
    state = Debounce(task("count"), hold_s, looks, 0)
    changes = []
    for time, each in enumerate(answers):
        state, change = state.look(each, float(time))  # type: ignore[arg-type]
        changes += [(change.before, change.after, change.time)] if change else []
    return changes


def test_a_change_that_holds_is_an_event_of_when_it_began() -> None:
    assert looked([0, 0, 1, 1, 1, 0, 0]) == [(0, 1, 2.0), (1, 0, 5.0)]


@pytest.mark.parametrize("odd", [[0, 1, 0, 0], [0, 1, 2, 3, 0], [1, 0, 1, 0, 1, 0]])
def test_an_odd_look_is_no_event(odd: list[object]) -> None:
    assert looked(odd) == []


def test_a_change_must_hold_and_be_seen_often_enough() -> None:
    assert looked([1, 1, 1], hold_s=0, looks=4) == []
    assert looked([1, 1, 1, 1], hold_s=0, looks=4) == [(0, 1, 0.0)]
    assert looked([1, 1, 1], hold_s=5, looks=1) == []
    assert looked([1], hold_s=0, looks=1) == [(0, 1, 0.0)]


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 4), st.integers(1, 4))
def test_events_chain(answers: list[int], hold_s: int, looks: int) -> None:
    changes = looked(list(answers), hold_s=hold_s, looks=looks)
    assert [before for before, _, _ in changes] == [0, *(after for _, after, _ in changes)][
        : len(changes)
    ]
    assert all(before != after for before, after, _ in changes)


NOTHING, ONE, TWO = seen(), seen((0, 0.1, 0.1)), seen((0, 0.1, 0.1), (0, 0.6, 0.6))
PEOPLE, WHERE = task("count", classes=(0,)), task("boxes")
ODD = task("anomaly", classes=(7,))


@pytest.mark.parametrize(
    ("asked", "before", "now", "necessary"),
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
        (task("labels"), ONE, TWO, False),
        (task("labels"), ONE, seen((7, 0.1, 0.1)), True),
        (task("presence"), NOTHING, ONE, True),
        (task("presence"), ONE, TWO, False),
        (ODD, ONE, ONE, False),
        (ODD, seen((7, 0.1, 0.1)), seen((7, 0.1, 0.1)), True),  # sought, not its change
        (task("value", step=2.0), ONE, NOTHING, False),
        (task("value", step=2.0), NOTHING, TWO, True),
    ],
)
def test_what_makes_a_frame_necessary(
    asked: Task, before: Detections, now: Detections, necessary: bool
) -> None:
    held = Held({"t": answer(asked, before)}, 1.0)
    _, rewards = judge([asked], held, {"t": answer(asked, now)}, 2.0)
    assert rewards == [float(necessary)]


def results_of(trace: Trace) -> list[tuple[float, Detections]]:
    """Every frame's result in presentation order."""
    found = []
    for row in np.argsort(trace.results.pts):
        span = slice(trace.results.first[row], trace.results.first[row + 1])
        parts = (trace.results.box, trace.results.label, trace.results.score)
        found.append((float(trace.results.pts[row]), Detections(*(p[span] for p in parts))))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_states_of_a_trace_change_where_a_frame_is_necessary(seed: int) -> None:
    trace = made_trace(PYRAMID, seed=seed)
    order = np.argsort(trace.packets.pts)
    assert "boxes" in {asked.measure for asked in trace.tasks}
    for asked in trace.tasks:
        held, rewards = Held({}), []
        for time, now in results_of(trace):
            held, (reward,) = judge([asked], held, {asked.name: answer(asked, now)}, time)
            rewards.append(reward)
        numbers = states(trace, asked)[order]
        if is_wanted(asked):
            assert rewards == (numbers > 0).tolist()
        else:
            assert rewards[0] == 1
            assert rewards[1:] == (np.diff(numbers) != 0).tolist()


def test_slow_motion_is_new_in_the_end() -> None:
    held, rewards = Held({}), []
    for step in range(12):
        now = answer(WHERE, seen((0, 0.1 + 0.01 * step, 0.1)))
        held, (reward,) = judge([WHERE], held, {"t": now}, float(step))
        rewards.append(reward)
    assert rewards == [1, *[0] * 6, 1, *[0] * 4]


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.integers(0, 1),
                *[st.floats(0, 0.75, width=32)] * 2,
                *[st.floats(0, 0.25, width=32)] * 2,
            ),
            max_size=3,
        ),
        min_size=2,
        max_size=6,
    )
)
def test_the_states_of_any_boxes_change_where_a_frame_is_necessary(
    frames: list[list[tuple[int, float, float, float, float]]],
) -> None:
    trace = made_trace(groups=1, tasks=())
    results, held, rewards = ResultsBuilder(), Held({}), []
    shown = np.sort(trace.packets.pts)[: len(frames)]
    for pts, boxes in zip(shown.tolist(), frames, strict=True):
        edges = np.array([[x, y, x + w, y + h] for _, x, y, w, h in boxes], np.float32)
        labels = np.array([label for label, *_ in boxes], np.int32)
        now = Detections(edges.reshape(-1, 4), labels, np.ones(len(labels), np.float32))
        results.add(pts, 0, boxes=now.boxes, labels=labels)
        held, (reward,) = judge([WHERE], held, {"t": answer(WHERE, now)}, float(pts))
        rewards.append(reward)
    asked = Task("t", trace.models[0], "boxes")
    trace = replace(trace, results=results.build())
    numbers = states(trace, asked)[np.argsort(trace.packets.pts)][: len(frames)]
    assert rewards == [1, *(np.diff(numbers) != 0).tolist()]
