"""The studies of packet gating, each with its own JSON and plot: python -m benchmarks.gating_studies NAME.

Spec and thesis 2.5 say what they must show. Each study writes build/bench/gating-NAME.json
(suite, commit, machine, figures) and a plot beside it; `all` runs every one of them.
"""  # noqa: E501 - the command in one line

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from benchmarks.gating_runs import (
    ACCURACY,
    SCENES,
    Plan,
    Point,
    accuracy_at,
    cost_at,
    curve,
    mean_curve,
    policy_names,
)
from benchmarks.gating_traces import CLIPS
from benchmarks.harness import OUTPUT, BenchError, document

Study = Callable[[bool], dict[str, Any]]
QUICK = {"streams": 12, "seconds": 20.0, "shares": (0.05, 0.2, 0.5), "epochs": 3}


def budget(quick: bool) -> dict[str, Any]:
    """Accuracy against budget, every policy, busy clips and a building, leave one clip out."""
    figures: dict[str, Any] = {}
    runs = [(scene, "gop25") for scene in SCENES]
    for scene, encoding in runs if quick else [*runs, ("busy", "published")]:
        plan = _plan(Plan(encoding=encoding, scene=scene), quick)
        curves = _curves(policy_names(), plan)
        figures[f"{scene}, {encoding}"] = _figures(curves)
        _plot_curves(curves, f"budget-{scene}-{encoding}", f"{scene}, {encoding}")
    return figures


def _plan(plan: Plan, quick: bool) -> Plan:
    return replace(plan, **QUICK) if quick else plan


Curves = dict[str, dict[str, list[Point]]]


def _curves(policies: Sequence[str] | Any, plan: Plan) -> Curves:
    """For each policy the curve of each clip."""
    found: Curves = {}
    for policy in policies:
        found[policy] = {clip: curve(policy, clip, plan) for clip in CLIPS}
        mean = mean_curve(list(found[policy].values()))
        _say(f"{plan.scene} {plan.encoding} {policy}: {_line(mean)}")
    return found


def _figures(curves: Curves) -> dict[str, Any]:
    """Costs at 90 %, beside the thesis's, and where ours is not the best at equal cost."""
    figures: dict[str, Any] = {"policies": {}}
    for policy, clips in curves.items():
        mean = mean_curve(list(clips.values()))
        figures["policies"][policy] = {
            "mean": [_point(one) for one in mean],
            "clips": {clip: [_point(one) for one in points] for clip, points in clips.items()},
            "cost_at_90": {f"{t:g} s": cost_at(mean, tolerance=t) for t in (0.0, 1.0)},
            "saved_at_90": {f"{t:g} s": 1 - cost_at(mean, tolerance=t) for t in (0.0, 1.0)},
            "streams_per_core_gain": {
                f"{t:g} s": 1 / cost_at(mean, tolerance=t) for t in (0.0, 1.0)
            },
        }
    figures["thesis_table_2_3"] = {"saved": [0.52, 0.793], "gain": [2.1, 4.8]}
    figures["ours_against_keyframes"] = _against_keyframes(curves)
    figures["not_best"] = _not_best(curves)
    return figures


def _against_keyframes(curves: Curves) -> list[dict[str, float]]:
    """Ours at the cost that keyframes alone take, for every budget."""
    if not {"ours", "keyframes"} <= curves.keys():
        return []
    ours = mean_curve(list(curves["ours"].values()))
    return [
        {
            "cost": one.cost,
            "tolerance_s": tolerance,
            "keyframes": one.accuracy[tolerance],
            "ours": accuracy_at(ours, one.cost, tolerance),
        }
        for one in mean_curve(list(curves["keyframes"].values()))
        for tolerance in (0.0, 1.0)
    ]


def _not_best(curves: Curves) -> list[dict[str, Any]]:
    """Budgets at which another policy than the oracle is more accurate than ours."""
    found = []
    ours = mean_curve(list(curves["ours"].values())) if "ours" in curves else []
    for policy, clips in curves.items():
        if policy in ("ours", "oracle"):
            continue
        for one in mean_curve(list(clips.values())):
            for tolerance in (0.0, 1.0):
                mine = accuracy_at(ours, one.cost, tolerance) if ours else 1.0
                if one.accuracy[tolerance] > mine + 1e-3:
                    found.append(
                        {
                            "policy": policy,
                            "cost": one.cost,
                            "tolerance_s": tolerance,
                            "ours": mine,
                            "other": one.accuracy[tolerance],
                        }
                    )
    return found


def _point(one: Point) -> dict[str, Any]:
    return asdict(one) | {"accuracy": {f"{t:g} s": value for t, value in one.accuracy.items()}}


def _line(points: Sequence[Point]) -> str:
    return " ".join(
        f"{one.accuracy[0.0]:.3f}/{one.accuracy[1.0]:.3f}@{one.cost:.2f}" for one in points
    )


def _plot_curves(curves: Curves, name: str, title: str) -> None:
    """One line a policy: accuracy against cost, for both tolerances."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 5), sharey=True)
    strong = {"ours": "#c0392b", "keyframes": "black", "oracle": "#2e7d32", "paper": "#1f5fa8"}
    for axis, tolerance in zip(axes, (0.0, 1.0), strict=True):
        for policy, clips in curves.items():
            mean = mean_curve(list(clips.values()))
            line = sorted((one.cost, one.accuracy[tolerance]) for one in mean)
            axis.plot(
                *zip(*line, strict=True),
                marker="o",
                markersize=3,
                label=policy,
                color=strong.get(policy),
                linewidth=2 if policy in strong else 1,
                alpha=1 if policy in strong else 0.6,
            )
        axis.axhline(ACCURACY, color="grey", linestyle=":", linewidth=1)
        axis.set_title(f"{title}: late by up to {tolerance:g} s is right", fontsize=9)
        axis.set_xlabel("decode cost, share of decoding everything")
        axis.set_xlim(0, 0.75)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("state accuracy (counting)")
    axes[1].legend(fontsize=7)
    save(figure, name)


def save(figure: Any, name: str) -> None:
    """Writes a plot beside the JSON of its study."""
    from matplotlib import pyplot as plt

    OUTPUT.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(OUTPUT / f"gating-{name}.png", dpi=130)
    plt.close(figure)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


STUDIES: Mapping[str, Study] = {"budget": budget}


def main() -> int:
    """Runs studies by name."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.gating_studies", description="Studies of packet gating."
    )
    parser.add_argument("name", nargs="+", choices=[*STUDIES, "all"], help="which")
    parser.add_argument("--quick", action="store_true", help="a short form that shows it works")
    wanted = parser.parse_args()
    names = list(STUDIES) if "all" in wanted.name else wanted.name
    for name in names:
        try:
            figures = STUDIES[name](wanted.quick)
        except BenchError as error:
            print(f"gating_studies: {error}", file=sys.stderr)
            return 1
        made = document("gating", []) | {"study": name, "figures": figures}
        made.pop("results")
        OUTPUT.mkdir(parents=True, exist_ok=True)
        target = OUTPUT / f"gating-{name}.json"
        target.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
        print(f"written: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
