"""Links with known weights: what they predict can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from triparty.common.links.design import LinkDesign
from triparty.common.links.ensemble import Ensemble, Member
from triparty.common.links.link import Link
from triparty.common.links.specs import Vec

NUMBER = Vec("regression", 1, tolerance=0.5)
_RANGE = 100.0  # inputs below 6 of these are not cut


def linear_link(source: Vec, target: Vec, matrix: Any) -> Link:
    """The link that multiplies outputs of up to 600 by a matrix (source, target)."""
    matrix = np.asarray(matrix, np.float32).reshape(source.width, target.width)
    design = LinkDesign(source, target, hidden=2 * target.width)
    return Link(
        design,
        {
            "source.mean": np.zeros(source.width, np.float32),
            "source.scale": np.full(source.width, _RANGE, np.float32),
            "hidden.weight": np.concatenate([matrix.T, -matrix.T]),
            "hidden.bias": np.zeros(2 * target.width, np.float32),
            "output.weight": _RANGE
            * np.tile(np.eye(target.width, dtype=np.float32), 2)
            * np.repeat([1.0, -1.0], target.width).astype(np.float32),
            "output.bias": np.zeros(target.width, np.float32),
            "target.mean": np.zeros(target.width, np.float32),
            "target.scale": np.ones(target.width, np.float32),
        },
    )


def times(name: str, factors: dict[str, float], *, expected: float = 0.9) -> Ensemble:
    """A number that is predicted as a multiple of each source's, on average."""
    members = tuple(
        Member(source, linear_link(NUMBER, NUMBER, factor))
        for source, factor in factors.items()
    )
    return Ensemble(name, NUMBER, members, expected)
