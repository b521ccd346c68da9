"""Outputs of models of every kind that say the same thing in different words."""

from __future__ import annotations

import numpy as np

from triparty.common.links.recorded import Recorded, check_recorded
from triparty.common.links.specs import PAD, OutputSpec, Seq, Vec

CLASSES = 4
SPECS: dict[str, OutputSpec] = {
    "class": Vec("single-label", CLASSES, tuple("abcd")),
    "moved": Vec("single-label", CLASSES, tuple("abcd")),
    "tags": Vec("multi-label", 3),
    "count": Vec("regression", 1, tolerance=0.5),
    "size": Vec("regression", 2),
    "box": Vec("localisation", 5),
    "words": Seq(5, 4),
}


def linked(count: int, *, seed: int = 0) -> Recorded:
    """Each model's output is a function of one hidden class, some with a little noise."""
    rng = np.random.default_rng(seed)
    hidden = rng.integers(CLASSES, size=count)
    shares = np.full((count, CLASSES), 0.1, np.float32)
    shares[np.arange(count), hidden] = 0.7
    place = (hidden * 0.1)[:, None] + np.array([0.1, 0.1, 0.3, 0.4])
    box = np.concatenate([(hidden > 0)[:, None], place], axis=1)
    box[hidden == 0] = 0
    words = np.full((count, 4), PAD)
    for row, number in enumerate(hidden):
        words[row, : number + 1] = (number + np.arange(number + 1)) % 5
    outputs = {
        "class": shares,
        "moved": np.roll(shares, 1, axis=1),
        "tags": (hidden[:, None] >> np.arange(3)) & 1,
        "count": 2.0 * hidden + rng.normal(0, 0.1, count),
        "size": np.stack([hidden, -hidden], axis=1) + rng.normal(0, 0.1, (count, 2)),
        "box": box,
        "words": words,
    }
    return check_recorded(SPECS, outputs)
