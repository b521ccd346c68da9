"""The law of GPT-2."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from decoder_law import DecoderLaw
from family_law import FamilyLaw, alone, other_spaces, over_all_heads, unmoved, values_of
from transformers import GPT2Config, GPT2LMHeadModel

from triparty.developer.protect import FAMILIES, Choices, Scheme, protect
from triparty.developer.protect.plans import Plan

ORTHOGONAL = Choices(Scheme.ORTHOGONAL)

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


class TestGpt2(DecoderLaw):
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


def without_taking_back(plan: Plan) -> Plan:
    kept = {name: replace(offset, read_as=None) for name, offset in plan.offsets.items()}
    return replace(plan, offsets=kept)


class TestOffsets(FamilyLaw):
    """Under `orthogonal`, the biases of keys and values have secret offsets."""

    is_audited_first = False

    models = {"tied": gpt2()}
    schemes = ("orthogonal",)
    interfaces = ("embeddings",)
    options = {}
    control_scheme = "orthogonal"
    controls = {"an offset of values is not taken back": without_taking_back}

    def test_the_offsets_are_there(self, tmp_path: Path) -> None:
        source = self.source("tied", tmp_path)
        with_them = protect(str(source), tmp_path / "with", choices=ORTHOGONAL, seed=1)
        family = FAMILIES["gpt2"]
        bare = replace(with_them.plan, offsets={})
        with pytest.MonkeyPatch.context() as patch:
            broken = replace(family, plan=lambda *_: bare)
            patch.setitem(FAMILIES, "gpt2", broken)  # type: ignore[arg-type]
            protect(str(source), tmp_path / "without", choices=ORTHOGONAL, seed=1)
        values = [values_of(tmp_path / name / "model") for name in ("with", "without")]
        changed = {name for name in values[0] if (values[0][name] != values[1][name]).any()}
        assert {name for name in changed if ".h.0." in name} == {
            "transformer.h.0.attn.c_attn.bias",
            "transformer.h.0.attn.c_proj.bias",
        }
        queries = [v["transformer.h.0.attn.c_attn.bias"][:24] for v in values]
        assert (queries[0] == queries[1]).all()
