"""Ours with one part switched off at a time: accuracy in replay, beside ours with all of them.

Switches are those of the product: arguments of `Freshness`, `Drift` and `Settings`, feature
groups, the way of training. What has none is named in `NOT_SWITCHED`, with the reason.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from benchmarks.gating_offline import OURS, Kind, learned
from benchmarks.gating_runs import ROUND_S, WARM_UP_S, Plan, fleet
from benchmarks.gating_small import SMALL, TOLERANCES, small, spread_of
from benchmarks.gating_traces import CLIPS
from benchmarks.harness import OUTPUT, Case, Effort, case
from triparty.device.gate.drift import Drift
from triparty.device.gate.features import EXTENDED
from triparty.device.gate.fleet import full_rate
from triparty.device.gate.freshness import Freshness, Price
from triparty.device.gate.predictor import Predictor
from triparty.device.gate.replay import Replay, Settings
from triparty.device.gate.scoring import Score

Made = Callable[[Predictor | None], Freshness]
AUDIT_SHARE = 0.02  # the default of a configuration file


def _ours(predictor: Predictor | None) -> Freshness:
    return Freshness(predictor, price=Price())


def _no_network(predictor: Predictor | None) -> Freshness:
    return Freshness(None, price=Price())


def _no_blend(predictor: Predictor | None) -> Freshness:
    return Freshness(predictor, price=Price(), blends=False)


def _no_price(predictor: Predictor | None) -> Freshness:
    return Freshness(predictor, price=None)


def _one_drift(predictor: Predictor | None) -> Freshness:
    return Freshness(predictor, price=Price(), drift=Drift(prior=1e9))


def _no_forgetting(predictor: Predictor | None) -> Freshness:
    return Freshness(predictor, price=Price(), drift=Drift(memory=math.inf))


@dataclass(frozen=True)
class Variant:
    """Ours, but for one part.

    Attributes:
        made: the policy, from a trained network.
        kind: of the network: its inputs, and how it is trained.
        leftover: of `optimizer.choose`.
        observe_dependencies: whether frames decoded for others are observed.
        granted: share of the budget that is left for gating.
    """

    made: Made = _ours
    kind: Kind = OURS
    leftover: str = "scan"
    observe_dependencies: bool = True
    granted: float = 1.0


def _without(group: str) -> Variant:
    groups = tuple(one for one in EXTENDED if one != group)
    return Variant(kind=replace(OURS, name=f"without {group}", groups=groups))


ALL = "ours"
VARIANTS = {
    ALL: Variant(),
    "no network": Variant(made=_no_network),
    "no online blend": Variant(made=_no_blend),
    "no price": Variant(made=_no_price),
    "one drift for all streams": Variant(made=_one_drift),
    "drift without forgetting": Variant(made=_no_forgetting),
    "leftover: stop": Variant(leftover="stop"),
    "leftover: prefix": Variant(leftover="prefix"),
    "leftover: paper": Variant(leftover="paper"),
    "dependencies not observed": Variant(observe_dependencies=False),
    "audits paid for": Variant(granted=1.0 - AUDIT_SHARE),
    "trained on full records": Variant(kind=replace(OURS, name="full records", gating="full")),
    **{f"input without {group}": _without(group) for group in EXTENDED},
}
NOT_SWITCHED = {
    "audits": "a replay's audits change no answer: what they cost is taken from the budget",
    "best single item": "the optimizer always compares with it; the knapsack cases measure it",
    "drift as a whole": "the value is made of it; it is fixed to one for all streams instead",
    "time to the next entry": "the value is made of it",
}


@lru_cache(maxsize=512)
def tried(name: str, share: float, plan: Plan, clip: str) -> Score:
    """A variant on streams of a clip that was left out of training."""
    variant = VARIANTS[name]
    known, streams = fleet(clip, plan)
    settings = Settings(
        seconds=plan.seconds,
        budget_ms=variant.granted * share * full_rate(known, streams) * ROUND_S,
        round_s=ROUND_S,
        leftover=variant.leftover,
        observe_dependencies=variant.observe_dependencies,
        warm_up_s=WARM_UP_S,
    )
    made = variant.made(learned(variant.kind, clip, plan))
    return Replay(known, streams, made, settings).run()


def lost(name: str, share: float, plan: Plan, late: float) -> list[float]:
    """Accuracy of ours above that of a variant, on the same streams, clip by clip."""
    return [
        tried(ALL, share, plan, clip).mean_accuracy(late)
        - tried(name, share, plan, clip).mean_accuracy(late)
        for clip in CLIPS
    ]


def switches(quick: bool) -> dict[str, Any]:
    """Accuracy of every variant, and what it loses on the same streams, budget by budget."""
    plan = small(SMALL, quick)
    figures: dict[str, Any] = {
        name: {f"{share:g}": _summary(name, share, plan) for share in plan.shares}
        for name in VARIANTS
    }
    _draw(figures)
    return figures | {"not_switched": NOT_SWITCHED}


def _summary(name: str, share: float, plan: Plan) -> dict[str, Any]:
    found = [tried(name, share, plan, clip) for clip in CLIPS]
    summary = {
        f"{late:g} s": {
            "accuracy": spread_of([one.mean_accuracy(late) for one in found]),
            "lost": spread_of(lost(name, share, plan, late)),
        }
        for late in TOLERANCES
    }
    print(f"{name} {share:g}: {json.dumps(summary)}", file=sys.stderr, flush=True)
    return summary


def _draw(figures: dict[str, Any]) -> None:
    """What each variant loses, a bar a budget, with the range over the clips."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = [name for name in figures if name != ALL]
    figure, axes = plt.subplots(1, len(figures[ALL]), figsize=(12, 6), sharey=True)
    for axis, share in zip(axes, figures[ALL], strict=True):
        lost_at = [figures[name][share]["0 s"]["lost"] for name in names]
        mean = [one["mean"] for one in lost_at]
        below = [one["mean"] - one["smallest"] for one in lost_at]
        above = [one["largest"] - one["mean"] for one in lost_at]
        axis.barh(names, mean, xerr=(below, above), color="#3b6ea5")
        axis.axvline(0, color="black", linewidth=1)
        axis.set_title(f"{float(share):.0%} of full decode", fontsize=9)
        axis.set_xlabel("accuracy lost without it")
        axis.tick_params(labelsize=7)
    axes[0].invert_yaxis()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(OUTPUT / "gating-switches.png", dpi=130)
    plt.close(figure)


def _lost(name: str, share: float) -> Case:
    @case(
        f"accuracy that ours loses, {name}, at {share:.0%} of full decode",
        unit="share",
        better="higher",
        reference="ours with all its parts, on the same streams",
    )
    def measure(effort: Effort) -> Iterator[float]:
        yield from lost(name, share, small(SMALL, effort.quick), 0.0)

    return measure


SWITCHES = tuple(
    _lost(name, share) for name in VARIANTS if name != ALL for share in SMALL.shares
)
