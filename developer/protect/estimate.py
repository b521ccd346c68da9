"""How long a compilation will take on this machine: `protect --dry-run` says it.

Two speeds are measured on a small sample of the real work: bytes of a tensor of the checkpoint
whose coordinates trade places, and products with one large matrix. Everything else is counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import prod

import numpy as np

from triparty.developer.protect.choices import Norms
from triparty.developer.protect.keys import Keys
from triparty.developer.protect.plans import Plan
from triparty.developer.protect.rekeying import DTYPES, Matter, rekeyed
from triparty.developer.protect.rules import Fate, Rule
from triparty.developer.protect.survey import Survey
from triparty.developer.protect.transforms import Dense, Monomial

SAMPLE_SECONDS = 0.2
_SAMPLE_BYTES = 4 << 20
_SAMPLE_ROWS, _SAMPLE_WIDTH = 256, 1024
_DRAW = 4.0  # d^3 of these for the reflections of a rotation, which are slower than a product


def estimated_seconds(decided: Survey) -> float:
    """The seconds of a whole compilation, roughly; takes less than one itself."""
    plan = decided.plan
    made = [rule for rule in plan.tensors.values() if rule.fate is Fate.HOSTED]
    made += plan.device_tables().values()
    if plan.device_head is not None and not plan.device_head.is_rows:
        made.append(plan.rule(plan.device_head.weight))
    size = sum(_size_bytes(decided, rule) for rule in made)
    seconds = size / _bytes_per_second(decided)
    products = sum(_products(plan, rule) for rule in made)
    draws = sum(_DRAW * space.size**3 for space in plan.spaces.values() if space.is_mixed)
    if products or draws:
        seconds += (products + draws) / _operations_per_second(decided)
    return seconds


def _size_bytes(decided: Survey, rule: Rule) -> int:
    """Bytes of a tensor, taken to be of the device's dtype."""
    item = {"float64": 8, "float32": 4}.get(decided.info.dtype, 2)
    return item * prod(_new_shape(decided.plan, rule))


def _new_shape(plan: Plan, rule: Rule) -> tuple[int, ...]:
    return tuple(
        sum(plan.spaces[space].new_size for space in axis.space.split("|"))
        for axis in rule.axes
    )


def _products(plan: Plan, rule: Rule) -> float:
    """Additions and multiplications with the large matrices of a tensor's axes."""
    if len(rule.axes) < 2:
        return 0.0
    elements = prod(_new_shape(plan, rule))
    spaces = [plan.spaces[name] for axis in rule.axes for name in axis.space.split("|")]
    return sum(2.0 * elements * space.size for space in spaces if space.is_mixed)


def _bytes_per_second(decided: Survey) -> float:
    """Of the largest tensor of the checkpoint: its first rows under some permutations."""
    shard, name = max(
        (
            (shard, name)
            for shard in decided.checkpoint.shards
            for name, entry in shard.entries.items()
            if entry.dtype in DTYPES
        ),
        key=lambda place: place[0].entries[place[1]].size_bytes,
    )
    entry = shard.entries[name]
    width = entry.shape[-1] if entry.shape else 1
    bits = shard.bits(name).reshape(-1, width)
    bits = bits[: max(1, _SAMPLE_BYTES // max(1, width * bits.itemsize))]
    keys = Keys.fresh()
    rows, columns = (Monomial(keys.permutation(f"{n}", n)) for n in bits.shape)
    scale = np.ones(width) if decided.choices.norms is Norms.FOLD else None
    matter = Matter(name, entry.dtype, bits, (None, scale))
    return bits.nbytes / _seconds(lambda: [len(p) for p in rekeyed(matter, [rows, columns])])


def _operations_per_second(decided: Survey) -> float:
    """Of products with a large matrix, in the dtype that the compiler computes in."""
    wide = decided.info.dtype in ("float32", "float64")
    values = np.ones((_SAMPLE_ROWS, _SAMPLE_WIDTH), np.float64 if wide else np.float32)
    matrix = np.ones((_SAMPLE_WIDTH, _SAMPLE_WIDTH))
    dense = Dense(matrix, matrix)
    return 2.0 * values.size * _SAMPLE_WIDTH / _seconds(lambda: dense.apply(values, 1))


def _seconds(work: Callable[[], object]) -> float:
    """The seconds of one repetition, the first one left out."""
    work()
    begin, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - begin) < SAMPLE_SECONDS:
        work()
        count += 1
    return spent / max(1, count)
