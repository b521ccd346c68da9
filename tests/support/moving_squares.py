"""Clips of a bright square that comes and goes before a noisy wall, and filters of them."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

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


def shown() -> tuple[NDArray[np.float32], list[bool]]:
    """(n, SMALL, SMALL, 1) luma as a filter takes it, and what the model says of each."""
    from triparty.device.gateway.luma import averaged

    made = np.concatenate([pictures(200, seed=seed) for seed in (1, 2, 3)])
    small = np.stack([averaged(one, SMALL, SMALL) for one in made])[..., None]
    return small, [is_there(one) for one in made]


@cache
def fitted(kind: str) -> Any:
    """A filter of luma planes, made once; not to be changed."""
    from triparty.common.nets.training import Course
    from triparty.device.filters import Filter, Recipe, as_given

    small, said = shown()
    return Filter.fit(
        small,
        said,
        as_given() if kind == "skip" else None,
        recipe=Recipe(kind=kind, sizes=SIZES),  # type: ignore[arg-type]
        course=Course(epochs=12, rate=5e-3),
    )


def saved_with_stage(folder: Path) -> Path:
    """A filter of features that a first stage makes of luma, as a request brings it."""
    from dataclasses import replace

    from triparty.common.nets.samples import gather
    from triparty.common.nets.training import Course
    from triparty.device.filters import Filter, Recipe, as_given
    from triparty.device.filters.first_stage import FirstStage

    small, said = shown()
    with patch("secrets.randbits", return_value=1):  # how well it does is a matter of the draw
        stage = FirstStage.drawn(fitted("skip").artifact.inputs, gather(small))
    made = Filter.fit(
        stage.features(gather(small)).columns["input"],
        said,
        as_given(),
        recipe=Recipe(kind="skip", sizes={"units": 16, "embedding": 16, "dropout": 0.0}),
        modality="vector",
        course=Course(epochs=12, rate=5e-3),
    )
    replace(made.artifact, stage=stage).save(folder)
    return folder


def saved(folder: Path, kind: str = "skip", **calibration: Any) -> Path:
    """A filter on disk, with other numbers of its calibration if they are given."""
    from dataclasses import replace

    artifact = fitted(kind).artifact
    (task,) = artifact.tasks
    task = replace(task, calibration=replace(task.calibration, **calibration))
    replace(artifact, tasks=(task,)).save(folder)
    return folder
