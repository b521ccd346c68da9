"""When boxes are where they were: one rule for what is answered live and for whole traces."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST_IOU: Final = 0.5
"""A box that shares less than this with its former self has moved."""
DIGITS: Final = 4
"""Decimals of an edge, in shares of the frame, that count."""


def in_place(
    boxes: ArrayLike, labels: ArrayLike, others: ArrayLike, other_labels: ArrayLike
) -> bool:
    """Whether each box has a partner of its own, of its class, that it overlaps enough.

    Overlap is intersection over union. In which order boxes come says nothing.

    Args:
        boxes: (n, 4) left, top, right, bottom, in shares of the frame.
        labels: (n,) their classes.
        others: (m, 4) the other boxes.
        other_labels: (m,) their classes.
    """
    label, other_label = np.asarray(labels), np.asarray(other_labels)
    if len(label) != len(other_label):
        return False
    if not len(label):
        return True
    shared, union = _areas(_edges(boxes), _edges(others))
    return _can_be_paired((label[:, None] == other_label) & (shared >= LEAST_IOU * union))


def _can_be_paired(allowed: NDArray[np.bool_]) -> bool:
    """Whether each row can have a column of its own, by augmenting paths.

    Args:
        allowed: (n, n) which row may have which column.
    """
    choices = [np.flatnonzero(row).tolist() for row in allowed]
    row_of, column_of = dict[int, int](), dict[int, int]()
    for start in range(len(choices)):
        came_from = dict[int, int]()
        rows, free = [start], None
        while rows and free is None:
            row = rows.pop()
            for column in choices[row]:
                if column not in came_from:
                    came_from[column] = row
                    if column not in row_of:
                        free = column
                        break
                    rows.append(row_of[column])
        if free is None:
            return False
        while free is not None:
            row = came_from[free]
            row_of[free], column_of[row], free = row, free, column_of.get(row)
    return True


def _edges(boxes: ArrayLike) -> NDArray[np.float64]:
    """Whole numbers in units of the last digit, so that areas are exact."""
    return np.rint(np.asarray(boxes, dtype=np.float64) * 10**DIGITS)


def _areas(
    boxes: NDArray[np.float64], others: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, m) intersection, and union, of each box with each other."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    one, other = [(each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, others)]
    return shared, np.maximum(one[:, None] + other[None] - shared, 1)
