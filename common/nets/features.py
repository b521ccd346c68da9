"""Feature networks (torch): one input of a modality becomes an embedding of numbers in 0..1.

All but `SeriesNetwork` are the published ones (thesis 3.4.1). Where its text leaves a choice:
the shortcut of a residual block is a `ConvStep` with stride 2, as its formula has it (its code
has a plain 1x1 convolution); frames of a video share their block; a waveform goes through the
same blocks in one dimension; images larger than `Design.resolution` are averaged down first.
"""

from __future__ import annotations

from math import ceil, prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from triparty.common.nets.design import Design
from triparty.common.nets.inputs import InputSpec


def feature_network(spec: InputSpec, design: Design) -> nn.Module:
    """The network of an input: (n, ...) as `InputSpec.shape` says, to (n, embedding)."""
    if spec.modality == "text":
        return TextNetwork(spec, design)
    if spec.modality == "image":
        return ImageNetwork(spec, design)
    if spec.modality == "video":
        return VideoNetwork(spec, design)
    if spec.modality == "audio":
        return AudioNetwork(spec, design)
    if spec.modality == "series":
        return SeriesNetwork(spec, design)
    return VectorNetwork(spec, design)


class Scaling(nn.Module):
    """(x - offset) / scale with what the training data say; the identity until then."""

    offset: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        """A number each of `shape`, broadcast over the input."""
        super().__init__()
        self.register_buffer("offset", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def forward(self, values: Tensor) -> Tensor:
        """(n, ...) scaled."""
        scaled: Tensor = (values - self.offset) / self.scale
        return scaled


class VectorNetwork(nn.Module):
    """Two dense layers on the flattened input."""

    def __init__(self, spec: InputSpec, design: Design) -> None:
        """For inputs of any shape."""
        super().__init__()
        self.scaling = Scaling(spec.shape)
        self.hidden = nn.Linear(prod(spec.shape), design.units)
        self.embedding = nn.Linear(design.units, design.embedding)

    def forward(self, values: Tensor) -> Tensor:
        """(n, ...) to (n, embedding)."""
        hidden = torch.relu(self.hidden(self.scaling(values).flatten(1)))
        return torch.sigmoid(self.embedding(hidden))


class TextNetwork(nn.Module):
    """Tokens to vectors, the largest and the mean of them over the text, a dense layer."""

    def __init__(self, spec: InputSpec, design: Design) -> None:
        """For numbers of tokens; 0 is padding, unknown numbers count as the last one."""
        super().__init__()
        self.table = nn.Embedding(spec.vocabulary, design.text_width)
        self.hidden = nn.Linear(2 * design.text_width, design.units)
        self.embedding = nn.Linear(design.units, design.embedding)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, T) int64 to (n, embedding)."""
        is_word = (tokens > 0).to(torch.float32)[:, :, None]
        words = self.table(tokens.clamp(0, self.table.num_embeddings - 1)) * is_word
        mean = words.sum(1) / is_word.sum(1).clamp(min=1.0)
        pooled = torch.cat([words.amax(1), mean], dim=1)
        return torch.sigmoid(self.embedding(torch.relu(self.hidden(pooled))))


class ImageNetwork(nn.Module):
    """Two residual blocks, the largest value over the image, a dense layer."""

    def __init__(self, spec: InputSpec, design: Design) -> None:
        """For one image with colours first or last."""
        super().__init__()
        self.scaling = Scaling(())
        self._last = spec.has_channels_last
        rows, columns, channels = _sides(spec)
        self._shrink = _shrinking(rows, columns, design.resolution)
        self.first = ResidualBlock(channels, design.filters, 2)
        self.second = ResidualBlock(design.filters, 2 * design.filters, 2)
        self.embedding = nn.Linear(2 * design.filters, design.embedding)

    def forward(self, images: Tensor) -> Tensor:
        """(n, H, W, C) or (n, C, H, W) to (n, embedding)."""
        images = images.permute(0, 3, 1, 2) if self._last else images
        maps = self.first(_shrunk(self.scaling(images), self._shrink))
        return torch.sigmoid(self.embedding(self.second(maps).amax((2, 3))))


class VideoNetwork(nn.Module):
    """A residual block for each frame, all maps together through another."""

    def __init__(self, spec: InputSpec, design: Design) -> None:
        """For a window of frames with colours first or last."""
        super().__init__()
        self.scaling = Scaling(())
        self._last = spec.has_channels_last
        rows, columns, channels = _sides(spec)
        self._shrink = _shrinking(rows, columns, design.resolution)
        self._frames = spec.shape[0]
        self.first = ResidualBlock(channels, design.filters, 2)
        self.second = ResidualBlock(self._frames * design.filters, 2 * design.filters, 2)
        self.embedding = nn.Linear(2 * design.filters, design.embedding)

    def forward(self, frames: Tensor) -> Tensor:
        """(n, F, H, W, C) or (n, F, C, H, W) to (n, embedding)."""
        frames = frames.permute(0, 1, 4, 2, 3) if self._last else frames
        images = self.scaling(frames).flatten(0, 1)
        maps = self.first(_shrunk(images, self._shrink)).unflatten(0, (-1, self._frames))
        return torch.sigmoid(self.embedding(self.second(maps.flatten(1, 2)).amax((2, 3))))


class AudioNetwork(nn.Module):
    """As for images, of a waveform (one dimension) or a spectrogram (two)."""

    def __init__(self, spec: InputSpec, design: Design) -> None:
        """For one waveform (T,) or spectrogram (F, T)."""
        super().__init__()
        self.scaling = Scaling(())
        axes = len(spec.shape)
        self.first = ResidualBlock(1, design.filters, axes)
        self.second = ResidualBlock(design.filters, 2 * design.filters, axes)
        self.embedding = nn.Linear(2 * design.filters, design.embedding)

    def forward(self, sounds: Tensor) -> Tensor:
        """(n, T) or (n, F, T) to (n, embedding)."""
        maps = self.second(self.first(self.scaling(sounds)[:, None]))
        return torch.sigmoid(self.embedding(maps.flatten(2).amax(2)))


class SeriesNetwork(nn.Module):
    """Convolutions over time, for windows of sensor signals; ours, not the thesis's."""

    def __init__(self, spec: InputSpec, design: Design) -> None:
        """For C signals of T samples, (T, C)."""
        super().__init__()
        channels, filters = spec.shape[1], design.filters
        self.scaling = Scaling((channels,))
        self.first = nn.Conv1d(channels, filters, 5, stride=2, padding=2)
        self.second = nn.Conv1d(filters, 2 * filters, 5, stride=2, padding=2)
        self.third = nn.Conv1d(2 * filters, 2 * filters, 3, padding=1)
        self.embedding = nn.Linear(4 * filters, design.embedding)

    def forward(self, signals: Tensor) -> Tensor:
        """(n, T, C) to (n, embedding)."""
        maps = torch.relu(self.first(self.scaling(signals).permute(0, 2, 1)))
        maps = torch.relu(self.third(torch.relu(self.second(maps))))
        pooled = torch.cat([maps.amax(2), maps.mean(2)], dim=1)
        return torch.sigmoid(self.embedding(pooled))


