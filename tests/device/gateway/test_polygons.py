"""Polygons: what is one, and what is in it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.device.gateway.polygons import Point, check_polygon, inside

SQUARE = [(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8)]
L_SHAPE = [(0.0, 0.0), (1.0, 0.0), (1.0, 0.4), (0.4, 0.4), (0.4, 1.0), (0.0, 1.0)]


@pytest.mark.parametrize(
    ("reason", "points"),
    [
        ("3 to", [(0.1, 0.1), (0.9, 0.9)]),
        ("3 to", [(n / 200, (n % 2) / 2) for n in range(101)]),
        ("outside", [(0.1, 0.1), (1.1, 0.1), (0.5, 0.5)]),
        ("outside", [(0.1, 0.1), (float("nan"), 0.1), (0.5, 0.5)]),
        ("cross or touch", [(0.1, 0.1), (0.9, 0.9), (0.9, 0.1), (0.1, 0.9)]),  # a bow tie
        ("cross or touch", [(0.1, 0.1), (0.5, 0.5), (0.9, 0.9)]),  # no area
        ("cross or touch", [(0.1, 0.1), (0.1, 0.1), (0.9, 0.9), (0.9, 0.1)]),  # a corner twice
        ("cross or touch", [*SQUARE[:3], (0.5, 0.2), (0.2, 0.8)]),  # a corner on a side
        ("cross or touch", [(0, 0), (1, 0), (0.5, 0), (0.5, 1)]),  # a spike
    ],
)
def test_what_is_no_polygon(reason: str, points: list[Point]) -> None:
    with pytest.raises(ValueError, match=reason):
        check_polygon(points)


@pytest.mark.parametrize(
    "points", [SQUARE, L_SHAPE, [(0, 0), (0.5, 0), (1, 0), (1, 1), (0, 1)]]
)
def test_any_turn_and_begin_of_a_polygon_will_do(points: list[Point]) -> None:
    for n in range(len(points)):
        turned = points[n:] + points[:n]
        check_polygon(turned)
        check_polygon(turned[::-1])


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_inside_is_what_two_rectangles_say(points: list[Point]) -> None:
    x, y = np.array(points).T
    near = 2e-9
    loosely = ((x <= 0.4 + near) | (y <= 0.4 + near)) & (x >= 0)
    strictly = (x < 0.4 - near) | (y < 0.4 - near)
    for polygon in (L_SHAPE, L_SHAPE[::-1]):
        found = inside(polygon, np.array(points))
        assert (found <= loosely).all()
        assert (found >= strictly).all()


def test_the_border_is_inside() -> None:
    border = np.array([(0.2, 0.2), (0.5, 0.2), (0.8, 0.5), (0.8, 0.8), (0.2, 0.7)])
    assert inside(SQUARE, border).all()
    near = np.array([(0.19, 0.2), (0.5, 0.19), (0.81, 0.5), (0.9, 0.2), (0.1, 0.8)])
    assert not inside(SQUARE, near).any()
