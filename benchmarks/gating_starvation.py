"""No camera is forgotten: the longest wait with and without a bound, and what the bound costs.

Under a budget at which the bound can be kept and one at which it cannot. What the bound takes
at least is said beside it: one entry of every stream in that time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks.gating_runs import ROUND_S, WARM_UP_S, Plan, fleet, predictor_for
from benchmarks.gating_small import SMALL, TOLERANCES, small, spread_of
from benchmarks.gating_traces import CLIPS
from benchmarks.harness import OUTPUT, Case, Effort, case
from triparty.device.gate import policies
from triparty.device.gate.fleet import Streams, Tables, full_rate
from triparty.device.gate.replay import Replay, Settings
from triparty.device.gate.scoring import Score

POLICIES = ("keyframes", "paper", "ours")
BOUND_S = 10.0
SHARES = {"affordable": 0.1, "unaffordable": 0.01}
LONGER = replace(SMALL, streams=64, seconds=40.0)


@lru_cache(maxsize=256)
def waited(policy: str, share: float, bound: float | None, plan: Plan, clip: str) -> Score:
    """A policy under a budget, with a bound or without, on streams of a clip."""
    known, streams = fleet(clip, plan)
    made = policies.make(
        policy, predictor=predictor_for(policy, clip, plan), max_staleness=bound
    )
    settings = Settings(
        seconds=plan.seconds,
        budget_ms=share * full_rate(known, streams) * ROUND_S,
        round_s=ROUND_S,
        leftover=policies.POLICIES[policy].leftover,
        warm_up_s=WARM_UP_S,
    )
    return Replay(known, streams, made, settings).run()


def bound_share(known: Tables, streams: Streams) -> float:
    """Share of full decode that one entry of every stream in `BOUND_S` takes."""
    entry = np.array(
        [
            known.cost[first:last][known.entry[first:last]].mean()
            for first, last in zip(known.base[:-1], known.base[1:], strict=True)
        ]
    )
    rate = float(entry[streams.trace].sum()) / BOUND_S
    return rate / full_rate(known, streams)


def starvation(quick: bool) -> dict[str, Any]:
    """Longest waits and accuracy, policy by policy, budget by budget."""
    plan = small(LONGER, quick)
    figures: dict[str, Any] = {
        "bound_s": BOUND_S,
        "bound_takes": {clip: bound_share(*fleet(clip, plan)) for clip in CLIPS},
    }
    for name, share in SHARES.items():
        figures[name] = {"share": share} | {
            policy: {
                "no bound": _summary(policy, share, None, plan),
                "bound": _summary(policy, share, BOUND_S, plan),
            }
            for policy in POLICIES
        }
    _draw(figures)
    return figures


def _summary(policy: str, share: float, bound: float | None, plan: Plan) -> dict[str, Any]:
    """Means and ranges over the clips; `over`: share of cameras that waited too long."""
    found = [waited(policy, share, bound, plan, clip) for clip in CLIPS]
    return {
        "longest_s": spread_of([one.max_staleness_s for one in found]),
        "over": spread_of([_over(one) for one in found]),
        "cost": spread_of([one.decode_share for one in found]),
        "accuracy": {
            f"{late:g} s": spread_of([one.mean_accuracy(late) for one in found])
            for late in TOLERANCES
        },
    }


def _over(score: Score) -> float:
    return float(np.mean(score.staleness > BOUND_S + ROUND_S))


def _draw(figures: dict[str, Any]) -> None:
    """Longest wait beside accuracy, a bar a policy with and without the bound."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(SHARES), figsize=(10, 6), squeeze=False)
    for column, (name, share) in enumerate(SHARES.items()):
        for place, kind in enumerate(("no bound", "bound")):
            found = [figures[name][policy][kind] for policy in POLICIES]
            spots = [number + 0.4 * place for number in range(len(POLICIES))]
            axes[0, column].bar(
                spots, [one["longest_s"]["mean"] for one in found], width=0.38, label=kind
            )
            axes[1, column].bar(
                spots, [one["accuracy"]["0 s"]["mean"] for one in found], width=0.38
            )
        axes[0, column].axhline(BOUND_S, color="grey", linestyle=":")
        axes[0, column].set_title(f"{share:.1%} of full decode: {name}", fontsize=9)
        for axis in axes[:, column]:
            axis.set_xticks([number + 0.2 for number in range(len(POLICIES))], POLICIES)
            axis.tick_params(labelsize=7)
    axes[0, 0].set_ylabel("longest wait, s")
    axes[1, 0].set_ylabel("state accuracy")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUTPUT / "gating-starvation.png", dpi=130)
    plt.close(figure)


def _longest(name: str, share: float) -> Case:
    @case(
        f"longest wait of a camera under ours, bound of {BOUND_S:g} s, {name} budget",
        unit="s",
        better="lower",
        target=BOUND_S if name == "affordable" else None,
        reference="the bound, which the budget wins over",
    )
    def measure(effort: Effort) -> Iterator[float]:
        plan = small(LONGER, effort.quick)
        for clip in CLIPS:
            yield waited("ours", share, BOUND_S, plan, clip).max_staleness_s

    return measure


def _price(name: str, share: float) -> Case:
    @case(
        f"accuracy that a bound of {BOUND_S:g} s adds to ours, {name} budget",
        unit="share",
        better="higher",
        reference="ours without a bound",
    )
    def measure(effort: Effort) -> Iterator[float]:
        plan = small(LONGER, effort.quick)
        for clip in CLIPS:
            with_it, without = (
                waited("ours", share, bound, plan, clip).mean_accuracy(0.0)
                for bound in (BOUND_S, None)
            )
            yield with_it - without

    return measure


STARVATION = tuple(
    make(name, share) for make in (_longest, _price) for name, share in SHARES.items()
)
