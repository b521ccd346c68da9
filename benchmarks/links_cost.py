"""What a link costs: one input on one core, in NumPy, CPU time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from benchmarks.harness import Case, Effort, case, cpu_seconds
from triparty.common.links.design import LinkDesign
from triparty.common.links.link import Link
from triparty.common.links.specs import OutputSpec, Seq, Vec

CALLS = 500
LENGTH = 8

OUTPUTS: dict[str, OutputSpec] = {
    "4 classes": Vec("single-label", 4),
    "100 classes": Vec("single-label", 100),
    "1000 classes": Vec("single-label", 1000),
    "a count": Vec("regression", 1),
    "8 of 50 words": Seq(50, LENGTH),
}
PAIRS = (("4 classes", "a count"), ("100 classes", "100 classes"),
         ("1000 classes", "100 classes"), ("8 of 50 words", "4 classes"),
         ("4 classes", "8 of 50 words"), ("8 of 50 words", "8 of 50 words"))  # fmt: skip


def microseconds(source: OutputSpec, target: OutputSpec) -> float:
    """CPU time of a prediction; weights are drawn, which cost as much as trained ones."""
    design = LinkDesign(source, target)
    rng = np.random.default_rng(0)
    weights = {
        name: rng.uniform(0.01, 0.1, shape).astype(np.float32)
        for name, shape in design.shapes.items()
    }
    link = Link(design, weights)
    row = (
        rng.integers(source.vocabulary, size=(1, source.length))
        if isinstance(source, Seq)
        else rng.dirichlet(np.ones(max(2, source.width)), 1)[:, : source.width].astype("f4")
    )
    link.predict(row)
    start = cpu_seconds()
    for _ in range(CALLS):
        link.predict(row)
    return 1e6 * (cpu_seconds() - start) / CALLS


def _cost(source: str, target: str) -> Case:
    def runs(effort: Effort) -> Iterable[float]:
        return [microseconds(OUTPUTS[source], OUTPUTS[target]) for _ in range(effort.runs)]

    is_vector = isinstance(OUTPUTS[source], Vec) and isinstance(OUTPUTS[target], Vec)
    return case(
        f"a link from {source} to {target}",
        unit="us",
        better="lower",
        target=100 if is_vector else None,
        reference="thesis fig. 5.11: negligible",
    )(runs)


COST = tuple(_cost(source, target) for source, target in PAIRS)
