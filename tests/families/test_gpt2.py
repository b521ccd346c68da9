"""The law of GPT-2."""

from __future__ import annotations

from typing import Any

from family_law import FamilyLaw, alone, other_spaces, over_all_heads, unmoved
from transformers import GPT2Config, GPT2LMHeadModel

TINY = {
    "vocab_size": 51,
    "n_positions": 32,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 3,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def gpt2(**options: Any) -> Any:
    return lambda: GPT2LMHeadModel(GPT2Config(**{**TINY, **options}))


class TestGpt2(FamilyLaw):
    models = {
        "tied": gpt2(),
        "untied": gpt2(tie_word_embeddings=False),
        "inner width and scaling": gpt2(
            n_inner=17, scale_attn_by_inverse_layer_idx=True, activation_function="relu"
        ),
        "upcast attention": gpt2(reorder_and_upcast_attn=True),
    }
    options = {
        "norms kept": {"norms": "keep"},
        "scaled head": {"scheme": "orthogonal", "head_scales": True},
    }
    controls = {
        "norm weights skipped": unmoved("ln_1.weight", 0),
        "norm biases skipped": unmoved("ln_f.bias", 0),
        "positions skipped": unmoved("wpe", 1),
        "queries alone": alone("key"),
        "one permutation over all heads": other_spaces(over_all_heads),
        "values alone": alone("mixed"),
    }
