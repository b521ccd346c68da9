"""How likely a packet is necessary: the contextual predictor (thesis 2.4.2), in NumPy.

Two networks. `published` is the one of the thesis, weight by weight: each of the two views of
sizes goes through dense layers of 32 and 32 (its code has convolutions with kernel 1 over a
time axis of length 1, which is a dense layer over the window), both together through a dense
layer of 1; that with the temporal view through dense layers of 128 and of one head a task.
`extended` takes any features through dense layers of 64 and 32. Training is in `training.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import CheckpointError, SettingsError
from triparty.device.gate.features import PUBLISHED, FeatureChoice, Matrix

Weights = Mapping[str, Matrix]
Shapes = dict[str, tuple[int, ...]]
NETWORKS: Final = ("published", "extended")
KINDS: Final = ("extended", "published", "contextual")
MOST_TASKS: Final = 64
_VIEWS: Final = PUBLISHED[:2]
_VIEW_UNITS: Final = 32
_FUSED_UNITS: Final = 128
_WIDE, _NARROW = 64, 32


@dataclass(frozen=True, slots=True)
class Network:
    """A kind of network, its inputs and its heads.

    Attributes:
        name: `published` or `extended`.
        features: what goes in.
        tasks: heads.
    """

    name: str
    features: FeatureChoice
    tasks: int = 1

    def __post_init__(self) -> None:
        """Refuses what is no network.

        Raises:
            SettingsError: an unknown name, features that the published network does not take,
                or too many or no tasks.
        """
        if self.name not in NETWORKS:
            raise SettingsError(
                f"network {self.name!r:.40}: expected one of {', '.join(NETWORKS)}"
            )
        if self.name == "published" and self.features.groups not in (PUBLISHED, _VIEWS):
            raise SettingsError(
                f"the published network takes the features {', '.join(PUBLISHED)}, with or "
                f"without the last, got {', '.join(self.features.groups)}"
            )
        if not 1 <= self.tasks <= MOST_TASKS:
            raise SettingsError(f"{self.tasks} tasks: expected 1 to {MOST_TASKS}")

    def shapes(self) -> Shapes:
        """Shape of every weight by name: dense layers (inputs, outputs), biases (outputs,)."""
        if self.name == "extended":
            return _dense("hidden1", self.features.width, _WIDE) | (
                _dense("hidden2", _WIDE, _NARROW) | _dense("heads", _NARROW, self.tasks)
            )
        shapes: Shapes = {}
        for view in _VIEWS:
            shapes |= _dense(f"{view}1", self.features.window, _VIEW_UNITS)
            shapes |= _dense(f"{view}2", _VIEW_UNITS, _VIEW_UNITS)
        if not self.has_temporal_view:
            return shapes | _dense("context", 2 * _VIEW_UNITS, self.tasks)
        shapes |= _dense("context", 2 * _VIEW_UNITS, 1)
        return (
            shapes
            | _dense("fused", 2, _FUSED_UNITS)
            | _dense("heads", _FUSED_UNITS, self.tasks)
        )

    @property
    def has_temporal_view(self) -> bool:
        """Whether the temporal estimate goes in; the contextual ablation goes without."""
        return "temporal" in self.features.groups

    @property
    def kind(self) -> str:
        """Which of `KINDS`: `contextual` is the published network without feedback."""
        if self.name == "published" and not self.has_temporal_view:
            return "contextual"
        return self.name

    @property
    def parameters(self) -> int:
        """How many weights; 3,074 for the published network with w = 5 and one task."""
        return sum(int(np.prod(shape)) for shape in self.shapes().values())


@dataclass(frozen=True)
class Predictor:
    """A network with its weights.

    Attributes:
        network: which.
        weights: float32, by the names of `Network.shapes`.
    """

    network: Network
    weights: Weights

    def __post_init__(self) -> None:
        """Refuses weights that are not the network's.

        Raises:
            CheckpointError: missing, unknown, of another shape or dtype, or not finite.
        """
        shapes = self.network.shapes()
        if shapes.keys() != self.weights.keys():
            wrong = min(shapes.keys() ^ self.weights.keys())
            raise CheckpointError(
                f"a gate with the network '{self.network.name}' has the weights "
                f"{', '.join(shapes)}: '{wrong:.80}' is missing or unknown"
            )
        for name, weight in self.weights.items():
            if weight.shape != shapes[name] or weight.dtype != np.float32:
                raise CheckpointError(
                    f"weight '{name}' of a gate: expected float32 {shapes[name]}, got "
                    f"{weight.dtype} {weight.shape}"
                )
            if not np.isfinite(weight).all():
                raise CheckpointError(f"weight '{name}' of a gate is not finite")

    def probabilities(self, matrix: Matrix) -> Matrix:
        """How likely each packet is necessary.

        Args:
            matrix: (n, width) float32, as `Features.matrix` makes it.

        Returns:
            (n, tasks) float32 from 0 to 1.
        """
        return sigmoid(self.logits(matrix))

    def logits(self, matrix: Matrix) -> Matrix:
        """The same before the last sigmoid."""
        return self._dense("heads" if self._is_deep else "context", self.last_hidden(matrix))

    def last_hidden(self, matrix: Matrix) -> Matrix:
        """(n, units) what the heads see."""
        if self.network.name == "extended":
            return _relu(self._dense("hidden2", _relu(self._dense("hidden1", matrix))))
        columns = self.network.features.columns()
        views = [
            _relu(self._dense(f"{v}2", _relu(self._dense(f"{v}1", matrix[:, columns[v]]))))
            for v in _VIEWS
        ]
        joined = np.concatenate(views, axis=1)
        if not self._is_deep:
            return joined
        context = sigmoid(self._dense("context", joined))
        fused = np.concatenate([context, matrix[:, columns["temporal"]]], axis=1)
        return _relu(self._dense("fused", fused))

    @property
    def _is_deep(self) -> bool:
        return self.network.name == "extended" or self.network.has_temporal_view

    def _dense(self, name: str, inputs: Matrix) -> Matrix:
        made: Matrix = inputs @ self.weights[f"{name}.weight"]
        made += self.weights[f"{name}.bias"]
        return made


def sigmoid(logits: Matrix) -> Matrix:
    """1 / (1 + exp(-x)), without overflow."""
    made: Matrix = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return made.astype(np.float32, copy=False)


def random_weights(network: Network, *, rng: np.random.Generator) -> dict[str, Matrix]:
    """Weights to begin training with: uniform after Glorot and Bengio (2010), biases 0."""
    weights = {}
    for name, shape in network.shapes().items():
        bound = np.sqrt(6.0 / sum(shape)) if len(shape) > 1 else 0.0
        weights[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
    return weights


def combine(probabilities: Matrix, importance: NDArray[np.float64] | None = None) -> Matrix:
    """(n,) how likely a packet is necessary for any task, as one picture serves them all.

    Args:
        probabilities: (n, tasks).
        importance: (tasks,) what each task counts, from 0 to 1; None: 1 each. Tasks are taken
            as independent: 1 - prod(1 - importance * p).
    """
    weighed = probabilities if importance is None else probabilities * importance
    made: Matrix = 1.0 - np.prod(1.0 - weighed, axis=1)
    return made


def _dense(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (inputs, outputs), f"{name}.bias": (outputs,)}


def _relu(values: Matrix) -> Matrix:
    return np.maximum(values, 0.0, out=values)
