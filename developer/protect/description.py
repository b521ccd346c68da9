"""A plan as text: what `protect --dry-run` prints."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from triparty.developer.protect.choices import Interface
from triparty.developer.protect.configuration import SPECIAL_IDS
from triparty.developer.protect.plans import Plan
from triparty.developer.protect.rules import Fate, NormRule
from triparty.developer.protect.survey import Survey

_LAYER = re.compile(r".*?\.\d+\.")
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
        "head": found.choices.head,
        "head_bytes": head_bytes(found),
        "layers": _layers(plan),
        "width": plan.width,
        "vocabulary": plan.vocabulary,
        "untied": _is_untied(found),
        "left_out": _left_out(found),
        "notes": list(notes(found)),
    }


def lines(found: Survey) -> Iterator[str]:
    """The plan as a table: every kind of tensor, its spaces, what becomes of it."""
    plan = found.plan
    yield (
        f"{plan.family}: {_layers(plan)} layers, width {plan.width}, vocabulary "
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
    if _is_untied(found):
        yield "  the head gets a key of its own: tie_word_embeddings becomes false"
    if _left_out(found):
        yield f"  left out of config.json: {', '.join(_left_out(found))}"
    yield from notes(found)


def notes(found: Survey) -> Iterator[str]:
    """What somebody who makes these choices should know."""
    plan = found.plan
    if found.choices.interface is Interface.TOKENS:
        yield (
            "With the interface 'tokens' the cloud sees equal tokens as equal ids, as it would "
            "see equal rows; it also has the keyed table, whose lengths and angles it can "
            "compare with a table that it knows, and it picks the tokens of the answer."
        )
    yield from _of_device_head(found)
    positions = [r.pattern for r in plan.rules if any(a.space == "positions" for a in r.axes)]
    if positions and "positions" not in plan.device_tables():
        yield (
            f"{positions[0]} is hosted, keyed: who knows the original positions can read the "
            f"key of the residual off it."
        )
    kept: dict[str, str] = {}
    for rule in plan.rules:
        if isinstance(rule, NormRule) and not rule.foldable:
            kept.setdefault(rule.axes[0].space, rule.pattern)
    for space, pattern in kept.items():
        yield (
            f"{pattern} cannot be folded: who knows the original can read how {space!r} is "
            f"keyed off it."
        )


def _of_device_head(found: Survey) -> Iterator[str]:
    """What a head on the device costs, and what it gives to devices."""
    plan, head = found.plan, found.plan.device_head
    if head is None:
        return
    yield (
        f"The head is on each device: the cloud replies hidden states of {found.info.width} "
        f"numbers in place of {plan.vocabulary} logits, and hosts zeros for the head."
    )
    if head.is_rows:
        yield "Embedding and head are one table: the head takes no more room on devices."
        return
    yield f"The head takes {head_bytes(found) / 1e6:,.1f} MB on each device."
    if head.weight in plan.ties:
        yield (
            "The source ties embedding and head, and devices hold both tables. From the two a "
            "device can compute how the weights of the final norm lie under the key, and with "
            "it the key of the residual, up to the order and the signs of coordinates."
        )


def _layers(plan: Plan) -> int:
    """Layers of all parts of a model (encoder and decoder, text and vision)."""
    numbered = (_LAYER.match(name) for name in plan.tensors)
    return len({found.group() for found in numbered if found})


def _is_untied(found: Survey) -> bool:
    """Whether a tensor that was another one's double becomes one of its own."""
    plan = found.plan
    held = {plan.canonical(name) for name in found.checkpoint.entries}
    return any(
        tied in plan.tensors
        and plan.rule(tied).fate is Fate.HOSTED
        and source in plan.tensors
        and not (tied in plan.separable and tied in held)
        for tied, source in plan.ties.items()
    )


def _left_out(found: Survey) -> list[str]:
    """Options that the cloud does not get, keyed or as they are."""
    keyed = SPECIAL_IDS if found.choices.interface is Interface.TOKENS else ()
    return [name for name in found.options.left_out() if name not in keyed]


def _fates(found: Survey) -> Counter[Fate]:
    plan = found.plan
    return Counter(plan.rule(plan.canonical(name)).fate for name in found.checkpoint.entries)


def _device_bytes(found: Survey) -> int:
    info, plan = found.info, found.plan
    rows = sum(plan.shape_of(rule.pattern)[0] for rule in plan.device_tables().values())
    mixed = 0 if plan.pixels is None else plan.spaces[plan.pixels].size
    tables = rows * info.width * _BYTES[info.dtype] + 8 * mixed**2
    return tables + (4 * info.outputs if info.head is None else head_bytes(found))


def head_bytes(found: Survey) -> int:
    """Bytes of the head that a device has; 0 if it has none."""
    head = found.plan.device_head
    if head is None:
        return 0
    if head.is_rows:
        return 8 * found.info.width
    return found.info.vocabulary * found.info.width * _BYTES[found.info.dtype]
