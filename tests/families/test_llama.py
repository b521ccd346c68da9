"""The law of LLaMA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from family_law import FamilyLaw, alone, other_spaces, over_all_heads, unmoved
from transformers import LlamaConfig, LlamaForCausalLM

from triparty.developer.protect.heads import Attention, Rotary, attention_spaces
from triparty.developer.protect.plans import Plan
from triparty.developer.protect.spaces import Scheme, Space

TINY = {
    "vocab_size": 53,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}


def llama(**options: Any) -> Any:
    return lambda: LlamaForCausalLM(LlamaConfig(**{**TINY, **options}))


def with_heads(**changes: Any) -> Any:
    """The same plan with other spaces of queries and keys."""
    shape = Attention(4, 2, 8, Rotary.HALVES, Scheme.PERMUTATION)

    def make(plan: Plan) -> Mapping[str, Space]:
        spaces: dict[str, Space] = {}
        for layer in plan.counts["l"]:
            wrong = attention_spaces(str(layer), replace(shape, **changes))
            spaces |= {name: wrong[name] for name in (f"query.{layer}", f"key.{layer}")}
        return spaces

    return other_spaces(make)


class TestLlama(FamilyLaw):
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
    controls = {
        "norm weights skipped": unmoved("norm.weight", 0),
        "the final norm skipped": unmoved("model.norm", 0),
        "in-head permutation under rope": with_heads(rotary=Rotary.NONE),
        "neighbours for halves": with_heads(rotary=Rotary.NEIGHBOURS),
        "one permutation over all heads": other_spaces(over_all_heads),
        "gate not permuted": alone("gate"),
        "queries alone": alone("key"),
        "values alone": alone("mixed"),
        "down not permuted": unmoved("down_proj", 1),
    }
