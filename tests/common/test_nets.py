"""Filters' networks: what is exported is what was trained, distances are distances."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_inputs import SIZES, clouds

from triparty.common.errors import CheckpointError, DatasetError, FileTypeError, SettingsError
from triparty.common.nets.design import Design
from triparty.common.nets.inputs import InputSpec, detect
from triparty.common.nets.samples import Samples, check_inputs, gather

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from triparty.common.nets.export import to_onnx, weights_of  # noqa: E402
from triparty.common.nets.losses import contrastive_loss, pair_loss  # noqa: E402
from triparty.common.nets.network import FilterNetwork  # noqa: E402
from triparty.common.nets.training import (  # noqa: E402
    Course,
    Epoch,
    as_tensors,
    load_weights,
    train,
)
from triparty.device.filters.session import Session  # noqa: E402

RNG = np.random.default_rng(0)
MADE: dict[str, Any] = {
    "text": RNG.integers(0, 30, (4, 7)),
    "words": ["one", "two words", "", "three of them"],
    "image": RNG.integers(0, 255, (4, 21, 17, 3)).astype(np.uint8),
    "image-first": RNG.random((4, 3, 20, 20), np.float32),
    "image-large": RNG.random((4, 130, 50, 1), np.float32),
    "video": RNG.random((4, 3, 16, 18, 1), np.float32),
    "spectrogram": RNG.integers(0, 255, (4, 16, 20)).astype(np.uint8),
    "waveform": RNG.normal(size=(4, 4000)).astype(np.float32),
    "vector": RNG.normal(size=(4, 11)).astype(np.float32),
    "map": RNG.normal(size=(4, 5, 6, 7)).astype(np.float32),
    "series": RNG.normal(size=(4, 24, 3)).astype(np.float32),
}


def network(design: Design, seed: int = 0) -> FilterNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = FilterNetwork(design).eval()
        with torch.no_grad():
            for weight in made.parameters():  # no two alike, as after training
                weight.add_(0.1 * torch.randn_like(weight))
    made.settle()
    return made


def design_of(values: Any, kind: str = "skip", **sizes: Any) -> Design:
    specs = tuple(detect(v, name=k) for k, v in gather(values).columns.items())
    return Design(kind, specs, **{**SIZES, **sizes})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["skip", "reuse"])
@pytest.mark.parametrize("name", list(MADE))
def test_the_exported_network_answers_as_the_trained_one(name: str, kind: str) -> None:
    design = design_of(MADE[name], kind, tasks=2)
    inputs = check_inputs(gather(MADE[name]), design.inputs)
    made = network(design)
    with torch.no_grad():
        values, _ = as_tensors(inputs, torch.device("cpu"))
        expected = made(*values).numpy()
    file = to_onnx(made)
    told = Session(file, design).run(inputs)
    assert told.shape == ((4, 2) if kind == "skip" else (4, 2, design.width))
    assert np.abs(told - expected).max() < 1e-5
    assert np.abs(expected - expected[::-1]).max() > 1e-4  # inputs make a difference
    kept = weights_of(file)
    for key, weight in made.state_dict().items():
        assert np.array_equal(kept[key], weight.numpy()), key


def test_weights_that_are_equal_keep_their_names() -> None:
    """As before training, when all norms are alike."""
    design = design_of(MADE["image"])
    made = FilterNetwork(design).eval()
    file = to_onnx(made)
    Session(file, design)
    kept = weights_of(file)
    load_weights(made, {name: kept[name] for name in made.state_dict()})


def test_several_modalities_and_one_that_is_missing() -> None:
    values = {"a": [[1.0, 2.0], None, [3.0, 4.0]], "t": ["one", "two", None]}
    design = design_of(values)
    inputs = check_inputs(gather(values), design.inputs)
    made = network(design)
    session = Session(to_onnx(made), design)
    whole = session.run(inputs)
    with torch.no_grad():
        tensors, present = as_tensors(inputs, torch.device("cpu"))
        assert np.abs(made(*tensors, present).numpy() - whole).max() < 1e-5
    # What lies in the place of a missing modality does not count.
    columns = dict(inputs.columns)
    columns["a"] = columns["a"] + np.array([[0.0], [9.0], [0.0]], np.float32)
    again = session.run(replace(inputs, columns=columns))
    assert np.array_equal(again, whole)
    # All-zero inputs with nothing missing are where differences are 0.
    zeros = gather({"a": np.zeros((1, 2)), "t": np.zeros((1, design.inputs[1].shape[0]), int)})
    bias = made.bias.detach().numpy()
    assert session.run(check_inputs(zeros, design.inputs))[0] == pytest.approx(bias, abs=1e-5)


def test_published_sizes() -> None:
    def count(spec: InputSpec) -> int:
        made = FilterNetwork(Design("skip", (spec,)))
        return sum(weight.numel() for weight in made.parameters())

    assert count(InputSpec("x", "vector", (128, 9))) == 173_585  # the published code's
    # 24,687 in the published code, whose shortcuts are plain 1x1 convolutions, plus the
    # depthwise kernels and norms of ours less the biases that it has before its norms.
    assert count(InputSpec("x", "image", (224, 224, 3))) == 24_967


def test_the_learned_distance_is_one() -> None:
    design = design_of(MADE["vector"], "reuse")
    with torch.no_grad():
        keys = network(design)(torch.from_numpy(MADE["vector"]))[:, 0]
    gaps = torch.cdist(keys, keys, p=1.0)
    assert (gaps.diagonal() == 0).all()
    assert (gaps >= 0).all()
    assert torch.allclose(gaps, gaps.T)
    for a in range(4):
        for b in range(4):
            assert (gaps[a] <= gaps[a, b] + gaps[b] + 1e-5).all()
    for kind, least in (("reuse", 0.0), ("skip", -3.0)):  # weights are free for skip alone
        made = network(design_of(MADE["vector"], kind))
        with torch.no_grad():
            made.metric.fill_(-3.0)
        assert (made.weights >= least).all()
        assert (made.weights < 0).any() == (kind == "skip")


def test_dropout_is_on_differences() -> None:
    values = torch.from_numpy(MADE["vector"][:1].repeat(3, 0))
    reuse = network(design_of(MADE["vector"], "reuse")).train()
    keys = reuse.keys([values], None)
    assert torch.allclose(keys[0], keys[1], atol=1e-6)
    assert not torch.allclose(
        keys, reuse.keys([values], None), atol=1e-3
    )  # another place left out
    zeros = network(design_of(MADE["vector"])).train()
    at_zero = zeros.logits([torch.zeros(2, 11)], None)
    assert torch.allclose(at_zero[:, 0], zeros.bias.expand(2), atol=1e-6)


def test_losses_are_what_they_say() -> None:
    keys = torch.randn(5, 1, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0], [0], [1], [2], [0]])
    bias = torch.tensor([-1.0])
    same, different = [], []
    for i in range(5):
        for j in range(i + 1, 5):
            p = torch.sigmoid((keys[i] - keys[j]).abs().sum() + bias[0])
            (different if labels[i] != labels[j] else same).append(
                -torch.log(p if labels[i] != labels[j] else 1 - p)
            )
    balanced = 0.5 * torch.stack(same).mean() + 0.5 * torch.stack(different).mean()
    assert torch.allclose(pair_loss(keys, bias, labels), balanced, atol=1e-6)
    assert float(pair_loss(keys, bias, torch.zeros(5, 1))) == 0.0
    d, y = torch.tensor([0.3, 0.3]), torch.tensor([0.0, 1.0])
    assert float(contrastive_loss(d, y)) == pytest.approx((0.3**2 + 0.7**2) / 2)


def samples(kind: str, count: int = 240, seed: int = 0) -> tuple[Design, Samples]:
    points, classes = clouds(count, seed=seed)
    labels = (classes == 0).astype(np.int64) if kind == "skip" else classes
    return design_of(points, kind), Samples(gather(points), labels[:, None])


@pytest.mark.parametrize(
    ("kind", "loss"), [("skip", "pairs"), ("reuse", "pairs"), ("reuse", "contrastive")]
)
def test_training_learns_and_repeats(kind: str, loss: Any) -> None:
    design, learnt = samples(kind)
    course = Course(epochs=12, rate=5e-3, loss=loss)
    seen: list[Epoch] = []
    done = train(design, learnt, course, on_epoch=seen.append)
    assert [one.number for one in seen] == list(range(1, done.epochs + 1))
    assert done.loss == min(one.loss for one in seen)
    assert done.loss < 0.6 * seen[0].loss
    again = train(design, learnt, course)
    other = train(design, learnt, replace(course, seed=1))
    pairs = zip(
        *(one.network.state_dict().values() for one in (done, again, other)), strict=True
    )
    for first, second, third in pairs:
        assert torch.equal(first, second)
        if first.dim() > 1:
            assert not torch.equal(first, third)


def test_labels_that_mean_nothing_teach_nothing() -> None:
    """Negative control."""
    design, learnt = samples("skip")
    shuffled = np.random.default_rng(0).permutation(learnt.labels)
    done = train(design, Samples(learnt.inputs, shuffled), Course(epochs=8))
    share = float(shuffled.mean())
    entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
    assert done.loss > 0.9 * entropy


def test_equal_results_are_nearer_whatever_the_loss() -> None:
    design, learnt = samples("reuse")
    points, classes = clouds(60, seed=5)
    for loss in ("pairs", "contrastive"):
        done = train(design, learnt, Course(epochs=12, rate=5e-3, loss=loss))  # type: ignore[arg-type]
        with torch.no_grad():
            keys = done.network(torch.from_numpy(points))[:, 0]
        gaps = torch.cdist(keys, keys, p=1.0).numpy()
        equal = classes[:, None] == classes
        assert gaps[~equal].mean() > 2 * gaps[equal].mean()


def test_training_goes_on_from_weights_and_stops_when_asked() -> None:
    design, learnt = samples("skip")
    first = train(design, learnt, Course(epochs=10, rate=5e-3))
    weights = weights_of(to_onnx(first.network))
    on = train(design, learnt, Course(epochs=1, rate=1e-6), start=weights)
    for name, weight in on.network.state_dict().items():
        assert np.abs(weight.numpy() - weights[name]).max() < 1e-3, name
    assert on.loss == pytest.approx(first.loss, rel=0.2)

    class Stopped(Exception):  # noqa: N818 - a signal, not an error
        pass

    def stop(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise Stopped

    with pytest.raises(Stopped):
        train(design, learnt, Course(epochs=9), on_epoch=stop)
    with pytest.raises(CheckpointError, match="missing or unknown"):
        train(design, learnt, Course(), start={"bias": weights["bias"]})
    with pytest.raises(CheckpointError, match="finite"):
        load_weights(first.network, {**weights, "bias": np.array([np.nan], np.float32)})


def test_what_cannot_be_trained_is_refused() -> None:
    design, learnt = samples("skip")
    with pytest.raises(DatasetError, match="at least 8"):
        train(design, learnt.part(np.argsort(learnt.labels[:, 0])[[0, 1, -1]]), Course())
    for wrong in ({"epochs": 0}, {"rate": 0.0}, {"held_out": 1.0}, {"loss": "hinge"}):
        with pytest.raises(SettingsError):
            Course(**wrong)  # type: ignore[arg-type]
    with pytest.raises(FileTypeError):
        weights_of(b"no model")


def test_accelerate_trains_the_same_kind_of_network() -> None:
    pytest.importorskip("accelerate")
    design, learnt = samples("skip")
    done = train(design, learnt, Course(epochs=8, rate=5e-3, accelerated=True))
    assert done.loss < 0.5
    assert not any(weight.is_cuda for weight in done.network.parameters())
