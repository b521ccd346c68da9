"""The comparison: does the protected model answer what the original would?

Both run in stock `transformers` classes. The protected one is used as a cloud and a device
would use it together: keyed rows from `OUT/device` in, keyed logits of `OUT/model` out, read
back with the head's order. The sums of a keyed model are those of the original in another
order, so logits differ by rounding, as between two kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.deviceinfo import TOKENS
from triparty.common.errors import RequestError, StateError
from triparty.common.keying import Bundle, KeyedReply
from triparty.developer.answers import task_of
from triparty.developer.protect.checkpoints import fetch
from triparty.developer.protect.compiler import DEVICE_FOLDER, MODEL_FOLDER
from triparty.developer.stock import load_model, load_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

SEQ2SEQ = "seq2seq-lm"
GREEDY_PROMPTS = 3
GREEDY_TOKENS = 48


@dataclass(frozen=True)
class Agreement:
    """How far the protected model's answers are from the original's.

    Attributes:
        samples: how many next-token predictions were compared.
        top1_agreement: share of them with the same most likely token.
        max_relative_error: max|a - b| / max|a| over all logits.
        greedy_identical: whether greedy continuations are the same tokens; None for a model
            that writes no text.
        dtype: in which both computed.
    """

    samples: int
    top1_agreement: float
    max_relative_error: float
    greedy_identical: bool | None
    dtype: str


@dataclass(frozen=True)
class Reference:
    """What the unprotected model answers greedily to a prompt.

    Attributes:
        token_ids: the new tokens; the last one is an end token if the model stopped.
        text: the same as text, without special tokens.
        finish_reason: `stop` or `length`.
    """

    token_ids: tuple[int, ...]
    text: str
    finish_reason: str


class Comparison:
    """A source and its protected form, loaded.

    Args:
        source: folder or hub id of the original.
        out: what `protect` wrote.
    """

    def __init__(self, source: str, out: Path) -> None:
        """Loads both models and the bundle."""
        if not (out / MODEL_FOLDER).is_dir() or not (out / DEVICE_FOLDER).is_dir():
            raise StateError(
                f"{out} holds no protected model; make one: triparty developer protect "
                f"{source} {out}"
            )
        self._folder = fetch(source)
        self._bundle = Bundle.open(out / DEVICE_FOLDER)
        self._task = task_of(self._bundle.info.task)
        self._original = load_model(self._folder, self._task.auto_class)
        self._protected = load_model(out / MODEL_FOLDER, self._task.auto_class)
        if self._original.config.model_type != self._protected.config.model_type:
            raise StateError(
                f"{out} was not made from {source}: it is a "
                f"{self._protected.config.model_type} model, the source a "
                f"{self._original.config.model_type} model"
            )

    def agreement(self, samples: int, *, rng: np.random.Generator) -> Agreement:
        """Compares logits on random texts, and greedy continuations.

        Args:
            samples: how many next-token predictions to compare, at least.
            rng: draws the texts.
        """
        same = compared = 0
        difference = largest = 0.0
        while compared < samples:
            sample = self._task.sample(self._bundle.info, samples - compared, rng)
            plain = self._task.original(self._original, sample)
            keyed = self._task.protected(self._protected, self._bundle, sample)
            if plain.shape != keyed.shape:
                raise StateError(
                    f"the answers of the source have {plain.shape[-1]} elements, those of the "
                    f"protected model {keyed.shape[-1]}: it was not made from this source"
                )
            same += int((plain.argmax(-1) == keyed.argmax(-1)).sum())
            compared += len(plain)
            difference = max(difference, float(np.abs(plain - keyed).max()))
            largest = max(largest, float(np.abs(plain).max()))
        return Agreement(
            samples=compared,
            top1_agreement=same / compared,
            max_relative_error=difference / largest if largest else difference,
            greedy_identical=self._greedy_identical(rng),
            dtype=str(self._original.dtype).removeprefix("torch."),
        )

    def reference(self, prompt: str, *, max_tokens: int) -> Reference:
        """What the original answers greedily, with its own tokenizer and end tokens.

        Raises:
            RequestError: an empty prompt, or one that fills all positions.
        """
        tokenizer = load_tokenizer(self._folder)
        ids = np.array(tokenizer(prompt)["input_ids"], np.int64)
        space = self._bundle.info.max_positions - len(ids)
        if not len(ids) or space < 1:
            raise RequestError(
                f"the prompt has {len(ids)} tokens; expected 1 to "
                f"{self._bundle.info.max_positions - 1}"
            )
        ends = self._bundle.info.eos_ids
        new = original_greedy(self._original, ids, min(max_tokens, space), ends)
        text = tokenizer.decode(new, skip_special_tokens=True)
        return Reference(tuple(new), text, "stop" if new[-1] in ends else "length")

    def _greedy_identical(self, rng: np.random.Generator) -> bool | None:
        info = self._bundle.info
        if info.task not in ("causal-lm", SEQ2SEQ):
            return None
        length = min(8, info.max_positions // 2) or 1
        steps = min(GREEDY_TOKENS, info.max_positions - length)
        for _ in range(GREEDY_PROMPTS if steps else 0):
            ids = rng.integers(0, info.vocabulary, length)
            expected = original_greedy(self._original, ids, steps, ())
            if protected_greedy(self._protected, self._bundle, ids, steps) != expected:
                return False
        return True


def original_greedy(
    model: PreTrainedModel, ids: NDArray[np.int64], steps: int, ends: tuple[int, ...]
) -> list[int]:
    """The tokens that stock `generate` adds to a text (T,), or answers to it, greedily."""
    import torch
    from transformers import GenerationConfig

    from triparty.developer.stock import quiet

    start = model.generation_config.decoder_start_token_id
    # In place of the checkpoint's own, which may ask for sampling or penalties.
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        eos_token_id=list(ends) or None,
        pad_token_id=0,
        decoder_start_token_id=start,
    )
    given = torch.from_numpy(ids)[None]
    with quiet(), torch.inference_mode():
        whole = model.generate(  # type: ignore[operator]  # a mixin that mypy cannot see
            given, attention_mask=torch.ones_like(given), max_new_tokens=steps
        )
    begun = 1 if model.config.is_encoder_decoder else len(ids)
    new: list[int] = whole[0, begun:].tolist()
    return new


def protected_greedy(
    model: PreTrainedModel, bundle: Bundle, ids: NDArray[np.int64], steps: int
) -> list[int]:
    """The tokens that device and cloud together add to a text (T,), or answer to it."""
    if bundle.info.interface == TOKENS:
        keyed = original_greedy(model, bundle.keyed_ids(ids), steps, ())
        plain: list[int] = bundle.plain_ids(np.array(keyed, np.int64)).tolist()
        return plain
    if bundle.info.task == SEQ2SEQ:
        return _answered_by_rows(model, bundle, ids, steps)
    return _greedy_by_rows(model, bundle, ids, steps)


def _greedy_by_rows(
    model: PreTrainedModel, bundle: Bundle, ids: NDArray[np.int64], steps: int
) -> list[int]:
    """One row a step: rows go in, and the cloud keeps the cache."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    new: list[int] = []
    rows, position = ids, 0
    for _ in range(steps):
        given = _rows(model, bundle, rows, start=position)
        new.append(_likeliest(model, bundle, inputs_embeds=given, past_key_values=cache))
        position += len(rows)
        rows = np.array(new[-1:], np.int64)
    return new


