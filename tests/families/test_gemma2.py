"""The law of Gemma 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from decoders import TINY, WRONG_HEADS, WRONG_NEURONS, GemmaLaw, other_rules
from family_law import unmoved
from transformers import Gemma2Config, Gemma2ForCausalLM

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect import Choices, survey


def gemma2(**options: Any) -> Any:
    caps = {"attn_logit_softcapping": 4.0, "final_logit_softcapping": 9.0}
    given = {**TINY, "query_pre_attn_scalar": 24, "sliding_window": 5, **caps, **options}
    return lambda: Gemma2ForCausalLM(Gemma2Config(**given))


class TestGemma2(GemmaLaw):
    is_audited_first = False
    models = {
        "capped, tied": gemma2(),
        "no caps, biases": gemma2(
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
            attention_bias=True,
            tie_word_embeddings=False,
        ),
        "windows in one layer": gemma2(
            num_hidden_layers=3,
            layer_types=["full_attention", "sliding_attention", "full_attention"],
        ),
    }
    # Norms that stay and norms that are folded, both with signs.
    control_scheme = "orthogonal"
    controls = {
        **WRONG_HEADS,
        **WRONG_NEURONS,
        "norms behind attention skipped": unmoved("post_attention_layernorm", 0),
        "norms behind attention folded": other_rules("post_attention_layernorm", foldable=True),
        "norms behind feed-forward skipped": unmoved("post_feedforward_layernorm", 0),
        "the norm before attention not folded": other_rules("v_proj", after=None),
        "the norm before feed-forward not folded": other_rules("up_proj", after=None),
        "the final norm not folded": other_rules("lm_head", after=None),
        "weights of norms not less one": other_rules("layernorm", offset=0.0),
        "rows not multiplied": other_rules("embed_tokens", factor=1.0),
    }

    def test_scales_of_capped_logits_are_refused(self, tmp_path: Path) -> None:
        choices = Choices.of(scheme="orthogonal", head_scales=True)
        source = self.source("capped, tied", tmp_path / "capped")
        with pytest.raises(UnsupportedModelError, match="final_logit_softcapping"):
            survey(str(source), choices)
        source = self.source("no caps, biases", tmp_path / "free")
        assert survey(str(source), choices).choices.head_scales

    def test_an_expansion_is_refused(self, tmp_path: Path) -> None:
        source = self.source("capped, tied", tmp_path)
        with pytest.raises(UnsupportedModelError, match="expanded"):
            survey(str(source), Choices.of(scheme="orthogonal", expand=56))
