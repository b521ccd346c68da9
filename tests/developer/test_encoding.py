"""What the compiler carries to devices beside the weights: pooling, lengths, scores, labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_encoders import LABELS, tiny_encoder, write_sentence_files

from triparty.common.encodinginfo import EncodingInfo, Pooling, Scores
from triparty.common.errors import CheckpointError, UnsupportedModelError
from triparty.common.keying import Bundle
from triparty.developer.protect import Choices, protect, survey
from triparty.developer.protect.fingerprint import fingerprint


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., Path]:
    """A tiny encoder; more members for its `config.json`."""

    def make(name: str, **changes: Any) -> Path:
        folder = tiny_encoder(name, tmp_path / name)
        path = folder / "config.json"
        config = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
        return folder

    return make


def write(folder: Path, name: str, document: Any) -> None:
    (folder / name).write_text(json.dumps(document))


def encoding(folder: Path) -> EncodingInfo | None:
    return survey(str(folder), Choices()).encoding


@pytest.mark.parametrize(
    ("described", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, Pooling.MEAN),
        ({"pooling_mode_cls_token": True}, Pooling.CLS),
        ({"pooling_mode_max_tokens": True}, Pooling.MAX),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, Pooling.MEAN_SQRT_LEN),
        ({"pooling_mode": "cls", "embedding_dimension": 24}, Pooling.CLS),
        ({"pooling_mode": ["max"]}, Pooling.MAX),
    ],
)
def test_pooling_is_that_of_sentence_transformers(
    source: Any, described: dict[str, Any], pooling: Pooling
) -> None:
    folder = source("bert")
    write_sentence_files(folder, **described)
    assert encoding(folder) == EncodingInfo(max_tokens=20, pooling=pooling, normalise=True)


def test_a_checkpoint_that_says_nothing_gets_the_defaults(source: Any) -> None:
    assert encoding(source("bert")) == EncodingInfo()
    assert encoding(source("bert-words")) is None


def test_without_a_step_that_normalises_vectors_keep_their_length(source: Any) -> None:
    folder = source("bert")
    write_sentence_files(folder)
    modules = json.loads((folder / "modules.json").read_text())
    write(folder, "modules.json", modules[:2])
    assert encoding(folder) == EncodingInfo(max_tokens=20)


def test_lengths_and_case_and_prompt(source: Any) -> None:
    folder = source("bert")
    write_sentence_files(folder)
    write(folder, "sentence_bert_config.json", {"max_seq_length": 9, "do_lower_case": True})
    prompts = {"default_prompt_name": "query", "prompts": {"query": "query: "}}
    write(folder, "config_sentence_transformers.json", prompts)
    assert encoding(folder) == EncodingInfo(
        max_tokens=9, lowercase=True, prompt="query: ", normalise=True
    )
    (folder / "sentence_bert_config.json").unlink()
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    write(folder, "tokenizer_config.json", tokenizer | {"model_max_length": 17})
    found = encoding(folder)
    assert found is not None
    assert found.max_tokens == 17


@pytest.mark.parametrize(
    ("name", "document", "words"),
    [
        ("1_Pooling/config.json", {"pooling_mode_lasttoken": True}, "lasttoken"),
        ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, "weightedmean"),
        ("1_Pooling/config.json", {}, "wants nothing"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True},
            "cls, max",
        ),
        ("modules.json", [{"type": "sentence_transformers.models.Dense"}], "'Dense'"),
    ],
)
def test_what_devices_cannot_do_exactly_is_refused(
    source: Any, name: str, document: Any, words: str
) -> None:
    folder = source("bert")
    write_sentence_files(folder)
    write(folder, name, document)
    with pytest.raises(UnsupportedModelError, match=words):
        survey(str(folder), Choices())


def test_a_prompt_that_pooling_leaves_out_is_refused(source: Any) -> None:
    folder = source("bert")
    write_sentence_files(folder, pooling_mode_mean_tokens=True, include_prompt=False)
    write(
        folder,
        "config_sentence_transformers.json",
        {"default_prompt_name": "q", "prompts": {"q": "query: "}},
    )
    with pytest.raises(UnsupportedModelError, match="default_prompt_name"):
        survey(str(folder), Choices())


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("modules.json", {"type": "Transformer"}),
        ("modules.json", [3]),
        ("modules.json", [{"type": "x.Pooling", "path": "../elsewhere"}]),
        ("modules.json", [{"type": "x.Pooling", "path": "absent"}]),
        ("sentence_bert_config.json", {"max_seq_length": "long"}),
        ("sentence_bert_config.json", {"max_seq_length": 0}),
        ("config_sentence_transformers.json", {"default_prompt_name": "q", "prompts": {}}),
    ],
)
def test_files_that_make_no_sense_are_refused(source: Any, name: str, document: Any) -> None:
    folder = source("bert")
    write_sentence_files(folder)
    write(folder, name, document)
    with pytest.raises(CheckpointError):
        survey(str(folder), Choices())


@pytest.mark.parametrize(
    ("changes", "scores"),
    [
        ({}, Scores.SOFTMAX),
        ({"problem_type": "single_label_classification"}, Scores.SOFTMAX),
        ({"problem_type": "multi_label_classification"}, Scores.SIGMOID),
        ({"problem_type": "regression"}, Scores.NONE),
    ],
)
@pytest.mark.parametrize("name", ["bert-labels", "longformer-labels", "vit"])
def test_scores_are_those_of_the_pipelines(
    source: Any, name: str, changes: dict[str, Any], scores: Scores
) -> None:
    assert encoding(source(name, **changes)) == EncodingInfo(scores=scores)


@pytest.mark.parametrize("name", ["bert-labels", "longformer-labels"])
def test_the_names_of_labels_reach_the_device_and_not_the_cloud(
    source: Any, name: str, tmp_path: Path
) -> None:
    protect(str(source(name)), tmp_path / "out")
    bundle = Bundle.open(tmp_path / "out" / "device")
    assert bundle.labels() == tuple(LABELS.values())
    assert bundle.encoding() == EncodingInfo()
    for file in (tmp_path / "out" / "model").glob("*.json"):
        assert not any(label in file.read_text() for label in LABELS.values())


def test_pooling_reaches_the_device_alone(source: Any, tmp_path: Path) -> None:
    folder = source("bert")
    write_sentence_files(folder, pooling_mode_cls_token=True)
    protect(str(folder), tmp_path / "out")
    found = Bundle.open(tmp_path / "out" / "device").encoding()
    assert found == EncodingInfo(max_tokens=20, pooling=Pooling.CLS, normalise=True)
    hosted = {path.name for path in (tmp_path / "out" / "model").iterdir()}
    assert hosted == {"config.json", "model.safetensors"}


def test_a_run_that_goes_on_notices_another_pooling(source: Any) -> None:
    folder = source("bert")
    write_sentence_files(folder)
    before = fingerprint(survey(str(folder), Choices()), seed=1)
    write(folder, "1_Pooling/config.json", {"pooling_mode_cls_token": True})
    after = fingerprint(survey(str(folder), Choices()), seed=1)
    assert {k for k in before if before[k] != after[k]} == {"1_Pooling/config.json"}
