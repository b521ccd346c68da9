"""The figures as the documents show them: blocks between markers, made from kept figures alone.

A block stands between `<!-- figures: NAME -->` and `<!-- end of figures -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.claim_blocks import (
    correlations_table,
    counting_table,
    drift_table,
    instances_table,
    judged_table,
    mitigations_table,
    search_table,
)
from benchmarks.claim_markdown import markdown_table, percent, scheme_of
from triparty.developer.audit.reports.citations import pieces

Figures = Mapping[str, Any]

_BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
_TIMES = {1: "a second", 10: "10 s", 60: "a minute", 600: "10 min", 3600: "an hour"}


def rewritten(text: str, figures: Figures) -> str:
    """A document with its blocks made anew.

    Raises:
        KeyError: a block that nobody makes.
    """
    return _BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]](figures)}{found[3]}", text)


def attacks_table(figures: Figures) -> str:
    """Every attack on every model."""
    models = figures["models"]
    heads = [f"{m['model']}, {scheme_of(m)}" for m in models]
    rows = [
        [
            one["level"],
            f"`{one['name']}`",
            one["finds"],
            *(_share(model, one["name"]) for model in models),
            _within(figures, one["name"]),
            _linked(one["cites"]),
        ]
        for one in figures["attacks"]
    ]
    heads = ["level", "attack", "finds", *heads, "takes less than, on one core", "source"]
    return markdown_table(heads, rows) + "\n" + "".join(_notes(figures))


def levels_table(figures: Figures) -> str:
    """For each attacker and model, the most that was recovered of the tokens and of the key."""
    models = figures["models"]
    levels = sorted({one["level"] for one in figures["attacks"]})
    rows = [
        [level, what, *(_most(figures, model, level, what) for model in models)]
        for level in levels
        for what in ("tokens", "key")
        if any(one["finds"] == what and one["level"] <= level for one in figures["attacks"])
    ]
    heads = ["attacker", "of the", *(f"{m['model']}, {scheme_of(m)}" for m in models)]
    return markdown_table(heads, rows)


BLOCKS: Mapping[str, Callable[[Figures], str]] = {
    "attacks": attacks_table,
    "levels": levels_table,
    "counting": counting_table,
    "correlations": correlations_table,
    "drift": drift_table,
    "instances": instances_table,
    "mitigations": mitigations_table,
    "search": search_table,
    "judged": judged_table,
}


def _most(figures: Figures, model: Mapping[str, Any], level: str, what: str) -> str:
    """The strongest attack that an attacker of a level can mount."""
    open_to = {
        one["name"]: model["attacks"][one["name"]]["recovered"]
        for one in figures["attacks"]
        if one["finds"] == what and one["level"] <= level and one["name"] in model["attacks"]
    }
    if not open_to:
        return "not tried"
    name = max(open_to, key=lambda each: open_to[each])
    share = percent(open_to[name])
    return f"{share} (`{name}`)" if open_to[name] else share


def _share(model: Mapping[str, Any], name: str) -> str:
    found = model["attacks"].get(name)
    return "not mounted" if found is None else percent(found["recovered"])


def _within(figures: Figures, name: str) -> str:
    times = [
        m["attacks"][name]["seconds_below"] for m in figures["models"] if name in m["attacks"]
    ]
    return _TIMES[max(times)] if times else ""


def _notes(figures: Figures) -> Iterator[str]:
    """Why attacks were not mounted, and what was attacked."""
    for model in figures["models"]:
        what = f"{model['model']}, {scheme_of(model)}"
        for name, reason in model["unmounted"].items():
            yield f"- `{name}` is not mounted on {what}: {reason}.\n"
    for model in {model["model"]: model for model in figures["models"]}.values():
        yield (
            f"- {model['model']}: {model['what']}, rows of width {model['width']}, "
            f"{model['vocabulary']:,} tokens; {model['rows']:,} rows of traffic.\n"
        )
    worst = max(
        found["control"] for model in figures["models"] for found in model["attacks"].values()
    )
    yield f"- Where there is nothing to find, no attack recovers more than {percent(worst)}.\n"


def _linked(citation: str) -> str:
    return "".join(
        text if address is None else f"[{text}]({address})"
        for text, address in pieces(citation)
    )
