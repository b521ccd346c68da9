"""The inputs of a predictor against one stream at a time, from its whole history."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triparty.device.gate.features import EXTENDED, FeatureChoice, Features
from triparty.device.gate.policy import Arrivals, Feedback
from triparty.device.gate.windows import RunningScale
from triparty.device.streams.packets import PictureType

STREAMS = 3
PACKET = st.tuples(
    st.integers(0, STREAMS - 1),
    st.integers(1, 5000),
    st.sampled_from([1, 2, 3]),
    st.one_of(st.just(math.nan), st.integers(10, 50).map(float)),
)
# Packets of a round, and for each stream with one: None, or the rewards of its newest picture.
ROUND = st.tuples(
    st.lists(PACKET, max_size=5),
    st.dictionaries(
        st.integers(0, STREAMS - 1),
        st.lists(st.sampled_from([0.0, 1.0, math.nan]), min_size=2, max_size=2),
    ),
)


@dataclass
class SlowStream:
    """One stream, kept as lists."""

    scale: RunningScale = field(default_factory=RunningScale)
    qp_scale: RunningScale = field(default_factory=lambda: RunningScale(smallest=0.5))
    sizes: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    since: list[float] = field(default_factory=list)
    qp: float = math.nan
    chosen: float = math.nan
    heard: float = math.nan
    counts: list[float] = field(default_factory=lambda: [0.0, 0.0])
    kind: int = 0

    def __post_init__(self) -> None:
        self.scale.grow(1)
        self.qp_scale.grow(1)

    def see(self, size: int, kind: int, qp: float) -> None:
        row, kinds = np.array([0]), np.array([kind], np.int8)
        score = float(self.scale.score(row, kinds, np.array([math.log1p(size)]))[0])
        self.sizes[kind == 1].append(score)
        self.since.append(score)
        known = not math.isnan(qp)
        self.qp = float(self.qp_scale.score(row, kinds, np.array([qp]))[0]) if known else qp
        self.kind = kind

    def row(self, now: float) -> list[float]:
        views = [([0.0] * 5 + self.sizes[view])[-5:] for view in (True, False)]
        mean = (self.counts[0] + 0.5) / (self.counts[1] + 1.5)
        age = 60.0 if math.isnan(self.chosen) else now - self.chosen
        heard = 60.0 if math.isnan(self.heard) else now - self.heard
        known = not math.isnan(self.qp)
        return [
            *views[0],
            *views[1],
            *[float(self.kind == int(letter)) for letter in PictureType],
            float(self.kind != 3),
            self.qp if known else 0.0,
            float(known),
            math.log1p(age),
            math.log1p(len(self.since)),
            math.log1p(sum(max(score, 0.0) for score in self.since)),
            max([0.0, *self.since]),
            mean,
            math.log1p(self.counts[1]),
            math.log1p(heard),
        ]


@settings(max_examples=60, deadline=None)
@given(st.lists(ROUND, max_size=25))
def test_the_matrix_is_what_each_stream_alone_would_say(
    rounds: list[tuple[list[tuple[int, int, int, float]], dict[int, list[float]]]],
) -> None:
    groups = tuple(name for name in EXTENDED if name != "temporal")
    fast = Features(FeatureChoice(groups))
    fast.grow(STREAMS)
    slow = [SlowStream() for _ in range(STREAMS)]
    for number, (packets, looks) in enumerate(rounds):
        now = number / 25
        arrivals = arrivals_of(packets, now)
        fast.see(arrivals)
        for stream, size, kind, qp in packets:
            slow[stream].see(size, kind, qp)
        newest = {stream: place for place, (stream, *_) in enumerate(packets)}
        matrix = fast.matrix(arrivals, np.array(list(newest.values()), np.int64))
        expected = np.array([slow[stream].row(now) for stream in newest])
        np.testing.assert_allclose(matrix, expected.reshape(matrix.shape), rtol=1e-5, atol=1e-5)
        looked = np.array([stream for stream in newest if stream in looks], np.int64)
        fast.chosen(looked, np.full(len(looked), now))
        rewards = np.array([looks[s] for s in looked]).reshape(len(looked), 2)
        times, selected = np.full(len(looked), now), np.ones(len(looked), bool)
        fast.learn(Feedback(now, looked, times, rewards, selected))
        for one in slow:
            one.counts = [0.998 * count for count in one.counts]
        for stream, reward in zip(looked, rewards, strict=True):
            slow[stream].since, slow[stream].chosen = [], now
            known = [r for r in reward if not math.isnan(r)]
            if known:
                slow[stream].counts[0] += max(known)
                slow[stream].counts[1] += 1
                slow[stream].heard = now


def arrivals_of(packets: list[tuple[int, int, int, float]], now: float) -> Arrivals:
    columns = list(zip(*packets, strict=True)) or [()] * 4
    kind = np.array(columns[2], np.int8)
    return Arrivals(
        stream=np.array(columns[0], np.int64),
        time=np.full(len(packets), now),
        size=np.array(columns[1], np.float64),
        type=kind,
        reference=kind != PictureType.B,
        entry=kind == PictureType.I,
        slice_qp=np.array(columns[3], np.float64),
    )


@pytest.mark.parametrize("estimator", ["paper", "discounted"])
def test_the_temporal_view_is_the_estimate_and_finite(estimator: str) -> None:
    features = Features(FeatureChoice(("temporal",), 5, estimator))
    features.grow(2)
    arrivals = arrivals_of([(0, 100, 1, math.nan), (1, 100, 1, math.nan)], 0.0)
    features.see(arrivals)
    features.chosen(np.array([0]), np.zeros(1))
    view = features.matrix(arrivals, np.arange(2))[:, 0]
    estimate = features.estimate(np.arange(2))
    assert np.isfinite(view).all()
    assert view[0] == pytest.approx(estimate[0])
    assert view[1] > view[0]
    assert math.isinf(estimate[1]) == (estimator == "paper")


def test_groups_left_out_are_not_there_and_the_others_do_not_change() -> None:
    packets = [(0, 700, 1, 30.0), (1, 90, 2, 28.0), (1, 900, 3, math.nan)]
    whole = Features(FeatureChoice())
    whole.grow(2)
    whole.see(arrivals_of(packets, 0.0))
    everything = whole.matrix(arrivals_of(packets, 0.0), np.array([0, 2]))
    for left_out in EXTENDED:
        choice = FeatureChoice(tuple(name for name in EXTENDED if name != left_out))
        features = Features(choice)
        features.grow(2)
        features.see(arrivals_of(packets, 0.0))
        matrix = features.matrix(arrivals_of(packets, 0.0), np.array([0, 2]))
        assert matrix.shape == (2, choice.width)
        for name, columns in choice.columns().items():
            expected = everything[:, whole.choice.columns()[name]]
            np.testing.assert_array_equal(matrix[:, columns], expected)
