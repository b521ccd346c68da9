"""What a training is: design and course, as JSON for the trainer, within the limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Self

from triparty.cloud.settings import CloudSettings
from triparty.common.datasets import Limits
from triparty.common.errors import TooLargeError
from triparty.common.nets.course import Course
from triparty.common.nets.design import Design
from triparty.common.nets.documents import design_members, read_design
from triparty.common.nets.inputs import CHANNELS, InputSpec


@dataclass(frozen=True)
class Task:
    """A network and how it is trained.

    Attributes:
        design: of the network.
        course: of the training.
    """

    design: Design
    course: Course

    def to_json(self) -> str:
        """Law: `Task.from_json(t.to_json()) == t`."""
        document = {
            "design": design_members(self.design),
            "tasks": self.design.tasks,
            "course": asdict(self.course),
        }
        return json.dumps(document, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote."""
        document: Mapping[str, Any] = json.loads(text)
        design = read_design(document["design"], document["tasks"])
        return cls(design, Course(**document["course"]))


def dataset_limits(settings: CloudSettings) -> Limits:
    """How much a data set may have."""
    return Limits(rows=settings.max_dataset_rows, bytes=settings.max_dataset_bytes)


def check_task(task: Task, settings: CloudSettings) -> None:
    """Returns only if a training is within the limits, before its data are looked at.

    Raises:
        TooLargeError: too many passes, or too large a network; names the limit.
    """
    if task.course.epochs > settings.max_job_epochs:
        raise TooLargeError(
            f"{task.course.epochs} epochs: this cloud trains for at most "
            f"{settings.max_job_epochs}",
            limit=settings.max_job_epochs,
        )
    weights = most_weights(task.design)
    if weights > settings.max_job_weights:
        raise TooLargeError(
            f"a network of up to {weights} weights: this cloud trains at most "
            f"{settings.max_job_weights}; make units, embedding or the input smaller",
            limit=settings.max_job_weights,
        )


def most_weights(design: Design) -> int:
    """A number that the network's weights do not exceed, told without building it."""
    return design.tasks * (design.width + 1) + sum(
        _most_weights(one, design) for one in design.inputs
    )


def _most_weights(spec: InputSpec, design: Design) -> int:
    """Of one input's feature network (`common/nets/features.py`), kernels of 3 x 3 assumed."""
    units, embedding, filters = design.units, design.embedding, design.filters
    if spec.modality == "text":
        table = spec.vocabulary * design.text_width
        return table + _dense(2 * design.text_width, units) + _dense(units, embedding)
    if spec.modality == "vector":
        return _dense(prod(spec.shape), units) + _dense(units, embedding)
    if spec.modality == "series":
        first = _dense(5 * spec.shape[1], filters) + _dense(5 * filters, 2 * filters)
        return first + _dense(6 * filters, 2 * filters) + _dense(4 * filters, embedding)
    channels = 1 if spec.modality == "audio" else min(max(CHANNELS), max(spec.shape))
    frames = spec.shape[0] if spec.modality == "video" else 1
    blocks = _block(channels, filters) + _block(frames * filters, 2 * filters)
    return blocks + _dense(2 * filters, embedding)


def _dense(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def _block(channels: int, filters: int) -> int:
    """Three steps: a kernel a channel, a mixing of channels, a norm."""
    step = 9 * channels + _dense(channels, filters) + 2 * filters
    return 2 * step + 9 * filters + _dense(filters, filters) + 2 * filters
