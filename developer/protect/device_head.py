"""The plan of a decoder whose devices have the head.

The head goes to the device, keyed on the side that reads the residual; its other side is the
plain vocabulary, because nobody but devices sees what it writes. The cloud hosts zeros, and
answers the hidden state behind the final norm.

Where embedding and head are tied, both are the same rows, but for the final norm's weights
that are folded into the head. If the residual's coordinates trade places, those weights still
belong to one coordinate each: the device keeps one table and multiplies the hidden state by
them. If the residual is rotated, or the device's rows carry a factor, it keeps two tables.
"""

from __future__ import annotations

from dataclasses import replace

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import DeviceHead, Plan
from triparty.developer.protect.rules import Axis, Fate, Rule

SOFTCAP = "final_logit_softcapping"
TASK = "causal-lm"
_PLAIN = "ids"


def with_device_head(plan: Plan, options: Options) -> Plan:
    """A plan whose head is on the device.

    Args:
        plan: of a decoder with the interface `embeddings`.
        options: its configuration.

    Raises:
        UnsupportedModelError: a model whose answers are no logits of a next token.
    """
    if plan.task != TASK:
        raise UnsupportedModelError(
            f"a {plan.family} model of the task {plan.task!r} has no head that a device could "
            f"have: only decoders that write text ({TASK}) have one; use --head cloud"
        )
    head = _head(plan)
    moved = replace(head, axes=(Axis(_PLAIN), *head.axes[1:]), fate=Fate.ON_DEVICE)
    rules = tuple(moved if rule is head else rule for rule in plan.rules)
    cap = options.number(SOFTCAP) if options.has(SOFTCAP) else None
    on_device = DeviceHead(head.pattern, _is_rows(plan, head), cap)
    return replace(plan, rules=rules, device_head=on_device)


def _head(plan: Plan) -> Rule:
    """The row of the head: alone it writes the answer, and it has no bias."""
    writers = [
        rule
        for rule in plan.rules
        if any(axis.space == plan.output_space for axis in rule.axes)
    ]
    if len(writers) != 1 or writers[0].factor != 1 or len(writers[0].axes) != 2:
        names = ", ".join(rule.pattern for rule in writers)
        raise UnsupportedModelError(
            f"the answers of family {plan.family!r} are made by {names}; a device can have a "
            f"head that is one matrix alone: use --head cloud"
        )
    return writers[0]


def _is_rows(plan: Plan, head: Rule) -> bool:
    """Whether the device's rows, coordinate by coordinate, are those of the head."""
    rows = plan.device_tables()["rows"]
    tied = plan.ties.get(head.pattern) == rows.pattern
    return tied and rows.factor == 1 and not plan.spaces[rows.axes[1].space].is_mixed
