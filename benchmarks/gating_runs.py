"""Fleets, trained gates and curves of accuracy against cost, for the gating studies.

Train and test share no clip: a gate that is tried on streams of one clip was trained on the
other two (and on what was generated from them). A curve is a policy replayed under several
budgets; `cost_at` reads from it what an accuracy takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from benchmarks.gating_quality import dropped
from benchmarks.gating_scenes import quiet
from benchmarks.gating_traces import CLIPS, COUNTING, trace
from triparty.device.gate import policies
from triparty.device.gate.fitting import network, recordings
from triparty.device.gate.fleet import Streams, Tables, full_rate, spread, tables
from triparty.device.gate.fleet_truth import FleetTruth
from triparty.device.gate.predictor import Predictor
from triparty.device.gate.replay import Replay, Settings
from triparty.device.gate.report_saving import needed
from triparty.device.gate.scoring import Score
from triparty.device.gate.traces import Task, Trace
from triparty.device.gate.training import Course, fit

ROUND_S = 0.04
SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.55)
WARM_UP_S = 5.0
SCENES = ("busy", "building")
QUIET_SHARE = 0.8  # of a building's cameras
ACCURACY = 0.9


@dataclass(frozen=True)
class Plan:
    """What is replayed.

    Attributes:
        encoding: of the clips.
        scene: `busy` (streams of the clip alone), `building` (four of five streams show a
            generated quiet scene) or `dropped` (generated quality drops).
        streams: how many.
        seconds: how long.
        tasks: that are scored and trained on.
        shares: budgets, as shares of full decode.
        epochs: of training.
    """

    encoding: str = "gop25"
    scene: str = "busy"
    streams: int = 36
    seconds: float = 65.0
    tasks: tuple[Task, ...] = COUNTING
    shares: tuple[float, ...] = SHARES
    epochs: int = 30


@dataclass(frozen=True)
class Point:
    """One replay: what was asked for, and what came of it."""

    share: float
    cost: float
    accuracy: dict[float, float]
    staleness_s: float
    targets: float


def traces_of(clip: str, plan: Plan) -> tuple[Trace, ...]:
    """What the streams of a clip show: the clip, and for a building its quiet scene."""
    if plan.scene == "dropped":
        return (dropped(clip, plan.encoding),)
    busy = replace(trace(clip, plan.encoding), tasks=plan.tasks)
    if plan.scene == "busy":
        return (busy,)
    idle_encoding = "gop25" if plan.encoding == "published" else plan.encoding
    return (busy, replace(quiet(clip, idle_encoding), tasks=plan.tasks))


def fleet(clip: str, plan: Plan, *, seed: int = 0) -> tuple[Tables, Streams]:
    """Streams of one clip at random offsets."""
    known = tables(traces_of(clip, plan))
    shares = (1 - QUIET_SHARE, QUIET_SHARE) if plan.scene == "building" else None
    return known, spread(known, plan.streams, seed, shares=shares)


@lru_cache(maxsize=64)
def gate_for(clip: str, plan: Plan, kind: str, window: int = 5) -> Predictor:
    """A predictor that never saw the clip.

    Args:
        clip: left out.
        plan: encoding, scene and tasks.
        kind: `published`, `contextual` or `extended`.
        window: w.
    """
    others = [one for other in CLIPS if other != clip for one in traces_of(other, plan)]
    return trained(others, plan, kind, window)


def trained(
    traces: Sequence[Trace], plan: Plan, kind: str, window: int = 5, *, seed: int = 0
) -> Predictor:
    """A predictor of a kind, trained on traces."""
    known = tables(traces)
    shape = network(kind, len(plan.tasks), window=window)
    gating = "random" if kind == "extended" else "full"
    course = Course(gating=gating, epochs=plan.epochs, seed=seed)
    return fit(recordings(known), shape, course).predictor


def predictor_for(policy: str, clip: str, plan: Plan) -> Predictor | None:
    """The trained network that a policy takes, or None."""
    kind = policies.POLICIES[policy].network
    return None if kind is None else gate_for(clip, plan, kind)


def run(
    policy: str,
    share: float,
    known: Tables,
    streams: Streams,
    plan: Plan,
    *,
    predictor: Predictor | None = None,
    seed: int = 0,
) -> Score:
    """One replay under a share of full decode."""
    made = policies.make(
        policy, predictor=predictor, truth=FleetTruth(known, streams), seed=seed
    )
    settings = Settings(
        seconds=plan.seconds,
        budget_ms=share * full_rate(known, streams) * ROUND_S,
        round_s=ROUND_S,
        leftover=policies.POLICIES[policy].leftover,
        warm_up_s=WARM_UP_S,
    )
    return Replay(known, streams, made, settings).run()


@lru_cache(maxsize=512)
def curve(policy: str, clip: str, plan: Plan) -> list[Point]:
    """A policy under all budgets of a plan, on streams of one clip."""
    known, streams = fleet(clip, plan)
    predictor = predictor_for(policy, clip, plan)
    return [
        point(share, run(policy, share, known, streams, plan, predictor=predictor))
        for share in plan.shares
    ]


def point(share: float, score: Score) -> Point:
    """The figures of a replay."""
    return Point(
        share=share,
        cost=score.decode_share,
        accuracy={one: score.mean_accuracy(one) for one in (0.0, 1.0)},
        staleness_s=score.max_staleness_s,
        targets=score.targets / max(1, score.packets),
    )


def cost_at(
    points: Sequence[Point], accuracy: float = ACCURACY, tolerance: float = 0.0
) -> float:
    """Share of full decode that an accuracy takes; 1 where only decoding everything does."""
    cost = np.array([one.cost for one in points])
    right = np.array([one.accuracy[tolerance] for one in points])
    return min(1.0, needed(cost, right, accuracy))


def accuracy_at(points: Sequence[Point], cost: float, tolerance: float = 0.0) -> float:
    """Accuracy that a cost buys, between measured points by a line."""
    found = sorted((one.cost, one.accuracy[tolerance]) for one in points)
    costs, right = zip(*found, strict=True)
    return float(np.interp(cost, costs, np.maximum.accumulate(right)))


def mean_curve(curves: Sequence[Sequence[Point]]) -> list[Point]:
    """The mean of the curves of several clips, budget by budget."""
    return [
        Point(
            share=points[0].share,
            cost=float(np.mean([one.cost for one in points])),
            accuracy={
                tolerance: float(np.mean([one.accuracy[tolerance] for one in points]))
                for tolerance in points[0].accuracy
            },
            staleness_s=max(one.staleness_s for one in points),
            targets=float(np.mean([one.targets for one in points])),
        )
        for points in zip(*curves, strict=True)
    ]


def policy_names() -> Iterator[str]:
    """All policies, those to beat first."""
    yield from policies.POLICIES
