"""Reducto's way: the last result until a low-level difference to its frame is large enough.

Its four differences: of pixels, of edges, of corners, of areas that changed. Which one and
which threshold is chosen on the frames that are learnt from; written from the published
description. Without OpenCV: edges are gradients above a level, corners Harris's response.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from triparty.device.filters.replay import Replayed

CHANGED = 12.0  # of 255, by which a pixel has changed
STEEP = 40.0
Pictures = NDArray[np.float32]
Difference = Callable[[Pictures, Pictures], float]


def pixel(one: Pictures, other: Pictures) -> float:
    """Share of pixels that changed."""
    return float((np.abs(one - other) > CHANGED).mean())


def area(one: Pictures, other: Pictures) -> float:
    """Share of the largest stretch of 8 x 8 pixels that changed, noise averaged away."""
    smoothed = uniform_filter(np.abs(one - other), 8)
    return float((smoothed > CHANGED).mean() + smoothed.max() / 255.0)


def edge(one: Pictures, other: Pictures) -> float:
    """Share of pixels that are an edge in one alone."""
    return float((_edges(one) != _edges(other)).mean())


def corner(one: Pictures, other: Pictures) -> float:
    """Mean change of the corners' strength, on a scale of roots."""
    return float(np.abs(_corners(one) - _corners(other)).mean())


DIFFERENCES: dict[str, Difference] = {
    "pixel": pixel,
    "edge": edge,
    "corner": corner,
    "area": area,
}


def best_rate(
    learned: tuple[Pictures, NDArray[np.int64]],
    tested: tuple[Pictures, NDArray[np.int64]],
    target: float,
) -> float:
    """REUSE by the difference that does best in training, at its best threshold in the test.

    Args:
        learned: (n, rows, columns) grey pictures in their order, (n,) labels.
        tested: the same.
        target: accuracy to keep.
    """
    rates = {name: _best(one, *learned, target) for name, one in DIFFERENCES.items()}
    return _best(DIFFERENCES[max(rates, key=lambda name: rates[name])], *tested, target)


def _best(
    difference: Difference, pictures: Pictures, labels: NDArray[np.int64], target: float
) -> float:
    steps = [difference(pictures[row], pictures[row - 3]) for row in range(3, len(pictures), 3)]
    points = [
        _replay(difference, pictures, labels, float(most))
        for most in np.quantile(steps, np.linspace(0.05, 1.0, 8)) * 1.5
    ]
    return max((one.filter_rate for one in points if one.accuracy >= target), default=0.0)


def _replay(
    difference: Difference, pictures: Pictures, labels: NDArray[np.int64], most: float
) -> Replayed:
    last, reused, wrong = 0, 0, 0
    for row in range(1, len(pictures)):
        if difference(pictures[row], pictures[last]) <= most:
            reused += 1
            wrong += int(labels[row] != labels[last])
        else:
            last = row
    return Replayed(reused, wrong, len(pictures))


def _edges(picture: Pictures) -> NDArray[np.bool_]:
    down, across = np.gradient(picture)
    return np.asarray(np.hypot(down, across) > STEEP)


def _corners(picture: Pictures) -> Pictures:
    down, across = np.gradient(picture)
    products = (down * down, across * across, down * across)
    rows, columns, mixed = (uniform_filter(one, 3) for one in products)
    response = rows * columns - mixed**2 - 0.04 * (rows + columns) ** 2
    return np.sqrt(np.maximum(response, 0.0))
