"""An image file as the pixels that a model expects.

Resizing, cropping, rescaling and normalising are those of the checkpoint's image processor:
they follow `preprocessor_config.json`, whose omissions mean the defaults of the processor that
it names. Pillow reads and resizes; it is an extra: `pip install 'triparty[images]'`.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.deviceinfo import ImageInfo
from triparty.common.errors import CheckpointError, RequestError, SettingsError
from triparty.common.keying import Bundle

if TYPE_CHECKING:
    from PIL.Image import Image

    ImageLike = Path | str | bytes | Image | NDArray[np.floating[Any]]

Pixels = NDArray[np.float32]
"""An image (C, S, S), normalised as a model expects it."""

_SWITCHES = ("do_resize", "do_rescale", "do_normalize")
_COMMON: Mapping[str, Any] = {
    **dict.fromkeys(_SWITCHES, True),
    "do_center_crop": False,
    "do_pad": False,
    "rescale_factor": 1 / 255,
}
PROCESSORS: Mapping[str, Mapping[str, Any]] = {
    "ViT": {
        **_COMMON,
        "resample": 2,  # bilinear
        "size": {"height": 224, "width": 224},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
    "CLIP": {
        **_COMMON,
        "resample": 3,  # bicubic
        "size": {"shortest_edge": 224},
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    },
}
"""What the image processors of `transformers` do where a configuration is silent."""


def pixels_of(image: ImageLike, bundle: Bundle) -> Pixels:
    """The pixels (C, S, S) of an image.

    Args:
        image: a file, the bytes of one, an image of Pillow, or pixels that are prepared.
        bundle: of a model that takes images.

    Raises:
        RequestError: no image, or a model that takes none.
        SettingsError: Pillow is not installed.
        CheckpointError: the model's owner does not say how images are prepared, or in a way
            that is not known here.
    """
    expected = bundle.info.image
    if expected is None:
        raise RequestError("this model takes no images")
    if isinstance(image, np.ndarray):
        return np.asarray(image, np.float32)
    options = processor_options(bundle.preprocessing())
    return prepared(opened(image, expected), options, expected)


def processor_options(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """A `preprocessor_config.json` with the defaults of its processor.

    Raises:
        CheckpointError: no such processor here, or a step that is not known.
    """
    named = str(document.get("image_processor_type"))
    family = named.partition("ImageProcessor")[0].partition("FeatureExtractor")[0]
    if family not in PROCESSORS:
        raise CheckpointError(
            f"images for the processor {named!r} are not prepared here (known: "
            f"{', '.join(PROCESSORS)}): give pixels (C, S, S) as a NumPy array"
        )
    options = {**PROCESSORS[family], **document}
    if options["do_pad"]:
        raise CheckpointError("preprocessor_config.json: padding of images is not known here")
    return options


def opened(image: Path | str | bytes | Image, expected: ImageInfo) -> Image:
    """An image in the model's number of channels, upright.

    Raises:
        RequestError: no image that Pillow can read.
        SettingsError: Pillow is not installed.
    """
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise SettingsError("images need Pillow: pip install 'triparty[images]'") from error
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    if expected.channels not in modes:
        raise RequestError(f"images of {expected.channels} channels: give pixels as an array")
    try:
        if isinstance(image, PIL.Image.Image):
            return image.convert(modes[expected.channels])
        with PIL.Image.open(BytesIO(image) if isinstance(image, bytes) else image) as file:
            return PIL.ImageOps.exif_transpose(file).convert(modes[expected.channels])
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        name = "what was given" if isinstance(image, bytes) else image
        raise RequestError(f"{name} is no image that can be read: {error}") from error


def prepared(image: Image, options: Mapping[str, Any], expected: ImageInfo) -> Pixels:
    """An image (C, S, S) resized, cropped, rescaled and normalised.

    Args:
        image: of any size.
        options: as `processor_options` makes them.
        expected: what the model takes.

    Raises:
        CheckpointError: options that make no sense, or make other sizes than the model takes.
        RequestError: an image that is smaller than what is cut out of it.
    """
    from PIL.Image import Resampling

    try:
        if options["do_resize"]:
            size = _resized(image.size, options["size"], options["image_processor_type"])
            image = image.resize(size, Resampling(options["resample"]))
        if options["do_center_crop"]:
            image = _cropped(image, *_square(options["crop_size"]))
        values = np.asarray(image)
        pixels = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)
        if options["do_rescale"]:
            pixels = (pixels.astype(np.float64) * options["rescale_factor"]).astype(np.float32)
        pixels = pixels.astype(np.float32)
        if options["do_normalize"]:
            mean, std = (_per_channel(options[name], expected.channels) for name in _MOMENTS)
            pixels = (pixels - mean) / std
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"preprocessor_config.json makes no sense: {error}") from error
    shape = (expected.channels, expected.size, expected.size)
    if pixels.shape != shape:
        raise CheckpointError(
            f"preprocessor_config.json makes pixels {pixels.shape}, the model takes {shape}"
        )
    return pixels.astype(np.float32)


_MOMENTS = ("image_mean", "image_std")


def _resized(size: tuple[int, int], wanted: Any, processor: str) -> tuple[int, int]:
    """Width and height of an image of `size` (width, height) after resizing."""
    if isinstance(wanted, int):
        wanted = {"shortest_edge": wanted} if processor.startswith("CLIP") else _both(wanted)
    if "shortest_edge" in wanted:
        short, long = sorted(size)
        edge = int(wanted["shortest_edge"])
        other = int(edge * long / short)
        return (edge, other) if size[0] <= size[1] else (other, edge)
    return int(wanted["width"]), int(wanted["height"])


def _both(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _square(wanted: Any) -> tuple[int, int]:
    """Width and height of what is cut out."""
    sides = _both(wanted) if isinstance(wanted, int) else wanted
    return int(sides["width"]), int(sides["height"])


def _cropped(image: Image, width: int, height: int) -> Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    if left < 0 or top < 0:
        raise RequestError(
            f"the image has {image.width} x {image.height} pixels, the model takes the middle "
            f"{width} x {height}: give a larger one"
        )
    return image.crop((left, top, left + width, top + height))


def _per_channel(values: Any, channels: int) -> NDArray[np.float32]:
    """(C, 1, 1) one number a channel, given as one for all or as a list."""
    given = np.atleast_1d(np.asarray(values, np.float32))
    return np.broadcast_to(given, (channels,))[:, None, None]
