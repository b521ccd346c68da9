"""A frozen first stage: what leaves the device in place of raw inputs.

Each input is scaled and goes through a random dense layer, relu(W x + b), whose weights are
drawn once from the operating system's randomness and never leave the device; a text is the sum
of a random row a token. The filter is trained on what comes out, and its device keeps the
stage beside it, because the filter is of no use without.

This hides what an input is; it is no proof. Features tell which inputs are alike, and whoever
knows enough inputs together with their features can estimate the layer and invert it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from triparty.common.datasets import Limits, read_arrays
from triparty.common.errors import ArtifactError, DatasetError, FileTypeError, SettingsError
from triparty.common.files import write_private
from triparty.common.nets.inputs import InputSpec
from triparty.common.nets.samples import Inputs

STAGE_FILE: Final = "stage.npz"
FEATURES: Final = 256
_LEAST_FEATURES: Final = 16
_MOST_WEIGHTS: Final = 1 << 25
_LIMITS: Final = Limits(rows=1 << 25, bytes=512 << 20)
_BATCH: Final = 256
_SPECS: Final = "specs"

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Layer:
    """The stage of one input.

    Attributes:
        weights: (numbers of an input, features), or (vocabulary, features) of a text.
        bias: (features,).
        offset: subtracted from an input; 0 of a text.
        scale: by which it is then divided; 1 of a text.
    """

    weights: Floats
    bias: Floats
    offset: float
    scale: float

    @property
    def features(self) -> int:
        """How many numbers come out."""
        return len(self.bias)

    def of_rows(self, rows: NDArray[Any], *, is_text: bool) -> Floats:
        """(n, features) of (n, ...) inputs."""
        if is_text:
            known = np.clip(rows, 0, len(self.weights) - 1)
            words = self.weights[known] * (rows > 0)[..., None]
            hidden = words.sum(1, dtype=np.float32) + self.bias
        else:
            flat = rows.reshape(len(rows), -1).astype(np.float32)
            scaled = (flat - np.float32(self.offset)) / np.float32(self.scale)
            hidden = scaled @ self.weights + self.bias
        made: Floats = np.maximum(hidden, 0.0).astype(np.float32)
        return made


@dataclass(frozen=True, eq=False)
class FirstStage:
    """The stages of all inputs of a filter.

    Attributes:
        specs: of the raw inputs.
        layers: one an input.
    """

    specs: tuple[InputSpec, ...]
    layers: tuple[Layer, ...]

    @classmethod
    def drawn(cls, specs: tuple[InputSpec, ...], inputs: Inputs) -> Self:
        """A new one, which nobody else has.

        Args:
            specs: of the inputs.
            inputs: as `check_inputs` returns them; offsets and scales are told from them.

        Raises:
            SettingsError: inputs that are too large for a dense layer.
        """
        rng = np.random.default_rng(secrets.randbits(256))
        return cls(specs, tuple(_drawn(spec, inputs, rng) for spec in specs))

    @property
    def feature_specs(self) -> tuple[InputSpec, ...]:
        """Of what comes out: vectors, under the names of the inputs."""
        pairs = zip(self.specs, self.layers, strict=True)
        return tuple(InputSpec(spec.name, "vector", (one.features,)) for spec, one in pairs)

    def features(self, inputs: Inputs) -> Inputs:
        """What comes out; zeros where an input is missing.

        Args:
            inputs: as `check_inputs` returns them for `specs`.
        """
        columns = {}
        for place, (spec, layer) in enumerate(zip(self.specs, self.layers, strict=True)):
            rows, is_text = inputs.columns[spec.name], spec.modality == "text"
            parts = [
                layer.of_rows(rows[start : start + _BATCH], is_text=is_text)
                for start in range(0, len(rows), _BATCH)
            ]
            made = np.concatenate(parts)
            made[~inputs.present[:, place]] = 0.0
            columns[spec.name] = made
        return Inputs(columns, inputs.present)

    def save(self, folder: Path) -> None:
        """Writes the stage beside its filter, for its owner alone."""
        arrays: dict[str, Any] = {_SPECS: np.frombuffer(self._told(), np.uint8)}
        for spec, layer in zip(self.specs, self.layers, strict=True):
            arrays[f"weights.{spec.name}"] = layer.weights
            arrays[f"bias.{spec.name}"] = layer.bias
            arrays[f"scaling.{spec.name}"] = np.array([layer.offset, layer.scale])
        packed = BytesIO()
        np.savez(packed, **arrays)
        write_private(folder / STAGE_FILE, packed.getvalue())

    def _told(self) -> bytes:
        return json.dumps([asdict(spec) for spec in self.specs]).encode()

    @classmethod
    def open(cls, folder: Path) -> Self | None:
        """The stage beside a filter; None if it takes inputs as they are.

        Raises:
            FileTypeError: it cannot be read.
        """
        path = folder / STAGE_FILE
        if not path.exists():
            return None
        try:
            arrays = read_arrays(path, _LIMITS)
            told = json.loads(arrays[_SPECS].tobytes())
            specs = tuple(InputSpec(**{**one, "shape": tuple(one["shape"])}) for one in told)
            return cls(specs, tuple(_layer(spec, arrays) for spec in specs))
        except (
            ArtifactError,
            DatasetError,
            SettingsError,
            KeyError,
            TypeError,
            ValueError,
        ) as error:
            raise FileTypeError(f"{path} is no first stage of a filter: {error}") from error


def _drawn(spec: InputSpec, inputs: Inputs, rng: np.random.Generator) -> Layer:
    numbers = spec.vocabulary if spec.modality == "text" else prod(spec.shape)
    features = min(FEATURES, max(_LEAST_FEATURES, numbers))
    if numbers * features > _MOST_WEIGHTS:
        raise SettingsError(
            f"input '{spec.name}' has {numbers} numbers, too many for a first stage: make it "
            "smaller (average pixels, for example), or train here, --send nothing"
        )
    offset, scale = 0.0, 1.0
    if spec.modality != "text":
        there = inputs.columns[spec.name][
            inputs.present[:, list(inputs.columns).index(spec.name)]
        ]
        offset, spread = float(there.mean(dtype=np.float64)), float(there.std(dtype=np.float64))
        scale = spread if spread > 1e-6 else 1.0
    summed = min(numbers, spec.shape[0]) if spec.modality == "text" else numbers
    weights = rng.standard_normal((numbers, features), np.float32) / np.float32(summed**0.5)
    bias = rng.standard_normal(features, np.float32)
    return Layer(weights * np.float32(1.5), bias * np.float32(0.5), offset, scale)


def _layer(spec: InputSpec, arrays: Mapping[str, NDArray[Any]]) -> Layer:
    weights, bias = arrays[f"weights.{spec.name}"], arrays[f"bias.{spec.name}"]
    offset, scale = arrays[f"scaling.{spec.name}"].tolist()
    numbers = spec.vocabulary if spec.modality == "text" else prod(spec.shape)
    is_float = weights.dtype == np.float32 and bias.dtype == np.float32
    fits = bias.ndim == 1 and weights.shape == (numbers, len(bias))
    if not (is_float and fits and scale > 0):
        raise ValueError(f"the layer of '{spec.name}' is none of its input")
    return Layer(weights, bias, offset, scale)
