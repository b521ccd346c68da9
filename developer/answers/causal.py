"""Causal language models: the logits of the next token at every place of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.deviceinfo import HIDDEN, LOGITS, TOKENS, DeviceInfo
from triparty.common.keying import Bundle
from triparty.developer.answers.task import Answers, as_array

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

TEXT_TOKENS = 64
_LOGITS_IN_MEMORY = 1 << 24


@dataclass(frozen=True, eq=False)
class Texts:
    """A batch of texts.

    Attributes:
        ids: (B, T) token ids; whatever stands where there is padding.
        mask: (B, T) true where there is a token.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]

    @classmethod
    def unpadded(cls, ids: NDArray[np.int64]) -> Texts:
        """Texts (B, T) of the same length."""
        return cls(ids, np.ones(ids.shape, np.bool_))

    def positions(self) -> NDArray[np.int64]:
        """(B, T) the position of each token in its text, 0 where there is padding."""
        places: NDArray[np.int64] = np.maximum(self.mask.cumsum(axis=1) - 1, 0)
        return places


class CausalTask:
    """Texts in, the logits of every next token out."""

    auto_class = "AutoModelForCausalLM"

    def sample(self, info: DeviceInfo, count: int, rng: np.random.Generator) -> Texts:
        """Texts of the same length."""
        length = min(TEXT_TOKENS, info.max_positions, count)
        at_once = max(1, _LOGITS_IN_MEMORY // (length * info.outputs))
        batch = min(-(-count // length), at_once)
        return Texts.unpadded(rng.integers(0, info.vocabulary, (batch, length)))

    def of_ids(self, ids: NDArray[np.int64]) -> Texts:
        """One text (T,)."""
        return Texts.unpadded(ids[None])

    def original(self, model: PreTrainedModel, sample: Texts) -> Answers:
        """Logits (N, V) of the N tokens of the texts."""
        return text_logits(model, sample, {"input_ids": sample.ids})

    def protected(self, model: PreTrainedModel, bundle: Bundle, sample: Texts) -> Answers:
        """The same of the protected model, undone."""
        keyed = text_replies(model, sample, keyed_inputs(bundle, sample), bundle.info.reply)
        return bundle.plain_logits(keyed)  # type: ignore[arg-type]  # float64 in tests


def keyed_inputs(bundle: Bundle, texts: Texts) -> dict[str, NDArray[Any]]:
    """What a device sends of some texts: keyed ids (B, T), or keyed rows (B, T, D)."""
    pairs = zip(texts.ids, texts.mask, strict=True)
    if bundle.info.interface == TOKENS:
        keyed = np.zeros_like(texts.ids)
        keyed[texts.mask] = np.concatenate([bundle.keyed_ids(ids[mask]) for ids, mask in pairs])
        return {"input_ids": keyed}
    parts = [bundle.values(ids[mask], start=0) for ids, mask in pairs]
    rows = np.zeros((*texts.ids.shape, bundle.info.width), parts[0].dtype)
    rows[texts.mask] = np.concatenate(parts)
    return {"inputs_embeds": rows}


def text_logits(
    model: PreTrainedModel, texts: Texts, inputs: dict[str, NDArray[Any]]
) -> Answers:
    """Logits (N, V) of the N tokens of some texts; see `text_replies`."""
    return text_replies(model, texts, inputs, LOGITS)


def text_replies(
    model: PreTrainedModel, texts: Texts, inputs: dict[str, NDArray[Any]], kind: str
) -> Answers:
    """What a cloud replies about the N tokens of some texts.

    Args:
        model: in stock classes.
        texts: of which the places matter.
        inputs: what goes in for them, by the names of the model's arguments.
        kind: `logits` (N, V), or `hidden` (N, D), the states after the final norm.
    """
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    if "inputs_embeds" in tensors:
        tensors["inputs_embeds"] = tensors["inputs_embeds"].to(model.dtype)
    with torch.inference_mode():
        replies = replied(
            model,
            kind,
            **tensors,
            attention_mask=torch.from_numpy(texts.mask).long(),
            position_ids=torch.from_numpy(texts.positions()),
            use_cache=False,
        )
    return as_array(replies)[texts.mask]


def replied(model: PreTrainedModel, kind: str, **inputs: Any) -> torch.Tensor:
    """What a cloud replies: `logits` (B, T, V), or `hidden` (B, T, D) after the final norm."""
    answer: torch.Tensor
    if kind == HIDDEN:
        answer = model.base_model(**inputs).last_hidden_state
    else:
        answer = model(**inputs).logits
    return answer
