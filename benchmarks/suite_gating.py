"""Packet gating: exactness, typing, overhead, decode CPU, optimizer, accuracy against budget.

Each part has its own module; the thesis's studies are in `benchmarks/gating_studies.py`.
"""

from __future__ import annotations

from benchmarks.gating_accuracy import ACCURACY
from benchmarks.gating_adaptation import ADAPTATION
from benchmarks.gating_cameras import CAMERAS, TASK_BUDGETS
from benchmarks.gating_decode import DECODE
from benchmarks.gating_exactness import EXACTNESS
from benchmarks.gating_knapsack import KNAPSACK
from benchmarks.gating_live import LIVE
from benchmarks.gating_overhead import OVERHEAD
from benchmarks.gating_path import PATH
from benchmarks.gating_starvation import STARVATION
from benchmarks.gating_switches import SWITCHES
from benchmarks.gating_typer import TYPING

__all__ = [
    "ACCURACY",
    "ADAPTATION",
    "CAMERAS",
    "DECODE",
    "EXACTNESS",
    "KNAPSACK",
    "LIVE",
    "OVERHEAD",
    "PATH",
    "STARVATION",
    "SWITCHES",
    "TASK_BUDGETS",
    "TYPING",
]
