"""Object detectors in ONNX, for labels of traces: what stands where in a frame.

Three published forms are read, told apart by the shapes of their inputs and outputs; none is
guessed. Needs the extra `camera`.

| form | input | output |
|---|---|---|
| YOLOX, exported without its decoding step (https://github.com/Megvii-BaseDetection/YOLOX) | (1, 3, S, S) BGR 0..255, letterboxed with grey 114 | (1, cells, 5 + classes) |
| FastestDet (https://github.com/dog-qiuqiu/FastestDet) | (1, 3, S, S) BGR 0..1, stretched | (1, 5 + classes, cells, cells) |
| Ultra-Light face detector RFB (https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB) | (1, 3, H, W) RGB about -1..1, stretched | (1, n, 2) scores, (1, n, 4) boxes |
"""  # noqa: E501 - a table

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import SettingsError

if TYPE_CHECKING:
    import av

Floats = NDArray[np.float32]
OVERLAP = 0.5  # boxes of one class that share more than this are one object
MAX_CANDIDATES = 500
STRIDES = (8, 16, 32)


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector saw in one frame: k objects, the most certain first.

    Attributes:
        boxes: (k, 4) float32 left, top, right, bottom in shares of the frame.
        labels: (k,) int32 class.
        scores: (k,) float32 0 to 1.
    """

    boxes: Floats
    labels: NDArray[np.int32]
    scores: Floats


class Detector:
    """Runs one detector, one frame at a time, on one thread.

    Args:
        path: a single-file ONNX model of a form named above.
        least_score: what is less certain is dropped.

    Attributes:
        least_score: the same, now.
    """

    def __init__(self, path: Path, *, least_score: float = 0.35) -> None:
        """Loads the model.

        Raises:
            SettingsError: no such file, no ONNX model, or of no known form.
        """
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not path.is_file():
            raise SettingsError(f"{path}: no such detector")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise SettingsError(f"{path}: not an ONNX model ({error})") from error
        self._read = _form(self._session, path)
        self.least_score = least_score
        self.name = path.stem

    def detect(self, frame: av.VideoFrame) -> Detections:
        """What stands where in a frame."""
        boxes, classes = self._read(self._session, frame)
        labels = classes.argmax(axis=1).astype(np.int32)
        scores = classes.max(axis=1)
        kept = np.flatnonzero(scores >= self.least_score)
        kept = kept[np.argsort(-scores[kept], kind="stable")][:MAX_CANDIDATES]
        kept = kept[_distinct(boxes[kept], labels[kept])]
        return Detections(
            np.clip(boxes[kept], 0.0, 1.0).astype(np.float32),
            labels[kept],
            scores[kept].astype(np.float32),
        )


Reader = Callable[[Any, "av.VideoFrame"], tuple[Floats, Floats]]


def _form(session: Any, path: Path) -> Reader:
    """How a model is fed and read: boxes (n, 4) in shares, scores (n, classes)."""
    inputs = [one.shape for one in session.get_inputs()]
    outputs = [one.shape for one in session.get_outputs()]
    if len(inputs) == 1 and len(inputs[0]) == 4 and all(isinstance(n, int) for n in inputs[0]):
        _, channels, height, width = inputs[0]
        square = channels == 3 and height == width and height % STRIDES[-1] == 0
        cells = sum((height // stride) ** 2 for stride in STRIDES)
        if square and len(outputs) == 1:
            if len(outputs[0]) == 3 and outputs[0][1] == cells and outputs[0][2] > 5:
                return _yolox
            if len(outputs[0]) == 4 and outputs[0][2] == outputs[0][3] == height // 16:
                return _fastest
        pairs = channels == 3 and [len(shape) for shape in outputs] == [3, 3]
        if pairs and outputs[0][1:] == [outputs[1][1], 2] and outputs[1][2] == 4:
            return _faces
    raise SettingsError(
        f"{path}: inputs {inputs}, outputs {outputs}; expected YOLOX, FastestDet or the "
        "Ultra-Light face detector"
    )


def _pixels(frame: av.VideoFrame, width: int, height: int, form: str) -> NDArray[np.uint8]:
    """(height, width, 3) uint8."""
    pixels = frame.to_ndarray(width=width, height=height, format=form, interpolation="BILINEAR")
    return pixels.astype(np.uint8, copy=False)


def _planes(pixels: NDArray[np.floating[Any]]) -> Floats:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)


def _run(session: Any, planes: Floats) -> list[Floats]:
    answer: list[Floats] = session.run(None, {session.get_inputs()[0].name: planes})
    return answer


def _yolox(session: Any, frame: av.VideoFrame) -> tuple[Floats, Floats]:
    side = session.get_inputs()[0].shape[2]
    scale = min(side / frame.width, side / frame.height)
    width, height = round(frame.width * scale), round(frame.height * scale)
    canvas = np.full((side, side, 3), 114, dtype=np.uint8)
    canvas[:height, :width] = _pixels(frame, width, height, "bgr24")
    out = _run(session, _planes(canvas.astype(np.float32)))[0][0]
    grid, stride = _cells(side)
    centre = (out[:, :2] + grid) * stride
    half = np.exp(out[:, 2:4]) * stride / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    shares = boxes / np.array([width, height] * 2)
    return shares.astype(np.float32), out[:, 4:5] * out[:, 5:]


def _cells(side: int) -> tuple[Floats, Floats]:
    """Column and row (cells, 2) and stride (cells, 1) of every cell of the three grids."""
    grids, strides = [], []
    for stride in STRIDES:
        count = side // stride
        rows, columns = np.divmod(np.arange(count * count), count)
        grids.append(np.stack([columns, rows], axis=1))
        strides.append(np.full((count * count, 1), stride))
    return np.concatenate(grids).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _fastest(session: Any, frame: av.VideoFrame) -> tuple[Floats, Floats]:
    side = session.get_inputs()[0].shape[2]
    pixels = _pixels(frame, side, side, "bgr24").astype(np.float32) / 255
    out = _run(session, _planes(pixels))[0][0]
    count = out.shape[1]
    out = out.reshape(len(out), -1).T
    rows, columns = np.divmod(np.arange(count * count), count)
    centre = np.stack([columns, rows], axis=1) + np.tanh(out[:, 1:3])
    half = 0.5 / (1 + np.exp(-out[:, 3:5]))
    boxes = np.concatenate([centre / count - half, centre / count + half], axis=1)
    return boxes.astype(np.float32), out[:, :1] ** 0.6 * out[:, 5:] ** 0.4


def _faces(session: Any, frame: av.VideoFrame) -> tuple[Floats, Floats]:
    height, width = session.get_inputs()[0].shape[2:]
    pixels = (_pixels(frame, width, height, "rgb24").astype(np.float32) - 127) / 128
    scores, boxes = _run(session, _planes(pixels))
    return boxes[0], scores[0][:, 1:]


def _distinct(boxes: Floats, labels: NDArray[np.int32]) -> NDArray[np.intp]:
    """Indices of boxes, ordered by score, that repeat none of their class before them."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    open_ = np.ones(len(boxes), dtype=bool)
    kept = []
    for i in range(len(boxes)):
        if not open_[i]:
            continue
        kept.append(i)
        low = np.maximum(boxes[i, :2], boxes[:, :2])
        high = np.minimum(boxes[i, 2:], boxes[:, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        open_ &= ~((labels == labels[i]) & (shared > OVERLAP * (area + area[i] - shared)))
    return np.array(kept, dtype=np.intp)
