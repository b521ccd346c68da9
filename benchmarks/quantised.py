"""Weight-only int8 with a scale per output row, and what it costs before and after keys.

The order that works is protect, then quantise. Symmetric rounding of a row looks at its
largest element alone, so it commutes with permutations and signs.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.checkpoints import real_model
from benchmarks.harness import Case, Effort, case
from triparty.common.keying import Bundle
from triparty.developer.answers import task_of
from triparty.developer.protect import Choices, protect
from triparty.developer.stock import load_model

MODEL = "stories260K"
_LEVELS = 127


def int8_rows(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """A matrix (out, in) rounded to 255 levels a row: the values that int8 stands for."""
    scale = np.abs(weights).max(axis=1, keepdims=True).astype(np.float32) / np.float32(_LEVELS)
    safe = np.where(scale == 0, np.float32(1), scale)
    rounded: NDArray[np.float32] = np.rint(weights / safe).astype(np.float32) * scale
    return rounded


def quantised_copy(source: Path, target: Path) -> Path:
    """A copy of a float32 LLaMA folder, its projections rounded by `int8_rows`."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(source, target)
    file = target / "model.safetensors"
    tensors = load_file(file)
    for name, values in tensors.items():
        if name.endswith("_proj.weight"):
            tensors[name] = int8_rows(values)
    save_file(tensors, file, metadata={"format": "pt"})
    return target


@dataclass(frozen=True)
class Cost:
    """What quantisation costs, both against the original in float32.

    Attributes:
        agreement: share of predictions with the same most likely token.
        error: root mean square of the logits' differences over that of the logits.
    """

    agreement: float
    error: float


def cost(choices: Choices | None, *, samples: int, seed: int) -> Cost:
    """The cost of int8 weights under some keys; None: without keys.

    Args:
        choices: how the model is protected before it is quantised.
        samples: how many predictions to compare.
        seed: draws the key.
    """
    source, rng = real_model(MODEL), np.random.default_rng(0)
    task = task_of("causal-lm")
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out"
        protect(str(source), out, choices=choices or Choices(), seed=seed)
        bundle = Bundle.open(out / "device")
        hosted = source if choices is None else out / "model"
        rounded = load_model(quantised_copy(hosted, Path(name) / "int8"))
        original = load_model(source)
        sample = task.sample(bundle.info, samples, rng)
        plain = task.original(original, sample)
        if choices is None:
            found = task.original(rounded, sample)
        else:
            found = task.protected(rounded, bundle, sample)
    same = (plain.argmax(-1) == found.argmax(-1)).mean()
    error = np.sqrt(((plain - found) ** 2).mean() / (plain**2).mean())
    return Cost(float(same), float(error))


FORMS: dict[str, Choices | None] = {
    "without keys": None,
    "permutation, norms kept": Choices.of(norms="keep"),
    "permutation": Choices(),
    "orthogonal": Choices.of(scheme="orthogonal"),
}


def quantisation_cases(form: str) -> tuple[Case, Case]:
    """Agreement and error of int8 weights after protection, a fresh key a run."""
    choices = FORMS[form]
    reference = f"int8 of the unprotected model is the case 'without keys' ({MODEL})"

    def costs(effort: Effort) -> Iterator[Cost]:
        samples = 500 if effort.quick else 5000
        for seed in range(effort.runs):
            yield cost(choices, samples=samples, seed=seed)

    @case(
        f"top-1 agreement of int8 weights with fp32, {form}",
        unit="share",
        better="higher",
        reference=reference,
    )
    def agreement(effort: Effort) -> Iterator[float]:
        return (one.agreement for one in costs(effort))

    @case(
        f"logit error of int8 weights against fp32, {form}",
        unit="RMS, relative",
        better="lower",
        reference=reference,
    )
    def error(effort: Effort) -> Iterator[float]:
        return (one.error for one in costs(effort))

    return agreement, error
