"""The law of Qwen3."""

from __future__ import annotations

from typing import Any

from decoder_law import DecoderLaw
from decoders import TINY, WRONG_HEADS, WRONG_NEURONS, WRONG_NORMS, with_heads
from family_law import unmoved
from transformers import Qwen3Config, Qwen3ForCausalLM


def qwen3(**options: Any) -> Any:
    return lambda: Qwen3ForCausalLM(Qwen3Config(**{**TINY, **options}))


class TestQwen3(DecoderLaw):
    is_audited_first = False
    models = {
        "wide heads": qwen3(),
        "biases, windows, tied": qwen3(
            attention_bias=True,
            use_sliding_window=True,
            sliding_window=5,
            max_window_layers=1,
            tie_word_embeddings=True,
        ),
        "one key-value head": qwen3(num_key_value_heads=1, head_dim=6),
    }
    options = {
        "norms kept": {"norms": "keep"},
        "expanded": {"scheme": "orthogonal", "expand": 56},
        "expanded, tokens": {"scheme": "orthogonal", "expand": 56, "interface": "tokens"},
        "scaled head": {"scheme": "orthogonal", "head_scales": True},
    }
    controls = {
        **WRONG_NORMS,
        **WRONG_HEADS,
        **WRONG_NEURONS,
        "query norm left": unmoved("q_norm", 0),
        "key norm left": unmoved("k_norm", 0),
        "a turn for each group": with_heads(),
    }
