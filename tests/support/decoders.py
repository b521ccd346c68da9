"""Tiny decoders with grouped queries and rotary positions, and how their plans can be wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decoder_law import DecoderLaw
from family_law import Break, alone, other_spaces, over_all_heads, unmoved
from safetensors.torch import load_file, save_file

from triparty.developer.protect.heads import Attention, Rotary, attention_spaces
from triparty.developer.protect.plans import Plan
from triparty.developer.protect.rules import Rule
from triparty.developer.protect.spaces import Scheme, Space

TINY: Mapping[str, Any] = {
    "vocab_size": 53,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-3,  # so large that a wrong one shows
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}


class GemmaLaw(DecoderLaw):
    """The law of families whose norms store their weights less one."""

    def source(self, model: str, folder: Path, *, dtype: str = "float64") -> Path:
        """A checkpoint whose norms have the same weights as those of other families.

        With those of the template plus one, scores are so large that softmax turns float32
        rounding into more than the law allows.
        """
        source = super().source(model, folder, dtype=dtype)
        file = source / "model.safetensors"
        tensors = load_file(file)
        norms = {name: tensors[name] - 1 for name in tensors if "norm" in name}
        save_file({**tensors, **norms}, file, metadata={"format": "pt"})
        return source


def with_heads(**changes: Any) -> Break:
    """The same plan with other spaces of queries and keys."""
    shape = Attention(4, 2, 8, Rotary.HALVES, Scheme.PERMUTATION)

    def make(plan: Plan) -> Mapping[str, Space]:
        spaces: dict[str, Space] = {}
        for layer in plan.counts["l"]:
            wrong = attention_spaces(str(layer), dataclasses.replace(shape, **changes))
            spaces |= {name: wrong[name] for name in (f"query.{layer}", f"key.{layer}")}
        return spaces

    return other_spaces(make)


def other_rules(words: str, **changes: Any) -> Break:
    """The same plan with other rules for the tensors whose pattern has `words`."""

    def changed(rule: Rule) -> Rule:
        return dataclasses.replace(rule, **changes) if words in rule.pattern else rule

    def breaks(plan: Plan) -> Plan:
        rules = tuple(changed(rule) for rule in plan.rules)
        assert rules != plan.rules, f"nothing about {words!r} changes"
        return dataclasses.replace(plan, rules=rules)

    return breaks


WRONG_HEADS: Mapping[str, Break] = {
    "in-head permutation under rope": with_heads(rotary=Rotary.NONE),
    "neighbours for halves": with_heads(rotary=Rotary.NEIGHBOURS),
    "one permutation over all heads": other_spaces(over_all_heads),
    "queries alone": alone("key"),
    "values alone": alone("mixed"),
}
WRONG_NEURONS: Mapping[str, Break] = {
    "gate not permuted": alone("gate"),
    "down not permuted": unmoved("down_proj", 1),
}
WRONG_NORMS: Mapping[str, Break] = {
    "norm weights skipped": unmoved("layernorm.weight", 0),
    "the final norm skipped": unmoved("model.norm", 0),
}
