"""Low-level features of inputs: what can be had of them without learning anything.

| modality | features |
|---|---|
| text | how often each of the 300 most frequent words is in it |
| image, video | 8 directions of edges in 4 x 4 fields (SIFT's descriptor of the whole picture), and their brightness |
| audio | mean and deviation of 13 cepstral coefficients (MFCC) |
| series | mean and deviation of every signal over time |
| vector | the numbers; of feature maps mean and largest by map |
"""  # noqa: E501 - a table

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triparty.common.nets.inputs import InputSpec
from triparty.common.nets.samples import Inputs

Features = NDArray[np.float32]
_WORDS: Final = 300
_FIELDS: Final = 4
_DIRECTIONS: Final = 8
_CEPSTRAL: Final = 13
_BANDS: Final = 40
_FRAME: Final = 512  # samples of a waveform that one spectrum is of


def low_level(inputs: Inputs, specs: tuple[InputSpec, ...]) -> Features:
    """(n, k) low-level features, those of all modalities side by side.

    Args:
        inputs: as the network of a filter takes them.
        specs: their modalities.
    """
    made = [_one(inputs.columns[spec.name], spec) for spec in specs]
    return np.concatenate(made, axis=1).astype(np.float32)


def scaled(features: Features, learned: NDArray[np.int64]) -> Features:
    """The same with mean 0 and deviation 1 of the rows that are learnt from."""
    offset, spread = features[learned].mean(axis=0), features[learned].std(axis=0)
    return np.asarray((features - offset) / (spread + 1e-6), np.float32)


def descriptors(pictures: NDArray[Any]) -> Features:
    """(n, 144) of grey pictures (n, rows, columns): edges by direction, brightness."""
    grey = pictures.astype(np.float32)
    down, across = np.gradient(grey, axis=(1, 2))
    strength = np.hypot(down, across)
    direction = ((np.arctan2(down, across) / (2 * np.pi)) % 1.0 * _DIRECTIONS).astype(np.int64)
    parts = [_fields(strength * (direction == one)) for one in range(_DIRECTIONS)]
    edges = np.concatenate(parts, axis=1)
    edges /= np.linalg.norm(edges, axis=1, keepdims=True) + 1e-6
    return np.concatenate([edges, _fields(grey) / 255.0], axis=1).astype(np.float32)


def cepstral(levels: NDArray[Any]) -> Features:
    """(n, 26) of spectra in decibels or their like (n, bands, time)."""
    bands = levels.shape[1]
    angles = np.pi / bands * (np.arange(bands) + 0.5)
    basis = np.cos(np.arange(min(_CEPSTRAL, bands))[:, None] * angles[None])
    made = np.einsum("cb,nbt->nct", basis, levels.astype(np.float64))
    return np.concatenate([made.mean(axis=2), made.std(axis=2)], axis=1).astype(np.float32)


def _one(column: NDArray[Any], spec: InputSpec) -> Features:
    if spec.modality == "text":
        return _words(column, spec.vocabulary)
    if spec.modality in ("image", "video"):
        return _pictures(column, spec)
    if spec.modality == "audio":
        return cepstral(column if column.ndim == 3 else _spectra(column))
    if spec.modality == "series":
        return np.concatenate([column.mean(axis=1), column.std(axis=1)], axis=1)
    if column.ndim == 4:
        return np.concatenate([column.mean(axis=(2, 3)), column.max(axis=(2, 3))], axis=1)
    return column.reshape(len(column), -1)


def _words(column: NDArray[Any], vocabulary: int) -> Features:
    counts = np.bincount(column.ravel(), minlength=vocabulary)
    frequent = counts[1:].argsort()[::-1][:_WORDS] + 1  # 0 is padding
    found = [(column == word).sum(axis=1) for word in frequent]
    return np.stack(found, axis=1).astype(np.float32)


def _pictures(column: NDArray[Any], spec: InputSpec) -> Features:
    """Of each frame by itself, side by side."""
    frames = column if spec.modality == "video" else column[:, None]
    grey = frames.mean(axis=-1 if spec.has_channels_last else -3, dtype=np.float32)
    made = [descriptors(grey[:, number]) for number in range(grey.shape[1])]
    return np.concatenate(made, axis=1)


def _fields(pictures: NDArray[Any]) -> Features:
    """(n, 16) means of 4 x 4 fields."""
    rows = np.array_split(pictures, _FIELDS, axis=1)
    means = [
        part.mean(axis=(1, 2)) for row in rows for part in np.array_split(row, _FIELDS, axis=2)
    ]
    return np.stack(means, axis=1).astype(np.float32)


def _spectra(waves: NDArray[Any]) -> Features:
    """(n, bands, time) logarithms of power in bands that are equally wide."""
    count = waves.shape[1] // _FRAME
    frames = waves[:, : count * _FRAME].reshape(len(waves), count, _FRAME)
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(_FRAME), axis=2)))
    bands = [part.mean(axis=2) for part in np.array_split(power, _BANDS, axis=2)]
    return np.log(np.stack(bands, axis=1) + 1e-8).astype(np.float32)
