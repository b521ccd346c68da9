"""Generated quiet scenes: what most cameras of a building show most of the time.

The three clips are busy. A quiet scene is made of one clip's own pixels: its median picture,
sensor noise, light that drifts slowly, and now and then something cut out of the clip that
crosses the picture. It is named as generated wherever it is used, and its labels are known by
construction, not seen by a detector.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.gating_traces import (
    BY_NAME,
    CACHE,
    CLIPS,
    Encoding,
    answered,
    data,
    encode,
    labelled,
)
from triparty.device.gate.recording import record
from triparty.device.gate.trace_files import read_trace, write_trace
from triparty.device.gate.traces import Trace

SIZE = (640, 360)
FPS = Fraction(25, 2)
SECONDS = 300
QUIET_S = 25.0  # mean time between two crossings
NOISE = 2.0  # standard deviation of luma
DRIFT = 4.0  # of luma, up and down in a minute
CUT = 14.0  # luma by which a pixel must differ from the background to be cut out
CUTOUTS = 12
Picture = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Cutout:
    """Something of a clip: pixels (h, w, 3), and how much each belongs to it (h, w, 1)."""

    pixels: Picture
    share: Picture


@dataclass(frozen=True)
class Crossing:
    """One cutout that moves across the picture."""

    cutout: int
    start: float
    seconds: float
    height: float
    leftwards: bool


def quiet(clip: str, encoding: str) -> Trace:
    """The trace of a quiet scene made of a clip; its answers are known by construction."""
    kept = CACHE / "traces" / f"quiet-{clip}-{encoding}.npz"
    if not kept.exists():
        plain = record(
            _encoded(clip, BY_NAME[encoding]),
            camera=f"quiet {clip}, {encoding}",
            note=f"generated from the pixels of {clip}: {BY_NAME[encoding].says}",
            passes=2,
        )
        write_trace(answered(plain, _answers(clip)), kept)
    return read_trace(kept)


def _encoded(clip: str, encoding: Encoding) -> object:
    target = CACHE / "clips" / f"quiet-{clip}-{encoding.name}.{encoding.suffix}"
    if not target.exists():
        print(f"generating a quiet scene of {clip}: {encoding.says} ...", flush=True)
        encode(target, encoding, _frames(clip), FPS)
    return target


def _answers(clip: str) -> dict[str, NDArray[np.float32]]:
    """How many things are at least half in the picture, frame by frame."""
    count = np.zeros(_length(), dtype=np.float32)
    for crossing in _crossings(clip):
        share = _visible(clip, crossing)
        count += share >= 0.5
    return {
        "count": count,
        "event": (count > 0).astype(np.float32),
        "anomaly": (count > 1).astype(np.float32),
    }


def _length() -> int:
    return int(SECONDS * FPS)


def _seed(clip: str) -> int:
    return 100 + CLIPS.index(clip)


@lru_cache(maxsize=4)
def _crossings(clip: str) -> tuple[Crossing, ...]:
    rng = np.random.default_rng(_seed(clip))
    found, now = [], float(rng.exponential(QUIET_S))
    while now < SECONDS:
        found.append(
            Crossing(
                cutout=int(rng.integers(CUTOUTS)),
                start=now,
                seconds=float(rng.uniform(3.0, 8.0)),
                height=float(rng.uniform(0.1, 0.9)),
                leftwards=bool(rng.random() < 0.5),
            )
        )
        now += float(rng.exponential(QUIET_S))
    return tuple(found)


def _place(clip: str, crossing: Crossing, time: NDArray[np.float64]) -> NDArray[np.float64]:
    """Left edge of the cutout at each time, in pixels; outside where it is not there."""
    width = _cutouts(clip)[1][crossing.cutout].pixels.shape[1]
    part = (time - crossing.start) / crossing.seconds
    part = np.where((part < 0) | (part > 1), -1.0, part)
    part = np.where(crossing.leftwards & (part >= 0), 1 - part, part)
    return np.where(part < 0, 2.0 * SIZE[0], part * (SIZE[0] + width) - width)


def _visible(clip: str, crossing: Crossing) -> NDArray[np.float64]:
    """(frames,) share of the cutout's width inside the picture."""
    width = _cutouts(clip)[1][crossing.cutout].pixels.shape[1]
    left = _place(clip, crossing, np.arange(_length()) / float(FPS))
    inside = np.minimum(left + width, SIZE[0]) - np.maximum(left, 0)
    return np.clip(inside / width, 0, 1)


@lru_cache(maxsize=1)
def _cutouts(clip: str) -> tuple[Picture, list[Cutout]]:
    """The clip's median picture, and what a detector found in it, cut out."""
    frames = []
    with av.open(str(data() / "clips" / f"{clip}.mp4")) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number % 7 == 0:
                pixels = frame.to_ndarray(width=SIZE[0], height=SIZE[1], format="rgb24")
                frames.append((frame.pts, pixels))
    background = np.median([pixels for _, pixels in frames], axis=0).astype(np.float32)
    found = labelled(clip).results
    model = labelled(clip).models.index("yolox_nano")
    rows = {int(p): r for r, p in enumerate(found.pts) if found.model[r] == model}
    cut: list[tuple[float, Cutout]] = []
    for pts, pixels in frames:
        row = rows[int(pts)]
        for box in range(found.first[row], found.first[row + 1]):
            left, top, right, bottom = found.box[box] * np.array([*SIZE, *SIZE])
            x0, y0, x1, y1 = int(left), int(top), int(np.ceil(right)), int(np.ceil(bottom))
            if not (12 < x1 - x0 < SIZE[0] // 2 and 12 < y1 - y0 < SIZE[1]):
                continue
            part = pixels[y0:y1, x0:x1].astype(np.float32)
            differs = np.abs(part - background[y0:y1, x0:x1]).mean(axis=2, keepdims=True)
            share = np.clip((differs - CUT) / CUT, 0, 1).astype(np.float32)
            cut.append((float(share.mean() * found.score[box]), Cutout(part, share)))
    cut.sort(key=lambda one: -one[0])
    step = max(1, len(cut) // (3 * CUTOUTS))
    return background, [one for _, one in cut[::step][:CUTOUTS]]


def _frames(clip: str) -> Iterator[av.VideoFrame]:
    background, cutouts = _cutouts(clip)
    rng = np.random.default_rng(_seed(clip) + 1)
    crossings = _crossings(clip)
    for number in range(_length()):
        time = number / float(FPS)
        picture = background + DRIFT * np.sin(2 * np.pi * time / 60)
        for crossing in crossings:
            left = int(_place(clip, crossing, np.array([time]))[0])
            _paste(picture, cutouts[crossing.cutout], left, crossing.height)
        picture += rng.standard_normal(picture.shape[:2], dtype=np.float32)[..., None] * NOISE
        yield av.VideoFrame.from_ndarray(
            np.clip(picture, 0, 255).astype(np.uint8), format="rgb24"
        )


def _paste(picture: Picture, cutout: Cutout, left: int, height: float) -> None:
    tall, wide = cutout.pixels.shape[:2]
    top = int(height * max(0, SIZE[1] - tall))
    x0, x1 = max(left, 0), min(left + wide, SIZE[0])
    y1 = min(top + tall, SIZE[1])
    if x1 <= x0:
        return
    share = cutout.share[: y1 - top, x0 - left : x1 - left]
    pixels = cutout.pixels[: y1 - top, x0 - left : x1 - left]
    picture[top:y1, x0:x1] += share * (pixels - picture[top:y1, x0:x1])
