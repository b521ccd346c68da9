"""Szekely's distance correlation between plain and keyed numbers, as the thesis reports it.

Low figures are no security: sorted rows read what is permuted, whatever its correlation.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.checkpoints import real_model
from benchmarks.harness import Case, Effort, case
from triparty.developer.audit.distance_correlation import of_coordinates, of_points

_DATA = "thesis 4.6.2: 0.14 at width 128 falling to 0.017 at 8192; random projection > 0.6"


def _keyed(
    rows: NDArray[np.float64], scheme: str, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Rows under a fresh key; `scaling` multiplies each coordinate by a random number."""
    width = rows.shape[1]
    if scheme == "permutation":
        return rows[:, rng.permutation(width)]
    if scheme == "scaling":
        return rows * rng.uniform(size=width)
    made: NDArray[np.float64] = rows @ np.linalg.qr(rng.normal(size=(width, width)))[0]
    return made


def _coordinates(effort: Effort, *, width: int, scheme: str) -> Iterator[float]:
    """As the thesis computes it: the coordinates of a row are the points."""
    rng = np.random.default_rng(0)
    for _ in range(effort.runs):
        rows = rng.normal(size=(1, width))
        yield of_coordinates(rows, _keyed(rows, scheme, rng))


def _rows(effort: Effort, *, width: int, scheme: str) -> Iterator[float]:
    """With rows as the points, whose distances no key changes."""
    rng = np.random.default_rng(0)
    for _ in range(effort.runs):
        rows = rng.normal(size=(256, width))
        yield of_points(rows, _keyed(rows, scheme, rng))


def _parameters(effort: Effort, *, scheme: str) -> Iterator[float]:
    """Of a trained matrix, its rows keyed alike: the coordinates of each row."""
    from safetensors.numpy import load_file

    tensors = load_file(real_model("gpt2-capp") / "model.safetensors")
    weights = next(v for name, v in tensors.items() if name.endswith("mlp.c_fc.weight"))
    rng = np.random.default_rng(0)
    for _ in range(effort.runs):
        rows = weights[:16].astype(np.float64)
        yield of_coordinates(rows, _keyed(rows, scheme, rng))


def _correlations() -> Iterator[Case]:
    lower, higher = partial(case, better="lower"), partial(case, better="higher")
    for scheme in ("permutation", "orthogonal", "scaling"):
        for width in (128, 1024, 8192) if scheme != "orthogonal" else (128, 1024):
            yield lower(
                f"distance correlation of coordinates, width {width}, {scheme}",
                unit="correlation",
                reference=_DATA,
            )(partial(_coordinates, width=width, scheme=scheme))
        yield lower(
            f"distance correlation of parameters, width 256, {scheme}",
            unit="correlation",
            reference="thesis 4.6.2, GPT2-1.5b: 0.062; random projection 0.76",
        )(partial(_parameters, scheme=scheme))
    for scheme in ("permutation", "orthogonal"):
        yield higher(
            f"distance correlation of rows, width 1024, {scheme}",
            unit="correlation",
            target=1.0,
            reference="1 under any key that keeps distances: low figures are no security",
        )(partial(_rows, width=1024, scheme=scheme))


correlations = tuple(_correlations())
