"""Blocks of the documents from tables that no single audit makes, and from the search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.claim_markdown import markdown_table, percent, scheme_of

Figures = Mapping[str, Any]


def counting_table(figures: Figures) -> str:
    """What counting reads of long traffic."""
    heads = [
        "rows of traffic",
        "pairs of rows, text of the same distribution",
        "pairs, Python's documentation",
        "single rows, same distribution",
    ]
    rows = [
        [f"{line['rows']:,}", *(percent(line[name]) for name in ("same", "other", "single"))]
        for line in figures["tables"]["counting"]
    ]
    return markdown_table(heads, rows)


def correlations_table(figures: Figures) -> str:
    """Distance correlations beside those of the thesis."""
    rows = [
        [line["name"].removeprefix(_CORRELATION), f"{line['median']:.3f}", line["reference"]]
        for line in figures["tables"]["correlations"]
    ]
    return markdown_table(["of", "distance correlation", "reference"], rows)


def drift_table(figures: Figures) -> str:
    """What a drifted base opens."""
    lines = figures["tables"]["drift"]
    rows = [
        [percent(line["drift"]), *(percent(share) for share in line["found"].values())]
        for line in lines
    ]
    return markdown_table(["drift", *(_keyed(name) for name in lines[0]["found"])], rows)


def instances_table(figures: Figures) -> str:
    """What noise on each instance leaves of the link, and of the model."""
    lines = figures["tables"]["instances"]
    names = [name for name in lines[0] if name != "noise"]
    rows = [[percent(line["noise"]), *(percent(line[n]) for n in names)] for line in lines]
    heads = [name if name.endswith("top-1") else f"linked, {_keyed(name)}" for name in names]
    return markdown_table(["noise per instance", *heads], rows)


def mitigations_table(figures: Figures) -> str:
    """Every mitigation, what it leaks and what it costs."""
    compared = figures["tables"]["mitigations"]
    rows = [
        [
            line["name"],
            *(_worst(line["leakage"], level) for level in ("K0", "K1", "K2")),
            percent(line["attributed"]),
            percent(line["agreement"]),
            *_costs(line),
            f"{line['rows']:,}",
        ]
        for line in compared["measured"]
    ]
    heads = ["mitigation", "K0", "K1", "K2", "attributed", "top-1", *_COSTS, "rows"]
    return markdown_table(heads, rows) + (
        "\nK0 to K2: share of tokens that the best attack of the level reads, knowing the rows "
        f"of {compared['known']} distinct tokens from K1 on. Always saying the most frequent "
        f"token is right {percent(compared['guess'])} of the time.\n"
    )


def search_table(figures: Figures) -> str:
    """Every point of the search, each at the number of known rows that it is best and worst."""
    found = figures["search"]
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for line in found["tried"]:
        by_name.setdefault(line["name"], []).append(line)
    known = sorted({line["known"] for line in found["tried"]})
    rows = [
        [
            name,
            *(
                next((percent(p["attributed"]) for p in points if p["known"] == count), "")
                for count in known
            ),
            percent(points[0]["agreement"]),
            f"x{points[0]['perplexity_ratio']:.2f}",
        ]
        for name, points in by_name.items()
    ]
    heads = ["tried", *(f"attributed, {count} known" for count in known), "top-1", "perplexity"]
    effort = found["effort"]
    return markdown_table(heads, rows) + (
        f"\nAt most {effort['most']:,} rows under one key were attacked; {effort['requests']} "
        f"requests stood among decoys; accuracy was judged on {effort['judged']} texts of "
        f"{effort['length']} tokens; training took {effort['tuning']} steps.\n"
    )


def judged_table(figures: Figures) -> str:
    """What kept the bound in the search, on other texts."""
    found = figures["search"]
    rows = [
        [
            line["name"],
            percent(line["clear"]),
            percent(line["attributed"]),
            percent(line["agreement"]),
            *_costs(line),
        ]
        for line in found["judged"]
    ]
    return markdown_table(["judged", "read", "attributed", "top-1", *_COSTS], rows)


_CORRELATION = "distance correlation of "
_COSTS = ("perplexity", "device", "cloud", "bytes")


def _costs(line: Mapping[str, Any]) -> list[str]:
    """Ratios over the model as it is: of perplexity, times, bytes."""
    times = [f"x{line[name]:.1f}" for name in ("device_ratio", "cloud_ratio", "bytes_ratio")]
    return [f"x{line['perplexity_ratio']:.2f}", *times]


def _worst(leakage: Mapping[str, Mapping[str, float]], level: str) -> str:
    found = leakage.get(level)
    return percent(max(found.values())) if found else ""


def _keyed(name: str) -> str:
    """`MODEL, SCHEME` as headings have it."""
    model, scheme = name.split(", ")
    return f"{model}, {scheme_of({'scheme': scheme})}"
