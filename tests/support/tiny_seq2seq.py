"""Tiny random T5 models, as checkpoint folders, and what stock code answers with them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

WIDTH, START, END = 32, 0, 2
KINDS = ("gated", "mt5", "tied")


def tiny_seq2seq(
    folder: Path, kind: str, *, vocabulary: int = 61, tokenizer: Path | None = None
) -> Path:
    """A checkpoint, random in every tensor, with a tokenizer of another model.

    Args:
        folder: to write.
        kind: `tied` (ReLU, one table, scaled output), `gated` (of T5 1.1) or `mt5`.
        vocabulary: tokens.
        tokenizer: folder of a model whose tokenizer it gets.
    """
    sizes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "d_model": WIDTH,
        "d_kv": 6,
        "d_ff": 48,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": 4,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 20,
        "decoder_start_token_id": START,
        "pad_token_id": START,
        "eos_token_id": END,
    }
    gated = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    torch.manual_seed(5)
    if kind == "mt5":
        model: Any = MT5ForConditionalGeneration(MT5Config(**sizes | gated))
    else:
        model = T5ForConditionalGeneration(
            T5Config(**sizes | (gated if kind == "gated" else {}))
        )
    if kind != "tied":
        model.lm_head.weight = torch.nn.Parameter(torch.randn(vocabulary, WIDTH))
    generator = torch.Generator().manual_seed(6)
    for name, tensor in model.state_dict().items():
        # Scores are not divided by the width of a head, which trained queries make up for.
        size = 0.08 if name.endswith("Attention.q.weight") else 0.3
        noise = size * torch.randn(tensor.shape, generator=generator)
        tensor.copy_(
            1 + noise if "layer_norm" in name else noise * (5 if "bias" in name else 1)
        )
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if tokenizer is not None:
            shutil.copy(tokenizer / name, folder / name)
    return folder


def stock_answer(source: Path, ids: Sequence[int], steps: int, **options: Any) -> list[int]:
    """What stock `generate` answers to a text, greedily."""
    model: Any = AutoModelForSeq2SeqLM.from_pretrained(source)
    model.generation_config = GenerationConfig(
        do_sample=False,
        pad_token_id=START,
        eos_token_id=END,
        decoder_start_token_id=START,
        max_new_tokens=steps,
        use_cache=False,  # stock caches have as many layers as the encoder
        **options,
    )
    given = torch.tensor([list(ids)])
    with torch.inference_mode():
        whole = model.generate(input_ids=given, attention_mask=torch.ones_like(given))
    new: list[int] = whole[0, 1:].tolist()
    return new
