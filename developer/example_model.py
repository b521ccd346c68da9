"""A small language model for trying things out, trained here in about a minute.

A LLaMA of a million weights on the English text of Python's own language reference
(`pydoc_data.topics`, part of every Python), with a byte-level BPE of its words. It continues
text in the style of that reference; that is enough to see that a protected model answers what
the original answers, without downloading one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.console import progress
from triparty.developer.protect.output import new_folder
from triparty.developer.stock import quiet
from triparty.developer.threads import one_thread

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM

BEGIN, END = "<s>", "</s>"
VOCABULARY = 1024
CONTEXT = 256
BATCH = 2
LEARNING_RATE = 4e-3
WARM_UP = 0.04  # share of the time
HELD_OUT = 0.04  # share of the text
SEED = 20
# A sentence: begins with a capital letter, has no run of code marks, ends like one.
_PROSE = re.compile(r"^[A-Z](?!.*(?:\*\*\*|===|---|>>>|\|  )).*[.:]$")


@dataclass(frozen=True)
class Trained:
    """How the training went.

    Attributes:
        seconds: it took.
        steps: batches seen.
        loss: nats a token on text that was not trained on.
        parameters: weights of the model.
        text_bytes: size of the training text.
    """

    seconds: float
    steps: int
    loss: float
    parameters: int
    text_bytes: int


def make_example_model(
    out: Path, *, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic
) -> Trained:
    """Trains the model and writes an ordinary Hugging Face folder.

    Args:
        out: a folder that does not exist yet.
        seconds: time for the training itself.
        clock: seconds.

    Raises:
        StateError: `out` exists.
    """
    import torch

    with new_folder(out) as folder, quiet():
        texts = reference_texts()
        tokenizer = _tokenizer(texts)
        ids = _ids(tokenizer, texts)
        split = int(len(ids) * (1 - HELD_OUT))
        with one_thread(), torch.random.fork_rng():
            torch.manual_seed(SEED)
            model = _model()
            started = clock()
            steps = _train(model, ids[:split], seconds, clock)
        trained = Trained(
            seconds=round(clock() - started, 1),
            steps=steps,
            loss=round(_held_out_loss(model, ids[split:]), 3),
            parameters=sum(weights.numel() for weights in model.parameters()),
            text_bytes=sum(len(text.encode()) for text in texts),
        )
        _save(model, tokenizer, folder)
    return trained


def reference_texts() -> list[str]:
    """The flowing text of Python's language reference, a topic each."""
    from pydoc_data.topics import topics

    return [text for name in sorted(topics) if (text := _prose(topics[name]))]


def _prose(topic: str) -> str:
    """The flowing text of a topic, a paragraph a line: no code, tables or headings."""
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", topic))
    return "\n".join(p for p in paragraphs if _PROSE.search(p) and len(p) > 60)


def _tokenizer(texts: list[str]) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BEGIN, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    return tokenizer


def _ids(tokenizer: Tokenizer, texts: list[str]) -> NDArray[np.int64]:
    end = tokenizer.token_to_id(END)
    return np.concatenate([[*tokenizer.encode(text).ids, end] for text in texts])


def _model() -> LlamaForCausalLM:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.04,
        bos_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config)


def _train(
    model: LlamaForCausalLM,
    ids: NDArray[np.int64],
    seconds: float,
    clock: Callable[[], float],
) -> int:
    """Trains until the time is up, at least one step; returns how many steps."""
    import torch

    optimizer = torch.optim.AdamW(
        model.parameters(), betas=(0.9, 0.95), weight_decay=0.05, fused=True
    )
    model.train()
    started, passed, steps = clock(), 0.0, 0
    with progress("training", seconds) as advance:
        for batch in _batches(ids, np.random.default_rng(SEED)):
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * _schedule(passed / seconds)
            loss = model(input_ids=batch, labels=batch).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            steps += 1
            before, passed = passed, clock() - started
            advance(passed - before)
            if passed >= seconds:
                break
    model.train(False)
    return steps


def _schedule(done: float) -> float:
    """Share of the learning rate: up in a moment, then down along a cosine."""
    if done < WARM_UP:
        return (done + 0.002) / (WARM_UP + 0.002)
    return 0.02 + 0.98 * 0.5 * (1 + float(np.cos(np.pi * min(1.0, done))))


def _batches(ids: NDArray[np.int64], rng: np.random.Generator) -> Iterator[torch.Tensor]:
    import torch

    while True:
        starts = rng.integers(0, len(ids) - CONTEXT, BATCH)
        yield torch.from_numpy(np.stack([ids[s : s + CONTEXT] for s in starts]))


def _held_out_loss(model: LlamaForCausalLM, ids: NDArray[np.int64]) -> float:
    import torch

    whole = torch.from_numpy(ids[: len(ids) // CONTEXT * CONTEXT]).reshape(-1, CONTEXT)
    with torch.inference_mode():
        return float(model(input_ids=whole, labels=whole).loss)


def _save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    wrapped: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    wrapped.save_pretrained(folder)
    model.save_pretrained(folder)
