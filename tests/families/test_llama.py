"""The law of LLaMA."""

from __future__ import annotations

from typing import Any

from decoder_law import DecoderLaw
from decoders import TINY, WRONG_HEADS, WRONG_NEURONS, WRONG_NORMS
from transformers import LlamaConfig, LlamaForCausalLM


def llama(**options: Any) -> Any:
    return lambda: LlamaForCausalLM(LlamaConfig(**{**TINY, **options}))


class TestLlama(DecoderLaw):
    models = {
        "grouped queries": llama(),
        "tied": llama(tie_word_embeddings=True),
        "all biases": llama(attention_bias=True, mlp_bias=True),
        "one key-value head": llama(num_key_value_heads=1),
        "a head a group": llama(num_key_value_heads=4, head_dim=None),
        "wide heads": llama(head_dim=10, hidden_act="gelu"),
        "scaled rope": llama(
            rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}
        ),
        "yarn": llama(
            rope_parameters={
                "rope_type": "yarn",
                "factor": 4.0,
                "rope_theta": 1e4,
                "original_max_position_embeddings": 16,
            }
        ),
    }
    options = {
        "norms kept": {"norms": "keep"},
        "expanded": {"scheme": "orthogonal", "expand": 56},
        "expanded, tokens": {"scheme": "orthogonal", "expand": 56, "interface": "tokens"},
        "scaled head": {"scheme": "orthogonal", "head_scales": True},
        "scaled head, permutation": {"head_scales": True},
    }
    controls = {**WRONG_NORMS, **WRONG_HEADS, **WRONG_NEURONS}
