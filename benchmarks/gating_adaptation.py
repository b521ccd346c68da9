"""What a gate does when the world changes.

A drifting stream is one trace made of two: the same clip at another bit rate, another clip (a
camera replaced), or the same clip by night (generated: `gating_night.py`). Accuracy is scored
from the change on, and compared with that of streams that had always been as they are then,
under the same milliseconds. Churn replaces a third of the streams, one by one, under the same
milliseconds a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks.gating_night import night
from benchmarks.gating_runs import (
    ROUND_S,
    WARM_UP_S,
    Plan,
    predictor_for,
)
from benchmarks.gating_traces import CLIPS, trace
from benchmarks.harness import Case, Effort, case
from triparty.device.gate import policies
from triparty.device.gate.fleet import Streams, Tables, full_rate, spread, tables
from triparty.device.gate.replay import Replay, Settings
from triparty.device.gate.scoring import Score
from triparty.device.gate.traces import Results, Trace, join_packets, join_results

POLICIES = ("keyframes", "feedback_only", "ours")
SHARE = 0.2
DRIFTING = Plan(streams=24, seconds=110.0)
NIGHTLY = Plan(streams=12, seconds=60.0)
AT_NIGHT = ("keyframes", "paper", "feedback_only", "ours")


def figures(plan: Plan) -> dict[str, Any]:
    """Accuracy with and without each kind of change, policy by policy."""
    found: dict[str, Any] = {}
    for policy in POLICIES:
        found[policy] = {
            "bit rate changed": changed(policy, plan, "bit rate changed"),
            "camera replaced": changed(policy, plan, "camera replaced"),
            "streams come and go": _churn(policy, plan),
        }
    return found


def nights(plan: Plan) -> dict[str, Any]:
    """Accuracy from nightfall on (generated), policy by policy; fewer streams, shorter."""
    return {policy: changed(policy, plan, "day to night") for policy in AT_NIGHT}


def _by_night(clip: str) -> tuple[str, Trace]:
    return clip, night(clip, "gop25")


def _another_rate(clip: str) -> tuple[str, Trace]:
    return clip, trace(clip, "gop50-cbr")


def _another_camera(clip: str) -> tuple[str, Trace]:
    other = CLIPS[(CLIPS.index(clip) + 1) % len(CLIPS)]
    return other, trace(other, "gop25")


CHANGES: Mapping[str, Callable[[str], tuple[str, Trace]]] = {
    "bit rate changed": _another_rate,
    "camera replaced": _another_camera,
    "day to night": _by_night,
}
"""What a stream of a clip becomes: of which clip it is then, and its trace."""


def changed(policy: str, plan: Plan, change: str) -> dict[str, Any]:
    """Accuracy from the change on, and where the stream had always been so; mean and clips."""
    found = [changed_clip(policy, plan, change, clip) for clip in CLIPS]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]} | {
        "clips": found
    }


@lru_cache(maxsize=64)
def changed_clip(policy: str, plan: Plan, change: str, clip: str) -> dict[str, float]:
    """The same of the streams of one clip."""
    half = plan.seconds / 2
    other, then = CHANGES[change](clip)
    old = cut(replace(trace(clip, "gop25"), tasks=plan.tasks), half)
    new = cut(replace(then, tasks=plan.tasks), half)
    # What is scored is the other clip: the network must not have seen that.
    predictor = predictor_for(policy, other, plan)
    drifting, steady = tables([followed(old, new)]), tables([followed(new, new)])
    budget_ms = _budget(steady, _from_the_start(steady, plan.streams))
    scores = [
        _run(
            policy,
            predictor,
            known,
            _from_the_start(known, plan.streams),
            plan,
            budget_ms,
            warm_up_s=half,
        )
        for known in (drifting, steady)
    ]
    return {
        "changed": scores[0].mean_accuracy(0.0),
        "always so": scores[1].mean_accuracy(0.0),
        "stalest_s": scores[0].max_staleness_s,
    }


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
        predictor = predictor_for(policy, clip, plan)
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


def _lost(change: str, full: Plan) -> Case:
    @case(
        f"accuracy that ours loses, {change}, beside streams that were always so",
        unit="share",
        better="lower",
        reference=f"a network trained by day on the other clips, {SHARE:.0%} of full decode",
    )
    def measure(effort: Effort) -> Iterator[float]:
        plan = replace(full, streams=8, seconds=30.0, epochs=3) if effort.quick else full
        for clip in CLIPS:
            found = changed_clip("ours", plan, change, clip)
            yield found["always so"] - found["changed"]

    return measure


ADAPTATION = tuple(
    _lost(change, NIGHTLY if change == "day to night" else DRIFTING) for change in CHANGES
)
