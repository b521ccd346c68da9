"""The command line: how soon it answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from benchmarks.harness import Effort, case, cpu_time


def _cpu_of(*words: str) -> float:
    spent: list[float] = []
    with cpu_time(spent):
        subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
    return spent[0]


@case(
    "CPU time of `triparty --help`",
    unit="s",
    better="lower",
    target=0.3,
    reference="design target",
)
def help_cpu(effort: Effort) -> Iterator[float]:
    """CPU seconds of the whole process."""
    for _ in range(effort.runs):
        yield _cpu_of("-m", "triparty.common", "--help")


@case("CPU time of an empty Python process (baseline)", unit="s", better="lower")
def empty_cpu(effort: Effort) -> Iterator[float]:
    """What the interpreter itself costs."""
    for _ in range(effort.runs):
        yield _cpu_of("-c", "pass")
