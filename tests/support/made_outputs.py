"""Recorded outputs of two made-up models that see the same things."""

from __future__ import annotations

import numpy as np

from triparty.common.links.recorded import Recorded, check_recorded
from triparty.common.links.specs import Vec

NAMES = ("cat", "dog", "bird")
CLASSES = Vec("single-label", 3, NAMES)
PAIR = [("small", "large")]


def recorded_outputs(seed: int, rows: int = 60, *, turned: bool = False) -> Recorded:
    """A small model that is unsure, and a large one that is not and calls some cats dogs.

    If turned, the large one calls each thing by the next name.
    """
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(rows, 3)) * 2
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    said = scores.argmax(1)
    said[(said == 0) & (rng.random(rows) < 0.3)] = 1
    said = (said + turned) % 3
    large = np.eye(3, dtype=np.float32)[said]
    return check_recorded(
        {"small": CLASSES, "large": CLASSES},
        {"small": shares.astype(np.float32), "large": large},
    )
