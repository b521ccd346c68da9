"""Filters that others trained: judged on what they never saw, swapped in while in use."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from made_inputs import SIZES, clouds, copied, model

from triparty.common.errors import DatasetError, FileTypeError, SettingsError
from triparty.common.nets.inputs import InputSpec
from triparty.common.nets.samples import Inputs, Samples, gather
from triparty.device.filters import Filter, Recipe, class_not_in
from triparty.device.filters.artifact import FilterArtifact
from triparty.device.filters.filter import Core
from triparty.device.filters.first_stage import STAGE_FILE, FirstStage
from triparty.device.filters.results import Skipped
from triparty.device.filters.session import Session


@cache
def on_features() -> FilterArtifact:
    """A filter of the clouds behind a first stage, as a request makes it."""
    from triparty.common.nets.training import Course

    points, classes = clouds(400)
    with patch("secrets.randbits", return_value=1):  # how well it does is a matter of the draw
        stage = FirstStage.drawn(copied("skip").artifact.inputs, gather(points))
    features = stage.features(gather(points)).columns["input"]
    made = Filter.fit(
        features,
        classes.tolist(),
        class_not_in(0),
        recipe=Recipe("skip", sizes=SIZES),
        modality="vector",
        course=Course(epochs=25, rate=5e-3),
    )
    return replace(made.artifact, stage=stage)


def kept(count: int = 200) -> tuple[Any, Any]:
    points, classes = clouds(count, seed=11)
    return points, classes.tolist()


def test_a_filter_is_swapped_in_while_inputs_come() -> None:
    """No input is lost, and none is asked of one network with the features of another."""
    filter_, candidate = copied("skip"), on_features()
    filtered = filter_.in_front_of(model(), audit_share=0.0)
    points, classes = clouds(300, seed=5)
    answers: list[list[Any]] = [[], []]
    swapped = threading.Event()

    def ask(into: list[Any]) -> None:
        while not swapped.is_set() or len(into) < 2 * len(points):
            into.append(filtered(points[len(into) % len(points)]))

    threads = [threading.Thread(target=ask, args=(into,)) for into in answers]
    for thread in threads:
        thread.start()
    done = filter_.adopt(candidate, validation=kept())
    swapped.set()
    for thread in threads:
        thread.join()
    assert done.is_taken
    assert filter_.artifact.stage is candidate.stage
    assert filtered.status().unreadable == 0
    for into in answers:
        right = [
            classes[n % len(points)] != 0 if isinstance(one, Skipped) else True
            for n, one in enumerate(into)
        ]
        assert np.mean(right) > 0.9
        assert any(isinstance(one, Skipped) for one in into[-len(points) :])


def test_the_features_of_one_network_never_reach_another() -> None:
    filter_ = copied("skip")
    before = filter_.core
    artifact = on_features()
    filter_._core = Core(artifact, Session(artifact.network, artifact.design))
    point = clouds(1)[0][0]
    np.testing.assert_array_equal(filter_.single(point, before).columns["input"][0], point)
    assert filter_.single(point).columns["input"].shape == (1, 16)


def test_a_worse_filter_is_kept_out() -> None:
    filter_ = copied("skip")
    before = filter_.core
    candidate = on_features()
    stage = candidate.stage
    assert stage is not None
    layer = stage.layers[0]
    wrong = replace(layer, weights=np.zeros_like(layer.weights))  # all inputs look alike
    worse = replace(candidate, stage=replace(stage, layers=(wrong,)))
    done = filter_.adopt(worse, validation=kept())
    assert not done.is_taken
    assert done.after < done.before
    assert filter_.core is before
    with pytest.raises(DatasetError, match="at least 60"):
        filter_.adopt(candidate, validation=kept(59))
    other = replace(candidate, tasks=(replace(candidate.tasks[0], name="other"),))
    with pytest.raises(SettingsError, match="another kind"):
        filter_.adopt(other, validation=kept())
    with pytest.raises(SettingsError, match="another kind"):
        filter_.adopt(copied("reuse").artifact, validation=kept())


def test_a_filter_behind_a_first_stage_is_a_filter(tmp_path: Path) -> None:
    made = Filter(on_features())
    made.save(tmp_path / "made")
    assert (tmp_path / "made" / STAGE_FILE).stat().st_mode & 0o077 == 0
    back = Filter.load(tmp_path / "made")
    points, classes = kept()
    np.testing.assert_array_equal(back.outputs(points), made.outputs(points))
    found = back.evaluate(points, classes).tasks[0].calibrated
    assert found.accuracy > 0.85
    assert found.filter_rate > 0.5
    (tmp_path / "made" / STAGE_FILE).write_bytes(b"no stage")
    with pytest.raises(FileTypeError, match="no first stage"):
        Filter.load(tmp_path / "made")


def test_a_stage_takes_texts_and_missing_inputs(tmp_path: Path) -> None:
    specs = (InputSpec("words", "text", (5,), 40), InputSpec("x", "vector", (3,)))
    rng = np.random.default_rng(2)
    inputs = Inputs(
        {"words": rng.integers(0, 40, (9, 5)), "x": rng.normal(size=(9, 3)).astype("f4")},
        np.array([[True, row % 3 > 0] for row in range(9)]),
    )
    stage = FirstStage.drawn(specs, inputs)
    features = stage.features(inputs)
    assert [one.shape for one in stage.feature_specs] == [(40,), (16,)]
    assert not features.columns["x"][::3].any()
    assert features.columns["x"][1::3].any(axis=1).all()
    layer = stage.layers[0]
    by_hand = [
        sum((layer.weights[word] for word in row if word), layer.bias)
        for row in inputs.columns["words"]
    ]
    np.testing.assert_allclose(features.columns["words"], np.maximum(by_hand, 0), atol=1e-5)
    stage.save(tmp_path)
    again = FirstStage.open(tmp_path)
    assert again is not None
    np.testing.assert_array_equal(
        again.features(inputs).columns["words"], features.columns["words"]
    )
    other = FirstStage.drawn(specs, inputs)
    assert not np.array_equal(other.layers[0].weights, layer.weights)
    with pytest.raises(SettingsError, match="too many for a first stage"):
        FirstStage.drawn(
            (InputSpec("x", "vector", (1 << 20,)),),
            Inputs({"x": np.zeros((1, 1 << 20), "f4")}, np.ones((1, 1), bool)),
        )


def test_samples_that_are_kept_back_are_none_that_are_sent() -> None:
    from triparty.device.filters.fitting import parted

    rows = np.arange(100)
    samples = Samples(Inputs({"x": rows[:, None]}, np.ones((100, 1), bool)), rows[:, None] % 2)
    sent, held = parted(samples, 0.25, 7)
    both = [one.inputs.columns["x"][:, 0].tolist() for one in (sent, held)]
    assert sorted(both[0] + both[1]) == rows.tolist()
    assert len(both[1]) == 25
    assert parted(samples, 0.25, 7)[1].labels.tolist() == held.labels.tolist()


def test_whole_blocks_are_kept_back_and_halved() -> None:
    from triparty.device.filters.fitting import in_halves, parted

    rows, blocks = np.arange(100), np.arange(100) // 10
    inputs = Inputs({"x": rows[:, None]}, np.ones((100, 1), bool))
    samples = Samples(inputs, rows[:, None] % 2, blocks)
    for ways in (parted(samples, 0.3, 7), in_halves(samples)):
        numbers = [set((one.inputs.columns["x"][:, 0] // 10).tolist()) for one in ways]
        assert numbers[0].isdisjoint(numbers[1])
        assert sum(len(one) for one in ways) == 100
        for one in ways:
            assert one.blocks is not None
            assert one.blocks.tolist() == (one.inputs.columns["x"][:, 0] // 10).tolist()
    assert len(parted(samples, 0.3, 7)[1]) == 30
    assert len(in_halves(samples)[0]) == 50
