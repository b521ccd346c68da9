"""The published network, and NumPy against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from triparty.common.errors import CheckpointError, SettingsError
from triparty.device.gate.features import EXTENDED, PUBLISHED, FeatureChoice
from triparty.device.gate.predictor import (
    Network,
    Predictor,
    combine,
    random_weights,
    sigmoid,
)
from triparty.device.gate.training import torch_logits

NETWORKS = {
    "published": Network("published", FeatureChoice(PUBLISHED, 5, "paper")),
    "published for three tasks": Network("published", FeatureChoice(PUBLISHED, 5), 3),
    "contextual": Network("published", FeatureChoice(PUBLISHED[:2], 5)),
    "contextual for two tasks": Network("published", FeatureChoice(PUBLISHED[:2], 9), 2),
    "extended": Network("extended", FeatureChoice()),
    "extended for two tasks": Network("extended", FeatureChoice(EXTENDED[::-1], 3), 2),
}


def with_weights(network: Network, seed: int = 0) -> Predictor:
    rng = np.random.default_rng(seed)
    weights = random_weights(network, rng=rng)
    return Predictor(
        network,
        {n: w + rng.normal(0, 0.3, w.shape).astype(np.float32) for n, w in weights.items()},
    )


def inputs_of(network: Network, count: int = 64) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.normal(0, 2, (count, network.features.width)).astype(np.float32)


def test_the_published_network_has_3074_parameters() -> None:
    assert NETWORKS["published"].parameters == 3074
    made = with_weights(NETWORKS["published"])
    assert sum(weight.size for weight in made.weights.values()) == 3074


def test_the_published_network_is_the_one_of_the_thesis() -> None:
    """Against its own words: two views, dense 5-32-32, 1, with the third view, 128, 1."""
    network = NETWORKS["published"]
    made = with_weights(network)
    w = {name: torch.tensor(value) for name, value in made.weights.items()}
    inputs = inputs_of(network)
    view1, view2, view3 = (torch.tensor(inputs[:, a:b]) for a, b in ((0, 5), (5, 10), (10, 11)))

    def conv(name: str, view: torch.Tensor) -> torch.Tensor:
        """1-D convolution with kernel 1 over a time axis of length 1, window as channels."""
        kernel = w[f"{name}.weight"].T[:, :, None]
        return torch.relu(torch.nn.functional.conv1d(view, kernel, w[f"{name}.bias"]))

    pooled = []
    for name, view in (("independent", view1), ("predicted", view2)):
        hidden = conv(f"{name}2", conv(f"{name}1", view[:, :, None]))
        pooled.append(hidden.max(dim=2).values)
    context = torch.sigmoid(torch.cat(pooled, 1) @ w["context.weight"] + w["context.bias"])
    fused = torch.cat([context, view3], 1) @ w["fused.weight"] + w["fused.bias"]
    answer = torch.sigmoid(torch.relu(fused) @ w["heads.weight"] + w["heads.bias"])
    np.testing.assert_allclose(made.probabilities(inputs), answer.numpy(), atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_numpy_and_torch_agree(name: str) -> None:
    network = NETWORKS[name]
    made = with_weights(network, seed=2)
    inputs = inputs_of(network)
    before = inputs.copy()
    tensors = {n: torch.tensor(w) for n, w in made.weights.items()}
    with torch.no_grad():
        expected = torch.sigmoid(torch_logits(network, tensors, torch.tensor(inputs)))
    got = made.probabilities(inputs)
    assert got.dtype == np.float32
    assert got.shape == (64, network.tasks)
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-6)
    np.testing.assert_array_equal(inputs, before)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_matters(name: str) -> None:
    network = NETWORKS[name]
    made = with_weights(network, seed=3)
    inputs = inputs_of(network)
    for changed in network.shapes():
        weights = {n: w + np.float32(n == changed) for n, w in made.weights.items()}
        other = Predictor(network, weights)
        assert np.abs(other.logits(inputs) - made.logits(inputs)).max() > 1e-4, changed


def test_extreme_logits_have_probabilities_without_warnings() -> None:
    extreme = np.array([[-1e4, 0.0, 1e4]], np.float32)
    assert sigmoid(extreme).tolist() == [[0.0, 0.5, 1.0]]


def test_a_picture_that_any_task_needs_is_needed() -> None:
    both = np.array([[0.5, 0.5], [0.0, 1.0], [0.0, 0.0]], np.float32)
    assert combine(both).tolist() == [0.75, 1.0, 0.0]
    assert combine(both, np.array([1.0, 0.0])).tolist() == [0.5, 0.0, 0.0]


def test_weights_that_are_not_the_networks_are_refused() -> None:
    network = NETWORKS["published"]
    good = random_weights(network, rng=np.random.default_rng(0))
    broken = {
        "missing": {n: w for n, w in good.items() if n != "heads.bias"},
        "unknown": good | {"more.bias": np.zeros(1, np.float32)},
        "shape": good | {"heads.bias": np.zeros(2, np.float32)},
        "dtype": good | {"heads.bias": np.zeros(1)},
        "not finite": good | {"heads.bias": np.full(1, np.nan, np.float32)},
    }
    Predictor(network, good)
    for weights in broken.values():
        with pytest.raises(CheckpointError):
            Predictor(network, weights)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Network("mlp", FeatureChoice()),
        lambda: Network("published", FeatureChoice()),
        lambda: Network("published", FeatureChoice(("predicted", "independent"))),
        lambda: Network("extended", FeatureChoice(), 0),
        lambda: Network("extended", FeatureChoice(), 65),
        lambda: FeatureChoice(("size",)),
        lambda: FeatureChoice(("type", "type")),
        lambda: FeatureChoice(()),
        lambda: FeatureChoice(window=0),
        lambda: FeatureChoice(window=65),
        lambda: FeatureChoice(estimator="mean"),
        lambda: FeatureChoice(horizon=1),
    ],
)
def test_what_is_no_network_is_refused(wrong: object) -> None:
    with pytest.raises(SettingsError, match=r"expected|takes"):
        wrong()
