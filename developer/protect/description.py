"""A plan as text: what `protect --dry-run` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from triparty.developer.protect.rules import Fate
from triparty.developer.protect.survey import Survey

_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


def summary(found: Survey) -> dict[str, Any]:
    """The plan in numbers."""
    plan = found.plan
    fates = _fates(found)
    return {
        "family": plan.family,
        "scheme": found.choices.scheme,
        "interface": found.choices.interface,
        "tensors": sum(fates.values()) - fates[Fate.DROPPED],
        "dropped": fates[Fate.DROPPED],
        "size_bytes": found.size_bytes,
        "device_bytes": _device_bytes(found),
        "layers": len(plan.counts["l"]),
        "width": plan.width,
        "vocabulary": plan.vocabulary,
        "untied": bool(plan.ties),
        "left_out": found.options.left_out(),
    }


def lines(found: Survey) -> Iterator[str]:
    """The plan as a table: every kind of tensor, its spaces, what becomes of it."""
    plan = found.plan
    yield (
        f"{plan.family}: {len(plan.counts['l'])} layers, width {plan.width}, vocabulary "
        f"{plan.vocabulary}; {found.size_bytes / 1e6:,.1f} MB of tensors, "
        f"{_device_bytes(found) / 1e6:,.1f} MB for each device"
    )
    width = max(len(rule.pattern) for rule in plan.rules)
    for rule in plan.rules:
        if rule.fate is not Fate.DROPPED:
            axes = " x ".join(map(str, rule.axes))
            yield f"  {rule.pattern:<{width}}  {rule.fate.value:<36}  {axes}"
    dropped = _fates(found)[Fate.DROPPED]
    if dropped:
        yield f"  {dropped} tensors that the stock class does not use are dropped"
    if plan.ties:
        yield "  the head gets a key of its own: tie_word_embeddings becomes false"
    if found.options.left_out():
        yield f"  left out of config.json: {', '.join(found.options.left_out())}"


def _fates(found: Survey) -> Counter[Fate]:
    plan = found.plan
    return Counter(plan.rule(plan.canonical(name)).fate for name in found.checkpoint.entries)


def _device_bytes(found: Survey) -> int:
    info, plan = found.info, found.plan
    rows = sum(plan.shape_of(rule.pattern)[0] for rule in plan.device_tables().values())
    mixed = 0 if plan.pixels is None else plan.spaces[plan.pixels].size
    return rows * info.width * _BYTES[info.dtype] + 4 * info.outputs + 8 * mixed**2
