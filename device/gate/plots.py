"""Accuracy against cost, drawn; needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from triparty.common.errors import SettingsError
from triparty.common.files import PRIVATE_MODE, atomic_file
from triparty.device.gate.scoring import Score


def plot_accuracy(scores: Sequence[tuple[str, Score]], target: Path) -> None:
    """Draws one line a policy, for both tolerances, into a PNG or SVG file (mode 0600).

    Args:
        scores: with the policies' names.
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

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for axis, tolerance in zip(axes, (0.0, 1.0), strict=True):
        for name in dict.fromkeys(name for name, _ in scores):
            mine = sorted(
                (score.decode_share, score.mean_accuracy(tolerance))
                for other, score in scores
                if other == name
            )
            axis.plot(*zip(*mine, strict=True), marker="o", markersize=3, label=name)
        axis.set_title("late detection not forgiven" if not tolerance else "within 1 s")
        axis.set_xlabel("decode cost, share of decoding everything")
        axis.set_xlim(0, 1)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("share of frames with the right answer held")
    axes[1].legend(fontsize=7)
    figure.tight_layout()
    with atomic_file(target, mode=PRIVATE_MODE) as stream:
        figure.savefig(stream, dpi=130, format=target.suffix[1:])
    plt.close(figure)
