"""Encoders: texts in, and out come logits at every token, of labels, or the tokens' last rows.

A device sends one row for every token that is there; its rows have positions and types added.
With the interface `tokens` it sends keyed ids and, as they are, the types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.deviceinfo import TOKENS, DeviceInfo
from triparty.common.keying import Bundle, KeyedReply
from triparty.developer.answers.task import Answers, as_array

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TEXT_TOKENS = 64
_TOKENS_AT_ONCE = 1 << 12
_LOGITS_IN_MEMORY = 1 << 24
_WITH_GLOBAL_ATTENTION = frozenset({"longformer"})


@dataclass(frozen=True, eq=False)
class Passages:
    """A batch of texts, padded at their ends.

    Attributes:
        ids: (B, T) token ids; the padding token where there is padding.
        mask: (B, T) true where there is a token.
        types: (B, T) the type of each token.
        everywhere: (B, T) true for a token that attends to all others and they to it, in
            models whose tokens otherwise attend to their neighbours; None in others.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    types: NDArray[np.int64]
    everywhere: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class EncoderTask:
    """Texts in, the answers of one kind of head out.

    Attributes:
        auto_class: the `transformers` class that loads both models.
        output: the member of its output that is the answer.
        per_token: whether that has a row for every token, not one for every text.
    """

    auto_class: str
    output: str
    per_token: bool

    def sample(self, info: DeviceInfo, count: int, rng: np.random.Generator) -> Passages:
        """Texts of different lengths and, where the device knows types, of two parts."""
        longest = min(TEXT_TOKENS, info.max_positions)
        shortest = -(-longest // 2)
        batch = -(-count // (shortest if self.per_token else 1))
        at_once = min(_TOKENS_AT_ONCE, _LOGITS_IN_MEMORY // info.outputs) // longest
        shape = (min(batch, max(1, at_once)), longest)
        places = np.broadcast_to(np.arange(longest), shape)
        mask = places < rng.integers(shortest, longest + 1, (len(places), 1))
        second = places >= rng.integers(1, longest + 1, (len(places), 1))
        return Passages(
            random_ids(info, mask, rng),
            mask,
            (second & mask & (info.segments > 1)).astype(np.int64),
            places == 0 if info.family in _WITH_GLOBAL_ATTENTION else None,
        )

    def original(self, model: PreTrainedModel, sample: Passages) -> Answers:
        """Answers (N, O) of the N tokens, or texts."""
        inputs = {"input_ids": sample.ids, "token_type_ids": sample.types}
        return self._answers(model, sample, inputs)

    def protected(self, model: PreTrainedModel, bundle: Bundle, sample: Passages) -> Answers:
        """The same of the protected model, undone."""
        keyed = self._answers(model, sample, keyed_passages(bundle, sample))
        return bundle.plain_logits(KeyedReply(keyed))

    def _answers(
        self, model: PreTrainedModel, sample: Passages, inputs: dict[str, NDArray[Any]]
    ) -> Answers:
        answers = as_array(getattr(outputs_of(model, sample, inputs), self.output))
        return answers[sample.mask] if self.per_token else answers


def random_ids(
    info: DeviceInfo, mask: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.int64]:
    """(B, T) ids of random tokens, the padding token (of a model that has one) around them."""
    padding = 0 if info.pad_id is None else info.pad_id
    ids = rng.integers(0, info.vocabulary - 1, mask.shape)
    return np.where(mask, ids + (ids >= padding), padding)


def keyed_passages(bundle: Bundle, sample: Passages) -> dict[str, NDArray[Any]]:
    """What a device sends of some texts: keyed rows (B, T, D), or keyed ids, and types."""
    texts = zip(sample.ids, sample.types, sample.mask, strict=True)
    if bundle.info.interface == TOKENS:
        keyed = np.zeros_like(sample.ids)
        parts = [bundle.keyed_ids(ids[mask]) for ids, _, mask in texts]
        keyed[sample.mask] = np.concatenate(parts)
        return {"input_ids": keyed, "token_type_ids": sample.types}
    added = [bundle.values(ids[mask], start=0, types=types[mask]) for ids, types, mask in texts]
    rows = np.zeros((*sample.ids.shape, bundle.info.width), added[0].dtype)
    rows[sample.mask] = np.concatenate(added)
    return {"inputs_embeds": rows}


def outputs_of(
    model: PreTrainedModel,
    sample: Passages,
    inputs: dict[str, NDArray[Any]],
    **options: bool,
) -> Any:
    """What a stock class answers.

    Args:
        model: the original or the protected one.
        sample: of which the masks matter.
        inputs: its ids or rows, and types where the device has not added them.
        options: of the class.
    """
    import torch

    from triparty.developer.stock import quiet

    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    if "inputs_embeds" in tensors:
        tensors["inputs_embeds"] = tensors["inputs_embeds"].to(model.dtype)
    tensors["attention_mask"] = torch.from_numpy(sample.mask).long()
    if sample.everywhere is not None:
        tensors["global_attention_mask"] = torch.from_numpy(sample.everywhere).long()
    with quiet(), torch.inference_mode():
        return model(**tensors, **options)
