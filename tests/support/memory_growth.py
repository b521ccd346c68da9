"""Whether a process that ran for long has stopped to grow."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THIRDS_MIB = 40.0
"""Most between the medians of the first and the last third: what is learnt and cached."""
SECOND_HALF_MIB = 10.0
"""Most that the second half may add at its own slope.

Sixteen cameras with the clips' rates send 0.4 million packets in the second half of what is
judged of an hour of film. One number kept of each is 32 bytes (an object of 24, a place in a
list of 8), 12 MiB in all: so whatever is kept a packet is seen. Of what grows steadily no
more than 20 MiB of the whole run can hide, half of what the thirds alone let through.
"""
LEAST_MARKS = 12


@dataclass(frozen=True)
class Growth:
    """How memory grew.

    Attributes:
        thirds_mib: from the median of the first third to that of the last.
        second_half_mib: slope over the second half times its length. The slope is the median
            of those between all pairs (Theil and Sen), so that peaks do not count.
    """

    thirds_mib: float
    second_half_mib: float

    @property
    def has_ended(self) -> bool:
        """Whether memory is flat: little in all, and nothing steady to the end."""
        return self.thirds_mib < THIRDS_MIB and self.second_half_mib < SECOND_HALF_MIB


def growth(marks_mib: Sequence[float]) -> Growth:
    """How memory grew.

    Args:
        marks_mib: memory at even distances of time, from when all is loaded.

    Raises:
        ValueError: too few marks to judge by.
    """
    if len(marks_mib) < LEAST_MARKS:
        raise ValueError(f"{len(marks_mib)} marks of memory: expected {LEAST_MARKS} or more")
    third = len(marks_mib) // 3
    early, late = statistics.median(marks_mib[:third]), statistics.median(marks_mib[-third:])
    half = np.asarray(marks_mib[len(marks_mib) // 2 :], np.float64)
    first, second = np.triu_indices(len(half), 1)
    slope = np.median((half[second] - half[first]) / (second - first))
    return Growth(late - early, float(slope) * (len(half) - 1))
