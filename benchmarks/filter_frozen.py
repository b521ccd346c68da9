"""FilterForward's way: features of a frozen pretrained network, and a small classifier on them.

The pretrained networks at hand: MobileNetV2 (ImageNet) for pictures, cut at stride 16 as
FilterForward cuts MobileNetV1 in its middle; YAMNet (AudioSet) for sounds. For body motion,
WiFi and text there is none. The classifier is FilterForward's for full frames: two convolutions
of 1 x 1, the largest of their map.
"""

from __future__ import annotations

import sys
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.filter_clips import CACHE, frames, session
from benchmarks.filter_data import esc10
from benchmarks.gating_traces import data
from triparty.device.filters.partition import split_model

MOBILENET_LAYER = "t113"  # of MobileNetV2: 64 maps of 14 x 14
YAMNET_LAYER = "t90"  # of YAMNet: its embedding of 1024 numbers
YAMNET_FRAMES = 96
PASSES = 25
Maps = NDArray[np.float32]


@lru_cache
def mobilenet_maps(name: str) -> Maps:
    """(n, 64, 14, 14) of the frames of a clip of `filter_clips`."""
    kept = CACHE / f"{name}-mobilenet.npy"
    if not kept.exists():
        print(f"MobileNetV2 on {name} ...", file=sys.stderr, flush=True)
        made = []
        run = mobilenet_half()
        for frame in frames(name):
            made.append(run(as_mobilenet(frame)).astype(np.float16)[0])
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, np.stack(made))
    return np.asarray(np.load(kept, allow_pickle=False), np.float32)


def as_mobilenet(frame: Any) -> NDArray[np.float32]:
    """(1, 3, 224, 224) in [-1, 1]."""
    pixels = frame.to_ndarray(width=224, height=224, format="rgb24", interpolation="BILINEAR")
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / 127.5 - 1.0


def mobilenet_half() -> Any:
    """MobileNetV2 up to its layer, as a call."""
    return _first_half("mobilenet/mobilenet_v2_1.0_224_quant.onnx", MOBILENET_LAYER)


@lru_cache
def yamnet_embeddings() -> Maps:
    """(320, 1024, 1, 1) of ESC-10.

    Its spectra are of other frames (128 in 5 s) and bands than those that YAMNet learnt from
    (96 in 0.96 s), so that a sound looks faster to it than it is; the levels are converted.
    """
    task = esc10()
    decibels = task.inputs * 80.0 - 80.0
    levels = np.log(10.0 ** (decibels / 10.0) + 1e-3).astype(np.float32)
    run = _first_half("yamnet/yamnet_spectra_in.onnx", YAMNET_LAYER)
    last = levels.shape[1] - YAMNET_FRAMES
    crops = [levels[:, start : start + YAMNET_FRAMES] for start in (0, last)]
    made = [np.mean([run(crop[row : row + 1])[0] for crop in crops], axis=0)
            for row in range(len(levels))]  # fmt: skip
    return np.stack(made).astype(np.float32)


def _first_half(file: str, layer: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both halves stay here
        halves = split_model((data() / "models" / file).read_bytes(), layer)
    half = session(halves.first)
    name = half.get_inputs()[0].name
    return lambda value: half.run(None, {name: value})[0]


def micro_scores(
    maps: Maps, needed: NDArray[np.bool_], learned: Any, tested: Any, seed: int
) -> NDArray[np.float64]:
    """(tested,) logits of a small classifier trained on the frozen features."""
    import torch
    from torch import nn

    offset, spread = maps[learned].mean((0, 2, 3)), maps[learned].std((0, 2, 3)) + 1e-6
    values = torch.from_numpy((maps - offset[:, None, None]) / spread[:, None, None])
    truth = torch.from_numpy(needed.astype(np.float32))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(maps.shape[1], 32, 1), nn.ReLU(), nn.Conv2d(32, 1, 1))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
        rows = torch.from_numpy(np.asarray(learned))
        for _ in range(PASSES):
            for batch in torch.split(rows[torch.randperm(len(rows))], 32):
                optimizer.zero_grad()
                logits = model(values[batch]).amax((1, 2, 3))
                loss = nn.functional.binary_cross_entropy_with_logits(logits, truth[batch])
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            scores = model(values[torch.from_numpy(np.asarray(tested))]).amax((1, 2, 3))
    return np.asarray(scores.numpy(), np.float64)
