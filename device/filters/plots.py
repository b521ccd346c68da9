"""Accuracy against filter rate, drawn; needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from triparty.common.errors import SettingsError
from triparty.common.files import PRIVATE_MODE, atomic_file
from triparty.device.filters.baselines import Curve


def plot_curves(curves: Sequence[Curve], target_accuracy: float, target: Path) -> None:
    """Draws one line a way to filter into a PNG or SVG file (mode 0600).

    Args:
        curves: the first is the bound, the last the filter.
        target_accuracy: drawn as a line.
        target: ends in .png or .svg.

    Raises:
        SettingsError: another ending, or matplotlib is not installed.
    """
    if target.suffix not in (".png", ".svg"):
        raise SettingsError(f"{target}: a plot's name ends in .png or .svg")
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise SettingsError("a plot needs matplotlib: pip install matplotlib") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.5))
    for curve in curves:
        style = "--" if curve is curves[0] else "-"
        width = 2.2 if curve is curves[-1] else 1.1
        order = curve.rates.argsort(kind="stable")
        axis.plot(
            curve.rates[order],
            curve.accuracies[order],
            style,
            linewidth=width,
            label=curve.name,
        )
    axis.axhline(target_accuracy, color="black", linestyle=":", linewidth=1)
    axis.set_xlim(0, 1)
    axis.set_xlabel("filter rate: share answered without the model")
    axis.set_ylabel("accuracy: share answered as the model would")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    figure.tight_layout()
    with atomic_file(target, mode=PRIVATE_MODE) as stream:
        figure.savefig(stream, dpi=130, format=target.suffix[1:])
    plt.close(figure)
