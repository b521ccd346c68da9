"""A model cut in two: the halves are the whole, and whoever cuts is told what that tells."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triparty.common.errors import SettingsError
from triparty.device.filters.partition import (
    ACTIVATIONS_LEAVE,
    Halves,
    layers_to_cut,
    split_model,
)

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SHAPE = (1, 4)


def forked() -> bytes:
    """x -> a -> (b, c) -> d -> y with a weight that both a and d unpack from one constant."""
    node = onnx.helper.make_node
    nodes = [
        node("Neg", ["packed"], ["weight"], name="unpack"),
        node("Mul", ["x", "weight"], ["a"], name="first"),
        node("Exp", ["a"], ["b"], name="left"),
        node("Neg", ["a"], ["c"], name="right"),
        node("Add", ["b", "c"], ["d"], name="joined"),
        node("Mul", ["d", "weight"], ["y"], name="last"),
    ]
    value = onnx.helper.make_tensor_value_info
    packed = onnx.numpy_helper.from_array(np.arange(4, dtype=np.float32), "packed")
    graph = onnx.helper.make_graph(
        nodes,
        "forked",
        [value("x", onnx.TensorProto.FLOAT, SHAPE)],
        [value("y", onnx.TensorProto.FLOAT, SHAPE)],
        [packed],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    return bytes(model.SerializeToString())


def halved(model: bytes, layer: str) -> Halves:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return split_model(model, layer)


def run(model: bytes, value: Any) -> Any:
    """Node by node, so that a runtime joins none across a cut."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: value})[0]


def test_the_halves_of_a_real_detector_are_the_whole(test_data: Path) -> None:
    model = (test_data / "models" / "detectors" / "FastestDet.onnx").read_bytes()
    pixels = np.random.default_rng(0).random((1, 3, 352, 352), np.float32)
    whole = run(model, pixels)
    layers = layers_to_cut(model)
    assert len(layers) > 10
    for layer in (layers[0], layers[len(layers) // 2], layers[-1]):
        halves = halved(model, layer)
        between = run(halves.first, pixels)
        np.testing.assert_array_equal(run(halves.second, between), whole)
        assert not np.array_equal(run(halves.second, between + 1), whole)
        assert len(halves.first) + len(halves.second) < 1.2 * len(model)


def test_a_layer_that_is_not_all_the_rest_needs_is_no_place_to_cut() -> None:
    assert layers_to_cut(forked()) == ["a", "d"]
    with pytest.raises(SettingsError, match="cut it at one of a, d"):
        halved(forked(), "b")
    with pytest.raises(SettingsError, match="cut it at one of a, d"):
        halved(forked(), "y")
    with pytest.raises(SettingsError, match="no layer 'elsewhere'"):
        halved(forked(), "elsewhere")


def test_what_both_halves_unpack_is_in_both() -> None:
    value = np.full(SHAPE, 0.5, np.float32)
    halves = halved(forked(), "joined")
    assert halves.layer == "d"
    between = run(halves.first, value)
    np.testing.assert_array_equal(run(halves.second, between), run(forked(), value))


def test_whoever_cuts_is_told_that_activations_can_be_inverted() -> None:
    with pytest.warns(UserWarning, match="inputs can be rebuilt") as told:
        split_model(forked(), "a")
    assert str(told[0].message) == ACTIVATIONS_LEAVE


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(SettingsError, match="not an ONNX model"):
        layers_to_cut(b"nothing of the kind")
