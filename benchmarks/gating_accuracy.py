"""Accuracy against budget as cases of the suite: one figure for each clip left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from benchmarks.gating_runs import (
    Plan,
    accuracy_at,
    cost_at,
    curve,
    fleet,
    predictor_for,
    run,
)
from benchmarks.gating_traces import CLIPS
from benchmarks.harness import Case, Effort, case, cpu_time

TABLE = "thesis table 2.3: 52.0-79.3 % saved, 2.1-4.8 times the streams, at 90 % accuracy"
POLICIES = ("keyframes", "paper", "feedback_only", "ours", "oracle")
HOUR_S = 3600.0


def _plan(effort: Effort, scene: str) -> Plan:
    plan = Plan(scene=scene)
    if effort.quick:
        return replace(plan, streams=12, seconds=20.0, shares=(0.05, 0.2, 0.5), epochs=3)
    return plan


def _saved(policy: str, scene: str, tolerance: float) -> Case:
    @case(
        f"decode CPU saved at 90 % counting accuracy, {scene}, "
        f"late by {tolerance:g} s, {policy}",
        unit="share",
        better="higher",
        reference=TABLE,
    )
    def measure(effort: Effort) -> Iterator[float]:
        for clip in CLIPS:
            yield 1 - cost_at(curve(policy, clip, _plan(effort, scene)), tolerance=tolerance)

    return measure


def _ahead(scene: str, tolerance: float) -> Case:
    @case(
        f"accuracy of ours above keyframes alone at their cost, {scene}, "
        f"late by {tolerance:g} s",
        unit="share",
        better="higher",
        target=0.0,
        reference="keyframes alone: the baseline that nobody compares with",
    )
    def measure(effort: Effort) -> Iterator[float]:
        for clip in CLIPS:
            plan = _plan(effort, scene)
            entries = curve("keyframes", clip, plan)[-1]
            ours = curve("ours", clip, plan)
            yield accuracy_at(ours, entries.cost, tolerance) - entries.accuracy[tolerance]

    return measure


def _speed(streams: int) -> Case:
    @case(
        f"CPU to replay an hour of {streams} streams under ours",
        unit="s",
        better="lower",
        target=600.0,
        reference="minutes",
    )
    def measure(effort: Effort) -> Iterator[float]:
        plan = Plan(streams=streams, seconds=10.0 if effort.quick else 60.0, epochs=3)
        known, made = fleet(CLIPS[0], plan)
        predictor = predictor_for("ours", CLIPS[0], plan)
        for _ in range(min(effort.runs, 3)):
            taken: list[float] = []
            with cpu_time(taken):
                run("ours", 0.2, known, made, plan, predictor=predictor)
            yield taken[0] * HOUR_S / plan.seconds

    return measure


def _cases(make: Callable[..., Case]) -> tuple[Case, ...]:
    return tuple(make(scene, late) for scene in ("busy", "building") for late in (0.0, 1.0))


ACCURACY = (
    *_cases(_ahead),
    *(
        _saved(policy, scene, late)
        for scene in ("busy", "building")
        for late in (0.0, 1.0)
        for policy in POLICIES
    ),
    _speed(1000),
)
