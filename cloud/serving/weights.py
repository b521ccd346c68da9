"""What a model's weights will take in memory: as the numbers that they are loaded as."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_CONFIG_LIMIT_BYTES = 1 << 20


def weight_bytes(folder: Path, *, dtype: str | None) -> int:
    """Memory that a model will take.

    Files that cannot be read count as they lie there: loading them says what is wrong.

    Args:
        folder: of the published model.
        dtype: that the operator chose for weights; None: what the model's configuration says.
    """
    size = _BYTES.get(dtype or _said(folder / "config.json"))
    return sum(_file_bytes(path, size) for path in folder.glob("*.safetensors"))


def _said(path: Path) -> str:
    """The dtype that a configuration names, which is what the model is loaded as."""
    try:
        if path.stat().st_size > _CONFIG_LIMIT_BYTES:
            return ""
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    if not isinstance(document, dict):
        return ""
    return str(document.get("dtype", document.get("torch_dtype", "float32")))


def _file_bytes(path: Path, size: int | None) -> int:
    """Bytes of a file's tensors, floating numbers of `size` bytes each; None: as they are."""
    stored = path.stat().st_size
    if size is None:
        return stored
    try:
        with safe_open(path, framework="numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - a safe_open is no mapping
                part = tensors.get_slice(name)
                width = _FLOATS.get(part.get_dtype())
                if width is not None:
                    stored += (size - width) * prod(part.get_shape())
    except (OSError, SafetensorError):
        return path.stat().st_size
    return stored
