"""What shows without any attack, counted by hand."""

from __future__ import annotations

import numpy as np
from planted_rows import rotation

from triparty.developer.audit import Knowledge
from triparty.developer.audit.attacks import TrafficShape


def test_it_counts_what_shows() -> None:
    rows = np.random.default_rng(0).normal(size=(9, 16)) @ rotation(16)
    keyed = rows.astype(np.float32)
    traffic = (
        keyed[[0, 1, 2]], keyed[[3]], keyed[[4]],
        keyed[[0, 1, 5, 6]], keyed[[3]], keyed[[3]],
        keyed[[7, 8]],
    )  # fmt: skip
    found = TrafficShape().mount(Knowledge(traffic))
    figures = dict(found.figures)
    assert figures.pop("spread_of_lengths") > 0
    assert figures == {
        "requests": 7,
        "rows": 13,
        "rows_one_by_one": 4,
        "questions": 3,
        "rows_of_a_question": 3,
        "rows_of_an_answer": 2,
        "different_rows": 9,
        "repeated_rows": 1 - 9 / 13,
        "rows_that_questions_begin_alike_with": 0,
        "questions_that_begin_alike": 1 / 3,
    }
    assert found.share == 1 - 9 / 13


def test_a_template_shows() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 16)).astype(np.float32)
    traffic = tuple(np.vstack([rows[:5], rows[i : i + 2]]) for i in range(6, 16, 2))
    figures = TrafficShape().mount(Knowledge(traffic)).figures
    assert figures["rows_that_questions_begin_alike_with"] == 5
    assert figures["questions_that_begin_alike"] == 1


def test_a_template_ends_where_questions_first_differ() -> None:
    rows = np.random.default_rng(0).normal(size=(9, 16)).astype(np.float32)
    traffic = (rows[[0, 1, 2, 3, 4]], rows[[0, 1, 7, 3, 4]])
    figures = TrafficShape().mount(Knowledge(traffic)).figures
    assert figures["rows_that_questions_begin_alike_with"] == 2


def test_keys_of_one_use_hide_it() -> None:
    traffic = (np.ones((4, 16), np.float32), np.ones((1, 16), np.float32))
    knowledge = Knowledge(traffic)
    assert TrafficShape().mount(knowledge).share == 0.8
    assert TrafficShape().mount(TrafficShape().control(knowledge)).share == 0.0


def test_no_traffic_shows_nothing() -> None:
    assert TrafficShape().lacks(Knowledge(()))
