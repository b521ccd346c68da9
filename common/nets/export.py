"""A filter's network as one ONNX file, and its weights back out of it (torch, onnx).

Torch's older exporter is used on purpose: it needs `onnx` alone, takes a fifth of a second
where the newer one takes four, and keeps every weight under its name, so that a device that
has only the artifact can train on. Constants are folded by the runtime, when it loads the file.
"""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from triparty.common.errors import FileTypeError, SettingsError
from triparty.common.nets.inputs import InputSpec
from triparty.common.nets.network import FilterNetwork

OPSET: Final = 17  # the first with LayerNormalization
PRESENT: Final = "present"
_NO_ONNX: Final = "writing a filter needs onnx: pip install 'triparty[train]'"


def to_onnx(network: FilterNetwork) -> bytes:
    """The file of a trained network.

    Its inputs are those of the design by name, (n, ...) float32 or int64, and `present`
    (n, modalities) float32 if there are several. Its output is `logits` (n, tasks) or `keys`
    (n, tasks, width).

    Raises:
        SettingsError: onnx is not installed.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise SettingsError(_NO_ONNX) from error
    design = network.design
    names = [one.name for one in design.inputs]
    values = [_example(one) for one in design.inputs]
    if len(names) > 1:
        names.append(PRESENT)
        values.append(torch.ones((2, len(design.inputs))))
    output = "keys" if design.kind == "reuse" else "logits"
    buffer: Any = BytesIO()  # which its annotation leaves out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its deprecation, and of shapes that are fixed
        torch.onnx.export(
            network.eval(),
            tuple(values),
            buffer,
            input_names=names,
            output_names=[output],
            dynamic_axes={name: {0: "n"} for name in (*names, output)},
            opset_version=OPSET,
            do_constant_folding=False,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    kept = {one.name for one in model.graph.initializer}
    kept |= {name for node in model.graph.node for name in node.output}
    for name, weight in network.state_dict().items():
        if name not in kept:  # equal to another one, or of use in training alone
            model.graph.initializer.append(numpy_helper.from_array(weight.numpy(), name))
    return bytes(model.SerializeToString())


def weights_of(file: bytes) -> dict[str, NDArray[Any]]:
    """The weights in a file of `to_onnx`, by their names in the network.

    Raises:
        FileTypeError: no ONNX file.
        SettingsError: onnx is not installed.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise SettingsError(_NO_ONNX) from error
    try:
        model = onnx.load_from_string(file)
    except Exception as error:
        raise FileTypeError(f"a filter's network is no ONNX file: {error}") from error
    weights = {
        one.name: np.array(numpy_helper.to_array(one)) for one in model.graph.initializer
    }
    for node in model.graph.node:  # the exporter keeps one of equal weights, and names it anew
        if node.op_type == "Identity" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    return weights


def _example(spec: InputSpec) -> torch.Tensor:
    kind = torch.int64 if spec.modality == "text" else torch.float32
    return torch.zeros((2, *spec.shape), dtype=kind)
