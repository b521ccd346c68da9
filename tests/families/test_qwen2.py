"""The law of Qwen2."""

from __future__ import annotations

from typing import Any

from decoder_law import DecoderLaw
from decoders import TINY, WRONG_HEADS, WRONG_NEURONS, WRONG_NORMS
from family_law import unmoved
from transformers import Qwen2Config, Qwen2ForCausalLM


def qwen2(**options: Any) -> Any:
    given: dict[str, Any] = {**TINY, "head_dim": None, "hidden_size": 32, **options}
    given = {
        name: value for name, value in given.items() if (name, value) != ("head_dim", None)
    }
    return lambda: Qwen2ForCausalLM(Qwen2Config(**given))


class TestQwen2(DecoderLaw):
    is_audited_first = False
    models = {
        "grouped queries": qwen2(),
        "windows above, tied": qwen2(
            num_hidden_layers=3,
            use_sliding_window=True,
            sliding_window=5,
            max_window_layers=1,
            tie_word_embeddings=True,
        ),
        "windows by layer, wide heads": qwen2(
            head_dim=10,
            use_sliding_window=True,
            sliding_window=4,
            layer_types=["sliding_attention", "full_attention"],
        ),
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
        "the bias of keys left": unmoved("k_proj.bias", 0),
        "the bias of queries left": unmoved("q_proj.bias", 0),
        "the bias of values left": unmoved("v_proj.bias", 0),
    }
