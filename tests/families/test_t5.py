"""The law of T5 and mT5."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family_law import (
    Break,
    FamilyLaw,
    other_spaces,
    transform_of,
    unmoved,
    values_of,
)
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from triparty.common.errors import CheckpointError, UnsupportedModelError
from triparty.common.keying import Bundle
from triparty.developer.answers import Task, task_of
from triparty.developer.answers.causal import Texts, keyed_inputs
from triparty.developer.answers.seq2seq import Exchanges
from triparty.developer.protect import Choices, Survey, protect, survey
from triparty.developer.protect.heads import Attention, Rotary, attention_spaces
from triparty.developer.protect.keys import Keys
from triparty.developer.protect.plans import Plan
from triparty.developer.protect.rules import Axis, Role, Rule
from triparty.developer.protect.spaces import Scheme, Space, permuted
from triparty.developer.stock import load_model
from triparty.developer.verify import Comparison

HEADS, WIDTH = 8, 24
TINY = {
    "vocab_size": 51,
    "d_model": WIDTH,
    "d_kv": 4,
    "d_ff": 20,
    "num_layers": 2,
    "num_heads": HEADS,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 10,
    "decoder_start_token_id": 2,
    "pad_token_id": 0,
    "eos_token_id": 1,
}


def t5(**options: Any) -> Any:
    return lambda: T5ForConditionalGeneration(T5Config(**{**TINY, **options}))


def untied(make: Any) -> Any:
    """The same model with a head of its own."""

    def made() -> Any:
        model = make()
        model.lm_head.weight = torch.nn.Parameter(torch.randn(51, WIDTH))
        return model

    return made


def reading(words: str, space: str) -> Break:
    """The tensors whose pattern has `words` read another space."""

    def other(rule: Rule) -> Rule:
        axes = tuple(
            Axis(space, axis.role) if axis.role is Role.READS else axis for axis in rule.axes
        )
        return Rule(rule.pattern, axes, after=rule.after)

    def breaks(plan: Plan) -> Plan:
        rules = tuple(other(rule) if words in rule.pattern else rule for rule in plan.rules)
        assert rules != plan.rules
        spaces = {**plan.spaces, space: permuted(space, WIDTH)}
        return replace(plan, rules=rules, spaces=spaces)

    return breaks


def without_head_factor(plan: Plan) -> Plan:
    rules = [
        replace(rule, factor=1.0) if rule.pattern == "lm_head.weight" else rule
        for rule in plan.rules
    ]
    return replace(plan, rules=tuple(rules))


def order_of_its_own(plan: Plan) -> Mapping[str, Space]:
    """The heads of the second layer in another order than the bias of the stack."""
    shape = Attention(HEADS, HEADS, 4, Rotary.NONE, Scheme.PERMUTATION)
    return attention_spaces("encoder 1", shape)


class Seq2SeqLaw(FamilyLaw):
    """The law of models that take two texts."""

    def source(self, model: str, folder: Path, *, dtype: str = "float64") -> Path:
        """Scores are not divided by the width of a head, which trained queries make up for."""
        source = super().source(model, folder, dtype=dtype)
        tensors = load_file(source / "model.safetensors")
        for name in [name for name in tensors if name.endswith("Attention.q.weight")]:
            tensors[name] *= 0.25
        save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
        return source

    def samples(self, task: Task, found: Survey) -> Iterator[Exchanges]:
        rng = np.random.default_rng(3)
        ids = rng.integers(0, found.info.vocabulary, (3, 14))
        answers = rng.integers(0, found.info.vocabulary, (3, 9))
        places, cut = np.arange(14)[None], np.array([[0], [5], [7]])
        shorter = Texts(answers, np.arange(9)[None] < np.array([[9], [4], [7]]))
        yield Exchanges(Texts.unpadded(ids), Texts.unpadded(answers))
        yield Exchanges(Texts(ids, places >= cut), Texts.unpadded(answers))
        yield Exchanges(Texts(ids, places < 14 - cut), shorter)

    def hidden_states(
        self, source: Path, out: Path, found: Survey
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Both residuals before each layer, and what cross-attention reads."""
        task = task_of(found.plan.task)
        original = load_model(source, task.auto_class)
        hosted = load_model(out / "model", task.auto_class)
        bundle, residual = Bundle.open(out / "device"), transform_of(found, out, "residual")
        sample = next(self.samples(task, found))
        texts = keyed_inputs(bundle, sample.texts)["inputs_embeds"]
        answers = keyed_inputs(bundle, sample.answers)["inputs_embeds"]
        with torch.inference_mode():
            plain = original(
                input_ids=torch.from_numpy(sample.texts.ids),
                decoder_input_ids=torch.from_numpy(sample.answers.ids),
                output_hidden_states=True,
            )
            keyed = hosted(
                inputs_embeds=torch.from_numpy(texts),
                decoder_inputs_embeds=torch.from_numpy(answers),
                output_hidden_states=True,
            )
        for name in ("encoder_hidden_states", "decoder_hidden_states"):
            assert len(plain[name]) == len(keyed[name]) >= 2
            for before, after in zip(plain[name][:-1], keyed[name][:-1], strict=True):
                yield before.numpy(), after.numpy() @ residual
        gamma = original.encoder.final_layer_norm.weight.detach().numpy()
        memory = keyed.encoder_last_hidden_state.numpy() @ residual * gamma
        yield plain.encoder_last_hidden_state.numpy(), memory


