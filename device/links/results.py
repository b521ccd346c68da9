"""What a caller learns of a model's output: whether the model said it, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Origin(StrEnum):
    """Where an output comes from."""

    MEASURED = "measured"
    """The model itself was run."""
    PREDICTED = "predicted"
    """Links predicted it from other models' outputs, or the model's own of before is held."""


@dataclass(frozen=True, eq=False)
class Result:
    """A model's output for one input.

    Attributes:
        output: in the model's own form.
        origin: whether the model said it.
        confidence: 1 of what was measured; of what was predicted 0 to 1, see
            `common.links.ensemble.Prediction`.
        sources: models whose outputs a prediction was made from; of an output that is held
            since an input before, the model itself.
        failure: why a model that should run did not; None otherwise.
    """

    output: Any
    origin: Origin
    confidence: float = 1.0
    sources: tuple[str, ...] = ()
    failure: str | None = None
