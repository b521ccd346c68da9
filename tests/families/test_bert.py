"""The law of BERT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoder_law import EncoderLaw
from family_law import alone, in_float64, other_spaces, over_all_heads, unmoved, values_of
from safetensors.numpy import save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
)

from triparty.common.errors import UnknownTensorError, UnsupportedModelError
from triparty.common.keying import Bundle
from triparty.developer.protect import Choices, protect, survey
from triparty.developer.protect.rules import NormRule

TINY = {
    "vocab_size": 51,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}


def bert(kind: Any, **options: Any) -> Any:
    return lambda: kind(BertConfig(**{**TINY, **options}))


class TestBertForMaskedLM(EncoderLaw):
    models = {
        "tied": bert(BertForMaskedLM),
        "untied": bert(BertForMaskedLM, tie_word_embeddings=False),
        "three types, relu": bert(BertForMaskedLM, type_vocab_size=3, hidden_act="relu"),
    }
    options = {
        "norms kept": {"norms": "keep"},
        "scaled head": {"scheme": "orthogonal", "head_scales": True},
    }
    controls = {
        "token types skipped": unmoved("token_type_embeddings", 1),
        "positions skipped": unmoved("position_embeddings", 1),
        "embedding norm not permuted": unmoved("embeddings.LayerNorm.weight", 0),
        "norm biases skipped": unmoved("attention.output.LayerNorm.bias", 0),
        "transform norm skipped": unmoved("transform.LayerNorm.weight", 0),
        "transform norm's bias skipped": unmoved("transform.LayerNorm.bias", 0),
        "the decoder's bias skipped": unmoved("predictions.decoder.bias", 0),
        "queries alone": alone("key"),
        "one permutation over all heads": other_spaces(over_all_heads),
        "values alone": alone("mixed"),
        "neurons alone": unmoved("intermediate.dense.weight", 0),
    }

    @pytest.mark.parametrize("interface", ["embeddings", "tokens"])
    def test_a_checkpoint_of_the_pretraining_task_is_read_as_stock_classes_do(
        self, interface: str, tmp_path: Path
    ) -> None:
        """Norms under their first names, heads that nobody loads, the head's bias twice."""
        source = self.source("tied", tmp_path)
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): values
            for name, values in values_of(source).items()
        }
        old["cls.predictions.decoder.bias"] = old["cls.predictions.bias"]
        old["bert.embeddings.position_ids"] = np.arange(32)[None]
        for module, rows in (("bert.pooler.dense", 24), ("cls.seq_relationship", 2)):
            old |= {f"{module}.weight": np.ones((rows, 24)), f"{module}.bias": np.ones(rows)}
        save_file(old, source / "model.safetensors", {"format": "pt"})
        found = protect(str(source), tmp_path / "out", choices=Choices.of(interface=interface))
        hosted = values_of(tmp_path / "out" / "model")
        assert set(hosted) == set(found.plan.tensors)
        with in_float64():
            assert self.disagreement(source, tmp_path / "out", found) <= 1e-10

    def test_the_heads_norm_alone_is_folded(self, tmp_path: Path) -> None:
        plan = survey(str(self.source("tied", tmp_path)), Choices()).plan
        norms = [rule for rule in plan.tensors.values() if isinstance(rule, NormRule)]
        foldable = {rule.pattern for rule in norms if rule.foldable}
        name = "cls.predictions.transform.LayerNorm"
        assert foldable == {f"{name}.weight", f"{name}.bias"}
        assert len(norms) == 2 * (1 + 2 * 2 + 1)

    def test_either_name_of_the_heads_bias_is_enough(self, tmp_path: Path) -> None:
        source = self.source("tied", tmp_path)
        held = values_of(source)
        held["cls.predictions.decoder.bias"] = held.pop("cls.predictions.bias")
        save_file(held, source / "model.safetensors", {"format": "pt"})
        found = protect(str(source), tmp_path / "out")
        with in_float64():
            assert self.disagreement(source, tmp_path / "out", found) <= 1e-10
        hosted = values_of(tmp_path / "out" / "model")
        one, other = "cls.predictions.decoder.bias", "cls.predictions.bias"
        assert (hosted[one] == hosted[other]).all()

    def test_two_different_biases_of_a_tied_head_are_refused(self, tmp_path: Path) -> None:
        source = self.source("tied", tmp_path)
        held = values_of(source)
        held["cls.predictions.decoder.bias"] = held["cls.predictions.bias"] + 1
        save_file(held, source / "model.safetensors", {"format": "pt"})
        with pytest.raises(UnsupportedModelError, match="two different"):
            survey(str(source), Choices())

    def test_the_tables_of_the_device_are_zeros_on_the_cloud(self, tmp_path: Path) -> None:
        source = self.source("tied", tmp_path)
        found = protect(str(source), tmp_path / "out")
        hosted = values_of(tmp_path / "out" / "model")
        tables = values_of(tmp_path / "out" / "device")
        assert (found.info.positions, found.info.segments) == (True, 2)
        for table, name in (
            ("rows", "word_embeddings"),
            ("positions", "position_embeddings"),
            ("types", "token_type_embeddings"),
        ):
            assert not hosted[f"bert.embeddings.{name}.weight"].any()
            assert tables[table].all()

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("is_decoder", True),
            ("add_cross_attention", True),
            ("position_embedding_type", "relative_key"),
            ("hidden_act", "softmax"),
            ("num_attention_heads", 5),
        ],
    )
    def test_what_has_no_plan_is_refused(
        self, option: str, value: object, tmp_path: Path
    ) -> None:
        source = self.source("tied", tmp_path)
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps(config | {option: value}))
        with pytest.raises(UnsupportedModelError, match=r"config\.json"):
            survey(str(source), Choices())


