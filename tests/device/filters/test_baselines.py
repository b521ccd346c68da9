"""What a filter has to beat: the laws of each way, and the command that compares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_inputs import clouds, write_filter
from typer.testing import CliRunner

from triparty.common.errors import DatasetError, SettingsError
from triparty.common.nets.inputs import InputSpec, Modality, detect
from triparty.common.nets.samples import gather
from triparty.device.cli_filter import app
from triparty.device.filters.baselines import (
    previous_curve,
    reuse_curves,
    skip_curves,
    static_scores,
    unchanged,
)
from triparty.device.filters.cache import CacheSettings
from triparty.device.filters.low_level import cepstral, descriptors, low_level


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def of(values: Any, modality: Modality | None = None) -> Any:
    gathered = gather(values)
    return low_level(gathered, (detect(gathered.columns["input"], modality=modality),))


def rates(curves: list[Any], target: float = 0.9) -> dict[str, float]:
    return {one.name: one.rate_at(target) for one in curves}


def test_ways_to_skip_are_between_luck_and_what_is_possible() -> None:
    points, classes = clouds(400, seed=1)
    needed, learned, tested = classes == 0, np.arange(200), np.arange(200, 400)
    found = rates(skip_curves(points, needed, learned, tested, 0.9))
    share = needed[tested].mean()
    assert found["possible"] == pytest.approx(0.1 + 1 - share, abs=0.025)
    assert found["by chance"] == pytest.approx(0.1 / share, abs=0.026)
    assert found["possible"] - 0.03 <= found["low level + kNN"] <= 1.1 - share + 1e-9
    assert found["by chance"] < found["one threshold"] <= 1.1 - share + 1e-9
    noise = rng().normal(size=points.shape).astype(np.float32)
    blind = rates(skip_curves(noise, needed, learned, tested, 0.9))
    assert blind["low level + kNN"] < found["by chance"] + 0.2


def test_one_threshold_is_on_the_feature_that_tells() -> None:
    needed = rng().random(200) < 0.3
    features = rng().normal(size=(200, 5)).astype(np.float32)
    features[:, 3] = -1.0 * needed
    scores = static_scores(features, needed, np.arange(100), 0.9)
    assert scores[needed].min() > scores[~needed].max()


def test_nothing_is_learnt_from_what_is_judged_by() -> None:
    points, classes = clouds(200, seed=2)
    needed, learned, tested = classes == 0, np.arange(100), np.arange(100, 200)
    before = static_scores(points, needed, learned, 0.9)[tested]
    turned = needed.copy()
    turned[tested] = ~turned[tested]
    np.testing.assert_array_equal(before, static_scores(points, turned, learned, 0.9)[tested])
    bent = points.copy()
    bent[tested[1:]] += 100.0
    np.testing.assert_array_equal(
        before[:1], static_scores(bent, needed, learned, 0.9)[tested[:1]]
    )


def test_ways_to_reuse_on_a_stream() -> None:
    labels = np.repeat(np.arange(58) % 4, 7)[:400]
    keys = labels[:, None] + rng().normal(scale=0.01, size=(400, 3))
    learned, tested = np.arange(200), np.arange(200, 400)
    found = rates(
        reuse_curves(keys.astype(np.float32), labels, learned, tested, CacheSettings(first=20))
    )
    assert found["most frequent result"] == pytest.approx(0.1 / 0.75, abs=0.025)
    kept = np.count_nonzero(np.diff(labels[tested]) == 0)
    assert found["low level unchanged"] == pytest.approx(kept / 200)
    assert found["low level + cache"] > 0.8
    assert found["last result for a while"] < found["low level unchanged"]
    alternating = previous_curve(np.arange(200) % 2)
    assert alternating.rate_at(0.9) == 0.0


def test_the_last_result_is_of_the_last_input_that_the_model_got() -> None:
    """A slow drift is noticed, though no step of it is large."""
    keys = np.arange(10, dtype=np.float32)[:, None]
    found = unchanged(keys, np.arange(10) // 3, 2.0)
    assert (found.reused, found.wrong) == (6, 0)
    assert unchanged(keys, np.arange(10), 2.0).wrong == 6


def test_low_level_features_of_every_modality_tell_what_they_are_for() -> None:
    assert of(["a b a", "c c c", ""]).shape[0] == 3
    assert of(rng().random((3, 20, 4), np.float32)).shape == (3, 8)
    assert of(rng().random((3, 7), np.float32)).shape == (3, 7)
    assert of(rng().random((3, 5, 6, 6), np.float32), "vector").shape == (3, 10)
    assert of(rng().random((3, 2, 16, 16, 3), np.float32)).shape == (3, 288)
    assert of(rng().random((3, 8000), np.float32)).shape == (3, 26)
    assert of(rng().integers(0, 255, (3, 40, 30)).astype(np.uint8)).shape == (3, 26)


def test_descriptors_tell_the_direction_of_edges_and_not_their_contrast() -> None:
    stripes = np.tile(np.sin(np.arange(32) / 2) * 50 + 100, (32, 1))
    found = descriptors(np.stack([stripes, stripes.T, 100 + (stripes - 100) / 2]))[:, :128]
    assert np.abs(found[0] - found[1]).sum() > 1.0
    np.testing.assert_allclose(found[0], found[2], atol=1e-5)


def test_cepstral_coefficients_beyond_the_first_do_not_know_how_loud_it_is() -> None:
    levels = rng().random((2, 40, 30))
    levels[1] = levels[0] + 3.0
    found = cepstral(levels)
    np.testing.assert_allclose(found[0, 1:], found[1, 1:], atol=1e-4)
    assert found[1, 0] > found[0, 0] + 1.0


def test_the_command_compares_and_draws(tmp_path: Path) -> None:
    for module in ("torch", "onnx", "onnxruntime", "matplotlib"):
        pytest.importorskip(module)
    points, classes = clouds(240, seed=4)
    np.savez(tmp_path / "data.npz", input=points, results=classes)
    folder, plot = write_filter(tmp_path / "skip"), tmp_path / "curves.svg"
    told = call("evaluate", folder, tmp_path / "data.npz", "--baselines", "--plot", plot)
    assert "this filter" in told
    assert "<svg" in plot.read_text(encoding="utf-8")
    assert plot.stat().st_mode & 0o777 == 0o600
    reusing = write_filter(tmp_path / "reuse", "reuse")
    told = call("evaluate", reusing, tmp_path / "data.npz", "--baselines")
    assert "most frequent result" in told
    said = call("evaluate", tmp_path / "skip", tmp_path / "data.npz", "--baselines", "--json")
    found = json.loads(said)["baselines"]
    assert found["by chance"] < found["this filter"] <= found["possible"] + 0.05
    with pytest.raises(SettingsError, match="name both"):
        call("evaluate", tmp_path / "skip", tmp_path / "data.npz", "--plot", plot)
    order = np.argsort(classes == 0, kind="stable")
    np.savez(tmp_path / "sorted.npz", input=points[order], results=classes[order])
    with pytest.raises(DatasetError, match="first half of the inputs has one class alone"):
        call("evaluate", tmp_path / "skip", tmp_path / "sorted.npz", "--baselines")


def call(*arguments: object) -> str:
    answer = CliRunner().invoke(app, [str(one) for one in arguments])
    if answer.exception is not None:
        raise answer.exception
    return answer.stdout


def test_a_specification_names_its_column() -> None:
    gathered = gather({"left": np.ones((2, 3)), "right": np.zeros((2, 2))})
    specs = (InputSpec("right", "vector", (2,)), InputSpec("left", "vector", (3,)))
    assert low_level(gathered, specs).tolist() == [[0, 0, 1, 1, 1]] * 2
