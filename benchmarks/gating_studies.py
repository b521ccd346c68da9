"""The studies of packet gating, each with its own JSON and plot: python -m benchmarks.gating_studies NAME.

Spec and thesis 2.5 say what they must show. Each study writes build/bench/gating-NAME.json
(suite, commit, machine, figures) and a plot beside it; `all` runs every one of them.
"""  # noqa: E501 - the command in one line

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from benchmarks import gating_adaptation, gating_end_to_end, gating_offline
from benchmarks.gating_cameras import cameras, task_budgets
from benchmarks.gating_quality import QUALITY
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
from benchmarks.gating_starvation import starvation
from benchmarks.gating_switches import switches
from benchmarks.gating_traces import CLIPS, TASKS
from benchmarks.harness import OUTPUT, BenchError, document
from triparty.device.gate.features import EXTENDED
from triparty.device.gate.traces import Task

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


def offline(quick: bool) -> dict[str, Any]:
    """Filter rate at 90 % on balanced data (fig. 2.9) and true positives at 10 % false ones."""
    plan = _plan(Plan(tasks=TASKS), quick)
    figures: dict[str, Any] = {
        kind.name: _told(gating_offline.per_task(kind, plan)) for kind in gating_offline.KINDS
    }
    figures["residual of sizes"] = _told(gating_offline.residual(plan))
    figures["thesis"] = {
        "filter_rate": [0.518, 0.565, 0.577, 0.539],
        "optimum": 0.6,
        "true_positives": {"published design": 0.766, "residual of sizes": 0.061},
    }
    _plot_bars({k: v for k, v in figures.items() if k != "thesis"}, "filter_rate", "offline")
    return figures


def tasks(quick: bool) -> dict[str, Any]:
    """One network for all tasks, one for each, and one's network for another (fig. 2.11)."""
    plan = _plan(Plan(tasks=TASKS), quick)
    figures: dict[str, Any] = {}
    for kind in (gating_offline.PAPER, gating_offline.OURS):
        alone = {
            task.name: _told(gating_offline.per_task(kind, gating_offline.single(plan, task)))
            for task in TASKS
        }
        figures[kind.name] = {
            "multi": _told(gating_offline.per_task(kind, plan)),
            "single": {name: one[name] for name, one in alone.items()},
            "crossed": {
                f"{learnt.name} for {asked.name}": _crossed(kind, plan, learnt, asked)
                for learnt in TASKS
                for asked in TASKS
                if learnt is not asked
            },
        }
    figures["thesis"] = {"crossed": [-0.163, -0.069], "multi": [0.021, 0.017]}
    return figures


def training(quick: bool) -> dict[str, Any]:
    """Share of the samples that is trained on (fig. 2.12)."""
    plan = _plan(Plan(), quick)
    shares = (0.01, 0.5) if quick else (0.01, 0.1, 0.2, 0.5, 0.8)
    return {
        kind.name: {
            f"{share:g}": _told(gating_offline.per_task(kind, plan, share)) for share in shares
        }
        for kind in (gating_offline.CONTEXTUAL, gating_offline.PAPER, gating_offline.OURS)
    }


def window(quick: bool) -> dict[str, Any]:
    """Length of the window of sizes (fig. 2.13)."""
    plan = _plan(Plan(), quick)
    lengths = (2, 5) if quick else (1, 2, 5, 10, 20)
    return {
        kind.name: {
            str(w): _told(gating_offline.per_task(replace(kind, window=w), plan))
            for w in lengths
        }
        for kind in (gating_offline.CONTEXTUAL, gating_offline.PAPER, gating_offline.OURS)
    }


def codecs(quick: bool) -> dict[str, Any]:
    """Accuracy per codec (fig. 2.14) and the extreme cases of thesis 2.5.3."""
    encodings = ("gop25", "mjpeg") if quick else CODECS
    return {
        encoding: {
            kind.name: _told(
                gating_offline.per_task(kind, _plan(Plan(encoding=encoding), quick))
            )
            for kind in gating_offline.KINDS
        }
        for encoding in encodings
    } | {"thesis": {"accuracy": [0.912, 0.952], "codecs": ["h264", "h265", "jpeg2000", "vp9"]}}


