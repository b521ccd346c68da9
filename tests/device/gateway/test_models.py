"""Models as stages: detectors in ONNX and Python functions; pixels as they ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from triparty.device.gate.detectors import Detections, Detector
from triparty.device.gateway.frames import StreamFrame
from triparty.device.gateway.models import DetectorStage, FunctionStage, make_stage
from triparty.device.gateway.settings import ModelSettings


def frame(image: av.VideoFrame, models: frozenset[str] | None = None) -> StreamFrame:
    return StreamFrame("yard", 0, 0, 0, 0.0, 0.0, True, image, models=models)


def picture(form: str = "yuv420p", width: int = 50, height: int = 30) -> av.VideoFrame:
    rgb = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=form)


@pytest.mark.parametrize("form", ["yuv420p", "yuvj420p", "yuv444p", "nv12", "gray", "rgb24"])
def test_luma_is_what_ffmpeg_calls_gray(form: str) -> None:
    image = picture(form)
    luma = frame(image).luma()
    assert luma.shape == (30, 50)
    if form not in ("gray", "rgb24"):
        plane = image.to_ndarray(format=form).reshape(-1)[: 30 * 50].reshape(30, 50)
        np.testing.assert_array_equal(luma, plane)
    else:
        np.testing.assert_array_equal(luma, image.to_ndarray(format="gray"))


def test_deep_luma_is_brought_to_eight_bits() -> None:
    luma = frame(picture("yuv420p10le")).luma()
    assert luma.shape == (30, 50)
    assert luma.dtype == np.uint8


def test_rgb_is_converted_once() -> None:
    one = frame(picture())
    assert one.rgb() is one.rgb()
    np.testing.assert_array_equal(one.rgb(), one.image.to_ndarray(format="rgb24"))


def test_a_detector_looks_at_the_cameras_that_ask_it(test_data: Path) -> None:
    path = test_data / "models" / "detectors" / "yolox_nano.onnx"
    settings = ModelSettings(name="m", file=path)
    stage = make_stage(settings, Path())
    assert isinstance(stage, DetectorStage)
    with av.open(str(test_data / "clips" / "bottle-detection.mp4")) as clip:
        images = [image for image, _ in zip(clip.decode(video=0), range(41), strict=False)]
    shown = [frame(images[40], frozenset({name})) for name in ("m", "n")]
    asked, other = stage.process(shown)
    seen = asked.seen["m"]
    assert isinstance(seen, Detections)
    assert 39 in seen.labels
    expected = Detector(path).detect(images[40])
    np.testing.assert_array_equal(seen.boxes, expected.boxes)
    assert not other.seen


def stage_of(answer: Any) -> FunctionStage:
    return FunctionStage("m", lambda rgb: answer)


def test_a_function_gets_pixels() -> None:
    stage = FunctionStage("m", lambda rgb: float(rgb[0, 0, 0]))
    one = frame(picture())
    assert stage.process([one])[0].seen == {"m": float(one.rgb()[0, 0, 0])}


@pytest.mark.parametrize("answer", [3, 2.5, True, np.float32(1.5)])
def test_a_function_may_return_a_number(answer: Any) -> None:
    assert stage_of(answer).process([frame(picture())])[0].seen == {"m": float(answer)}


def test_a_function_may_return_objects_and_the_surest_comes_first() -> None:
    objects = [(1, 0.5, (0, 0, 1, 1)), (2, 0.9, (0, 0, 0.5, 0.5))]
    seen = stage_of(objects).process([frame(picture())])[0].seen["m"]
    assert isinstance(seen, Detections)
    assert seen.labels.tolist() == [2, 1]
    assert seen.boxes.shape == (2, 4)
    assert stage_of([]).process([frame(picture())])[0].seen["m"].boxes.shape == (0, 4)


@pytest.mark.parametrize("answer", [None, "cat", {"a": 1}, [(1, 0.5)]])
def test_a_function_that_returns_something_else_is_an_error(answer: Any) -> None:
    with pytest.raises((TypeError, IndexError)):
        stage_of(answer).process([frame(picture())])


def test_a_function_is_found_by_name() -> None:
    settings = ModelSettings(name="m", python="math:prod")
    stage = make_stage(settings, Path())
    assert isinstance(stage, FunctionStage)
