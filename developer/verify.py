"""The comparison: does the protected model answer what the original would?

Both run in stock `transformers` classes. The protected one is used as a cloud and a device
would use it together: keyed rows from `OUT/device` in, keyed logits of `OUT/model` out, read
back with the head's order. The sums of a keyed model are those of the original in another
order, so logits differ by rounding, as between two kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.deviceinfo import TOKENS
from triparty.common.errors import RequestError, StateError, UnsupportedModelError
from triparty.common.keying import Bundle, KeyedReply
from triparty.developer.answers import Answers, TextTask, task_of
from triparty.developer.answers.causal import replied
from triparty.developer.inspection.tolerances import largest_size, share
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

    Attributes:
        bundle: of the protected model.
        task: how both models are run.
        original: the source.
        protected: what the cloud has.
    """

    def __init__(self, source: str, out: Path) -> None:
        """Loads both models and the bundle."""
        if not (out / MODEL_FOLDER).is_dir() or not (out / DEVICE_FOLDER).is_dir():
            raise StateError(
                f"{out} holds no protected model; make one: triparty developer protect "
                f"{source} {out}"
            )
        self._folder = fetch(source)
        self.bundle = Bundle.open(out / DEVICE_FOLDER)
        self.task = task_of(self.bundle.info.task)
        self.original = load_model(self._folder, self.task.auto_class)
        self.protected = load_model(out / MODEL_FOLDER, self.task.auto_class)
        if self.original.config.model_type != self.protected.config.model_type:
            raise StateError(
                f"{out} was not made from {source}: it is a "
                f"{self.protected.config.model_type} model, the source a "
                f"{self.original.config.model_type} model"
            )

    def agreement(
        self, samples: int, *, rng: np.random.Generator, texts: Sequence[str] = ()
    ) -> Agreement:
        """Compares logits on given and on random inputs, and greedy continuations.

        Args:
            samples: how many predictions on random inputs to compare, at least.
            rng: draws the random inputs.
            texts: further inputs; what exceeds the model's positions is cut off.

        Raises:
            RequestError: an empty text.
            UnsupportedModelError: texts for a model that takes none.
        """
        tally = _Tally()
        for sample in self._given(texts):
            tally.add(*self._answers(sample))
        enough = tally.compared + samples
        while tally.compared < enough:
            sample = self.task.sample(self.bundle.info, enough - tally.compared, rng)
            tally.add(*self._answers(sample))
        return Agreement(
            samples=tally.compared,
            top1_agreement=tally.same / tally.compared,
            max_relative_error=tally.relative_error(),
            greedy_identical=self._greedy_identical(rng),
            dtype=str(self.original.dtype).removeprefix("torch."),
        )

    def _answers(self, sample: Any) -> tuple[Answers, Answers]:
        """What the original answers, and what the protected model does, undone."""
        plain = self.task.original(self.original, sample)
        keyed = self.task.protected(self.protected, self.bundle, sample)
        if plain.shape != keyed.shape:
            raise StateError(
                f"the answers of the source have {plain.shape[-1]} elements, those of the "
                f"protected model {keyed.shape[-1]}: it was not made from this source"
            )
        return plain, keyed

    def _given(self, texts: Sequence[str]) -> Iterator[Any]:
        if not texts:
            return
        if not isinstance(self.task, TextTask):
            raise UnsupportedModelError(
                f"a model of the task {self.bundle.info.task!r} takes no texts here; compare "
                f"on random inputs alone"
            )
        tokenizer = load_tokenizer(self._folder)
        for number, text in enumerate(texts, start=1):
            ids = np.array(tokenizer(text)["input_ids"], np.int64)
            if not len(ids):
                raise RequestError(f"text {number} has no tokens: {text!r}")
            yield self.task.of_ids(ids[: self.bundle.info.max_positions])

    def reference(self, prompt: str, *, max_tokens: int) -> Reference:
        """What the original answers greedily, with its own tokenizer and end tokens.

        Raises:
            RequestError: an empty prompt, or one that fills all positions.
        """
        tokenizer = load_tokenizer(self._folder)
        ids = np.array(tokenizer(prompt)["input_ids"], np.int64)
        space = self.bundle.info.max_positions - len(ids)
        if not len(ids) or space < 1:
            raise RequestError(
                f"the prompt has {len(ids)} tokens; expected 1 to "
                f"{self.bundle.info.max_positions - 1}"
            )
        ends = self.bundle.info.eos_ids
        new = original_greedy(self.original, ids, min(max_tokens, space), ends)
        text = tokenizer.decode(new, skip_special_tokens=True)
        return Reference(tuple(new), text, "stop" if new[-1] in ends else "length")

    def _greedy_identical(self, rng: np.random.Generator) -> bool | None:
        info = self.bundle.info
        if info.task not in ("causal-lm", SEQ2SEQ):
            return None
        length = min(8, info.max_positions // 2) or 1
        steps = min(GREEDY_TOKENS, info.max_positions - length)
        for _ in range(GREEDY_PROMPTS if steps else 0):
            ids = rng.integers(0, info.vocabulary, length)
            expected = original_greedy(self.original, ids, steps, ())
            if protected_greedy(self.protected, self.bundle, ids, steps) != expected:
                return False
        return True


@dataclass
class _Tally:
    """Counts over the answers that were compared."""

    compared: int = 0
    same: int = 0
    difference: float = 0.0
    largest: float = 0.0

    def add(self, plain: Answers, keyed: Answers) -> None:
        """Adds answers (N, O) of both models."""
        self.compared += len(plain)
        self.same += int((plain.argmax(-1) == keyed.argmax(-1)).sum())
        self.difference = max(self.difference, largest_size(plain - keyed))
        self.largest = max(self.largest, largest_size(plain))

    def relative_error(self) -> float:
        """max|a - b| / max|a|; the largest number there is, of NaN or infinity."""
        return share(self.difference, self.largest)


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
        reply = replied(model, bundle.info.reply, **inputs, use_cache=True)
    logits = bundle.plain_logits(KeyedReply(reply[0, -1].float().numpy()))
    return int(logits.argmax())
