"""Small multiples: one panel a setting, one line a policy, accuracy against cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

STRONG = {"ours": "#c0392b", "keyframes": "black", "oracle": "#2e7d32", "paper": "#1f5fa8"}
_COLUMNS = 4


def draw(settings: Mapping[str, Mapping[str, Any]], target: Path, late: str = "0 s") -> None:
    """Draws the figures of `gating_small.compared`, each with its range over the clips.

    Args:
        settings: by the name of their panel.
        target: the PNG.
        late: which tolerance is shown.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = -(-len(settings) // _COLUMNS)
    columns = min(_COLUMNS, len(settings))
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.4 * columns, 3 * rows), sharey=True, squeeze=False
    )
    for axis in axes.flat[len(settings) :]:
        axis.set_visible(False)
    for axis, (name, found) in zip(axes.flat, settings.items(), strict=False):
        _panel(axis, found["policies"], late)
        axis.set_title(name, fontsize=9)
    axes[0, 0].set_ylabel("state accuracy")
    axes[0, 0].legend(fontsize=6)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.supxlabel("decode cost, share of decoding everything", fontsize=9)
    figure.tight_layout()
    figure.savefig(target, dpi=130)
    plt.close(figure)


def _panel(axis: Any, policies: Mapping[str, Any], late: str) -> None:
    for policy, budgets in policies.items():
        cost = [one["cost"] for one in budgets.values()]
        right = [one["accuracy"][late] for one in budgets.values()]
        mean = [one["mean"] for one in right]
        below = [one["mean"] - one["smallest"] for one in right]
        above = [one["largest"] - one["mean"] for one in right]
        axis.errorbar(
            cost,
            mean,
            yerr=(below, above),
            marker="o",
            markersize=3,
            label=policy,
            color=STRONG.get(policy),
            linewidth=2 if policy in STRONG else 1,
        )
    axis.grid(alpha=0.3)
