"""What models say of motion and of sounds, for links: rows that none of them learnt from.

Motion (UCI HAR): windows of 2.56 s of nine people. `activity`, one of six, and `moving`, or
not, are said by networks that learnt from nine others, the first from acceleration and turning,
the second from acceleration along one axis; `pace`, in 1/s, by a function, by autocorrelation.

Sounds (ESC-10): log-mel pictures of 5 s. `events` are YAMNet's scores (its 32 likeliest of 521
here), `sound`, one of ten, and `alarm` (a crying baby, a sneeze, a fire, or none) are said by
networks that learnt from half of the folds. KWT-1 and Silero take waveforms, of which there are
none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.filter_clips import session
from benchmarks.gating_traces import data
from benchmarks.links_data import BLOCK, CACHE, Workload
from triparty.common.links.recorded import check_recorded
from triparty.common.links.specs import OutputSpec, Vec

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]

EVENTS: Final = 32
MOTION: Final[dict[str, OutputSpec]] = {
    "activity": Vec("single-label", 6),
    "moving": Vec("single-label", 2),
    "pace": Vec("regression", 1, tolerance=0.25),
}
SOUNDS: Final[dict[str, OutputSpec]] = {
    "events": Vec("multi-label", EVENTS),
    "sound": Vec("single-label", 10),
    "alarm": Vec("single-label", 4),
}
ALARMS: Final = (12, 20, 21)  # of ESC-50: crackling fire, crying baby, sneezing
TAUGHT_FOLDS: Final = (1, 2)
_RATE_HZ: Final = 50.0
_PACES_HZ: Final = (0.6, 3.0)
_LEAST_PEAK: Final = 0.3  # of the autocorrelation: below it nobody walks
_ACCELERATION: Final = slice(0, 3)
_YAMNET_FRAMES: Final = 96
_EPOCHS: Final = 25


@lru_cache
def motion() -> Workload:
    """HAR's official test windows."""
    with np.load(data() / "sets" / "uci_har" / "uci_har_inertial_5347.npz") as found:
        inputs = found["x"].astype(np.float32).transpose(0, 2, 1)
        labels, who = found["y"].astype(np.int64), found["subject"].astype(np.int64)
        is_seen = found["official_test"].astype(bool)
    windows = inputs[is_seen]

    def said() -> dict[str, Floats]:
        walks = (labels < 3).astype(np.int64)
        return {
            "activity": _classifier(inputs, labels, ~is_seen, seed=0)[is_seen],
            "moving": _classifier(inputs[:, :1], walks, ~is_seen, seed=1)[is_seen],
            "pace": paces(windows[:, _ACCELERATION])[:, None],
        }

    place = np.concatenate(
        [np.arange((who[is_seen] == one).sum()) for one in _order(who[is_seen])]
    )
    block = np.unique(who[is_seen] * 10_000 + place // BLOCK, return_inverse=True)[1]
    return Workload(check_recorded(MOTION, _kept("motion", said)), windows, block)


@lru_cache
def sounds() -> Workload:
    """ESC-10's folds that no network learnt from."""
    with np.load(data() / "sets" / "esc10_logmel" / "esc10_logmel_320.npz") as found:
        levels, labels = found["x"], found["y"].astype(np.int64)
        is_taught = np.isin(found["fold"], TAUGHT_FOLDS)
    inputs = levels[:, None].astype(np.float32) / 255.0
    sound = np.unique(labels, return_inverse=True)[1]
    alarm = np.select([labels == one for one in ALARMS], (1, 2, 3), 0)

    def said() -> dict[str, Floats]:
        return {
            "events": _yamnet(levels[~is_taught]),
            "sound": _classifier(inputs, sound, is_taught, seed=0)[~is_taught],
            "alarm": _classifier(inputs, alarm, is_taught, seed=1)[~is_taught],
        }

    block = np.arange((~is_taught).sum())
    return Workload(check_recorded(SOUNDS, _kept("sounds", said)), inputs[~is_taught], block)


def paces(acceleration: Floats) -> Floats:
    """(n,) steps in 1/s of windows (n, 3, t): the lag at which the length repeats; or 0."""
    length = np.linalg.norm(acceleration, axis=1)
    length = length - length.mean(axis=1, keepdims=True)
    padded = np.fft.rfft(length, 2 * length.shape[1], axis=1)
    repeats = np.fft.irfft(np.abs(padded) ** 2, axis=1)[:, : length.shape[1]]
    repeats = repeats / np.maximum(repeats[:, :1], 1e-9)
    first, last = (round(_RATE_HZ / pace) for pace in reversed(_PACES_HZ))
    part = repeats[:, first : last + 1]
    found = _RATE_HZ / (first + part.argmax(axis=1))
    made: Floats = np.where(part.max(axis=1) >= _LEAST_PEAK, found, 0.0).astype(np.float32)
    return made


def _kept(name: str, make: Callable[[], dict[str, Floats]]) -> dict[str, Floats]:
    """Outputs from build/links, or made and kept there."""
    path = CACHE / f"{name}.npz"
    if not path.exists():
        print(f"training and running models on {name} ...", file=sys.stderr, flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            np.savez(stream, **make())
    with np.load(path, allow_pickle=False) as found:
        return {key: found[key] for key in found.files}


def _order(who: Numbers) -> list[int]:
    """People in the order of the rows, each of whom has one stretch."""
    return who[np.sort(np.unique(who, return_index=True)[1])].tolist()


def _yamnet(levels: NDArray[np.uint8]) -> Floats:
    """(n, EVENTS) scores; see `filter_frozen.yamnet_embeddings` on other frames and bands."""
    run = session((data() / "models" / "yamnet" / "yamnet_spectra_in.onnx").read_bytes())
    name = run.get_inputs()[0].name
    decibels = levels.astype(np.float32).transpose(0, 2, 1) / 255.0 * 80.0 - 80.0
    spectra = np.log(10.0 ** (decibels / 10.0) + 1e-3).astype(np.float32)
    last = spectra.shape[1] - _YAMNET_FRAMES
    crops = [spectra[:, start : start + _YAMNET_FRAMES] for start in (0, last)]
    scores = np.mean(
        [[run.run(None, {name: one[None]})[0][0] for one in crop] for crop in crops], axis=0
    )
    likeliest = np.sort(scores.mean(axis=0).argsort()[::-1][:EVENTS])
    made: Floats = np.clip(scores[:, likeliest], 0, 1).astype(np.float32)
    return made


def _classifier(
    inputs: Floats, labels: Numbers, taught: NDArray[np.bool_], *, seed: int
) -> Floats:
    """(n, classes) shares that a small network, taught by some rows, gives all."""
    import torch
    from torch import nn

    rows = np.flatnonzero(taught)
    axes = (0, *range(2, inputs.ndim))
    mean = inputs[rows].mean(axes, keepdims=True)
    values = torch.from_numpy((inputs - mean) / (inputs[rows].std(axes, keepdims=True) + 1e-6))
    truth = torch.from_numpy(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = small_network(inputs.shape[1:], int(labels.max()) + 1)
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, weight_decay=1e-4)
        for _ in range(_EPOCHS):
            for batch in torch.from_numpy(rows)[torch.randperm(len(rows))].split(32):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(network(values[batch]), truth[batch])
                torch.autograd.backward(loss)
                optimizer.step()
        with torch.no_grad():
            parts = [network(part).softmax(1) for part in values.split(256)]
    made: Floats = torch.cat(parts).numpy()
    return made


def small_network(shape: tuple[int, ...], outputs: int) -> Any:
    """Two convolutions over windows (channels, t) or pictures (channels, height, width)."""
    from torch import nn

    if len(shape) == 2:
        layers = [
            nn.Conv1d(shape[0], 16, 5, stride=2), nn.ReLU(), nn.Conv1d(16, 32, 5, stride=2),
            nn.ReLU(), nn.AdaptiveAvgPool1d(16), nn.Flatten(), nn.Linear(512, outputs),
        ]  # fmt: skip
    else:
        layers = [
            nn.Conv2d(shape[0], 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2),
            nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, outputs),
        ]  # fmt: skip
    return nn.Sequential(*layers)
