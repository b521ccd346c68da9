"""The encoder in this process: one stock model, wherever it lies, that keeps nothing.

Texts of a batch are padded to the longest of their group and masked, so that a row never sees
another text's; groups are of texts of about one length, so that at most half of what runs is
padding. What stands in the padding of a request never reaches the model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from triparty.cloud.serving.encoder_families import Head, window_of
from triparty.cloud.serving.engine import (
    Arrays,
    EncoderInfo,
    Image,
    ImageInput,
    Passage,
    Text,
    TextInput,
)
from triparty.cloud.serving.families import FOREIGN, one_line
from triparty.cloud.serving.loading import load_encoder
from triparty.cloud.serving.placement import Placement, input_device
from triparty.common.errors import CheckpointError, LimitError

OUT_OF_MEMORY_RETRY_S = 5


class LocalEncoder:
    """Runs batches of whole texts and images through one model; see `Encoder`."""

    def __init__(self, model: PreTrainedModel, head: Head, info: EncoderInfo) -> None:
        """An encoder of a model that `load_encoder` loaded."""
        self._model = model
        self._head = head
        self._info = info
        self._device = input_device(model)
        self._window = window_of(model.config)

    @classmethod
    def load(cls, folder: Path, placement: Placement | None = None) -> Self:
        """The encoder of a published folder, where `placement` says (None: `auto`).

        Raises:
            CheckpointError: it cannot be served, or does not run.
        """
        encoder = cls(*load_encoder(folder, placement=placement or Placement()))
        try:
            encoder.run(_samples(encoder.info))
        except FOREIGN as error:
            raise CheckpointError(f"the model does not run: {one_line(error)}") from error
        return encoder

    @property
    def info(self) -> EncoderInfo:
        """What serving must know of the model."""
        return self._info

    def run(self, batch: Sequence[Passage]) -> list[Arrays]:
        """Runs a batch of texts and images; see `Encoder.run`."""
        answers: dict[int, Arrays] = {}
        try:
            with torch.inference_mode():
                for group in _groups(batch):
                    answered = self._answered([batch[at] for at in group])
                    answers |= zip(group, answered, strict=True)
        except torch.OutOfMemoryError as error:
            raise LimitError(
                "the accelerator has no memory left for this request: repeat it later",
                retry_after_s=OUT_OF_MEMORY_RETRY_S,
            ) from error
        return [answers[at] for at in range(len(batch))]

    def _answered(self, group: Sequence[Passage]) -> list[Arrays]:
        """The answers of passages of one kind."""
        texts = [passage for passage in group if isinstance(passage, Text)]
        if not texts:
            images = [passage for passage in group if isinstance(passage, Image)]
            output = self._output(images=True, pixel_values=self._pixels(images))
        else:
            output = self._output(images=False, **self._padded(texts))
        values: NDArray[np.float32] = getattr(output, self._head.output).float().cpu().numpy()
        if not self._info.per_row:
            return [(answer,) for answer in values]
        return [
            (answer[: passage.rows],) for answer, passage in zip(values, group, strict=True)
        ]

    def _output(self, *, images: bool, **inputs: torch.Tensor) -> Any:
        stock: Any = self._model
        if self._info.text is None or self._info.image is None:
            return stock(**inputs)
        return (stock.get_image_features if images else stock.get_text_features)(**inputs)

    def _pixels(self, images: Sequence[Image]) -> torch.Tensor:
        pixels = torch.from_numpy(np.stack([image.pixels for image in images]))
        return pixels.to(self._device, self._model.dtype)

    def _padded(self, texts: Sequence[Text]) -> dict[str, torch.Tensor]:
        """The arguments of the stock class for some texts."""
        longest = max(text.rows for text in texts)
        longest += -longest % self._window
        shape = (len(texts), longest)
        device = self._device
        mask = _right_padded([np.ones(text.rows, np.int64) for text in texts], longest, 0)
        inputs = {"attention_mask": torch.from_numpy(mask).to(device)}
        tokens = [text.tokens for text in texts]
        if self._takes_ids:
            inputs["input_ids"] = torch.from_numpy(
                _right_padded(tokens, longest, self._padding)
            ).to(device)
            if self._takes_types:
                types = [
                    np.zeros(t.rows, np.int64) if t.types is None else t.types for t in texts
                ]
                inputs["token_type_ids"] = torch.from_numpy(
                    _right_padded(types, longest, 0)
                ).to(device)
        else:
            rows = torch.from_numpy(_right_padded(tokens, longest, 0))
            inputs["inputs_embeds"] = rows.to(device, self._model.dtype)
        if self._attends_globally:
            attends = np.zeros(shape, np.int64)
            # What the stock classifier does by itself, with a warning, where nothing is said.
            attends[:, 0] = not self._info.per_row
            for at, text in enumerate(texts):
                if text.attends is not None:
                    attends[at, : text.rows] = text.attends
            inputs["global_attention_mask"] = torch.from_numpy(attends).to(device)
        return inputs

    @property
    def _takes_ids(self) -> bool:
        return self._info.text is not None and self._info.text.width is None

    @property
    def _takes_types(self) -> bool:
        return self._info.text is not None and self._info.text.types > 0

    @property
    def _attends_globally(self) -> bool:
        return self._info.text is not None and self._info.text.attends_globally

    @property
    def _padding(self) -> int:
        """The id behind a text: the padding token's, and never that of a text's end."""
        config = getattr(self._model.config, "text_config", self._model.config)
        end = config.eos_token_id
        padding: int | None = config.pad_token_id
        if padding is not None and padding != end:
            return padding
        return 1 if end == 0 else 0


def _groups(batch: Sequence[Passage]) -> Iterable[list[int]]:
    """The places of passages that run together.

    Images are a group, and texts whose lengths lie between two powers of two.
    """
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for at, passage in enumerate(batch):
        is_text = isinstance(passage, Text)
        groups[(passage.rows - 1).bit_length() if is_text else -1].append(at)
    return groups.values()


def _right_padded(parts: Sequence[NDArray[Any]], length: int, padding: int) -> NDArray[Any]:
    """(B, length, ...) of B arrays (T, ...), with `padding` behind each."""
    first = parts[0]
    padded = np.full((len(parts), length, *first.shape[1:]), padding, first.dtype)
    for at, part in enumerate(parts):
        padded[at, : len(part)] = part
    return padded


def _samples(info: EncoderInfo) -> list[Passage]:
    """A text of one row and an image, as far as a model takes them."""
    samples: list[Passage] = []
    if info.text is not None:
        samples.append(_text(info.text))
    if info.image is not None:
        samples.append(_image(info.image))
    return samples


def _text(text: TextInput) -> Text:
    if text.width is None:
        return Text(np.zeros(1, np.int64))
    return Text(np.zeros((1, text.width), np.float32))


def _image(image: ImageInput) -> Image:
    return Image(np.zeros(image.shape, np.float32), image.rows)
