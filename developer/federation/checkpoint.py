"""The weights after a round, in one safetensors file that is whole or absent."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from triparty.common.errors import FederationError
from triparty.common.federation import Weights
from triparty.common.files import write_atomic


@dataclass(frozen=True)
class Checkpoint:
    """Weights after a round.

    Attributes:
        round: 0 before the first.
        weights: of the links.
        plan: SHA-256 of the plan that they were trained by.
    """

    round: int
    weights: Weights
    plan: str

    def save(self, path: Path) -> None:
        """Writes it, whole or not at all."""
        metadata = {"round": str(self.round), "plan": self.plan}
        write_atomic(path, save(dict(self.weights), metadata=metadata))

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Reads what `save` wrote.

        Raises:
            FederationError: absent, or no such file.
        """
        try:
            with safe_open(path, framework="numpy") as opened:
                metadata = opened.metadata() or {}
                names = list(opened.keys())
                weights = {name: _float32(opened.get_tensor(name)) for name in names}
            return cls(int(metadata["round"]), weights, metadata["plan"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise FederationError(
                f"{path} is no checkpoint of a federation: {error}"
            ) from error


def plan_digest(plan: str) -> str:
    """By what a checkpoint knows the plan that it belongs to."""
    return hashlib.sha256(plan.encode()).hexdigest()


def _float32(values: NDArray[np.generic]) -> NDArray[np.float32]:
    if values.dtype != np.float32:
        raise ValueError(f"dtype {values.dtype}, expected float32")
    return np.asarray(values, np.float32)
