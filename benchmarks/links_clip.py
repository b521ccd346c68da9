"""Five models on a real clip, frame by frame: what they say, what they take, how it looks.

People walk by one by one. YOLOX-nano and FastestDet count persons, another YOLOX-nano anything
else that it knows, the Ultra-Light detector faces, MobileNet tells the class of a picture (the
six most frequent of what is learnt from, or another). It is kept under build/links; remove that
to make it anew.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.gating_traces import data
from benchmarks.harness import ROOT
from triparty.common.links.planning.costs import Cost, costs_bytes, read_costs
from triparty.common.links.recorded import Recorded, check_recorded
from triparty.common.links.specs import Vec
from triparty.device.gate.detectors import Detections, Detector
from triparty.device.links.loading import Loading
from triparty.device.links.nodes import Node, onnx_node

CACHE: Final = ROOT / "build" / "links"
CLIP: Final = "one-by-one-person-detection.mp4"
EVERY: Final = 2
BLOCK: Final = 25  # frames, 5 seconds
FIFTH: Final = 5
CLASSES: Final = 6
PERSON: Final = 0
LUMA: Final = (128, 72)
Rows = NDArray[np.intp]
COUNT: Final = Vec("regression", 1, tolerance=0.5)


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of a clip as models and baselines see them.

    Attributes:
        recorded: outputs of all models.
        costs: of each, measured here.
        luma: (n, 72, 128) uint8.
    """

    recorded: Recorded
    costs: dict[str, Cost]
    luma: NDArray[np.uint8]

    @property
    def parts(self) -> tuple[Rows, Rows, Rows]:
        """Frames that links learn from, that plans are chosen on, and that are tested."""
        rows = np.arange(len(self.luma))
        block = rows // BLOCK
        is_known = block % FIFTH == 0
        is_kept = is_known & (block % (3 * FIFTH) == FIFTH)
        return rows[is_known & ~is_kept], rows[is_kept], rows[~is_known]


@lru_cache
def clip() -> Clip:
    """The clip, from build/links or made anew."""
    if not (CACHE / "luma.npy").exists():
        _make()
    luma = np.load(CACHE / "luma.npy", allow_pickle=False)
    return Clip(Recorded.open(CACHE / "recorded"), read_costs(CACHE / "costs.json"), luma)


def _make() -> None:
    print("links: running five models over a clip ...", file=sys.stderr, flush=True)
    loadings = {node.name: Loading(node, retry_s=0.0) for node in _nodes()}
    rows: dict[str, list[Any]] = {name: [] for name in loadings}
    luma = []
    for frame in _frames(data() / "clips" / CLIP):
        for name, loading in loadings.items():
            rows[name].append(loading.run(frame)[1])
        luma.append(frame.to_ndarray(width=LUMA[0], height=LUMA[1], format="gray"))
    outputs = {name: np.stack(each) for name, each in rows.items()}
    specs = {name: loading.node.spec for name, loading in loadings.items()}
    specs["scene"], outputs["scene"] = _scenes(outputs["scene"])
    check_recorded(specs, outputs).save(CACHE / "recorded")
    costs = {name: cost for name, one in loadings.items() if (cost := one.cost) is not None}
    (CACHE / "costs.json").write_bytes(costs_bytes(costs))
    np.save(CACHE / "luma.npy", np.stack(luma))


def _nodes() -> Iterator[Node]:
    folder = data() / "models"

    def detector(name: str, file: str, keeps: Callable[[Detections], int]) -> Node:
        def load() -> Callable[[Any], int]:
            made = Detector(folder / "detectors" / file)
            return lambda frame: keeps(made.detect(frame))

        return Node(name, COUNT, load)

    yield detector("persons", "yolox_nano.onnx", lambda d: int((d.labels == PERSON).sum()))
    yield detector("persons-fast", "FastestDet.onnx", lambda d: int((d.labels == PERSON).sum()))
    yield detector("things", "yolox_nano.onnx", lambda d: int((d.labels != PERSON).sum()))
    yield detector("faces", "version-RFB-320.onnx", lambda d: len(d.labels))
    yield onnx_node(
        "scene",
        Vec("regression", 1),
        folder / "mobilenet" / "mobilenet_v2_1.0_224_quant.onnx",
        prepare=_planes,
        encode=lambda scores: np.array([np.argmax(scores)]),
    )


def _planes(frame: Any) -> NDArray[np.float32]:
    pixels = frame.to_ndarray(width=224, height=224, format="rgb24").astype(np.float32)
    return np.ascontiguousarray((pixels / 127.5 - 1.0).transpose(2, 0, 1)[None])


def _scenes(classes: NDArray[Any]) -> tuple[Vec, NDArray[np.float32]]:
    """Shares of the most frequent classes of the frames that are learnt from, and of others."""
    numbers = classes[:, 0].astype(int)
    learnt = Counter(numbers[np.arange(len(numbers)) // BLOCK % FIFTH == 0].tolist())
    known = [number for number, _ in learnt.most_common(CLASSES)]
    shares = np.zeros((len(numbers), len(known) + 1), np.float32)
    places = [known.index(one) if one in known else len(known) for one in numbers.tolist()]
    shares[np.arange(len(numbers)), places] = 1.0
    return Vec("single-label", len(known) + 1), shares


def _frames(path: Path) -> Iterator[Any]:
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number % EVERY == 0:
                yield frame
