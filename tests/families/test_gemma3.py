"""The law of Gemma 3 for text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from decoders import TINY, WRONG_HEADS, WRONG_NEURONS, GemmaLaw, other_rules, with_heads
from family_law import unmoved
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect import Choices, survey

LOCAL, GLOBAL = "sliding_attention", "full_attention"


def gemma3(**options: Any) -> Any:
    given = {**TINY, "query_pre_attn_scalar": 24, "sliding_window": 5, **options}
    return lambda: Gemma3ForCausalLM(Gemma3TextConfig(**given))


class TestGemma3(GemmaLaw):
    is_audited_first = False
    models = {
        "local and global": gemma3(layer_types=[LOCAL, GLOBAL]),
        "scaled rope, cap, biases": gemma3(
            layer_types=[GLOBAL, LOCAL],
            rope_parameters={
                GLOBAL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e5},
                LOCAL: {"rope_type": "default", "rope_theta": 50.0},
            },
            final_logit_softcapping=3.0,
            attention_bias=True,
            tie_word_embeddings=False,
        ),
        "a pattern": gemma3(num_hidden_layers=3, sliding_window_pattern=2),
    }
    control_scheme = "orthogonal"
    controls = {
        **WRONG_HEADS,
        **WRONG_NEURONS,
        "norms behind attention folded": other_rules("post_attention_layernorm", foldable=True),
        "norms behind feed-forward skipped": unmoved("post_feedforward_layernorm", 0),
        "the norm before attention not folded": other_rules("v_proj", after=None),
        "the final norm not folded": other_rules("lm_head", after=None),
        "rows not multiplied": other_rules("embed_tokens", factor=1.0),
        "query norm left": unmoved("q_norm", 0),
        "key norm left": unmoved("k_norm", 0),
        "weights of the query norm not less one": other_rules("q_norm", offset=0.0),
        "a turn for each group": with_heads(),
    }

    def test_an_older_configuration_is_kept(self, tmp_path: Path) -> None:
        source = self.source("local and global", tmp_path)
        older = {
            "rope_theta": 5e5,
            "rope_local_base_freq": 50.0,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window_pattern": 2,
        }
        config = json.loads((source / "config.json").read_text())
        for name in ("rope_parameters", "layer_types", "_sliding_window_pattern"):
            del config[name]
        (source / "config.json").write_text(json.dumps(config | older))
        kept = survey(str(source), Choices()).options.kept()
        assert {name: kept[name] for name in older} == older

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"rope_parameters": {GLOBAL: {"rope_type": "dynamic"}}}, "dynamic"),
            ({"rope_parameters": {LOCAL: {"partial_rotary_factor": 0.5}}}, "partial"),
            ({"rope_parameters": {"rope_type": "default"}}, "rope_parameters"),
            ({"rope_scaling": {"rope_type": "longrope"}}, "longrope"),
            ({"layer_types": [LOCAL, "chunked_attention"]}, "chunked_attention"),
            ({"layer_types": [LOCAL]}, "layer_types"),
            ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ],
    )
    def test_what_has_no_plan_is_refused(
        self, change: dict[str, Any], message: str, tmp_path: Path
    ) -> None:
        source = self.source("local and global", tmp_path)
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(UnsupportedModelError, match=message):
            survey(str(source), Choices())
