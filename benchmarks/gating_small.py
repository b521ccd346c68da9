"""Small fleets, so that many settings can be compared: accuracy on each clip, and its range.

Fewer streams, shorter and less trained than those of the budget curves, and one draw of
offsets: the range is over the clips, each left out of training in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from benchmarks.gating_runs import Plan, Point, fleet, point, predictor_for, run
from benchmarks.gating_traces import CLIPS

SMALL = Plan(streams=12, seconds=25.0, shares=(0.05, 0.2), epochs=12)
TOLERANCES = (0.0, 1.0)
COMPARED = ("keyframes", "round_robin", "size_threshold", "paper", "ours", "oracle")
"""Policies that are shown for every setting: one of each kind."""


@dataclass(frozen=True)
class Spread:
    """A figure over several clips."""

    mean: float
    smallest: float
    largest: float


def spread_of(values: Sequence[float]) -> dict[str, float]:
    """Mean and range, as they are written."""
    return asdict(Spread(sum(values) / len(values), min(values), max(values)))


def small(plan: Plan, quick: bool) -> Plan:
    """The plan, or its short form."""
    return replace(plan, streams=8, seconds=10.0, epochs=3) if quick else plan


@lru_cache(maxsize=4096)
def tried(policy: str, share: float, plan: Plan, clip: str) -> Point:
    """A policy under one budget on streams of a clip that was left out of training."""
    known, streams = fleet(clip, plan)
    predictor = predictor_for(policy, clip, plan)
    return point(share, run(policy, share, known, streams, plan, predictor=predictor))


def accuracies(policy: str, share: float, plan: Plan, late: float) -> list[float]:
    """Clip by clip."""
    return [tried(policy, share, plan, clip).accuracy[late] for clip in CLIPS]


def rival(share: float, plan: Plan, late: float = 0.0) -> str:
    """The best of the others in the mean over the clips, the oracle left out."""
    others = [policy for policy in COMPARED if policy not in ("ours", "oracle")]
    return max(others, key=lambda policy: sum(accuracies(policy, share, plan, late)))


def ahead(share: float, plan: Plan, late: float = 0.0) -> list[float]:
    """Accuracy of ours above that of the best other, clip by clip."""
    ours = accuracies("ours", share, plan, late)
    other = accuracies(rival(share, plan, late), share, plan, late)
    return [mine - theirs for mine, theirs in zip(ours, other, strict=True)]


def compared(plan: Plan) -> dict[str, Any]:
    """The figures of one setting: policy by policy, budget by budget."""
    return {
        "policies": {
            policy: {f"{share:g}": _summary(policy, share, plan) for share in plan.shares}
            for policy in COMPARED
        },
        "ours_above_best_other": {
            f"{share:g}": {
                f"{late:g} s": {"other": rival(share, plan, late)}
                | spread_of(ahead(share, plan, late))
                for late in TOLERANCES
            }
            for share in plan.shares
        },
    }


def _summary(policy: str, share: float, plan: Plan) -> dict[str, Any]:
    points = [tried(policy, share, plan, clip) for clip in CLIPS]
    return {
        "cost": spread_of([one.cost for one in points])["mean"],
        "stalest_s": max(one.staleness_s for one in points),
        "accuracy": {
            f"{late:g} s": spread_of(accuracies(policy, share, plan, late))
            for late in TOLERANCES
        },
    }