class ResidualBlock(nn.Module):
    """ConvRes(x) = MaxPool(ConvStep(ConvStep(x))) + ConvStep(x), at half the size."""

    def __init__(self, channels: int, filters: int, axes: int) -> None:
        """Over one axis (waveforms) or two (images)."""
        super().__init__()
        self.deep = nn.Sequential(
            ConvStep(channels, filters, axes), ConvStep(filters, filters, axes)
        )
        self.shortcut = ConvStep(channels, filters, axes, stride=2)
        self.pool = (nn.MaxPool1d, nn.MaxPool2d)[axes - 1](3, stride=2, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """(n, channels, ...) to (n, filters, half of each)."""
        halved: Tensor = self.pool(self.deep(maps)) + self.shortcut(maps)
        return halved


class ConvStep(nn.Module):
    """ConvStep(x) = LayerNorm(SeparableConv(ReLU(x))); the norm is over channels."""

    def __init__(self, channels: int, filters: int, axes: int, *, stride: int = 1) -> None:
        """A kernel of 3 for each channel, then a mixing of channels."""
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d)[axes - 1]
        self.each = conv(
            channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False
        )
        self.mix = conv(channels, filters, 1)
        self.norm = nn.LayerNorm(filters)
        self._last = (0, *range(2, axes + 2), 1)  # the order with channels last
        self._first = (0, axes + 1, *range(1, axes + 1))

    def forward(self, maps: Tensor) -> Tensor:
        """(n, channels, ...) to (n, filters, ...)."""
        mixed = self.mix(self.each(torch.relu(maps)))
        normed: Tensor = self.norm(mixed.permute(self._last)).permute(self._first)
        return normed


def _sides(spec: InputSpec) -> tuple[int, int, int]:
    """Rows, columns and colours of an image or a frame."""
    first, second, third = spec.shape[-3:]
    return (first, second, third) if spec.has_channels_last else (second, third, first)


def _shrinking(rows: int, columns: int, resolution: int) -> int:
    """How many pixels a side are averaged into one."""
    return ceil(max(rows, columns) / resolution) if resolution else 1


def _shrunk(images: Tensor, times: int) -> Tensor:
    return functional.avg_pool2d(images, times, ceil_mode=True) if times > 1 else images
