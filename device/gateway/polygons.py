"""Polygons in a picture, in shares of its width and height; pure geometry."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
MOST_POINTS: Final = 100
_NEAR: Final = 1e-9


def check_polygon(points: Sequence[Point]) -> None:
    """Returns only if points are the corners of a simple polygon within the picture.

    Args:
        points: (x, y) from 0, 0 left above to 1, 1 right below, in order around it.

    Raises:
        ValueError: fewer than three corners, or too many; one outside; no area; sides that
            cross or touch.
    """
    if not 3 <= len(points) <= MOST_POINTS:
        raise ValueError(f"a polygon has 3 to {MOST_POINTS} corners, got {len(points)}")
    for x, y in points:
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise ValueError(f"corner ({x}, {y}) is outside: expected shares of 0 to 1")
    sides = list(zip(points, [*points[1:], points[0]], strict=True))
    for (n, one), (m, other) in combinations(enumerate(sides), 2):
        if _meet(one, other, adjacent=m - n in (1, len(sides) - 1)):
            raise ValueError(f"sides {n + 1} and {m + 1} of a polygon cross or touch")


def inside(polygon: Sequence[Point], points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which points are in a polygon; its border counts.

    Args:
        polygon: that `check_polygon` took.
        points: (k, 2) x and y.

    Returns:
        (k,) bool.
    """
    found = np.zeros(len(points), dtype=bool)
    border = np.zeros(len(points), dtype=bool)
    x, y = np.asarray(points, dtype=np.float64).reshape(-1, 2).T
    for (x0, y0), (x1, y1) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        cross = (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)
        within_x = (min(x0, x1) - _NEAR <= x) & (x <= max(x0, x1) + _NEAR)
        within_y = (min(y0, y1) - _NEAR <= y) & (y <= max(y0, y1) + _NEAR)
        border |= (np.abs(cross) <= _NEAR) & within_x & within_y
        if y0 != y1:
            to_the_right = x < x0 + (y - y0) * (x1 - x0) / (y1 - y0)
            found ^= ((y0 > y) != (y1 > y)) & to_the_right
    return found | border


def _meet(one: tuple[Point, Point], other: tuple[Point, Point], *, adjacent: bool) -> bool:
    """Whether two sides have a point in common, beside the corner of adjacent ones."""
    (a, b), (c, d) = one, other
    turns = [_turn(a, b, c), _turn(a, b, d), _turn(c, d, a), _turn(c, d, b)]
    if adjacent:
        return a == b or c == d or (not any(turns) and _fold_back(one, other))
    if turns[0] != turns[1] and turns[2] != turns[3]:
        return True
    return any(
        turn == 0 and _is_between(p, q, r)
        for turn, p, q, r in zip(turns, (a, a, c, c), (b, b, d, d), (c, d, a, b), strict=True)
    )


def _turn(a: Point, b: Point, c: Point) -> int:
    """1, 0 or -1 as c is on one side of the line from a to b, on it, or on the other."""
    cross = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    return 0 if abs(cross) <= _NEAR else (1 if cross > 0 else -1)


def _is_between(a: Point, b: Point, c: Point) -> bool:
    """Whether c, on the line of a and b, is between them."""
    (x0, x1), (y0, y1) = sorted((a[0], b[0])), sorted((a[1], b[1]))
    return x0 - _NEAR <= c[0] <= x1 + _NEAR and y0 - _NEAR <= c[1] <= y1 + _NEAR


def _fold_back(one: tuple[Point, Point], other: tuple[Point, Point]) -> bool:
    """Whether two sides on one line, with a corner in common, lie on each other."""
    (a, b), (c, d) = one, other
    along = (b[0] - a[0]) * (d[0] - c[0]) + (b[1] - a[1]) * (d[1] - c[1])
    return along < 0
