"""The law of Longformer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoder_law import EncoderLaw
from family_law import (
    alone,
    in_float64,
    other_spaces,
    over_all_heads,
    unmoved,
    values_of,
)
from transformers import (
    LongformerConfig,
    LongformerForMaskedLM,
    LongformerForSequenceClassification,
    LongformerModel,
)

from triparty.common.errors import RequestError, UnsupportedModelError
from triparty.common.keying import Bundle
from triparty.developer.answers import Task
from triparty.developer.answers.encoders import Passages, random_ids
from triparty.developer.protect import Choices, Survey, protect, rekeying, survey
from triparty.developer.protect.families.longformer import permuted_around
from triparty.developer.protect.heads import Attention, Rotary, attention_spaces
from triparty.developer.protect.keys import Keys
from triparty.developer.protect.plans import Plan
from triparty.developer.protect.spaces import Scheme

TINY = {
    "vocab_size": 51,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 34,
    "attention_window": 4,
    "type_vocab_size": 2,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
SHAPE = Attention(3, 3, 8, Rotary.NONE, Scheme.PERMUTATION)


def longformer(kind: Any, **options: Any) -> Any:
    return lambda: kind(LongformerConfig(**{**TINY, **options}))


def values_everywhere_alone(plan: Plan) -> Plan:
    """The values that chosen tokens gather have a key that the output projection lacks."""
    rules = tuple(
        dataclasses.replace(
            rule,
            axes=tuple(
                dataclasses.replace(axis, space=axis.space.replace("value.{l}", "other.{l}"))
                for axis in rule.axes
            ),
        )
        if "value_global" in rule.pattern
        else rule
        for rule in plan.rules
    )
    spaces = dict(plan.spaces)
    for layer in plan.counts["l"]:
        shape = dataclasses.replace(SHAPE, order_label=f"layer {layer}")
        other = attention_spaces(f"{layer} other", shape)
        spaces[f"other.{layer}"] = other[f"value.{layer} other"]
    return dataclasses.replace(plan, rules=rules, spaces=spaces)


def everywhere(name: str, **changes: Any) -> Any:
    """Other spaces for what chosen tokens look with."""
    return other_spaces(
        lambda plan: {
            f"{name}.{layer} global": attention_spaces(
                f"{layer} global", dataclasses.replace(SHAPE, **changes)
            )[f"{name}.{layer} global"]
            for layer in plan.counts["l"]
        }
    )


def one_position_late(plan: Plan) -> Plan:
    """The device counts positions as the table does, not from the first that a token takes."""
    rules = tuple(
        dataclasses.replace(rule, device_rows=range(len(rule.device_rows)))
        if rule.device_rows is not None
        else rule
        for rule in plan.rules
    )
    return dataclasses.replace(plan, rules=rules)


class LongformerLaw(EncoderLaw):
    attends_everywhere = True

    def samples(self, task: Task, found: Survey) -> Iterator[Passages]:
        """Also one without chosen tokens, and one as long as a text can be."""
        yield from super().samples(task, found)
        mask = np.ones((2, found.info.max_positions), bool)
        ids = random_ids(found.info, mask, np.random.default_rng(4))
        yield Passages(ids, mask, 0 * ids, ~mask)
        yield Passages(ids, mask, 0 * ids, mask.cumsum(axis=1) == 1)


class TestLongformerForMaskedLM(LongformerLaw):
    models = {
        "tied": longformer(LongformerForMaskedLM),
        "untied, a window for each layer": longformer(
            LongformerForMaskedLM, tie_word_embeddings=False, attention_window=[8, 4]
        ),
        "one type, positions that are no whole windows": longformer(
            LongformerForMaskedLM,
            type_vocab_size=1,
            max_position_embeddings=31,
            pad_token_id=3,
        ),
    }
    options = {
        "norms kept": {"norms": "keep"},
        "scaled head": {"scheme": "orthogonal", "head_scales": True},
    }
    controls = {
        "token types skipped": unmoved("token_type_embeddings", 1),
        "positions skipped": unmoved("position_embeddings", 1),
        "positions counted from zero": one_position_late,
        "embedding norm not permuted": unmoved("embeddings.LayerNorm.weight", 0),
        "head norm skipped": unmoved("lm_head.layer_norm.weight", 0),
        "queries alone": alone("key"),
        "queries of chosen tokens alone": unmoved("key_global", 0),
        "another order of heads for chosen tokens": everywhere(
            "key", order_label="layer other"
        ),
        "values of chosen tokens keyed alone": values_everywhere_alone,
        "one permutation over all heads": other_spaces(over_all_heads),
        "values alone": alone("mixed"),
    }

    @pytest.mark.parametrize("piece_bytes", [1, 1000, rekeying.CHUNK_BYTES])
    def test_the_device_has_the_rows_of_positions_that_tokens_take(
        self, piece_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rekeying, "CHUNK_BYTES", piece_bytes)
        model = "one type, positions that are no whole windows"
        source = self.source(model, tmp_path)
        found = protect(str(source), tmp_path / "out")
        table = "longformer.embeddings.position_embeddings.weight"
        # 31 rows, the first text token at 4: 27 are left, and 28 padded ones fit from 1 on.
        assert found.info.max_positions == 27
        plain = values_of(source)[table][4:]
        keyed = values_of(tmp_path / "out" / "device")["positions"]
        assert keyed.shape == (27, 24)
        assert (np.sort(keyed, axis=1) == np.sort(plain, axis=1)).all()
        assert not values_of(tmp_path / "out" / "model")[table].any()
        bundle = Bundle.open(tmp_path / "out" / "device")
        with pytest.raises(RequestError, match="27 positions"):
            bundle.values(np.zeros(28, np.int64), start=0)

    def test_texts_end_where_padded_rows_would_run_out_of_positions(
        self, tmp_path: Path
    ) -> None:
        source = self.source("tied", tmp_path)
        config = json.loads((source / "config.json").read_text())
        config["attention_window"] = [6, 6]  # 32 tokens would be padded to 36 of 33 rows
        (source / "config.json").write_text(json.dumps(config))
        found = protect(str(source), tmp_path / "out")
        assert found.info.max_positions == 30
        assert survey(str(source), Choices.of(interface="tokens")).info.max_positions == 32
        with in_float64():
            assert self.disagreement(source, tmp_path / "out", found) <= 1e-10

    def test_the_padding_token_is_secret_unless_the_cloud_counts_ids(
        self, tmp_path: Path
    ) -> None:
        source = self.source("one type, positions that are no whole windows", tmp_path)
        for interface, padding in (("embeddings", 0), ("tokens", 3)):
            out = tmp_path / interface
            protect(str(source), out, choices=Choices.of(interface=interface))
            config = json.loads((out / "model" / "config.json").read_text())
            assert config["pad_token_id"] == padding
        order = Bundle.open(tmp_path / "tokens" / "device").keyed_ids(np.arange(27))
        assert order[3] == 3

    def test_all_but_one_trade_places(self) -> None:
        index = permuted_around("ids", 40, 7).draw(Keys.of_seed(1)).index  # type: ignore[attr-defined]
        assert index[7] == 7
        assert (np.sort(index) == np.arange(40)).all()
        assert (index == np.arange(40)).sum() < 6

    @pytest.mark.parametrize(
        ("option", "value", "words"),
        [
            ("attention_window", 3, "attention_window"),
            ("attention_window", [4], "attention_window"),
            ("attention_window", 64, "no room"),
            ("pad_token_id", None, "pad_token_id"),
            ("pad_token_id", 51, "pad_token_id"),
            ("pad_token_id", 40, "no room"),
            ("onnx_export", True, "onnx_export"),
        ],
    )
    def test_what_has_no_plan_is_refused(
        self, option: str, value: object, words: str, tmp_path: Path
    ) -> None:
        source = self.source("tied", tmp_path)
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps(config | {option: value}))
        with pytest.raises(UnsupportedModelError, match=words):
            survey(str(source), Choices())


class TestLongformerForSequenceClassification(LongformerLaw):
    models = {"labels": longformer(LongformerForSequenceClassification, num_labels=5)}
    options = {}
    controls = {
        "labels not permuted on one side": unmoved("out_proj", 0),
        "the layer before them alone": unmoved("classifier.dense", 0),
    }


class TestLongformerModel(LongformerLaw):
    models = {"sentence rows": longformer(LongformerModel)}
    options = {}
    controls = {"the last norm skipped": unmoved("output.LayerNorm.weight", 0)}
