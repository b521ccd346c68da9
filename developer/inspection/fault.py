"""Which tensor is at fault: the first place of a run where keys and values disagree.

A module whose input is right and whose output is wrong has a wrong weight. One whose input is
wrong although everything before it is right names another space than the one it is given: then
either its own row is wrong (some other space of the plan fits what it reads), or the row of
what wrote there last (no space fits).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from triparty.developer.inspection.layers import Reading, SideBySide
from triparty.developer.protect.plans import Plan

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Fault:
    """The first thing that is off.

    Attributes:
        tensors: that may be at fault, the likeliest first.
        why: what was seen.
    """

    tensors: tuple[str, ...]
    why: str


def first_fault(
    readings: Sequence[Reading], plan: Plan, models: SideBySide, tolerance: float
) -> Fault | None:
    """The first reading beyond the tolerance, and the tensors that explain it.

    Args:
        readings: in the order of the run.
        plan: of the model.
        models: that made them.
        tolerance: largest relative error of rounding.
    """
    for at, reading in enumerate(readings):
        if reading.given is not None and reading.given > tolerance:
            return _misread(readings[: at + 1], plan, models, tolerance)
        if reading.answer is not None and reading.answer > tolerance:
            return Fault(
                _with_bias(reading.tensor, plan),
                f"it reads what it should, and what it writes is {reading.answer:.1e} off",
            )
    return None


def _misread(
    readings: Sequence[Reading], plan: Plan, models: SideBySide, tolerance: float
) -> Fault:
    """A module is given something else than its row says, and nothing before it was off."""
    reader, before = readings[-1], readings[:-1]
    claimed = str(reader.spaces.reads)
    fitting = _fitting(reader, plan, models, tolerance)
    since = _since_last_read(before, claimed) or _last_readers(before)
    if fitting is not None:
        wrote = [one.tensor for one in reversed(since) if one.spaces.writes == fitting]
        rare = _uses(plan, fitting) < _uses(plan, claimed)
        both = (*wrote, reader.tensor) if rare else (reader.tensor, *wrote)
        return Fault(
            tuple(dict.fromkeys(both)),
            f"{reader.tensor} reads the space {claimed!r}, and is given {fitting!r}",
        )
    suspects = _writers(since, plan, claimed)
    return Fault(
        tuple(dict.fromkeys((*suspects, reader.tensor))),
        f"each of these is right by itself, but {reader.tensor} reads the space {claimed!r} "
        f"and is given something else: their spaces do not go together",
    )


def _fitting(reader: Reading, plan: Plan, models: SideBySide, tolerance: float) -> str | None:
    """Another space of the plan under which what was read is the original's."""
    if reader.read is None:
        return None
    claimed = reader.spaces.reads
    named = dict.fromkeys(axis.space for rule in plan.tensors.values() for axis in rule.axes)
    for space in named:
        if space == claimed or _size(plan, space) != reader.read.plain.shape[-1]:
            continue
        error = models.fits(space, reader.read)
        if error is not None and error <= tolerance:
            return space
    return None


def _since_last_read(before: Sequence[Reading], space: str) -> Sequence[Reading]:
    """What ran since the space was read last, and was right; nothing if it never was."""
    for at in range(len(before) - 1, -1, -1):
        if before[at].spaces.reads == space and before[at].given is not None:
            return before[at:]
    return ()


def _last_readers(before: Sequence[Reading]) -> Sequence[Reading]:
    """The last modules that all read one space: queries, keys and values, or both gates.

    Whatever a space of its own is fed by, through attention or a gate, is among them.
    """
    at = len(before)
    while at and before[at - 1].spaces.reads == before[-1].spaces.reads:
        at -= 1
    return [one for one in before[at:] if one.spaces.writes != one.spaces.reads]


def _writers(since: Sequence[Reading], plan: Plan, claimed: str) -> list[str]:
    """What may have written something else, the last one first, those of the width ahead."""
    others = [one for one in reversed(since) if one.spaces.writes not in (None, claimed)]
    others = others or list(reversed(since))
    size = _size(plan, claimed)
    alike = [one for one in others if _size(plan, str(one.spaces.writes)) == size]
    added = any(one.spaces.reads == claimed for one in since)
    return [one.tensor for one in (alike if alike and added else [*alike, *others])]


def _uses(plan: Plan, space: str) -> int:
    """How many kinds of tensors name a space."""
    return len(
        {
            _NUMBER.sub("", name)
            for name, rule in plan.tensors.items()
            if any(axis.space == space for axis in rule.axes)
        }
    )


def _size(plan: Plan, space: str) -> int:
    return sum(plan.spaces[one].size for one in space.split("|"))


def _with_bias(tensor: str, plan: Plan) -> tuple[str, ...]:
    bias = tensor.removesuffix("weight") + "bias"
    return (tensor, bias) if bias in plan.tensors else (tensor,)
