"""Inputs whose results a small network can learn: classes as clouds of points."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH = 6
CLASSES = 4
SIZES = {"units": 16, "embedding": 12, "filters": 4, "text_width": 4}


def clouds(count: int, *, seed: int = 0, spread: float = 0.4) -> tuple[NDArray[Any], Any]:
    """(count, WIDTH) float32 and the class of each, (count,) int64."""
    centres = np.random.default_rng(99).normal(size=(CLASSES, WIDTH)) * 2.0
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, CLASSES, count)
    points = centres[classes] + rng.normal(scale=spread, size=(count, WIDTH))
    return points.astype(np.float32), classes


def model() -> Callable[[Any], int]:
    """The model of the clouds: the nearest centre."""
    centres = np.random.default_rng(99).normal(size=(CLASSES, WIDTH)) * 2.0
    return lambda point: int(np.linalg.norm(centres - np.asarray(point), axis=1).argmin())


@cache
def fitted(kind: str) -> Any:
    """A filter of the clouds; class 0 is needed. Made once, not to be changed: `copied`."""
    from triparty.common.nets.training import Course
    from triparty.device.filters import Filter, Recipe, class_not_in

    points, classes = clouds(400)
    return Filter.fit(
        points,
        classes.tolist(),
        class_not_in(0) if kind == "skip" else None,
        recipe=Recipe(kind=kind, sizes=SIZES),  # type: ignore[arg-type]
        course=Course(epochs=25, rate=5e-3),
    )


def copied(kind: str) -> Any:
    """The same filter as a new one."""
    from triparty.device.filters import Filter

    return Filter(fitted(kind).artifact)


def write_filter(folder: Path, kind: str = "skip") -> Path:
    """The same on disk."""
    fitted(kind).save(folder)
    return folder
