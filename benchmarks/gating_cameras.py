"""Accuracy against budget for other camera settings and codecs than one, and for every task."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from benchmarks.gating_panels import draw
from benchmarks.gating_runs import Plan
from benchmarks.gating_small import SMALL, ahead, compared, small
from benchmarks.gating_traces import TASKS
from benchmarks.harness import OUTPUT, Case, Effort, case

SETTINGS = (
    "gop50",
    "gop25-cbr",
    "pyramid",
    "h265",
    "vp9",
    "av1",
    "mjpeg",
    "jpeg2000",
)
QUICK_SETTINGS = ("gop50", "mjpeg")
ASKED = {task.name: (task,) for task in TASKS} | {"all three": TASKS}


def cameras(quick: bool) -> dict[str, Any]:
    """One fleet a camera setting or codec."""
    plan = small(SMALL, quick)
    plans = {
        setting: replace(plan, encoding=setting)
        for setting in (QUICK_SETTINGS if quick else SETTINGS)
    }
    figures = _compared(plans)
    draw(figures, OUTPUT / "gating-cameras.png")
    return figures


def task_budgets(quick: bool) -> dict[str, Any]:
    """One fleet a task, and one that is asked all of them; accuracy is the mean over tasks."""
    plan = small(SMALL, quick)
    figures = _compared({name: replace(plan, tasks=asked) for name, asked in ASKED.items()})
    draw(figures, OUTPUT / "gating-task_budgets.png")
    return figures


def _compared(plans: Mapping[str, Plan]) -> dict[str, Any]:
    """The figures of each setting, told as they come."""
    found = {}
    for name, plan in plans.items():
        found[name] = compared(plan)
        print(f"{name}: {json.dumps(found[name])}", file=sys.stderr, flush=True)
    return found


def _ahead(name: str, plan: Plan, share: float) -> Case:
    @case(
        f"accuracy of ours above the best other policy, {name}, at {share:.0%} of full decode",
        unit="share",
        better="higher",
        target=0.0,
        reference="keyframes, round robin, size threshold and the published design",
    )
    def measure(effort: Effort) -> Iterator[float]:
        yield from ahead(share, small(plan, effort.quick))

    return measure


CAMERAS = tuple(
    _ahead(setting, replace(SMALL, encoding=setting), share)
    for setting in SETTINGS
    for share in SMALL.shares
)
TASK_BUDGETS = tuple(
    _ahead(name, replace(SMALL, tasks=asked), share)
    for name, asked in ASKED.items()
    for share in SMALL.shares
)
