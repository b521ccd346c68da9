"""Films of a site and what models say of them: first halves to watch, second to learn from.

Three real clips, cut at the entry nearest to the middle. A filter of brightness before each
detector and a link from one detector to the other know the second halves alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.gating_exactness import CLIPS, clips_folder
from benchmarks.gating_traces import data
from triparty.common.links.design import default_design
from triparty.common.links.folder import save_links
from triparty.common.links.planning.costs import Cost
from triparty.common.links.planning.folder import PlanFolder
from triparty.common.links.planning.plan import Plan
from triparty.common.links.recipe import Recipe as LinkRecipe
from triparty.common.links.specs import Vec
from triparty.common.links.training import fit_link
from triparty.common.links.weighing import fitted_ensemble
from triparty.common.nets.training import Course
from triparty.device.filters.filter import Filter
from triparty.device.filters.fitting import Recipe
from triparty.device.filters.measures import count_zero
from triparty.device.gate.detectors import Detector
from triparty.device.gateway.coco import COCO
from triparty.device.gateway.luma import averaged

LUMA = (72, 128)
OBJECTS, FACES = "objects", "faces"
FILES = {OBJECTS: "FastestDet.onnx", FACES: "version-RFB-320.onnx"}
LEAST = {OBJECTS: 0.6, FACES: 0.7}
THINGS = ("person", "car", "bottle")
"""What is asked of the first detector."""
FILTER_ACCURACY, LEAST_SHARE = 0.95, 0.05
NUMBERS = tuple(COCO.index(name) for name in THINGS)


@dataclass(frozen=True, eq=False)
class Learnt:
    """Frames that nobody watches.

    Attributes:
        clip: (n,) place in `CLIPS`.
        luma: (n, 72, 128, 1) uint8.
        things: (n, 3) float32 how many of `THINGS` the first detector counts.
        faces: (n, 1) float32 how many faces the second one does.
    """

    clip: NDArray[np.intp]
    luma: NDArray[np.uint8]
    things: NDArray[np.float32]
    faces: NDArray[np.float32]

    def count(self, model: str) -> NDArray[np.int64]:
        """(n,) what there is for a model to count."""
        counts = self.things if model == OBJECTS else self.faces
        return counts.sum(axis=1).astype(np.int64)


def detector(model: str) -> Path:
    """The file of a model."""
    return data() / "models" / "detectors" / FILES[model]


def write_film(film: Path, clip: int, start: float) -> None:
    """The first half of a clip, packets as they are, from another place on and round.

    Args:
        film: what is written.
        clip: place in `CLIPS`.
        start: where it begins, as a share of the half: at the entry at or before that.
    """
    name = CLIPS[clip]
    with av.open(str(_clip(name))) as source, av.open(str(film), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        half = [p for p in source.demux(stream) if p.dts is not None and p.dts < _middle(name)]
        entries = [number for number, packet in enumerate(half) if packet.is_keyframe]
        first = max(number for number in entries if number <= start * len(half))
        skipped = half[first].dts - half[0].dts
        whole = _middle(name) - half[0].dts
        for number, packet in enumerate(half[first:] + half[:first]):
            later = whole if number >= len(half) - first else 0
            packet.dts += later - skipped
            packet.pts += later - skipped
            packet.stream = copy
            target.mux(packet)


@cache
def learnt() -> Learnt:
    """Every second frame of the second halves, and what the detectors say of them."""
    known = {model: Detector(detector(model), least_score=LEAST[model]) for model in FILES}
    clip, luma, things, faces = [], [], [], []
    for place, name in enumerate(CLIPS):
        for frame in _second_half(name):
            clip.append(place)
            luma.append(averaged(frame.to_ndarray(format="gray"), *LUMA)[..., None])
            seen = known[OBJECTS].detect(frame).labels
            things.append([(seen == number).sum() for number in NUMBERS])
            faces.append([len(known[FACES].detect(frame).labels)])
    return Learnt(
        np.array(clip),
        np.stack(luma),
        np.array(things, np.float32),
        np.array(faces, np.float32),
    )


def save_filter(folder: Path, model: str, clip: int) -> bool:
    """A filter before a model for cameras that play a clip; whether there is one to be had.

    It skips frames with nothing to count. Its threshold is of the last quarter, of which
    nothing was learnt.
    """
    work, is_here = learnt(), learnt().clip == clip
    luma, count = work.luma[is_here], work.count(model)[is_here]
    end = len(count) * 3 // 4
    if min(np.mean(count[:end] > 0), np.mean(count[:end] == 0)) < LEAST_SHARE:
        return False
    made = Filter.fit(
        luma[:end],
        count[:end],
        count_zero(),
        recipe=Recipe("skip", target_accuracy=FILTER_ACCURACY),
        modality="image",
        course=Course(epochs=8),
    )
    made.calibrate(luma[end:], count[end:], target_accuracy=FILTER_ACCURACY)
    if made.artifact.tasks[0].calibration.threshold is None:
        return False
    made.save(folder)
    return True


def save_plan(folder: Path) -> Path:
    """A plan by which the first detector runs, and faces are predicted from what it says."""
    work, recipe = learnt(), LinkRecipe(seed=0)
    source = Vec("regression", len(THINGS), labels=THINGS, tolerance=0.5)
    target = Vec("regression", 1, labels=("face",), tolerance=0.5)
    link = fit_link(default_design(source, target), work.things, work.faces, recipe)
    made = fitted_ensemble(FACES, target, {OBJECTS: link}, work.faces, recipe)
    save_links(made, folder / "links" / FACES)
    plan = Plan(
        active=(OBJECTS,),
        predicted={FACES: (OBJECTS,)},
        quality={FACES: made.expected},
        expected_accuracy=(1 + made.expected) / 2,
        cost={"memory_mib": 1.0},
        budget={"memory_mib": 1.0},
        method="exact",
    )
    costs = {OBJECTS: Cost(1.0, 1.0), FACES: Cost(1.0, 1.0)}
    PlanFolder(plan, costs, links={FACES: 0}).save(folder / "plan")
    return folder / "plan"


def _clip(name: str) -> Path:
    return clips_folder() / f"{name}.mp4"


@cache
def _middle(name: str) -> int:
    """Decoding stamp of the entry nearest to the middle of a clip."""
    with av.open(str(_clip(name))) as container:
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.dts is not None]
    half = packets[len(packets) // 2].dts
    entries = [p.dts for p in packets[1:] if p.is_keyframe]
    return int(min(entries, key=lambda dts: abs(dts - half)))


def _second_half(name: str) -> Iterator[av.VideoFrame]:
    with av.open(str(_clip(name))) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if frame.pts is not None and frame.pts >= _middle(name) and number % 2 == 0:
                yield frame
