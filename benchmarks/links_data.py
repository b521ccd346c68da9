"""What real models say of real frames, for links: kept under build/links, made once.

Frames of the three clips go through four models. YOLOX-nano counts objects (`count`) and gives
its surest person's box (`person`), FastestDet says which of 80 classes it sees (`tags`),
Ultra-Light RFB gives its surest face (`face`), MobileNetV2 says what the scene is (`scene`: its
64 likeliest classes here, and all others as one). A small picture of each frame is kept for
methods that learn from inputs. Remove build/links to make it anew.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.filter_clips import detector_file, session
from benchmarks.filter_frozen import as_mobilenet
from benchmarks.gating_traces import data
from benchmarks.harness import ROOT
from triparty.common.links.recorded import Recorded, check_recorded
from triparty.common.links.specs import OutputSpec, Vec
from triparty.device.gate.detectors import Detections, Detector

CACHE = ROOT / "build" / "links"
CLIPS = ("one-by-one-person-detection", "car-detection", "bottle-detection")
STEPS = (2, 1, 3)  # every so many frames of a clip
PERSON, COCO = 0, 80
SURE = 0.35
SIDE = 48
SCENES = 64
BLOCK = 25  # frames in a row that are learnt from, or judged by, together
LEARNED = 0.48  # share of the blocks that are learnt from (thesis 5.5.2)

MODEL_OF = {
    "count": "yolox_nano",
    "person": "yolox_nano",
    "tags": "FastestDet",
    "face": "version-RFB-320",
    "scene": "mobilenet",
}
"""Which model each output is of; links between outputs of one model are of no use."""

SPECS: dict[str, OutputSpec] = {
    "count": Vec("regression", 1, tolerance=0.5),
    "person": Vec("localisation", 5),
    "tags": Vec("multi-label", COCO),
    "face": Vec("localisation", 5),
    "scene": Vec("single-label", SCENES + 1),
}


@dataclass(frozen=True, eq=False)
class Workload:
    """Aligned outputs of models on the same inputs.

    Attributes:
        recorded: what the models said.
        inputs: (n, channels, height, width) or (n, channels, t) float32, for methods that learn
            from inputs.
        block: (n,) number of the stretch that is learnt from, or judged by, together.
    """

    recorded: Recorded
    inputs: NDArray[np.float32]
    block: NDArray[np.int64]

    def split(self, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows to learn from, in random order, and to judge by; whole blocks of either."""
        rng = np.random.default_rng(seed)
        names = rng.permutation(np.unique(self.block))
        is_learned = np.isin(self.block, names[: round(LEARNED * len(names))])
        return rng.permutation(np.flatnonzero(is_learned)), np.flatnonzero(~is_learned)


@lru_cache
def frames() -> Workload:
    """The clips."""
    kept = CACHE / "frames.npz"
    if not kept.exists():
        print("running models on the clips ...", file=sys.stderr, flush=True)
        columns = _seen()
        kept.parent.mkdir(parents=True, exist_ok=True)
        with kept.open("wb") as stream:
            np.savez(stream, **columns)
    with np.load(kept, allow_pickle=False) as found:
        columns = {key: found[key] for key in found.files}
    outputs = {name: columns[name] for name in SPECS if name != "scene"}
    outputs["scene"] = _likeliest(columns["scene"].astype(np.float32))
    clip, frame = columns["clip"], columns["frame"]
    block = np.unique(clip * 10_000 + frame // BLOCK, return_inverse=True)[1]
    pictures = columns["pictures"].astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1.0
    return Workload(check_recorded(SPECS, outputs), pictures, block)


def _likeliest(shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, 65) shares of the classes that are likely here, and of all others."""
    order = shares.mean(axis=0).argsort()[::-1][:SCENES]
    kept = shares[:, np.sort(order)]
    rest = np.maximum(1.0 - kept.sum(axis=1, keepdims=True), 0.0)
    made: NDArray[np.float32] = np.concatenate([kept, rest], axis=1)
    return made / made.sum(axis=1, keepdims=True)


def _seen() -> dict[str, NDArray[Any]]:
    detectors = {
        name: Detector(detector_file(name), least_score=least)
        for name, least in (
            ("yolox_nano", SURE),
            ("FastestDet", 0.02),
            ("version-RFB-320", 0.6),
        )
    }
    mobilenet = session(
        (data() / "models" / "mobilenet" / "mobilenet_v2_1.0_224_quant.onnx").read_bytes()
    )
    name = mobilenet.get_inputs()[0].name
    rows: dict[str, list[Any]] = {key: [] for key in (*SPECS, "pictures", "clip", "frame")}
    for number, (clip, every) in enumerate(zip(CLIPS, STEPS, strict=True)):
        with av.open(str(data() / "clips" / f"{clip}.mp4")) as container:
            for place, frame in enumerate(container.decode(video=0)):
                if place % every:
                    continue
                large = detectors["yolox_nano"].detect(frame)
                rows["count"].append([len(large.scores)])
                rows["person"].append(_surest(large, PERSON))
                rows["tags"].append(_tags(detectors["FastestDet"].detect(frame)))
                rows["face"].append(_surest(detectors["version-RFB-320"].detect(frame), None))
                rows["scene"].append(mobilenet.run(None, {name: as_mobilenet(frame)})[0][0])
                rows["pictures"].append(
                    frame.to_ndarray(width=SIDE, height=SIDE, format="rgb24")
                )
                rows["clip"].append(number)
                rows["frame"].append(place // every)
    return {key: np.array(values) for key, values in rows.items()}


def _surest(found: Detections, label: int | None) -> list[float]:
    """The surest box of a class, or none."""
    kept = (
        np.flatnonzero(found.labels == label)
        if label is not None
        else np.arange(len(found.labels))
    )
    if not len(kept):
        return [0.0] * 5
    return [1.0, *found.boxes[kept[0]].tolist()]


def _tags(found: Detections) -> NDArray[np.float32]:
    """(80,) the surest score of each class."""
    scores = np.zeros(COCO, np.float32)
    np.maximum.at(scores, found.labels, np.clip(found.scores, 0, 1))
    return scores


if __name__ == "__main__":
    made = frames()
    print({name: made.recorded.outputs[name].mean() for name in SPECS})
