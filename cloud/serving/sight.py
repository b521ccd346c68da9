"""What makes rows of images for a decoder that sees, in this process: tower and projector.

The rows are those that the stock class puts in the place of image tokens. They are under the
key of the decoder's residual, and go back to the device, which sends them in its session.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from triparty.cloud.serving.engine import Arrays, EncoderInfo, Image, Passage, SeeingEngine
from triparty.cloud.serving.families import FOREIGN, one_line
from triparty.cloud.serving.loading import load_text_rules, load_visual
from triparty.cloud.serving.local import LocalEngine
from triparty.cloud.serving.placement import Placement, input_device
from triparty.common.errors import CheckpointError, LimitError

OUT_OF_MEMORY_RETRY_S = 5


class LocalSight:
    """Runs batches of images; see `Encoder`."""

    def __init__(self, model: PreTrainedModel, info: EncoderInfo) -> None:
        """The sight of a model that `load_visual` loaded.

        Raises:
            CheckpointError: it does not run.
        """
        self._model = model
        self._device = input_device(model)
        self._info = info
        if info.image is None:
            raise CheckpointError("a model that sees takes images")
        sample = Image(np.zeros(info.image.shape, np.float32), info.image.rows)
        try:
            self.run([sample])
        except FOREIGN as error:
            raise CheckpointError(f"the model does not run: {one_line(error)}") from error

    @property
    def info(self) -> EncoderInfo:
        """What serving must know of it."""
        return self._info

    def run(self, batch: Sequence[Passage]) -> list[Arrays]:
        """The rows (N, D) of each image; see `Encoder.run`."""
        images = [passage.pixels for passage in batch if isinstance(passage, Image)]
        pixels = torch.from_numpy(np.stack(images)).to(self._device, self._model.dtype)
        try:
            with torch.inference_mode():
                stock: Any = self._model
                seen = stock.get_image_features(pixel_values=pixels, return_dict=True)
                return [(rows.float().cpu().numpy(),) for rows in seen.pooler_output]
        except torch.OutOfMemoryError as error:
            raise LimitError(
                "the accelerator has no memory left for this request: repeat it later",
                retry_after_s=OUT_OF_MEMORY_RETRY_S,
            ) from error


def load_seeing(folder: Path, placement: Placement) -> SeeingEngine:
    """The decoder that sees in a published folder, where `placement` says.

    Raises:
        CheckpointError: it cannot be served, or does not run.
    """
    decoder, whole, info = load_visual(folder, placement=placement)
    rules = load_text_rules(folder, vocabulary=decoder.config.vocab_size)
    return SeeingEngine(LocalEngine(decoder, text=rules), LocalSight(whole, info))
