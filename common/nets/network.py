"""A filter's network (torch): features, and a classifier on differences of embeddings.

For every task, z = sum_j w_j |e_j - e'_j| + b (thesis 3.4.1). The same network serves both
kinds of filter. For `reuse`, w = softplus(v) >= 0 makes the sum a distance between two inputs:
it is 0 for the same input and no detour is shorter. For `skip`, e' is the embedding of the
all-zero input, w is free, and sigmoid(z) says how likely the model is needed.

Inputs of several modalities have their embeddings side by side. Where a modality is missing,
the embedding of its zero input stands in, which for `skip` adds nothing to the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import expm1, log
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from triparty.common.nets.design import Design
from triparty.common.nets.features import Scaling, feature_network
from triparty.common.nets.inputs import InputSpec
from triparty.common.nets.samples import Inputs

_FIRST_WEIGHTS = 20.0  # the sum of them over an embedding, whatever its width
_FIRST_BIAS = -2.0


class FilterNetwork(nn.Module):
    """Feature networks and the classifier.

    Args:
        design: what to build.
    """

    anchor: Tensor

    def __init__(self, design: Design) -> None:
        """With random weights of torch's generator."""
        super().__init__()
        self.design = design
        self.features = nn.ModuleList(feature_network(one, design) for one in design.inputs)
        self.dropout = nn.Dropout(design.dropout)
        shape = (design.tasks, design.width)
        if design.kind == "reuse":
            first = log(expm1(_FIRST_WEIGHTS / design.width))  # softplus undone
            self.metric = nn.Parameter(torch.full(shape, first))
            self.bias = nn.Parameter(torch.full((design.tasks,), _FIRST_BIAS))
        else:
            self.metric = nn.Parameter(torch.randn(shape) / design.width**0.5)
            self.bias = nn.Parameter(torch.zeros(design.tasks))
        self.register_buffer("anchor", torch.zeros(design.width))

    @property
    def weights(self) -> Tensor:
        """W (tasks, width) of the classifier."""
        return functional.softplus(self.metric) if self.design.kind == "reuse" else self.metric

    def embed(self, inputs: Sequence[Tensor], present: Tensor | None, anchor: Tensor) -> Tensor:
        """Embeddings.

        Args:
            inputs: one a modality, (n, ...).
            present: (n, modalities) 1 where a modality is there, 0 where it is missing; None
                if all are.
            anchor: (width,) embedding of the zero input.

        Returns:
            (n, width).
        """
        parts = [network(one) for network, one in zip(self.features, inputs, strict=True)]
        joined = torch.cat(parts, dim=1)
        if present is None:
            return joined
        there = present.repeat_interleave(self.design.embedding, dim=1)
        return joined * there + anchor * (1.0 - there)

    def zero_embedding(self) -> Tensor:
        """(width,) embedding of the all-zero input, with gradients."""
        zeros = [
            torch.zeros((1, *one.shape), dtype=_torch_type(one), device=self.bias.device)
            for one in self.design.inputs
        ]
        parts = [network(one) for network, one in zip(self.features, zeros, strict=True)]
        return torch.cat(parts, dim=1)[0]

    def logits(self, inputs: Sequence[Tensor], present: Tensor | None) -> Tensor:
        """Z (n, tasks) of a `skip` filter in training, against the zero input."""
        anchor = self.zero_embedding()
        gap = (self.embed(inputs, present, anchor) - anchor).abs()
        logits: Tensor = self.dropout(gap) @ self.weights.T + self.bias
        return logits

    def keys(self, inputs: Sequence[Tensor], present: Tensor | None) -> Tensor:
        """(n, tasks, width) of a `reuse` filter: w * e, so that distances are plain L1.

        Dropout leaves out the same places of all inputs: it is on differences, as for `skip`,
        and the distance of an input from itself stays 0.
        """
        embedding = self.embed(inputs, present, self.zero_embedding())
        kept = self.dropout(torch.ones_like(embedding[:1]))
        keys: Tensor = (embedding * kept)[:, None, :] * self.weights
        return keys

    def settle(self) -> None:
        """Stores the zero input's embedding, so that `forward` need not compute it."""
        with torch.no_grad():
            self.anchor.copy_(self.zero_embedding())

    def forward(self, *inputs: Tensor) -> Tensor:
        """What is exported: logits of `skip`, keys of `reuse`.

        Args:
            inputs: one a modality, and, if there are several, which are there.
        """
        several = len(self.design.inputs) > 1
        values, present = (inputs[:-1], inputs[-1]) if several else (inputs, None)
        embedding = self.embed(values, present, self.anchor)
        if self.design.kind == "reuse":
            return embedding[:, None, :] * self.weights
        return (embedding - self.anchor).abs() @ self.weights.T + self.bias


def scale_to(network: FilterNetwork, inputs: Inputs) -> None:
    """Takes offsets and scales from training data: mean and deviation, or the range to 0..1.

    Vectors are scaled element by element, series signal by signal; images, videos and audio
    as a whole, because their first layer is a ReLU that has no use for what is below 0.
    """
    parts = zip(network.design.inputs, network.features, inputs.present.T, strict=True)
    for spec, part, present in parts:
        scaling = getattr(part, "scaling", None)
        if not isinstance(scaling, Scaling) or not present.any():
            continue
        offset, scale = _offset_and_scale(spec, inputs.columns[spec.name][present])
        scaling.offset.copy_(torch.from_numpy(offset))
        scaling.scale.copy_(torch.from_numpy(scale))


def _offset_and_scale(
    spec: InputSpec, values: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if spec.modality in ("vector", "series"):
        axes = 0 if spec.modality == "vector" else (0, 1)
        offset = values.mean(axes, dtype=np.float64)
        scale = values.std(axes, dtype=np.float64)
    else:
        offset = np.asarray(values.min(), np.float64)
        scale = np.asarray(values.max(), np.float64) - offset
    scale = np.where(scale > 1e-6, scale, 1.0)
    return offset.astype(np.float32), scale.astype(np.float32)


def _torch_type(spec: InputSpec) -> torch.dtype:
    return torch.int64 if spec.modality == "text" else torch.float32
