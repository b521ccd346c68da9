"""People and vehicles on the real clips, counted by a real detector, and its first layers.

YOLOX-nano is the model that is filtered: what it says of a frame labels it, flicker and all.
`persons` are those of the clip in which people walk by one by one. Cars are filmed from above,
where boxes are found and classes are wrong, so `vehicles` are boxes of any class. Everything
is kept under build/filters; remove that folder to make it anew. `faces` are those that
Ultra-Light finds in the first of these clips; of its layers there are no maps.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.gating_traces import data
from benchmarks.harness import ROOT
from triparty.device.filters.partition import Halves, split_model
from triparty.device.gate.detectors import Detections, Detector

CACHE = ROOT / "build" / "filters"
CLIPS = {
    "persons": "one-by-one-person-detection",
    "vehicles": "car-detection",
    "faces": "one-by-one-person-detection",
}
COUNTED = {"persons": (0,), "vehicles": (), "faces": ()}  # none: of any class
SURE = {"persons": 0.45, "vehicles": 0.3, "faces": 0.5}
RATES = {"persons": 10.0, "vehicles": 12.5, "faces": 10.0}
LAYER = "729"  # of YOLOX-nano: 64 maps of 52 x 52, about a quarter of the model's time
SIDE, POOLED = 416, 4
LUMA = (128, 72)
BLOCK_S = 5.0


@dataclass(frozen=True, eq=False)
class Watched:
    """A clip, frame by frame.

    Attributes:
        luma: (n, 72, 128, 1) uint8 brightness, averaged down.
        maps: (n, 64, 13, 13) float32 feature maps of the detector, the largest of 4 x 4.
        count: (n,) int64 objects that YOLOX-nano counts.
        small: (n,) float32 surest such object that FastestDet sees, a model a third as large.
        block: (n,) int64 number of the stretch of 5 seconds that a frame is in.
    """

    luma: NDArray[np.uint8]
    maps: NDArray[np.float32]
    count: NDArray[np.int64]
    small: NDArray[np.float32]
    block: NDArray[np.int64]


@lru_cache
def watched(name: str) -> Watched:
    """What the clip of `persons` or `vehicles` holds."""
    kept = CACHE / f"{name}.npz"
    if not kept.exists():
        print(f"detecting {name} ...", file=sys.stderr, flush=True)
        columns = _seen(name)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with kept.open("wb") as stream:
            np.savez(stream, **columns)
    with np.load(kept, allow_pickle=False) as found:
        columns = {key: found[key] for key in found.files}
    columns["maps"] = columns["maps"].astype(np.float32)
    columns["block"] = (columns.pop("time") / BLOCK_S).astype(np.int64)
    return Watched(**columns)


def frames(name: str) -> Iterator[av.VideoFrame]:
    """The frames of a clip."""
    with av.open(str(data() / "clips" / f"{CLIPS[name]}.mp4")) as container:
        yield from container.decode(video=0)


def detector_file(name: str = "yolox_nano") -> Path:
    """Where a detector is."""
    return data() / "models" / "detectors" / f"{name}.onnx"


@lru_cache
def halves() -> Halves:
    """The detector cut at its layer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both halves stay here
        return split_model(detector_file().read_bytes(), LAYER)


def session(model: bytes) -> Any:
    """A model on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def letterboxed(frame: av.VideoFrame) -> NDArray[np.float32]:
    """(1, 3, 416, 416) a frame as YOLOX takes it."""
    scale = min(SIDE / frame.width, SIDE / frame.height)
    width, height = round(frame.width * scale), round(frame.height * scale)
    canvas = np.full((SIDE, SIDE, 3), 114, np.float32)
    canvas[:height, :width] = frame.to_ndarray(
        width=width, height=height, format="bgr24", interpolation="BILINEAR"
    )
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None])


def pooled(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """(channels, rows / 4, columns / 4) the largest of every 4 x 4 of one input's maps."""
    channels, rows, columns = maps.shape[1:]
    parts = maps.reshape(channels, rows // POOLED, POOLED, columns // POOLED, POOLED)
    return np.asarray(parts.max(axis=(2, 4)))


def _seen(name: str) -> dict[str, NDArray[Any]]:
    if name == "faces":
        return _faces()
    large = Detector(detector_file(), least_score=SURE[name])
    small = Detector(detector_file("FastestDet"), least_score=0.02)
    first = session(halves().first)
    rows: dict[str, list[Any]] = {key: [] for key in ("luma", "maps", "count", "small")}
    for frame in frames(name):
        rows["luma"].append(_luma(frame))
        maps = first.run(None, {"images": letterboxed(frame)})[0]
        rows["maps"].append(pooled(maps).astype(np.float16))
        rows["count"].append(len(_scores(name, large.detect(frame))))
        rows["small"].append(max(_scores(name, small.detect(frame)), default=0.0))
    return {
        "luma": np.stack(rows["luma"]),
        "maps": np.stack(rows["maps"]),
        "count": np.array(rows["count"], np.int64),
        "small": np.array(rows["small"], np.float32),
        "time": np.arange(len(rows["count"])) / RATES[name],
    }


def _faces() -> dict[str, NDArray[Any]]:
    detector = Detector(detector_file("version-RFB-320"), least_score=SURE["faces"])
    luma, count = [], []
    for frame in frames("faces"):
        luma.append(_luma(frame))
        count.append(len(detector.detect(frame).scores))
    return {
        "luma": np.stack(luma),
        "maps": np.zeros((len(luma), 0), np.float16),
        "count": np.array(count, np.int64),
        "small": np.zeros(len(luma), np.float32),
        "time": np.arange(len(luma)) / RATES["faces"],
    }


def _luma(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """(72, 128, 1) brightness."""
    grey = frame.to_ndarray(width=LUMA[0], height=LUMA[1], format="gray", interpolation="AREA")
    return np.asarray(grey[..., None], np.uint8)


def _scores(name: str, found: Detections) -> list[float]:
    """Of the objects that are counted."""
    is_counted = np.isin(found.labels, COUNTED[name]) if COUNTED[name] else found.labels >= 0
    return [float(one) for one in found.scores[is_counted]]
