"""An inspection: both ways of finding what is wrong, as far as the folder allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from triparty.common.errors import TripartyError
from triparty.developer.inspection.fault import Fault, first_fault
from triparty.developer.inspection.layers import LayerError, SideBySide, layer_errors, unseen
from triparty.developer.inspection.tensors import Difference, differences
from triparty.developer.inspection.tolerances import TOLERANCES
from triparty.developer.protect.modelkey import ModelKey

if TYPE_CHECKING:
    from triparty.developer.verify import Comparison

_PREDICTIONS = 64
_SHOWN = 10


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        layers: largest relative error after each layer; None if it was not asked for or
            cannot be said.
        fault: the first tensor that is off in a run; None if none is.
        differences: tensors that are not what the key makes of the source; None if they were
            not made again.
        limits: what could not be done, and why.
    """

    layers: tuple[LayerError, ...] | None = None
    fault: Fault | None = None
    differences: tuple[Difference, ...] | None = None
    limits: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """The inspection for people."""
        if self.layers:
            yield from _table(self.layers)
        if self.fault is not None:
            yield f"First off in a run: {', '.join(self.fault.tensors)}: {self.fault.why}."
        elif self.layers:
            yield "No tensor is off in a run."
        if self.differences is not None:
            yield from _differing(self.differences)
        for limit in self.limits:
            yield f"Not done: {limit}"

    def document(self) -> dict[str, Any]:
        """The inspection for programs."""
        return asdict(self)

    def accused(self) -> str | None:
        """The first tensor that is wrong, in words; None if none was found."""
        if self.differences:
            return f"not what the key makes of the source: {self.differences[0]}"
        if self.fault is not None:
            return f"first off: {self.fault.tensors[0]}: {self.fault.why}"
        return None


def inspect(
    comparison: Comparison,
    source: str,
    out: Path,
    *,
    rng: np.random.Generator,
    layers: bool,
    tensors: bool,
) -> Inspection:
    """Looks for what is wrong with a protected model.

    Args:
        comparison: both models, loaded.
        source: of the original.
        out: what `protect` wrote.
        rng: draws the input of the run.
        layers: whether to run both models side by side.
        tensors: whether to make every tensor again.
    """
    try:
        key = ModelKey.open(out, source)
    except TripartyError as error:
        return Inspection(
            limits=(f"layers and tensors need the key and the source: {error.message}",)
        )
    limits: list[str] = []
    found, fault = None, None
    if layers:
        found, fault = _run(key, comparison, rng, limits)
    made = None
    if tensors:
        try:
            made = tuple(differences(key, out))
        except TripartyError as error:
            limits.append(f"not every tensor was made again: {error.message}")
    return Inspection(found, fault, made, tuple(limits))


def _run(
    key: ModelKey, comparison: Comparison, rng: np.random.Generator, limits: list[str]
) -> tuple[tuple[LayerError, ...], Fault | None]:
    models = SideBySide(key, comparison.original, comparison.protected)
    sample = comparison.task.sample(comparison.bundle.info, _PREDICTIONS, rng)
    readings = models.readings(comparison.task, comparison.bundle, sample)
    skipped = unseen(key, readings)
    if skipped:
        limits.append(
            f"{len(skipped)} weights are not the output of a module of their own and were "
            f"not compared in a run: {_some(skipped)}"
        )
    dtype = str(comparison.original.dtype).removeprefix("torch.")
    fault = first_fault(readings, key.decided.plan, models, TOLERANCES[dtype])
    return tuple(layer_errors(readings)), fault


def _table(layers: Sequence[LayerError]) -> Iterator[str]:
    width = max(len("layer"), *(len(one.layer) for one in layers))
    yield f"{'layer':{width}}  largest relative error  in the output of"
    for one in layers:
        yield f"{one.layer:{width}}  {one.error:22.1e}  {one.tensor}"


def _differing(found: Sequence[Difference]) -> Iterator[str]:
    if not found:
        yield "Every tensor is what the key makes of the source."
        return
    yield f"{len(found)} are not what the key makes of the source:"
    for one in found[:_SHOWN]:
        yield f"  {one}"
    if len(found) > _SHOWN:
        yield f"  and {len(found) - _SHOWN} more"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
