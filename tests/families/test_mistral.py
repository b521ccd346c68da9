"""The law of Mistral."""

from __future__ import annotations

from typing import Any

from decoder_law import DecoderLaw
from decoders import TINY, WRONG_HEADS, WRONG_NEURONS, WRONG_NORMS
from transformers import MistralConfig, MistralForCausalLM


def mistral(**options: Any) -> Any:
    return lambda: MistralForCausalLM(MistralConfig(**{**TINY, **options}))


class TestMistral(DecoderLaw):
    is_audited_first = False
    models = {
        "a window": mistral(sliding_window=5),
        "no window, tied": mistral(sliding_window=None, tie_word_embeddings=True),
        "wide heads": mistral(head_dim=10, num_key_value_heads=4, sliding_window=40),
    }
    options = {
        "norms kept": {"norms": "keep"},
        "expanded": {"scheme": "orthogonal", "expand": 56},
        "expanded, tokens": {"scheme": "orthogonal", "expand": 56, "interface": "tokens"},
        "scaled head": {"scheme": "orthogonal", "head_scales": True},
    }
    controls = {**WRONG_NORMS, **WRONG_HEADS, **WRONG_NEURONS}