def _answered_by_rows(
    model: PreTrainedModel, bundle: Bundle, ids: NDArray[np.int64], steps: int
) -> list[int]:
    """The text once, then one row of the answer a step; the cloud keeps what it encoded."""
    import torch
    from transformers import DynamicCache, EncoderDecoderCache

    encoder = model.get_encoder()
    with torch.inference_mode():
        encoded = encoder(inputs_embeds=_rows(model, bundle, ids, start=0))
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    new: list[int] = []
    row = np.array([bundle.info.bos_id], np.int64)
    for place in range(steps):
        given = _rows(model, bundle, row, start=place)
        session = {"encoder_outputs": encoded, "past_key_values": cache}
        new.append(_likeliest(model, bundle, decoder_inputs_embeds=given, **session))
        row = np.array(new[-1:], np.int64)
    return new


def _rows(
    model: PreTrainedModel, bundle: Bundle, ids: NDArray[np.int64], *, start: int
) -> torch.Tensor:
    """The keyed rows (1, T, D) of token ids."""
    import torch

    return torch.from_numpy(bundle.values(ids, start=start))[None].to(model.dtype)


def _likeliest(model: PreTrainedModel, bundle: Bundle, **inputs: Any) -> int:
    """The likeliest token after what a session was given so far."""
    import torch

    with torch.inference_mode():
        reply = model(**inputs, use_cache=True)
    logits = bundle.plain_logits(KeyedReply(reply.logits[0, -1].float().numpy()))
    return int(logits.argmax())
