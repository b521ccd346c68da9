"""The compiler: how fast it re-keys, beside copying and hashing the same bytes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.checkpoints import random_llama
from benchmarks.harness import Effort, case, cpu_time
from triparty.common.files import sha256_file
from triparty.developer.protect.compiler import protect


@case(
    "speed of `permutation` as a share of copying and hashing",
    unit="ratio of CPU time",
    better="higher",
    target=0.5,
    reference="target: at least half the speed of cp plus sha256sum in the same run",
)
def permutation_speed(effort: Effort) -> Iterator[float]:
    """CPU seconds of copy + SHA-256 over CPU seconds of the compiler, same checkpoint."""
    layers, width = (4, 256) if effort.quick else (8, 1024)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = random_llama(folder / "source", layers=layers, width=width)
        for run in range(effort.runs):
            baseline: list[float] = []
            with cpu_time(baseline):
                shutil.copytree(source, folder / "copy")
                sha256_file(folder / "copy" / "model.safetensors")
            shutil.rmtree(folder / "copy")
            spent: list[float] = []
            with cpu_time(spent):
                protect(str(source), folder / f"out{run}")
            shutil.rmtree(folder / f"out{run}")
            yield baseline[0] / spent[0]
