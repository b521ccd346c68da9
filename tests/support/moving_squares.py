"""Clips of a bright square that comes and goes before a noisy wall, and filters of them."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

SIDE = 64
SMALL = 16
RATE = 25
SIZES = {"units": 8, "embedding": 8, "filters": 4, "resolution": 0, "dropout": 0.0}
Pictures = NDArray[np.uint8]


def pictures(count: int, *, seed: int = 0, spell: int = 12) -> Pictures:
    """(count, SIDE, SIDE) luma: spells of a moving square, and of nothing but the wall."""
    rng = np.random.default_rng(seed)
    wall = rng.integers(60, 90, (SIDE, SIDE))
    made = np.repeat(wall[None], count, axis=0)
    made += rng.integers(-4, 5, made.shape)
    for start in range(spell, count, 2 * spell):
        top, left = rng.integers(4, 28, 2)
        for n in range(start, min(start + spell, count)):
            step = n - start
            made[n, top + step : top + step + 20, left : left + 20] = 220
    return made.astype(np.uint8)


def write_clip(path: Path, frames: Pictures) -> Path:
    """An H.264 clip of pictures with an entry every 5 frames."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"g": "5", "bf": "0", "crf": "20", "preset": "ultrafast"}
        for number, luma in enumerate(frames):
            picture = np.full((SIDE * 3 // 2, SIDE), 128, np.uint8)
            picture[:SIDE] = luma
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def is_there(pixels: Pictures) -> bool:
    """The model: whether there is a square in a picture, of luma or of colours."""
    return bool((pixels > 180).mean() > 0.02)


@cache
def fitted(kind: str) -> Any:
    """A filter of luma planes, made once; not to be changed."""
    from triparty.common.nets.training import Course
    from triparty.device.filters import Filter, Recipe, as_given
    from triparty.device.gateway.luma import averaged

    shown = np.concatenate([pictures(200, seed=seed) for seed in (1, 2, 3)])
    small = np.stack([averaged(one, SMALL, SMALL) for one in shown])[..., None]
    return Filter.fit(
        small,
        [is_there(one) for one in shown],
        as_given() if kind == "skip" else None,
        recipe=Recipe(kind=kind, sizes=SIZES),  # type: ignore[arg-type]
        course=Course(epochs=12, rate=5e-3),
    )


def saved(folder: Path, kind: str = "skip", **calibration: Any) -> Path:
    """A filter on disk, with other numbers of its calibration if they are given."""
    from dataclasses import replace

    artifact = fitted(kind).artifact
    (task,) = artifact.tasks
    task = replace(task, calibration=replace(task.calibration, **calibration))
    replace(artifact, tasks=(task,)).save(folder)
    return folder
