"""Models of any make as nodes that can be run, left out and predicted.

A node says how its model is loaded, what its output is (`common.links.specs`), and how an
output becomes a row that links understand and back. The model stays a black box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import SettingsError
from triparty.common.links.specs import OutputSpec, Vec

Model = Callable[[Any], Any]
Row = NDArray[Any]


def as_row(output: Any) -> Row:
    """An output as numbers in one row: what `encode` does unless it is told otherwise."""
    return np.asarray(output).reshape(-1)


def as_it_is(row: Row) -> Any:
    """What `decode` does unless it is told otherwise."""
    return row


_MIB = 1 << 20


@dataclass(frozen=True, eq=False)
class Node:
    """A model that can be run, or predicted.

    Attributes:
        name: of the model, as links know it.
        spec: of its output.
        load: makes the model ready and returns it; called again after it was unloaded.
        encode: an output of the model as a row of `spec`, (width,) or (length,).
        decode: such a row in the form of the model's outputs.
        memory_mib: that it takes while it is loaded; None to measure.
        least_mib: what it takes in any case, where a measurement finds less: memory that the
            process has already is used again, and does not show.
    """

    name: str
    spec: OutputSpec
    load: Callable[[], Model]
    encode: Callable[[Any], Row] = as_row
    decode: Callable[[Row], Any] = as_it_is
    memory_mib: float | None = None
    least_mib: Callable[[], float] = lambda: 0.0


def onnx_node(
    name: str,
    spec: OutputSpec,
    path: Path,
    *,
    prepare: Callable[[Any], Any] = lambda value: value,
    encode: Callable[[Any], Row] = as_row,
    decode: Callable[[Row], Any] = as_it_is,
) -> Node:
    """A model of one input and one output in an ONNX file, on one thread.

    Args:
        name: of the model.
        spec: of its output.
        path: of the file.
        prepare: makes the array that the file takes of what the caller gives.
        encode: see `Node`.
        decode: see `Node`.
    """

    def load() -> Model:
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not path.is_file():
            raise SettingsError(f"model '{name}': there is no {path}")
        try:
            session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise SettingsError(f"model '{name}': {path} is no ONNX model ({error})") from error
        inputs = session.get_inputs()[0].name
        return lambda value: session.run(None, {inputs: prepare(value)})[0]

    def least_mib() -> float:
        return path.stat().st_size / _MIB

    return Node(name, spec, load, encode, decode, least_mib=least_mib)


def torch_node(
    name: str,
    spec: OutputSpec,
    make: Callable[[], Any],
    *,
    prepare: Callable[[Any], Any],
    encode: Callable[[Any], Row] = as_row,
    decode: Callable[[Row], Any] = as_it_is,
) -> Node:
    """A torch module; nothing here imports torch.

    Args:
        name: of the model.
        spec: of its output.
        make: returns the module; it is set to evaluate, without gradients.
        prepare: makes the tensor that the module takes of what the caller gives.
        encode: see `Node`; gets the module's output as an array.
        decode: see `Node`.
    """

    def load() -> Model:
        module = make().eval().requires_grad_(False)
        return lambda value: module(prepare(value)).detach().cpu().numpy()

    return Node(name, spec, load, encode, decode)


def class_row(index: int, spec: Vec) -> Row:
    """The row of a model that tells a class and nothing more: all of it on that class."""
    row = np.zeros(spec.width, np.float32)
    row[index] = 1.0
    return row
