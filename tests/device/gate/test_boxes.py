"""Boxes are in place if each has a partner of its own, whatever their order."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from triparty.device.gate.boxes import DIGITS, LEAST_IOU, in_place

Box = tuple[float, float, float, float]
TENTHS = st.integers(0, 7)
BOXES = st.lists(
    st.tuples(TENTHS, TENTHS, st.integers(1, 3), st.integers(1, 3)).map(
        lambda of: (of[0] / 10, of[1] / 10, (of[0] + of[2]) / 10, (of[1] + of[3]) / 10)
    ),
    max_size=3,
)


def overlap(one: Box, other: Box) -> float:
    """Intersection over union, edge by edge."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return round(shared / (sum(areas) - shared), 9)


@given(BOXES, BOXES, st.integers(0, 2))
def test_boxes_are_in_place_if_they_can_be_paired(
    boxes: list[Box], others: list[Box], labels: int
) -> None:
    label = [number & labels for number in range(len(boxes))]
    other_label = [number & labels for number in range(len(others))]
    expected = len(boxes) == len(others) and any(
        all(
            label[n] == other_label[m] and overlap(boxes[n], others[m]) >= LEAST_IOU
            for n, m in enumerate(order)
        )
        for order in permutations(range(len(others)))
    )
    assert in_place(boxes, label, others, other_label) == expected
    assert in_place(others, other_label, boxes, label) == expected


def test_a_partner_is_given_up_where_another_has_no_other() -> None:
    row = [(0.1 * n, 0.0, 0.1 * n + 0.3, 0.2) for n in range(4)]  # each half over the next
    zeros = [0, 0]
    assert in_place([row[1], row[3]], zeros, [row[2], row[0]], zeros)
    assert in_place([row[1], row[3]], zeros, [row[0], row[2]], zeros)
    assert not in_place([row[0], row[3]], zeros, [row[1], row[1]], zeros)


@given(BOXES)
def test_boxes_are_where_they_are(boxes: list[Box]) -> None:
    labels = np.arange(len(boxes))
    assert in_place(boxes, labels, boxes[::-1], labels[::-1])
    assert not in_place(boxes, labels, [*boxes, (0, 0, 1, 1)], [*labels, 0])


def test_what_is_below_the_last_digit_does_not_count() -> None:
    whole = [(0.0, 0.0, 0.6, 0.6)]
    for missing, expected in ((0.4, True), (0.6, False)):
        half = [(0.0, 0.0, 0.6, 0.3 - missing * 10**-DIGITS)]
        assert in_place(whole, [0], half, [0]) == expected
