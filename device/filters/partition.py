"""A model cut in two at a named layer: the first layers here, the rest elsewhere.

The first half runs on the device and its output, a feature map, goes through a filter of
feature maps; only what is needed goes on to the second half (thesis 3.4.3, model partition).
A layer can be cut at where its output is all that the rest of the model needs. Needs onnx,
which running the halves does not.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from triparty.common.errors import SettingsError

ACTIVATIONS_LEAVE: Final = (
    "the second half of a model gets activations of its first: inputs can be rebuilt from "
    "them, the more so the earlier the cut. Cutting a model saves traffic, it hides nothing; "
    "protect what leaves the device, or run the whole model on it"
)
_NO_ONNX: Final = "cutting a model needs onnx: pip install 'triparty[train]'"


@dataclass(frozen=True)
class Halves:
    """A model in two.

    Attributes:
        layer: name of the tensor between them.
        first: ONNX model from the inputs to the layer.
        second: ONNX model from the layer to the outputs.
    """

    layer: str
    first: bytes
    second: bytes


def layers_to_cut(model: bytes) -> list[str]:
    """Names of tensors at which a model can be cut, from its inputs to its outputs.

    Args:
        model: a single-file ONNX model.

    Raises:
        SettingsError: no ONNX model, or onnx is not installed.
    """
    return _cuts(_loaded(model).graph)


def split_model(model: bytes, layer: str) -> Halves:
    """Cuts a model; warns that what leaves its first half can be inverted.

    Run one after the other, the halves do what the model does, bit for bit, unless a runtime
    would have joined the nodes on both sides of the cut: it then rounds differently.

    Args:
        model: a single-file ONNX model.
        layer: name of a tensor, or of a node, which stands for its first output.

    Raises:
        SettingsError: no ONNX model, no such layer, one that the rest of the model needs more
            than, or onnx is not installed.
    """
    whole = _loaded(model)
    graph = whole.graph
    by_node = {node.name: node.output[0] for node in graph.node if node.name}
    produced = {name for node in graph.node for name in node.output if name}
    tensor = layer if layer in produced else by_node.get(layer, "")
    if not tensor:
        raise SettingsError(f"no layer '{layer:.80}' in the model")
    cuts = _cuts(graph)
    if tensor not in cuts:
        raise SettingsError(
            f"'{layer:.80}' is not all that the rest of the model needs; cut it at one of "
            f"{_some(cuts)}"
        )
    between = _described(whole, tensor)
    fixed = {one.name for one in graph.initializer}
    fed = [one for one in graph.input if one.name not in fixed]
    halves = Halves(
        tensor,
        _part(whole, fed, [between]),
        _part(whole, [between], list(graph.output)),
    )
    warnings.warn(ACTIVATIONS_LEAVE, stacklevel=2)
    return halves


def _loaded(model: bytes) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise SettingsError(_NO_ONNX) from error
    try:
        loaded = onnx.load_model_from_string(model)
        onnx.checker.check_model(loaded)
    except Exception as error:  # those of protobuf and onnx share no class of their own
        raise SettingsError(f"not an ONNX model ({error})") from error
    return loaded


def _cuts(graph: Any) -> list[str]:
    """Tensors that alone depend on the inputs and are needed further on, in the graph's order.

    What depends on no input, such as weights that are unpacked, both halves can make.
    """
    fixed = {one.name for one in graph.initializer}
    depending = {one.name for one in graph.input} - fixed
    ends = {one.name for one in graph.output}
    last: dict[str, int] = {}
    for place, node in enumerate(graph.node):
        last |= dict.fromkeys(_used(node), place)
    live, found = set(depending) & last.keys(), []
    for place, node in enumerate(graph.node):
        if not depending.isdisjoint(_used(node)):
            depending.update(node.output)
            live.update(name for name in node.output if name in last or name in ends)
        live = {name for name in live if name in ends or last[name] > place}
        if len(live) == 1 and live <= set(node.output) and not live & ends:
            found.append(next(iter(live)))
    return found


def _used(node: Any) -> set[str]:
    """Tensors that a node takes, those within its branches and loops included."""
    names = set(node.input) - {""}
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names |= _used(inner)
    return names


def _described(model: Any, tensor: str) -> Any:
    """Type and shape of a tensor inside a model."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model)
    for one in inferred.graph.value_info:
        if one.name == tensor:
            return one
    raise SettingsError(f"the type of '{tensor:.80}' cannot be told: cut at another layer")


def _part(model: Any, inputs: list[Any], outputs: list[Any]) -> bytes:
    """The nodes between some tensors, as a model."""
    import onnx

    needed, given, nodes = {one.name for one in outputs}, {one.name for one in inputs}, []
    for node in reversed(model.graph.node):
        if not needed.isdisjoint(set(node.output) - given):
            needed |= _used(node)
            nodes.append(node)
    weights = [one for one in model.graph.initializer if one.name in needed]
    graph = onnx.helper.make_graph(nodes[::-1], model.graph.name, inputs, outputs, weights)
    made = onnx.helper.make_model(
        graph,
        opset_imports=model.opset_import,
        functions=model.functions,
        ir_version=model.ir_version,
    )
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "") or "none"
