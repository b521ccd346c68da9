"""How an image becomes pixels: copied for the device alone, from an allow-list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from triparty.common.errors import CheckpointError
from triparty.developer.protect.checkpoints import read_json

KNOWN = (
    "crop_size",
    "do_center_crop",
    "do_convert_rgb",
    "do_normalize",
    "do_pad",
    "do_rescale",
    "do_resize",
    "image_mean",
    "image_processor_type",
    "image_std",
    "resample",
    "rescale_factor",
    "size",
)


def preprocessing(folder: Path) -> dict[str, Any]:
    """What `preprocessor_config.json` of the device says.

    Args:
        folder: of the source, with a `preprocessor_config.json` or, as newer checkpoints
            have it, a `processor_config.json` that contains one. Without either, pixels are
            the device's own affair.

    Raises:
        CheckpointError: one of them is not a JSON object.
    """
    document: Any = {}
    if (folder / "preprocessor_config.json").is_file():
        document = read_json(folder / "preprocessor_config.json")
    elif (folder / "processor_config.json").is_file():
        document = read_json(folder / "processor_config.json").get("image_processor") or {}
    if not isinstance(document, dict):
        raise CheckpointError(f"{folder}/processor_config.json: 'image_processor' is no object")
    return {name: document[name] for name in KNOWN if name in document}
