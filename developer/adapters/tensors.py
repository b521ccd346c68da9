"""The tensors of a LoRA adapter, module by module.

`base_model.model.MODULE.lora_A.weight` is (r, in), `lora_B.weight` (out, r), `lora_B.bias`
(out,), whichever way the base layer is stored. `base_layer.weight` is that layer itself, which
must be the original's and is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from triparty.common.errors import CheckpointError, FileTypeError, UnsupportedModelError
from triparty.common.tensorfile import TensorFile
from triparty.developer.adapters.settings import PREFIX, WEIGHTS_FILE
from triparty.developer.protect.rekeying import DTYPES

_PARTS = ("lora_A.weight", "lora_B.weight", "lora_B.bias", "base_layer.weight")
_NAME = re.compile(rf"{re.escape(PREFIX)}(.+)\.({'|'.join(map(re.escape, _PARTS))})")


@dataclass(frozen=True)
class Pair:
    """The tensors of one module.

    Attributes:
        down: name of A (r, in).
        up: name of B (out, r).
        bias: name of B's bias (out,), or None.
        base: name of the layer's own weight, or None; `peft` saves it beside an adapter of
            the head unless it is told otherwise.
        rank: r.
    """

    down: str
    up: str
    bias: str | None
    base: str | None
    rank: int


def opened(folder: Path) -> TensorFile:
    """The tensor file of an adapter's folder.

    Raises:
        CheckpointError: there is none.
        FileTypeError: pickled weights, or a broken file.
    """
    file = folder / WEIGHTS_FILE
    if file.is_file():
        return TensorFile.open(file)
    if (folder / "adapter_model.bin").is_file():
        raise FileTypeError(
            f"{folder} has its weights in adapter_model.bin, a pickle, which can run code when "
            f"it is read; convert it where you trust it: load it with peft and save it with "
            f"save_pretrained, which writes {WEIGHTS_FILE}"
        )
    raise CheckpointError(f"{folder} is no adapter: it has no {WEIGHTS_FILE}")


def pairs(file: TensorFile) -> Mapping[str, Pair]:
    """The tensors of each module, by its name in the adapter.

    Raises:
        UnsupportedModelError: a tensor that is not of a LoRA of a linear layer.
        CheckpointError: a module without A or B, or of different ranks.
    """
    found: dict[str, dict[str, str]] = {}
    for name, entry in file.entries.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise UnsupportedModelError(_without_plan(name))
        if entry.dtype not in DTYPES:
            raise UnsupportedModelError(
                f"tensor {name!r} is {entry.dtype}; there is a plan for: {', '.join(DTYPES)}"
            )
        found.setdefault(match[1], {})[match[2]] = name
    if not found:
        raise CheckpointError(f"{file.path} holds no tensor")
    return {module: _pair(file, module, names) for module, names in sorted(found.items())}


def _pair(file: TensorFile, module: str, names: Mapping[str, str]) -> Pair:
    missing = {"lora_A.weight", "lora_B.weight"} - set(names)
    if missing:
        raise CheckpointError(f"the adapter lacks {min(missing)} of {module!r}")
    down, up = names["lora_A.weight"], names["lora_B.weight"]
    first, second = file.entries[down].shape, file.entries[up].shape
    if len(first) != 2 or len(second) != 2 or first[0] != second[1] or not first[0]:
        raise CheckpointError(
            f"the adapter's tensors of {module!r} have shapes {list(first)} and "
            f"{list(second)}; expected (r, in) and (out, r)"
        )
    bias, base = names.get("lora_B.bias"), names.get("base_layer.weight")
    return Pair(down, up, bias, base, first[0])


def _without_plan(name: str) -> str:
    if "lora_embedding" in name:
        return (
            f"the adapter changes the embedding ({name!r}), which devices hold as a keyed "
            f"table: merge the adapter into the model (merge_and_unload) and protect that"
        )
    if "lora_magnitude_vector" in name:
        return (
            f"the adapter is a DoRA ({name!r}): merge it into the model (merge_and_unload) "
            f"and protect that"
        )
    return (
        f"tensor {name!r} is not of a LoRA of a linear layer ({PREFIX}MODULE.lora_A.weight, "
        f"lora_B.weight, lora_B.bias)"
    )
