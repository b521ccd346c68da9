"""Accuracy of a policy over several draws of a fleet: the mean over clips, and its range.

The fleets are smaller than those of the budget curves, so that many settings can be compared.
A seed draws the streams' offsets and the policies' coins; networks are trained once a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from benchmarks.gating_runs import Plan, Point, fleet, mean_curve, point, predictor_for, run
from benchmarks.gating_traces import CLIPS

SMALL = Plan(streams=12, seconds=35.0, shares=(0.05, 0.2))
TOLERANCES = (0.0, 1.0)
COMPARED = ("keyframes", "round_robin", "size_threshold", "paper", "ours", "oracle")
"""Policies that are shown for every setting: one of each kind."""


@dataclass(frozen=True)
class Spread:
    """A figure over several draws."""

    mean: float
    smallest: float
    largest: float


def spread_of(values: Sequence[float]) -> Spread:
    """Mean and range."""
    return Spread(sum(values) / len(values), min(values), max(values))


def small(plan: Plan, quick: bool) -> Plan:
    """The plan, or its short form."""
    return replace(plan, streams=8, seconds=10.0, epochs=3) if quick else plan


def seeds(quick: bool) -> tuple[int, ...]:
    """Which fleets are drawn."""
    return (0,) if quick else (0, 1)


@lru_cache(maxsize=4096)
def tried(policy: str, share: float, plan: Plan, seed: int) -> Point:
    """A policy under one budget: the mean over the clips, each left out of training."""
    found = []
    for clip in CLIPS:
        known, streams = fleet(clip, plan, seed=seed)
        predictor = predictor_for(policy, clip, plan)
        score = run(policy, share, known, streams, plan, predictor=predictor, seed=seed)
        found.append([point(share, score)])
    return mean_curve(found)[0]


def ahead(share: float, plan: Plan, seed: int, tolerance: float = 0.0) -> float:
    """Accuracy of ours above the best of the others, the oracle left out."""
    right = {
        policy: tried(policy, share, plan, seed).accuracy[tolerance]
        for policy in COMPARED
        if policy != "oracle"
    }
    ours = right.pop("ours")
    return ours - max(right.values())


def compared(plan: Plan, drawn: Sequence[int]) -> dict[str, Any]:
    """The figures of one setting: policy by policy, budget by budget."""
    policies = {
        policy: {f"{share:g}": _summary(policy, share, plan, drawn) for share in plan.shares}
        for policy in COMPARED
    }
    return {
        "policies": policies,
        "ours_above_the_best_other": {
            f"{share:g}": {
                f"{late:g} s": asdict(
                    spread_of([ahead(share, plan, seed, late) for seed in drawn])
                )
                for late in TOLERANCES
            }
            for share in plan.shares
        },
    }


def _summary(policy: str, share: float, plan: Plan, drawn: Sequence[int]) -> dict[str, Any]:
    points = [tried(policy, share, plan, seed) for seed in drawn]
    return {
        "cost": spread_of([one.cost for one in points]).mean,
        "stalest_s": max(one.staleness_s for one in points),
        "accuracy": {
            f"{late:g} s": asdict(spread_of([one.accuracy[late] for one in points]))
            for late in TOLERANCES
        },
    }
