"""The audit: what attacks recover. Higher is better for the attacker, so lower for users."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.checkpoints import real_model
from benchmarks.harness import Effort, case
from triparty.developer.audit import audit, set_scene
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