class TestBertForSequenceClassification(EncoderLaw):
    models = {
        "labels": bert(BertForSequenceClassification, num_labels=5),
        "two labels": bert(BertForSequenceClassification),
    }
    options = {"scaled head": {"scheme": "orthogonal", "head_scales": True}}
    controls = {
        "labels not permuted on one side": unmoved("classifier", 0),
        "the pooler alone": unmoved("pooler.dense", 0),
    }

    def test_neurons_under_tanh_change_sign_where_the_scheme_is_the_largest_group(
        self, scheme: str, tmp_path: Path
    ) -> None:
        source = self.source("labels", tmp_path)
        protect(str(source), tmp_path / "out", choices=Choices.of(scheme=scheme), seed=1)
        name = "bert.pooler.dense.bias"
        before, after = values_of(source)[name], values_of(tmp_path / "out" / "model")[name]
        assert (np.sort(np.abs(before)) == np.sort(np.abs(after))).all()
        changed = (np.sort(before) != np.sort(after)).any()
        assert changed == (scheme == "orthogonal")

    def test_the_cloud_gets_the_number_of_labels_without_their_names(
        self, tmp_path: Path
    ) -> None:
        source = self.source("labels", tmp_path)
        config = json.loads((source / "config.json").read_text())
        config["id2label"] = {str(i): f"diagnosis {i}" for i in range(5)}
        config["label2id"] = {name: int(i) for i, name in config["id2label"].items()}
        (source / "config.json").write_text(json.dumps(config))
        found = protect(str(source), tmp_path / "out")
        hosted = (tmp_path / "out" / "model" / "config.json").read_text()
        assert "diagnosis" not in hosted
        assert json.loads(hosted)["num_labels"] == found.info.outputs == 5

    def test_the_wrong_number_of_labels_is_an_error(self, tmp_path: Path) -> None:
        source = self.source("labels", tmp_path)
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps(config | {"id2label": 5}))
        with pytest.raises(UnsupportedModelError, match="id2label"):
            survey(str(source), Choices())


class TestBertModel(EncoderLaw):
    models = {"sentence rows": bert(BertModel)}
    options = {}
    controls = {"the last norm skipped": unmoved("output.LayerNorm.weight", 0)}

    def test_the_device_can_undo_the_residual(self, tmp_path: Path) -> None:
        """And so keyed rows have the lengths and dot products of plain ones."""
        source = self.source("sentence rows", tmp_path)
        protect(str(source), tmp_path / "out")
        bundle = Bundle.open(tmp_path / "out" / "device")
        words = values_of(source)["embeddings.word_embeddings.weight"]
        keyed = values_of(tmp_path / "out" / "device")["rows"]
        assert (bundle.plain_logits(keyed) == words).all()  # type: ignore[arg-type]
        assert np.allclose(keyed @ keyed.T, words @ words.T, rtol=0, atol=1e-12)

    def test_rows_under_a_norm_cannot_be_scaled(self, tmp_path: Path) -> None:
        source = self.source("sentence rows", tmp_path)
        with pytest.raises(UnsupportedModelError, match="head scales"):
            survey(str(source), Choices(head_scales=True))

    def test_a_model_without_its_pooler_is_refused(self, tmp_path: Path) -> None:
        source = self.source("sentence rows", tmp_path)
        kept = {n: values for n, values in values_of(source).items() if "pooler" not in n}
        save_file(kept, source / "model.safetensors", {"format": "pt"})
        with pytest.raises(UnknownTensorError, match="pooler"):
            survey(str(source), Choices())
