"""Figures in markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def percent(share: float) -> str:
    """A share for people; whole ones without a digit behind the point."""
    return f"{100 * share:.1f} %".replace(".0 %", " %")


def markdown_table(heads: list[str], rows: list[list[str]]) -> str:
    """A table with a line of headings."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def scheme_of(model: Mapping[str, Any]) -> str:
    """How a model's figures name their scheme."""
    return "either scheme" if model["scheme"] == "either" else f"`{model['scheme']}`"
