"""Pixels of images: those of the checkpoint's own image processor, and errors that say why."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from triparty.common.deviceinfo import ImageInfo
from triparty.common.errors import CheckpointError, RequestError, SettingsError
from triparty.device.inference.images import opened, pixels_of, prepared, processor_options

TOLERANCE = 1e-5
SIZES = [(40, 30), (30, 40), (24, 24), (7, 90), (300, 200)]
VIT: dict[str, Any] = {"image_processor_type": "ViTImageProcessor"}
CLIP: dict[str, Any] = {"image_processor_type": "CLIPImageProcessor"}
SMALL = {"size": {"height": 24, "width": 24}}
MOMENTS = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.4, 0.3]}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "vit": VIT,
    "vit, small": VIT | SMALL | MOMENTS,
    "vit, bicubic": VIT | SMALL | {"resample": 3},
    "vit, nearest": VIT | SMALL | {"resample": 0},
    "vit, no rescaling": VIT | SMALL | {"do_rescale": False},
    "vit, no normalising": VIT | SMALL | {"do_normalize": False},
    "vit, other factor": VIT | SMALL | {"rescale_factor": 1 / 127.5},
    "vit, old": {"image_processor_type": "ViTFeatureExtractor", "size": 24},
    "vit, fast": SMALL | {"image_processor_type": "ViTImageProcessorFast"},
    "clip": CLIP,
    "clip, small": CLIP
    | {"size": {"shortest_edge": 26}, "crop_size": {"height": 24, "width": 24}},
    "clip, old": CLIP | {"size": 24, "crop_size": 24},
    "clip, bilinear": CLIP | {"size": 24, "crop_size": 24, "resample": 2, **MOMENTS},
}


def picture(size: tuple[int, int], channels: int = 3, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    shape = (size[1], size[0]) if channels == 1 else (size[1], size[0], channels)
    return Image.fromarray(rng.integers(0, 256, shape, np.uint8))


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels_are_those_of_the_image_processor(name: str, size: tuple[int, int]) -> None:
    document = CONFIGURATIONS[name]
    kind = CLIPImageProcessorPil if name.startswith("clip") else ViTImageProcessorPil
    options = {key: value for key, value in document.items() if key != "image_processor_type"}
    image = picture(size)
    expected = kind(**options)(image, return_tensors="np")["pixel_values"][0]
    info = ImageInfo(3, expected.shape[1], 1)
    got = prepared(image, processor_options(document), info)
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= TOLERANCE


def test_grey_images_have_one_channel() -> None:
    document = VIT | SMALL | {"image_mean": [0.1], "image_std": [0.3]}
    image = picture((30, 20), channels=1)
    processor = ViTImageProcessorPil(**SMALL, image_mean=[0.1], image_std=[0.3])
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    got = prepared(image, processor_options(document), ImageInfo(1, 24, 4))
    assert np.abs(got - expected).max() <= TOLERANCE


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_images_of_every_mode_get_the_models_channels(mode: str) -> None:
    image = Image.new(mode, (5, 4))
    for channels, wanted in ((1, "L"), (3, "RGB")):
        assert opened(image, ImageInfo(channels, 4, 2)).mode == wanted


def test_a_turned_photograph_is_put_upright(tmp_path: Path) -> None:
    image = picture((20, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera that was held on its side
    image.save(tmp_path / "turned.png", exif=exif)
    got = opened(tmp_path / "turned.png", ImageInfo(3, 4, 2))
    assert got.size == (10, 20)
    assert (np.asarray(got) == np.rot90(np.asarray(image), -1)).all()


class Bundled:
    """What `pixels_of` needs of a bundle."""

    def __init__(self, image: ImageInfo | None, document: dict[str, Any]) -> None:
        self.info = type("Info", (), {"image": image})
        self.preprocessing = lambda: document


def test_pixels_that_are_prepared_already_are_taken() -> None:
    pixels = np.zeros((3, 24, 24))
    got = pixels_of(pixels, Bundled(ImageInfo(3, 24, 4), {}))  # type: ignore[arg-type]
    assert (got.dtype, got.shape) == (np.float32, (3, 24, 24))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "'None' are not prepared here"),
        ({"image_processor_type": "SamImageProcessor"}, "'SamImageProcessor'"),
        (VIT | {"do_pad": True}, "padding"),
        (VIT | {"size": {"height": 20, "width": 20}}, r"makes pixels \(3, 20, 20\)"),
        (VIT | {"size": {"depth": 3}}, "makes no sense"),
        (VIT | SMALL | {"resample": 99}, "makes no sense"),
        (VIT | SMALL | {"image_mean": [1, 2]}, "makes no sense"),
        (VIT | SMALL | {"rescale_factor": "much"}, "makes no sense"),
    ],
)
def test_what_the_owner_says_wrongly_or_not_at_all(document: Any, words: str) -> None:
    bundle: Any = Bundled(ImageInfo(3, 24, 4), document)
    with pytest.raises(CheckpointError, match=words):
        pixels_of(picture((30, 30)), bundle)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    bundle: Any = Bundled(ImageInfo(3, 24, 4), VIT | SMALL)
    (tmp_path / "text.png").write_text("no image")
    for given in (tmp_path / "absent.png", tmp_path / "text.png", str(tmp_path)):
        with pytest.raises(RequestError, match="no image that can be read"):
            pixels_of(given, bundle)
    with pytest.raises(RequestError, match="takes no images"):
        pixels_of(picture((4, 4)), Bundled(None, {}))  # type: ignore[arg-type]


def test_an_image_that_is_smaller_than_its_middle_is_refused() -> None:
    document = CLIP | {"do_resize": False, "crop_size": 24}
    with pytest.raises(RequestError, match="give a larger one"):
        prepared(picture((20, 30)), processor_options(document), ImageInfo(3, 24, 4))


def test_without_pillow_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    bundle: Any = Bundled(ImageInfo(3, 24, 4), VIT | SMALL)
    with pytest.raises(SettingsError, match=r"pip install 'triparty\[images\]'"):
        pixels_of("photo.png", bundle)


def test_the_digits_of_the_test_data(test_data: Path) -> None:
    folder = test_data / "models" / "vit-mnist3-hf"
    document = json.loads((folder / "preprocessor_config.json").read_text())
    image = picture((50, 40), channels=1)
    processor = ViTImageProcessorPil.from_pretrained(folder)
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    got = prepared(image, processor_options(document), ImageInfo(1, 28, 7))
    assert np.abs(got - expected).max() <= TOLERANCE
