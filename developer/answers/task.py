"""The seam between comparisons and what a kind of model takes and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from triparty.common.deviceinfo import DeviceInfo
from triparty.common.keying import Bundle

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Answers = NDArray[np.floating[Any]]
"""Answers (N, O), one row per prediction, in the dtype of the model or float32."""


class Task(Protocol):
    """How the models of one task are run.

    A sample is whatever a task makes and takes; nobody else looks into it.
    """

    @property
    def auto_class(self) -> str:
        """The `transformers` class that loads both models."""

    def sample(self, info: DeviceInfo, count: int, rng: np.random.Generator) -> Any:
        """A random input that gives at least `count` predictions, padding included."""

    def original(self, model: PreTrainedModel, sample: Any) -> Answers:
        """What the original answers."""

    def protected(self, model: PreTrainedModel, bundle: Bundle, sample: Any) -> Answers:
        """What the protected model answers, undone."""


@runtime_checkable
class TextTask(Task, Protocol):
    """A task whose models take a text that somebody gives."""

    def of_ids(self, ids: NDArray[np.int64]) -> Any:
        """A sample of one text (T,)."""


def as_array(tensor: torch.Tensor) -> Answers:
    """A tensor of a model as an array: float64 as it is, everything else as float32."""
    import torch

    kept = tensor if tensor.dtype == torch.float64 else tensor.float()
    array: Answers = kept.numpy()
    return array