def ablation(quick: bool) -> dict[str, Any]:
    """Ours without each input of its network, told apart offline (in replay: `switches`)."""
    plan = _plan(Plan(), quick)
    figures: dict[str, Any] = {"all": _told(gating_offline.per_task(gating_offline.OURS, plan))}
    for group in EXTENDED:
        groups = tuple(one for one in EXTENDED if one != group)
        kind = replace(gating_offline.OURS, name=f"without {group}", groups=groups)
        figures[kind.name] = _told(gating_offline.per_task(kind, plan))
    full = replace(gating_offline.OURS, name="trained on full records", gating="full")
    figures[full.name] = _told(gating_offline.per_task(full, plan))
    return figures


def quality(quick: bool) -> dict[str, Any]:
    """Generated quality drops (the super-resolution task): told apart, and by accuracy."""
    plan = _plan(Plan(scene="dropped", tasks=(QUALITY,)), quick)
    curves = _curves(("keyframes", "paper", "feedback_only", "ours", "oracle"), plan)
    _plot_curves(curves, "quality", "generated quality drops")
    return {
        "told apart": {
            kind.name: _told(gating_offline.per_task(kind, plan))
            for kind in gating_offline.KINDS
        },
        "budget": _figures(curves),
    }


def adaptation(quick: bool) -> dict[str, Any]:
    """Another bit rate or camera, streams joining and leaving: accuracy from then on."""
    return gating_adaptation.figures(_plan(gating_adaptation.DRIFTING, quick))


def nights(quick: bool) -> dict[str, Any]:
    """Day turns to night (generated): accuracy from then on."""
    return gating_adaptation.nights(_plan(gating_adaptation.NIGHTLY, quick))


def end_to_end(quick: bool) -> dict[str, Any]:
    """Streams a core including inference (table 2.5)."""
    return gating_end_to_end.figures(_plan(Plan(), quick))


def _crossed(kind: gating_offline.Kind, plan: Plan, learnt: Task, asked: Task) -> Any:
    """A network that was taught one task, asked another."""
    found = []
    for clip in CLIPS:
        predictor = gating_offline.learned(kind, clip, gating_offline.single(plan, learnt))
        other = gating_offline.single(plan, asked)
        parts = gating_offline.recorded([clip], other)
        (scores, truth), *_ = gating_offline.tried(kind, predictor, parts, other)
        one = gating_offline.told(scores, truth)
        if one is not None:
            found.append(one)
    return _told({asked.name: found})[asked.name]


def _told(found: Mapping[str, Sequence[gating_offline.Told]]) -> dict[str, Any]:
    """Means over the clips left out, and each of them."""
    figures = {}
    for task, clips in found.items():
        names = [one.name for one in fields(gating_offline.Told)]
        figures[task] = {
            name: (sum(getattr(one, name) for one in clips) / len(clips)) if clips else None
            for name in names
        } | {"clips": [asdict(one) for one in clips]}
    _say(
        str(
            {
                task: {k: v for k, v in one.items() if k != "clips"}
                for task, one in figures.items()
            }
        )
    )
    return figures


def _plot_bars(figures: Mapping[str, Any], figure_of: str, name: str) -> None:
    """One group of bars a task, one bar a kind."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4))
    known = list(next(iter(figures.values())))
    for place, (kind, found) in enumerate(figures.items()):
        values = [found[task][figure_of] or 0.0 for task in known]
        spots = [number + 0.15 * place for number in range(len(known))]
        axis.bar(spots, values, width=0.14, label=kind)
    axis.axhline(0.6, color="grey", linestyle=":", linewidth=1)
    axis.set_xticks([number + 0.3 for number in range(len(known))], known)
    axis.set_ylabel(figure_of.replace("_", " ") + " at 90 %, balanced")
    axis.legend(fontsize=7)
    save(figure, name)


CODECS = ("gop25", "h265", "vp9", "av1", "mjpeg", "jpeg2000", "starved", "gop300")
STUDIES: Mapping[str, Study] = {
    "budget": budget,
    "cameras": cameras,
    "task_budgets": task_budgets,
    "offline": offline,
    "tasks": tasks,
    "training": training,
    "window": window,
    "codecs": codecs,
    "ablation": ablation,
    "switches": switches,
    "quality": quality,
    "adaptation": adaptation,
    "nights": nights,
    "starvation": starvation,
    "end_to_end": end_to_end,
}


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
