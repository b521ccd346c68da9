"""A comparison of mitigations: what was measured of each, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from triparty.developer.audit.levels import Level

COLUMNS = (
    "mitigation",
    "K0",
    "K1",
    "K2",
    "named",
    "attributed",
    "top-1",
    "perplexity",
    "device",
    "cloud",
    "bytes",
    "s/instance",
    "MB/instance",
    "rows",
)


@dataclass(frozen=True)
class Measured:
    """One line of the table.

    Attributes:
        name: of the mitigation.
        leakage: share of tokens that each attack recovers, by level, then by attack.
        clear: share of tokens that the best attack up to K2 reads in the clear.
        named: share of requests whose real text is named among its decoys, by what is looked
            at; empty without decoys.
        attributed: share of tokens that are read and known to be the user's.
        agreement: share of positions with the plain model's likeliest token.
        perplexity_ratio: perplexity through the mitigation over the plain model's.
        device_ratio: processor time of a decode step on the device, over `permutation`'s.
        cloud_ratio: the same on the cloud.
        bytes_ratio: bytes on the wire for a token, over `permutation`'s.
        seconds_per_instance: to compile one.
        bytes_per_instance: of its model and one bundle.
        rows: how many were attacked.
    """

    name: str
    leakage: Mapping[str, Mapping[str, float]]
    clear: float
    named: Mapping[str, float]
    attributed: float
    agreement: float
    perplexity_ratio: float
    device_ratio: float
    cloud_ratio: float
    bytes_ratio: float
    seconds_per_instance: float
    bytes_per_instance: int
    rows: int


@dataclass(frozen=True)
class Comparison:
    """All mitigations beside each other.

    Attributes:
        measured: a line each, in the order in which they were given.
        positions: how many positions accuracy was judged on.
        known: distinct tokens whose rows attackers of K1 and above know.
        guess: share of tokens that is right if the most frequent one is always said.
        refused: why a mitigation cannot be had for this model, by its name.
    """

    measured: tuple[Measured, ...]
    positions: int
    known: int
    guess: float
    refused: Mapping[str, str]


def table(comparison: Comparison) -> str:
    """A table for people, a line a mitigation."""
    lines = [COLUMNS, *(cells(line) for line in comparison.measured)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    drawn = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([*drawn, *notes(comparison)])


def notes(comparison: Comparison) -> list[str]:
    """What the columns mean, and what is not in the table."""
    return [
        *(f"{name}: not for this model: {why}" for name, why in comparison.refused.items()),
        "K0 to K2: share of tokens that the best attack of the level reads; named: share "
        "of requests whose real text is told from its decoys; attributed: both.",
        f"Always saying the most frequent token is right {comparison.guess:.1%} of the "
        f"time. Attackers of K1 and K2 know rows of {comparison.known} distinct tokens.",
        f"top-1: agreement with the plain model over {comparison.positions:,} positions; "
        "device, cloud, bytes: of a decode step, over those of `permutation`.",
    ]


def cells(line: Measured) -> tuple[str, ...]:
    """A line of the table, a text for each of `COLUMNS`."""
    worst = [
        f"{max(line.leakage[level].values()):.1%}" if line.leakage.get(level) else "-"
        for level in (Level.K0, Level.K1, Level.K2)
    ]
    return (
        line.name,
        *worst,
        f"{max(line.named.values()):.1%}" if line.named else "-",
        f"{line.attributed:.1%}",
        f"{line.agreement:.1%}",
        f"x{line.perplexity_ratio:.3f}",
        f"x{line.device_ratio:.2f}",
        f"x{line.cloud_ratio:.2f}",
        f"x{line.bytes_ratio:.2f}",
        f"{line.seconds_per_instance:.2f}",
        f"{line.bytes_per_instance / 1e6:.2f}",
        f"{line.rows:,}",
    )
