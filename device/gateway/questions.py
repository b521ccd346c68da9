"""What is asked of a camera: each of its tasks, of the whole picture and of its zones; pure.

An object is where it stands: at its foot point, the middle of the lower edge of its box. It is
in a zone if its foot point is, and ignored if its foot point is in a mask. A number that a
model says of the picture is of no place: masks leave it alone, and zones have no answer to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from triparty.device.gate.detectors import Detections
from triparty.device.gate.traces import Task
from triparty.device.gateway.polygons import Point, inside
from triparty.device.gateway.settings import CameraSettings
from triparty.device.gateway.stages import Reused, Seen, StandIn


@dataclass(frozen=True)
class Question:
    """A task that is asked of a place.

    Attributes:
        task: under the name of the question: its own, or `task@zone`.
        of: name of the task.
        zone: name of the zone; None for the whole picture.
        polygon: of the zone.
        masks: polygons that are ignored.
    """

    task: Task
    of: str
    zone: str | None = None
    polygon: tuple[Point, ...] | None = None
    masks: tuple[tuple[Point, ...], ...] = ()

    @property
    def name(self) -> str:
        """Under which its answers are kept."""
        return self.task.name

    def part(self, seen: Seen) -> Seen | None:
        """What is at its place of what a model saw; None if that is not known."""
        if not isinstance(seen, Detections):
            return seen if self.zone is None else None
        if self.polygon is None and not self.masks:
            return seen
        feet = foot_points(seen.boxes)
        kept = np.ones(len(feet), dtype=bool)
        if self.polygon is not None:
            kept &= inside(self.polygon, feet)
        for mask in self.masks:
            kept &= ~inside(mask, feet)
        return Detections(seen.boxes[kept], seen.labels[kept], seen.scores[kept])

    def stand_in(self, said: StandIn) -> StandIn | None:
        """What a filter said in the place of a model, of its place; None if not known."""
        if not isinstance(said, Reused):
            return said
        part = self.part(said.seen)
        return None if part is None else Reused(part)


def foot_points(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(k, 2) where objects stand: the middle of the lower edge of each box (k, 4)."""
    return np.stack([(boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3]], axis=1)


def questions(tasks: Sequence[Task], camera: CameraSettings) -> list[Question]:
    """What is asked of a camera: its tasks in their order, then those of each zone."""
    masks = tuple(mask.polygon for mask in camera.masks)
    found = [Question(task, task.name, masks=masks) for task in tasks]
    for zone in camera.zones:
        for task in tasks:
            if zone.tasks is None or task.name in zone.tasks:
                named = replace(task, name=f"{task.name}@{zone.name}")
                found.append(Question(named, task.name, zone.name, zone.polygon, masks))
    return found


def folded(
    tasks: Sequence[Task], asked: Sequence[Question], rewards: Sequence[float]
) -> list[float]:
    """The reward of each task: the largest of its questions' that is known, or NaN."""
    found = dict.fromkeys((task.name for task in tasks), np.nan)
    for question, reward in zip(asked, rewards, strict=True):
        found[question.of] = float(np.fmax(found[question.of], reward))
    return list(found.values())
