"""What a gate does when the world changes.

A drifting stream is one trace made of two: the same clip at another bit rate, or another clip
(a camera replaced). Accuracy is scored from the change on, and compared with that of streams
that had always been as they are then, under the same milliseconds. Churn replaces a third of
the streams, one by one, under the same milliseconds a stream.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from benchmarks.gating_runs import (
    ROUND_S,
    WARM_UP_S,
    Plan,
    gate_for,
)
from benchmarks.gating_traces import CLIPS, trace
from triparty.device.gate import policies
from triparty.device.gate.fleet import Streams, Tables, full_rate, spread, tables
from triparty.device.gate.replay import Replay, Settings
from triparty.device.gate.scoring import Score
from triparty.device.gate.traces import Results, Trace, join_packets, join_results

POLICIES = ("keyframes", "feedback_only", "ours")
SHARE = 0.2


def figures(plan: Plan) -> dict[str, Any]:
    """Accuracy with and without each kind of change, policy by policy."""
    found: dict[str, Any] = {}
    for policy in POLICIES:
        found[policy] = {
            "bit rate changed": _drift(policy, plan, "gop25", "gop50-cbr", same=True),
            "camera replaced": _drift(policy, plan, "gop25", "gop25", same=False),
            "streams come and go": _churn(policy, plan),
        }
    return found


def _drift(policy: str, plan: Plan, before: str, after: str, *, same: bool) -> dict[str, float]:
    """Accuracy from the change on, and where the stream had always been so."""
    totals: dict[str, list[float]] = {"changed": [], "always so": [], "stalest_s": []}
    half = plan.seconds / 2
    for number, clip in enumerate(CLIPS):
        other = clip if same else CLIPS[(number + 1) % len(CLIPS)]
        old = cut(replace(trace(clip, before), tasks=plan.tasks), half)
        new = cut(replace(trace(other, after), tasks=plan.tasks), half)
        # What is scored is the other clip: the network must not have seen that.
        predictor = gate_for(other, plan, "extended") if policy == "ours" else None
        changed, steady = tables([followed(old, new)]), tables([followed(new, new)])
        budget_ms = _budget(steady, _from_the_start(steady, plan.streams))
        for name, known in (("changed", changed), ("always so", steady)):
            streams = _from_the_start(known, plan.streams)
            score = _run(policy, predictor, known, streams, plan, budget_ms, warm_up_s=half)
            totals[name].append(score.mean_accuracy(0.0))
            if known is changed:
                totals["stalest_s"].append(score.max_staleness_s)
    return {name: float(np.mean(values)) for name, values in totals.items()}


def _churn(policy: str, plan: Plan) -> dict[str, float]:
    """A third of the streams leaves and another third comes, spread over the run."""
    accuracy, steady, stalest = [], [], []
    for clip in CLIPS:
        known = tables([replace(trace(clip, plan.encoding), tasks=plan.tasks)])
        streams = spread(known, plan.streams, seed=0)
        third = plan.streams // 3
        moments = np.linspace(0.1, 0.9, third) * plan.seconds
        joins, leaves = streams.joins.copy(), streams.leaves.copy()
        leaves[:third] = moments
        joins[-third:] = moments
        predictor = gate_for(clip, plan, "extended") if policy == "ours" else None
        budget_ms = _budget(known, streams)
        coming = replace(streams, joins=joins, leaves=leaves)
        there = np.clip(leaves, 0, plan.seconds) - np.clip(joins, 0, plan.seconds)
        present = float(there.mean() / plan.seconds)
        changing = _run(policy, predictor, known, coming, plan, present * budget_ms)
        accuracy.append(changing.mean_accuracy(0.0))
        stalest.append(changing.max_staleness_s)
        unchanged = _run(policy, predictor, known, streams, plan, budget_ms)
        steady.append(unchanged.mean_accuracy(0.0))
    return {
        "changed": float(np.mean(accuracy)),
        "steady": float(np.mean(steady)),
        "stalest_s": float(np.max(stalest)),
    }


def _budget(known: Tables, streams: Streams) -> float:
    """CPU ms a round: a share of what decoding everything takes."""
    return SHARE * full_rate(known, streams) * ROUND_S


def _run(
    policy: str,
    predictor: Any,
    known: Tables,
    streams: Streams,
    plan: Plan,
    budget_ms: float,
    *,
    warm_up_s: float = WARM_UP_S,
) -> Score:
    settings = Settings(
        seconds=plan.seconds,
        budget_ms=budget_ms,
        round_s=ROUND_S,
        leftover=policies.POLICIES[policy].leftover,
        warm_up_s=warm_up_s,
    )
    made = policies.make(policy, predictor=predictor)
    return Replay(known, streams, made, settings).run()


def _from_the_start(known: Tables, count: int) -> Streams:
    """Streams that all begin at their trace's first packet, a moment apart."""
    streams = spread(known, count, seed=0)
    return replace(streams, offset=np.zeros(count, dtype=np.int64))


def cut(one: Trace, seconds: float) -> Trace:
    """The beginning of a trace, repeated until it is long enough."""
    one = one.from_first_entry()
    while one.duration < seconds:
        one = followed(one, one)
    times = one.packets.time - one.packets.time.min()
    return one.part(0, int(np.searchsorted(times, seconds)))


def followed(first: Trace, second: Trace) -> Trace:
    """One trace after the other, as if one camera had sent both."""
    second = second.from_first_entry()
    packets, results = second.packets, second.results
    ticks = int(first.packets.pts.max() - packets.pts.min()) + 1000
    begin = first.packets.time.min() + first.duration - packets.time.min()
    packets = replace(packets, pts=packets.pts + ticks, time=packets.time + begin)
    shifted = {one.name: getattr(results, one.name) for one in fields(Results)}
    moved = Results(**shifted | {"pts": results.pts + ticks})
    return replace(
        first,
        packets=join_packets([first.packets, packets]),
        results=join_results([first.results, moved]),
    )
