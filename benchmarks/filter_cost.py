"""What filters cost: one input on one thread, beside the models that they are to spare."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.harness import Case, Effort, case
from triparty.common.nets.design import Design
from triparty.common.nets.inputs import InputSpec
from triparty.device.filters.cache import CacheSettings, ReuseCache

VECTOR = InputSpec("x", "vector", (128, 9))
SERIES = InputSpec("x", "series", (128, 9))
IMAGE = InputSpec("x", "image", (224, 224, 3))
CALLS = 60


def shortest(call: Callable[[], object]) -> float:
    """Milliseconds of the fastest of many calls: other programs only ever add time."""
    call()
    taken = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return 1000 * min(taken)


@lru_cache
def file(spec: InputSpec, resolution: int = 112) -> bytes:
    """The network of a filter with random weights, which cost as much as trained ones."""
    from triparty.common.nets.export import to_onnx
    from triparty.common.nets.network import FilterNetwork

    return to_onnx(FilterNetwork(Design("skip", (spec,), resolution=resolution)))


def runner(model: bytes, value: Any) -> Callable[[], object]:
    """A call of a model on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: value})


def one(spec: InputSpec) -> Any:
    """An input of noise."""
    return np.random.default_rng(0).random((1, *spec.shape), np.float32)


@lru_cache
def mobilenet() -> bytes:
    """MobileNetV1 (Howard et al., 2017), width 1, with norms folded into convolutions."""
    import warnings

    import torch
    from torch import nn

    def layers(channels: int, filters: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(channels, channels, 3, stride, 1, groups=channels),
            nn.ReLU(),
            nn.Conv2d(channels, filters, 1),
            nn.ReLU(),
        ]

    plan = [(32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1)]
    plan += [(256, 512, 2), *[(512, 512, 1)] * 5, (512, 1024, 2), (1024, 1024, 1)]
    body = [part for sizes in plan for part in layers(*sizes)]
    first = [nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU()]
    last = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000)]
    buffer: Any = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            nn.Sequential(*first, *body, *last).eval(),
            (torch.zeros(1, 3, 224, 224),),
            buffer,
            input_names=["x"],
            dynamo=False,
        )
    return bytes(buffer.getvalue())


def quantised(model: bytes, spec: InputSpec) -> bytes:
    """The same with 8-bit weights and activations, ranges taken from noise."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            self._left = [rng.random((1, *spec.shape), np.float32) for _ in range(4)]

        def get_next(self) -> Any:
            return {"x": self._left.pop()} if self._left else None

    with TemporaryDirectory() as folder:
        plain, ready, made = (Path(folder) / f"{name}.onnx" for name in ("a", "b", "c"))
        plain.write_bytes(model)
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        quantize_static(str(ready), str(made), Reader(), quant_format=QuantFormat.QDQ)
        return made.read_bytes()


def _times(spec: InputSpec) -> Callable[[Effort], Iterable[float]]:
    def runs(effort: Effort) -> Iterable[float]:
        call = runner(file(spec), one(spec))
        return [1000 * shortest(call) for _ in range(effort.runs)]

    return runs


def _image_share(effort: Effort) -> Iterable[float]:
    ours = runner(file(IMAGE), one(IMAGE))
    theirs = runner(mobilenet(), np.zeros((1, 3, 224, 224), np.float32))
    return [100 * shortest(ours) / shortest(theirs) for _ in range(effort.runs)]


def _published_image_share(effort: Effort) -> Iterable[float]:
    ours = runner(file(IMAGE, 0), one(IMAGE))
    theirs = runner(mobilenet(), np.zeros((1, 3, 224, 224), np.float32))
    return [100 * shortest(ours) / shortest(theirs) for _ in range(effort.runs)]


def _int8(spec: InputSpec) -> Callable[[Effort], Iterable[float]]:
    def runs(effort: Effort) -> Iterable[float]:
        plain, small = (
            runner(file(spec), one(spec)),
            runner(quantised(file(spec), spec), one(spec)),
        )
        return [shortest(small) / shortest(plain) for _ in range(effort.runs)]

    return runs


def _lookup(effort: Effort) -> Iterable[float]:
    rng = np.random.default_rng(0)
    cache = ReuseCache(200, CacheSettings(1000))
    for place in range(1000):
        cache.put(rng.random(200, np.float32), place % 6)
    key = rng.random(200, np.float32)
    return [shortest(lambda: cache.look(key)) for _ in range(effort.runs)]


COST: tuple[Case, ...] = (
    case(
        "vector filter, 128 x 9 window, one input",
        unit="us",
        better="lower",
        target=50.0,
        reference="thesis 3.5.4: on-device cost of a filter, milliseconds on phones",
    )(_times(VECTOR)),
    case("series filter, 128 x 9 window, one input", unit="us", better="lower")(_times(SERIES)),
    case(
        "image filter, 224 x 224 averaged to 112, share of a float MobileNetV1",
        unit="%",
        better="lower",
        target=25.0,
        reference="the base network of FilterForward",
    )(_image_share),
    case(
        "image filter, 224 x 224 as published, share of a float MobileNetV1",
        unit="%",
        better="lower",
    )(_published_image_share),
    case(
        "reuse cache, lookup among 1000 entries of 200 numbers",
        unit="ms",
        better="lower",
        target=1.0,
        reference="thesis table 3.4 fits a lookup of 6 ms",
    )(_lookup),
    case("int8 vector filter, time over float", unit="x", better="lower", target=1.0)(
        _int8(VECTOR)
    ),
    case("int8 series filter, time over float", unit="x", better="lower", target=1.0)(
        _int8(SERIES)
    ),
    case("int8 image filter, time over float", unit="x", better="lower", target=1.0)(
        _int8(IMAGE)
    ),
)
