"""Refuses checkpoints that are quantised already, by name and with the remedy.

Keys move and mix the coordinates over which a quantised weight shares its scales, so a model is
protected first and quantised afterwards: under `permutation` with kept norms a quantiser that
works row by row then makes the same numbers as of the original, in another order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from triparty.common.errors import UnsupportedModelError
from triparty.common.tensorfile import TensorEntry

_FORMS = {
    "awq": "AWQ",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "fp8": "FP8 with a scale per block (weight_scale_inv), as DeepSeek-V3 is published",
    "gptq": "GPTQ",
    "mxfp4": "MXFP4",
}
# Endings of the tensors that each form stores beside or in place of a weight.
_ENDINGS = {
    ".weight_scale_inv": _FORMS["fp8"],
    ".qweight": "GPTQ or AWQ",
    ".qzeros": "GPTQ or AWQ",
    ".g_idx": "GPTQ",
    ".SCB": "bitsandbytes, 8 bit",
    ".absmax": "bitsandbytes, 4 bit",
    ".quant_map": "bitsandbytes, 4 bit",
    ".weight_packed": _FORMS["compressed-tensors"],
    ".weight_scale": _FORMS["compressed-tensors"],
    ".weight_zero_point": _FORMS["compressed-tensors"],
    "_blocks": "MXFP4",
}
_DTYPES = {
    "F8_E4M3": "8-bit floats (F8_E4M3)",
    "F8_E5M2": "8-bit floats (F8_E5M2)",
    "I8": "8-bit integers (I8)",
    "U8": "packed integers (U8)",
}
_REMEDY = (
    "protect first, then quantise: take the unquantised checkpoint, or make one (load it with "
    "transformers, call dequantize() on the model and save it in bfloat16), protect that, and "
    "quantise OUT/model as you would have quantised the original"
)


def refuse_quantised_config(config: Mapping[str, Any]) -> None:
    """Refuses a parsed `config.json` that says how its weights are quantised.

    Raises:
        UnsupportedModelError: it does.
    """
    for name in ("quantization_config", "compression_config"):
        given = config.get(name)
        if given is None:
            continue
        method = given.get("quant_method") if isinstance(given, Mapping) else None
        form = _FORMS.get(str(method), str(method or "of an unnamed form"))
        raise UnsupportedModelError(
            f"config.json has a {name!r}: the checkpoint is quantised ({form}); {_REMEDY}"
        )


def refuse_quantised_tensors(tensors: Mapping[str, TensorEntry]) -> None:
    """Refuses the tensors of quantised weights, whatever `config.json` says.

    Raises:
        UnsupportedModelError: there is one.
    """
    for name, entry in tensors.items():
        form = _form(name, entry, tensors)
        if form is not None:
            raise UnsupportedModelError(
                f"tensor {name!r} ({entry.dtype}) is of a quantised checkpoint ({form}); "
                f"{_REMEDY}"
            )


def _form(name: str, entry: TensorEntry, others: Iterable[str]) -> str | None:
    for ending, form in _ENDINGS.items():
        if name.endswith(ending):
            return form
    if entry.dtype not in _DTYPES or not name.endswith(".weight"):
        return None
    for ending, form in _ENDINGS.items():
        if name.removesuffix(".weight") + ending in others or name + ending in others:
            return form
    return _DTYPES[entry.dtype]
