"""Real detectors see in real clips what is there, and nothing else is taken for a detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")
pytest.importorskip("onnxruntime")

from triparty.common.errors import SettingsError  # noqa: E402
from triparty.device.gate.detectors import Detector, _distinct  # noqa: E402

PERSON, BOTTLE, FACE = 0, 39, 0


def frame_of(clip: Path, number: int) -> av.VideoFrame:
    with av.open(str(clip)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index == number:
                return frame
    raise AssertionError("the clip is shorter")


@pytest.mark.parametrize(
    ("model", "clip", "number", "label", "least"),
    [
        ("yolox_nano", "bottle-detection", 40, BOTTLE, 1),
        ("FastestDet", "bottle-detection", 40, BOTTLE, 1),
        ("version-RFB-320", "one-by-one-person-detection", 290, FACE, 1),
    ],
)
def test_a_detector_sees_what_is_there(
    test_data: Path, model: str, clip: str, number: int, label: int, least: int
) -> None:
    detector = Detector(test_data / "models" / "detectors" / f"{model}.onnx")
    seen = detector.detect(frame_of(test_data / "clips" / f"{clip}.mp4", number))
    assert (seen.labels == label).sum() >= least
    assert (seen.boxes[:, :2] < seen.boxes[:, 2:]).all()
    assert ((seen.boxes >= 0) & (seen.boxes <= 1)).all()
    assert (np.diff(seen.scores) <= 0).all()


@pytest.mark.parametrize("model", ["yolox_nano", "FastestDet"])
def test_boxes_follow_a_mirrored_frame(test_data: Path, model: str) -> None:
    detector = Detector(test_data / "models" / "detectors" / f"{model}.onnx")
    frame = frame_of(test_data / "clips" / "bottle-detection.mp4", 40)
    mirrored = av.VideoFrame.from_ndarray(
        np.ascontiguousarray(frame.to_ndarray(format="rgb24")[:, ::-1]), format="rgb24"
    )
    one = detector.detect(frame)
    other = detector.detect(mirrored)
    left, right = (centres_of(seen.boxes[seen.labels == BOTTLE]) for seen in (one, other))
    gaps = np.abs(left[:, None] - (1 - right[None]))
    assert gaps.min(axis=1).min() < 0.02


def centres_of(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 0] + boxes[:, 2]) / 2


def test_what_overlaps_in_one_class_is_one_object() -> None:
    boxes = np.array(
        [[0, 0, 1, 1], [0, 0.1, 1, 1], [0, 0.6, 1, 1.6], [0, 0, 1, 1]], dtype=np.float32
    )
    labels = np.array([1, 1, 1, 2], dtype=np.int32)
    assert _distinct(boxes, labels).tolist() == [0, 2, 3]


def test_another_model_is_no_detector(test_data: Path, tmp_path: Path) -> None:
    classifier = next((test_data / "models" / "mobilenet").glob("*.onnx"))
    with pytest.raises(SettingsError, match="expected YOLOX"):
        Detector(classifier)
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(SettingsError, match="not an ONNX model"):
        Detector(tmp_path / "text.onnx")
    with pytest.raises(SettingsError, match="no such detector"):
        Detector(tmp_path / "absent.onnx")
