"""Models with an encoder and a decoder: the logits of the next token of an answer to a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.deviceinfo import DeviceInfo
from triparty.common.keying import Bundle
from triparty.developer.answers.causal import CausalTask, Texts, keyed_inputs
from triparty.developer.answers.task import Answers, as_array

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SOURCE_TOKENS = 32


@dataclass(frozen=True, eq=False)
class Exchanges:
    """A batch of texts and what is answered to them so far.

    Attributes:
        texts: (B, T) that the encoder reads.
        answers: (B, U) that the decoder continues.
    """

    texts: Texts
    answers: Texts


class Seq2SeqTask:
    """Texts and the beginnings of answers in, the logits of the answers' next tokens out."""

    auto_class = "AutoModelForSeq2SeqLM"

    def sample(self, info: DeviceInfo, count: int, rng: np.random.Generator) -> Exchanges:
        """Texts of one length and answers of another."""
        answers = CausalTask().sample(info, count, rng)
        size = (len(answers.ids), SOURCE_TOKENS)
        return Exchanges(Texts.unpadded(rng.integers(0, info.vocabulary, size)), answers)

    def original(self, model: PreTrainedModel, sample: Exchanges) -> Answers:
        """Logits (N, V) at the N tokens of the answers."""
        return _logits(
            model, sample, {"input_ids": sample.texts.ids}, {"input_ids": sample.answers.ids}
        )

    def protected(self, model: PreTrainedModel, bundle: Bundle, sample: Exchanges) -> Answers:
        """The same of the protected model, undone."""
        texts, answers = (
            keyed_inputs(bundle, sample.texts),
            keyed_inputs(bundle, sample.answers),
        )
        keyed = _logits(model, sample, texts, answers)
        return bundle.plain_logits(keyed)  # type: ignore[arg-type]  # float64 in tests


def _logits(
    model: PreTrainedModel,
    sample: Exchanges,
    encoder: dict[str, NDArray[Any]],
    decoder: dict[str, NDArray[Any]],
) -> Answers:
    import torch

    inputs = encoder | {f"decoder_{name}": array for name, array in decoder.items()}
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    for name, tensor in tensors.items():
        tensors[name] = tensor.to(model.dtype) if tensor.is_floating_point() else tensor
    with torch.inference_mode():
        output = model(
            **tensors,
            attention_mask=torch.from_numpy(sample.texts.mask).long(),
            decoder_attention_mask=torch.from_numpy(sample.answers.mask).long(),
            use_cache=False,
        )
    return as_array(output.logits)[sample.answers.mask]
