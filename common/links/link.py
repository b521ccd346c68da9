"""A trained link: from the output of one model to that of another, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from triparty.common.errors import CheckpointError, SettingsError
from triparty.common.links.design import LinkDesign
from triparty.common.links.features import Floats, activate
from triparty.common.links.forward import (
    Decoded,
    Weights,
    decode,
    hidden_activation,
    vec_logits,
)
from triparty.common.links.specs import Outputs, Seq, Vec


@dataclass(frozen=True, eq=False)
class Link:
    """A link that can be used.

    Attributes:
        design: of its network.
        weights: as `design.shapes` says.
    """

    design: LinkDesign
    weights: Weights

    def __post_init__(self) -> None:
        """Refuses weights that are not the design's.

        Raises:
            CheckpointError: missing, unknown, of another shape or type, or not finite.
        """
        object.__setattr__(self, "weights", check_weights(self.design, self.weights))

    def logits(self, outputs: Outputs) -> Floats:
        """(n, width) float32 for a vector: what its ensemble weighs.

        Raises:
            SettingsError: a link to a sequence, which decodes.
        """
        if isinstance(self.design.target, Seq):
            raise SettingsError("a link to a sequence has logits for each token: decode it")
        return vec_logits(self.design, self.weights, outputs)

    def decode(self, outputs: Outputs) -> Decoded:
        """The sequences that a link to one predicts."""
        return decode(self.design, self.weights, outputs)

    def hidden(self, outputs: Outputs) -> Floats:
        """(n, w) the last activation before the logits of a link to a vector."""
        return hidden_activation(self.design, self.weights, outputs)

    def predict(self, outputs: Outputs) -> Outputs:
        """The target's outputs.

        Args:
            outputs: (n, ...) of the source, as `check_outputs` returns them.

        Returns:
            (n, ...) as the target's spec says.
        """
        if isinstance(self.design.target, Vec):
            return activate(self.design.target, self.logits(outputs))
        return self.decode(outputs).tokens

    @cached_property
    def parameters(self) -> int:
        """Numbers that training changes."""
        return sum(int(self.weights[name].size) for name in self.design.trained)


def no_link(design: LinkDesign) -> Link:
    """The identity link before any training: the source's output as it is."""
    width = design.target.logits
    return Link(
        design,
        {
            "map.weight": np.eye(width, dtype=np.float32),
            "map.bias": np.zeros(width, np.float32),
        },
    )


def check_weights(design: LinkDesign, weights: Mapping[str, Outputs]) -> Weights:
    """Weights of a link, if they are the design's; float32.

    Raises:
        CheckpointError: missing, unknown, of another shape or type, or not finite.
    """
    shapes = design.shapes
    if shapes.keys() != weights.keys():
        odd = min(shapes.keys() ^ weights.keys())
        raise CheckpointError(
            f"weight '{odd:.80}' of a {design.kind} link is missing or unknown"
        )
    for name, shape in shapes.items():
        weight = weights[name]
        is_float = np.issubdtype(weight.dtype, np.floating)
        if weight.shape != shape or not is_float or not np.isfinite(weight).all():
            raise CheckpointError(
                f"weight '{name}' of a {design.kind} link: expected finite numbers of shape "
                f"{shape}, got {weight.dtype} of shape {weight.shape}"
            )
        if name.endswith(".scale") and not (weight > 0).all():
            raise CheckpointError(f"weight '{name}' of a link must be above 0")
    return {name: np.ascontiguousarray(weights[name], np.float32) for name in shapes}
