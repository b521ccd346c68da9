"""The law of DeepSeek-V3."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from decoder_law import DecoderLaw
from family_law import (
    alone,
    other_spaces,
    randomise,
    unmoved,
    values_of,
    write_tokenizer,
)
from safetensors.torch import load_file, save_file
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from triparty.common.errors import UnsupportedModelError
from triparty.common.tensorfile import TensorFile
from triparty.developer.protect import Choices, protect, survey
from triparty.developer.protect.keys import Keys
from triparty.developer.protect.plans import Plan
from triparty.developer.protect.spaces import Space, permuted
from triparty.developer.protect.transforms import Monomial, Transform, joined, side_by_side

HEADS, FREE, TURNED = 3, 4, 6
TINY = {
    "vocab_size": 53,
    "hidden_size": 24,
    "intermediate_size": 20,
    "moe_intermediate_size": 10,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "n_routed_experts": 8,
    "kv_lora_rank": 12,
    "q_lora_rank": 14,
    "qk_nope_head_dim": FREE,
    "qk_rope_head_dim": TURNED,
    "v_head_dim": 5,
    "n_group": 4,
    "topk_group": 2,
    "num_experts_per_tok": 3,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 64,
}
SMALL = {
    "n_routed_experts": 6,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
}


def deepseek(**options: Any) -> Any:
    return lambda: DeepseekV3ForCausalLM(DeepseekV3Config(**{**TINY, **options}))


def rotary_part(change: Any) -> Any:
    """The same plan with another key of the rotary part of each head's queries.

    Args:
        change: makes it of the right one, the keys, and the number of the head.
    """

    def space(right: Space, layer: int) -> Space:
        def draw(keys: Keys) -> Transform:
            whole = right.draw(keys)
            assert isinstance(whole, Monomial)
            parts: list[tuple[int, Transform]] = []
            for start in range(0, right.size, FREE + TURNED):
                head = Monomial(
                    whole.index[start : start + FREE + TURNED],
                    whole.factors()[start : start + FREE + TURNED],
                )
                old = int(head.index.min())
                free = Monomial(head.index[:FREE] - old)
                turned = Monomial(head.index[FREE:] - old - FREE, head.factors()[FREE:])
                label = f"layer {layer} wrong {start}"
                parts.append((old, joined([free, change(turned, keys, label)])))
            return side_by_side(parts)

        return Space(right.size, draw)

    def make(plan: Plan) -> Mapping[str, Space]:
        return {
            f"query.{layer}": space(plan.spaces[f"query.{layer}"], layer)
            for layer in plan.counts["l"]
        }

    return other_spaces(make)


def of_its_own(right: Monomial, keys: Keys, label: str) -> Monomial:
    """Pairs that each head turns in its own way."""
    signs = np.repeat(keys.signs(label, TURNED // 2), 2)
    return right.then_scaled(signs)


def in_head(right: Monomial, keys: Keys, label: str) -> Monomial:
    """A permutation inside the head, which the positions do not commute with."""
    return Monomial(keys.permutation("wrong order", TURNED))


def over_group_borders(plan: Plan) -> Mapping[str, Space]:
    return {f"experts.{s}": permuted(f"wrong {s}", 8) for s in plan.counts["s"]}


def same_wrong_rotary_keys(plan: Plan) -> Mapping[str, Space]:
    """The shared key under the same permutation, so that unrotated products would agree."""
    return {
        f"rotary key.{layer}": permuted("wrong order", TURNED) for layer in plan.counts["l"]
    }


def in_head_permutation(plan: Plan) -> Plan:
    return other_spaces(same_wrong_rotary_keys)(rotary_part(in_head)(plan))


class TestDeepseekV3(DecoderLaw):
    is_audited_first = False
    models = {
        "latent queries": deepseek(),
        "plain queries": deepseek(**SMALL, q_lora_rank=None, rope_interleave=False),
        "biases, two shared experts": deepseek(
            **SMALL, attention_bias=True, n_shared_experts=2, first_k_dense_replace=0
        ),
        "every expert": deepseek(**{**SMALL, "topk_group": 2, "num_experts_per_tok": 6}),
        "dense, tied": deepseek(first_k_dense_replace=2, tie_word_embeddings=True),
        "yarn with mscale": deepseek(
            **SMALL,
            norm_topk_prob=False,
            rope_parameters={
                "rope_type": "yarn",
                "factor": 4.0,
                "rope_theta": 1e4,
                "original_max_position_embeddings": 16,
                "mscale": 1.0,
                "mscale_all_dim": 0.7,
            },
        ),
    }
    rounded_model = "every expert"
    options = {
        "norms kept": {"norms": "keep"},
        "expanded": {"scheme": "orthogonal", "expand": 33},
        "scaled head": {"scheme": "orthogonal", "head_scales": True},
    }
    controls = {
        "norm weights skipped": unmoved("input_layernorm.weight", 0),
        "a latent's norm skipped": unmoved("kv_a_layernorm", 0),
        "the queries' latent norm skipped": unmoved("q_a_layernorm", 0),
        "rotary pairs of each head's own": rotary_part(of_its_own),
        "in-head permutation under rope": in_head_permutation,
        "rotary keys alone": alone("rotary key"),
        "keys and values alone": alone("key value"),
        "values alone": alone("mixed"),
        "experts over group borders": other_spaces(over_group_borders),
        "correction bias not moved": unmoved("e_score_correction_bias", 0),
        "router not moved": unmoved("mlp.gate.weight", 0),
        "an expert's down not permuted": unmoved("experts.{e}.down_proj", 1),
        "shared down not permuted": unmoved("shared_experts.down_proj", 1),
    }

    def source(self, model: str, folder: Path, *, dtype: str = "float64") -> Path:
        """Scores as small as those of trained weights, which rounding does not blow up."""
        source = super().source(model, folder, dtype=dtype)
        tensors = load_file(source / "model.safetensors")
        for name in [
            name for name in tensors if name.endswith(("q_b_proj.weight", "q_proj.weight"))
        ]:
            tensors[name] *= 0.25
        save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
        return source

    def test_layers_that_draft_ahead_are_dropped(self, tmp_path: Path) -> None:
        source = self.source("latent queries", tmp_path)
        tensors = load_file(source / "model.safetensors")
        last = {name: value for name, value in tensors.items() if ".layers.1." in name}
        extra = {name.replace(".1.", ".2.", 1): value * 1 for name, value in last.items()}
        extra["model.layers.2.eh_proj.weight"] = torch.ones(24, 48, dtype=torch.float64)
        save_file(tensors | extra, source / "model.safetensors", metadata={"format": "pt"})
        found = protect(str(source), tmp_path / "out")
        hosted = values_of(tmp_path / "out" / "model")
        assert set(hosted) == set(tensors)
        config = json.loads((tmp_path / "out" / "model" / "config.json").read_text())
        assert config["num_nextn_predict_layers"] == 0
        assert self.disagreement(source, tmp_path / "out", found) <= 2e-6

    def test_the_correction_bias_keeps_its_own_dtype(self, tmp_path: Path) -> None:
        made = self.models["latent queries"]()
        randomise(made)
        made.to(torch.bfloat16)
        for layer in made.model.layers[1:]:
            layer.mlp.gate.e_score_correction_bias.data = torch.randn(8) + 1 / 3
        made.save_pretrained(tmp_path / "source")
        write_tokenizer(tmp_path / "source", 53)
        name = "model.layers.1.mlp.gate.e_score_correction_bias"
        for interface in self.interfaces:
            out = tmp_path / interface
            found = protect(
                str(tmp_path / "source"), out, choices=Choices.of(interface=interface)
            )
            assert found.info.dtype == "bfloat16"
            before = TensorFile.open(tmp_path / "source" / "model.safetensors")
            after = TensorFile.open(out / "model" / "model.safetensors")
            assert before.entries[name].dtype == after.entries[name].dtype == "F32"
            assert sorted(before.bits(name)) == sorted(after.bits(name))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"num_key_value_heads": 1}, "num_key_value_heads"),
            ({"n_group": 3}, "groups"),
            ({"topk_group": 1}, "groups"),
            ({"scoring_func": "softmax"}, "scoring_func"),
            ({"first_k_dense_replace": 3}, "first_k_dense_replace"),
            ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
            ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ],
    )
    def test_what_has_no_exact_plan_is_refused(
        self, options: dict[str, Any], message: str, tmp_path: Path
    ) -> None:
        source = self.source("latent queries", tmp_path)
        document = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps({**document, **options}))
        with pytest.raises(UnsupportedModelError, match=message):
            survey(str(source), Choices())
