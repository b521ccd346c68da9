"""What the tables of models that take images have in common.

Stock classes take pixels alone, cut them into patches and embed each with a convolution whose
stride is its kernel: a linear layer on the C p^2 pixels of a patch. So the device mixes the
pixels of each patch by a secret M, and the convolution undoes it: `(x M)(M^-1 W R)`. Under
the scheme `permutation` the pixels of a patch trade places.

What M cannot hide: which patch is where, and whether two patches are the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from triparty.common.deviceinfo import ImageInfo
from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect.choices import Choices, Interface
from triparty.developer.protect.options import Options
from triparty.developer.protect.rules import Axis, Role, Rows, Rule
from triparty.developer.protect.spaces import Scheme, Space, fixed, mixed

PIXELS = "pixels"
"""The space of a patch's pixels."""


def image_of(options: Options) -> ImageInfo:
    """The images of a vision configuration.

    Raises:
        UnsupportedModelError: images or patches that are not square, or patches that leave
            pixels over.
    """
    size, patch = _side(options, "image_size"), _side(options, "patch_size")
    if size % patch:
        raise UnsupportedModelError(
            f"config.json: images of {size} pixels do not divide into patches of {patch}"
        )
    return ImageInfo(options.count("num_channels"), size, patch)


def rows_of(image: ImageInfo) -> int:
    """The rows that a tower makes of an image: a class row and one per patch."""
    return 1 + (image.size // image.patch) ** 2


def image_spaces(image: ImageInfo, scheme: Scheme) -> Mapping[str, Space]:
    """The pixels of a patch, and the places of an image's rows, which stay where they are."""
    size = image.channels * image.patch**2
    return {
        PIXELS: mixed("patch pixels", size, scheme=scheme),
        "places": fixed(rows_of(image)),
    }


def patches(name: str, writes: str, *, bias: bool) -> Rows:
    """A convolution (D, C, p, p) that embeds patches.

    Args:
        name: of the module.
        writes: space of its output.
        bias: whether it has one.
    """
    axes = (Axis(writes), Axis(PIXELS, Role.READS))
    weight = Rule(f"{name}.weight", axes, flat=True)
    return (weight, Rule(f"{name}.bias", (Axis(writes),))) if bias else (weight,)


def refuse_tokens(choices: Choices, family: str) -> None:
    """For models that take no text."""
    if choices.interface is Interface.TOKENS:
        raise UnsupportedModelError(
            f"family {family!r} takes images alone: use the interface 'embeddings'"
        )


def _side(options: Options, name: str) -> int:
    value = options.document.get(name)
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    if isinstance(value, list):
        raise UnsupportedModelError(f"config.json: {name!r} is {value!r}, which is not square")
    return options.count(name) if value is None else _positive(name, value)


def _positive(name: str, value: object) -> int:
    if type(value) is not int or value < 1:
        raise UnsupportedModelError(
            f"config.json: expected {name!r} to be a positive number, got {value!r}"
        )
    return value