class TestT5(Seq2SeqLaw):
    models = {
        "tied, relu": t5(),
        "untied, gated": untied(
            t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False, num_decoder_layers=1)
        ),
        "tied, not scaled": t5(
            feed_forward_proj="gated-silu", tie_word_embeddings=False, num_layers=1
        ),
        "untied, scaled": untied(t5(feed_forward_proj="gelu", num_decoder_layers=1)),
    }
    options = {
        "norms kept": {"norms": "keep"},
        "expanded": {"scheme": "orthogonal", "expand": 33},
        "expanded, tokens": {"scheme": "orthogonal", "expand": 33, "interface": "tokens"},
        "scaled head": {"scheme": "orthogonal", "head_scales": True},
    }
    controls = {
        "norm weights skipped": unmoved("encoder.block.{l}.layer.1.layer_norm", 0),
        "the encoder's last norm skipped": unmoved("encoder.final_layer_norm", 0),
        "the decoder's last norm skipped": unmoved("decoder.final_layer_norm", 0),
        "a layer's heads in an order of their own": other_spaces(order_of_its_own),
        "the bias not moved": unmoved("decoder.block.0.layer.0.SelfAttention.relative", 1),
        "cross-attention keys read something else": reading("EncDecAttention.k", "elsewhere"),
        "cross-attention values read something else": reading("EncDecAttention.v", "elsewhere"),
        "head factor forgotten": without_head_factor,
        "neurons read in the old order": unmoved("DenseReluDense.wo", 1),
        "cross-attention read in the old order": unmoved("EncDecAttention.o", 1),
    }

    def test_ids_that_generation_needs_are_keyed(self, tmp_path: Path) -> None:
        source = self.source("tied, relu", tmp_path)
        for kept in (True, False):
            if not kept:
                (source / "generation_config.json").unlink()
            out = tmp_path / str(kept)
            protect(str(source), out, choices=Choices.of(interface="tokens"))
            bundle = Bundle.open(out / "device")
            names = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
            for file in ("config.json", "generation_config.json"):
                document = json.loads((out / "model" / file).read_text())
                keyed = np.array([document[name] for name in names])
                assert bundle.plain_ids(keyed).tolist() == [0, 1, 2]
            assert bundle.info.bos_id == 2

    def test_tables_beside_the_shared_one_are_dropped(self, tmp_path: Path) -> None:
        source = self.source("tied, relu", tmp_path)
        tensors = load_file(source / "model.safetensors")
        both = {f"{stack}.embed_tokens.weight" for stack in ("encoder", "decoder")}
        copies = {name: tensors["shared.weight"].clone() for name in both}
        whole = {**tensors, **copies}
        save_file(whole, source / "model.safetensors", metadata={"format": "pt"})
        for interface in self.interfaces:
            out = tmp_path / interface
            found = protect(str(source), out, choices=Choices.of(interface=interface))
            assert set(values_of(out / "model")) == {*tensors, "lm_head.weight"}
            assert self.disagreement(source, out, found) <= 2e-6
        copies["encoder.embed_tokens.weight"] += 1
        save_file(
            {**tensors, **copies}, source / "model.safetensors", metadata={"format": "pt"}
        )
        with pytest.raises(UnsupportedModelError, match=r"encoder\.embed_tokens"):
            survey(str(source), Choices())

    @pytest.mark.parametrize(
        ("base", "said"),
        [
            ("tied, relu", {}),
            ("tied, relu", {"tie_word_embeddings": True}),
            ("untied, gated", {"tie_word_embeddings": False}),
        ],
    )
    def test_old_configurations_say_by_the_tie_alone_whether_they_scale(
        self, base: str, said: dict[str, bool], tmp_path: Path
    ) -> None:
        source = self.source(base, tmp_path)
        document = json.loads((source / "config.json").read_text())
        for name in ("tie_word_embeddings", "scale_decoder_outputs"):
            document.pop(name, None)
        (source / "config.json").write_text(json.dumps({**document, **said}))
        found = protect(str(source), tmp_path / "out")
        assert self.disagreement(source, tmp_path / "out", found) <= 2e-6

    def test_the_comparison_answers_texts(self, tmp_path: Path) -> None:
        source = self.source("tied, relu", tmp_path)
        for interface in self.interfaces:
            out = tmp_path / interface
            protect(str(source), out, choices=Choices.of(interface=interface))
            agreement = Comparison(str(source), out).agreement(
                150, rng=np.random.default_rng(1)
            )
            assert agreement.samples >= 150
            assert agreement.top1_agreement == 1.0
            assert agreement.max_relative_error <= 2e-6
            assert agreement.greedy_identical

    def test_only_relu_neurons_are_scaled(self, tmp_path: Path) -> None:
        for name, scaled in (("tied, relu", True), ("untied, scaled", False)):
            source = self.source(name, tmp_path / name)
            found = survey(str(source), Choices.of(scheme="orthogonal"))
            drawn: Any = found.plan.spaces["neurons.encoder 0"].draw(Keys.of_seed(1))
            assert (not drawn.signed) == scaled
            assert (drawn.factors() > 0).all()

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"feed_forward_proj": "maxout-gelu"}, UnsupportedModelError, "feed_forward_proj"),
            ({"dense_act_fn": "softmax"}, UnsupportedModelError, "dense_act_fn"),
            ({"is_encoder_decoder": False}, UnsupportedModelError, "is_encoder_decoder"),
            ({"decoder_start_token_id": None}, CheckpointError, "decoder_start_token_id"),
        ],
    )
    def test_what_has_no_exact_plan_is_refused(
        self, options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
    ) -> None:
        source = self.source("tied, relu", tmp_path)
        document = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps({**document, **options}))
        (source / "generation_config.json").unlink()
        with pytest.raises(error, match=message):
            survey(str(source), Choices())


def mt5(**options: Any) -> Any:
    return lambda: MT5ForConditionalGeneration(MT5Config(**{**TINY, **options}))


class TestMT5(Seq2SeqLaw):
    is_audited_first = False
    models = {"untied": untied(mt5()), "tied": mt5(num_layers=1)}
    options = {"norms kept": {"norms": "keep"}}
    controls = {"the encoder's last norm skipped": unmoved("encoder.final_layer_norm", 0)}
