"""Running scales and size windows against one stream at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.device.gate.windows import LIMIT, RunningScale, SizeWindows, waves
from triparty.device.streams.packets import PictureType

I, P, B = (int(kind) for kind in PictureType)  # noqa: E741


def one_stream(values: list[float], kind: int = P) -> np.ndarray:
    scale = RunningScale()
    scale.grow(1)
    row, kinds = np.array([0]), np.array([kind], np.int8)
    return np.array([scale.score(row, kinds, np.array([value]))[0] for value in values])


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([I, P, B]), st.floats(0.0, 15.0)),
        max_size=60,
    )
)
def test_streams_and_types_do_not_mix(events: list[tuple[int, int, float]]) -> None:
    scale = RunningScale()
    scale.grow(4)
    together: dict[tuple[int, int], list[float]] = {}
    apart: dict[tuple[int, int], list[float]] = {}
    for stream, kind, value in events:
        kinds = np.array([kind], np.int8)
        score = scale.score(np.array([stream]), kinds, np.array([value]))[0]
        together.setdefault((stream, kind), []).append(score)
        apart.setdefault((stream, kind), []).append(value)
    for key, values in apart.items():
        np.testing.assert_array_equal(one_stream(values), together[key])


def test_the_median_and_spread_of_a_steady_stream_are_found() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(8.0, 0.5, 4000)
    scores = one_stream(values.tolist())[1000:]
    assert abs(np.median(scores)) < 0.15
    assert np.std(scores) == pytest.approx(1.0, abs=0.2)


def test_an_outlier_moves_the_scale_as_little_as_any_value() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(8.0, 0.5, 500).tolist()
    large = one_stream([*values, 1e6, 8.0])
    usual = one_stream([*values, 9.0, 8.0])
    assert large[-2] == LIMIT
    assert large[-1] == pytest.approx(usual[-1], abs=0.1)


def test_a_change_of_bit_rate_becomes_usual() -> None:
    rng = np.random.default_rng(3)
    values = [*rng.normal(8.0, 0.3, 500), *rng.normal(10.0, 0.3, 500)]
    scores = one_stream(values)
    assert np.median(scores[500:510]) > 3
    assert abs(np.median(scores[900:])) < 0.5


def test_the_first_size_of_a_type_is_the_usual_one() -> None:
    assert one_stream([12.0, 12.0]).tolist() == [0.0, 0.0]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([I, P, B])), max_size=60),
    st.integers(1, 6),
)
def test_windows_hold_the_last_sizes_of_each_view(
    events: list[tuple[int, int]], window: int
) -> None:
    windows = SizeWindows(window=window)
    windows.grow(3)
    held: dict[tuple[int, bool], list[float]] = {}
    for number, (stream, kind) in enumerate(events):
        windows.push(np.array([stream]), np.array([kind], np.int8), np.array([float(number)]))
        held.setdefault((stream, kind == I), [0.0] * window).append(float(number))
    rows = np.arange(3)
    for view, is_independent in ((windows.independent, True), (windows.predicted, False)):
        expected = [held.get((row, is_independent), [0.0] * window)[-window:] for row in rows]
        np.testing.assert_array_equal(view(rows), expected)


@given(st.lists(st.integers(0, 4), max_size=30))
def test_waves_hold_every_packet_once_and_no_stream_twice(streams: list[int]) -> None:
    stream = np.array(streams, np.int64)
    groups = waves(stream)
    places = [place for group in groups for place in group.tolist()]
    assert sorted(places) == list(range(len(streams)))
    for group in groups:
        assert len(set(stream[group].tolist())) == len(group)
    for row in set(streams):  # in the order given
        mine = [place for place in places if streams[place] == row]
        assert mine == sorted(mine)
