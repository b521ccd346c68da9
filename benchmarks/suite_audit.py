"""The audit: what attacks recover. Higher is better for the attacker, so lower for users."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.checkpoints import real_model
from benchmarks.harness import Effort, case
from triparty.developer.audit import audit, set_scene
from triparty.developer.audit.compare import Measured, compare
from triparty.developer.audit.mitigations import MITIGATIONS
from triparty.developer.audit.stage import QUICK
from triparty.developer.protect import protect


@case(
    "share of tokens that sorted rows recover under `permutation` (K2)",
    unit="share",
    better="lower",
    reference="100 % expected: attack of arXiv 2505.18332 on re-keyed rows, table known",
)
def sorted_rows(effort: Effort) -> Iterator[float]:
    """What the attack recovers from sample texts under fresh keys."""
    source = real_model("stories260K")
    for _ in range(1 if effort.quick else 3):
        with tempfile.TemporaryDirectory() as name:
            out = Path(name) / "out"
            protect(str(source), out)
            for found in audit(set_scene(str(source), out)).findings:
                if found.name == "sorted-rows":
                    yield found.recovered


@case(
    "share of tokens read through 50 % noise by an attacker who fits the key (K2)",
    unit="share",
    better="lower",
    reference="arXiv 2505.13758: noise that does not depend on the input is read through",
)
def noisy_rows(effort: Effort) -> Iterator[float]:
    """What fresh noise under a fixed key hides of 1,024 rows with 16 known tokens."""
    for line in _compared("noise 50%", effort):
        yield line.clear


@case(
    "share of tokens attributed to their user among 19 decoys of the same kind (K2)",
    unit="share",
    better="lower",
    target=0.10,
    reference="1 in 20 expected; all texts are read, at 20 times the cost",
)
def decoys(effort: Effort) -> Iterator[float]:
    """Every text is read; which one is the user's is guessed in four ways, the best counts."""
    for line in _compared("19 decoys (text)", effort):
        yield line.attributed


def _compared(name: str, effort: Effort) -> Iterator[Measured]:
    chosen = [mitigation for mitigation in MITIGATIONS if mitigation.name == name]
    for seed in range(1 if effort.quick else 3):
        wanted = replace(QUICK, requests=200, decoys=4000, seed=seed)
        compared = compare(real_model("stories260K"), mitigations=chosen, effort=wanted)
        yield from compared.measured
