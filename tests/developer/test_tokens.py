"""The interface `tokens`: a stock engine hosts `model/` alone and never sees a plain id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from triparty.common import opaque
from triparty.common.errors import CheckpointError
from triparty.common.keying import Bundle
from triparty.developer.protect import Choices, Interface, protect
from triparty.developer.protect.configuration import hosted_generation, keyed

GENERATION = {
    "bos_token_id": 0,
    "eos_token_id": [1, 7],
    "pad_token_id": -1,
    "suppress_tokens": [3, 4, 60],
    "begin_suppress_tokens": [5],
    "bad_words_ids": [[8], [9, 10]],
    "temperature": 0.7,
    "do_sample": True,
    "max_new_tokens": 9,
    "transformers_version": "5.0.0",
    "prompt_lookup_num_tokens": 3,
}


@pytest.fixture(params=["permutation", "orthogonal"])
def protected(request: pytest.FixtureRequest, make_model: Any, tmp_path: Path) -> Any:
    """A source whose vocabulary is padded beyond its tokenizer, and its protected form."""
    source = make_model("llama", vocab_size=64)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    words = {f"plainword{i}": i for i in range(50)}
    document = json.loads(tokenizer.to_str())
    document["model"] |= {"vocab": words, "unk_token": "plainword0"}
    (source / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    added = Tokenizer.from_file(str(source / "tokenizer.json"))
    added.add_special_tokens(["<plainadded>"])
    added.save(str(source / "tokenizer.json"))
    (source / "generation_config.json").write_text(json.dumps(GENERATION), encoding="utf-8")
    (source / "chat_template.jinja").write_text("{{ plaintemplate }}", encoding="utf-8")
    out = tmp_path / "out"
    choices = Choices.of(scheme=request.param, interface="tokens")
    protect(str(source), out, choices=choices)
    return source, out, Bundle.open(out / "device")


def test_ids_in_the_configurations_are_keyed(protected: Any) -> None:
    _, out, bundle = protected

    def key(*ids: int) -> list[int]:
        return bundle.keyed_ids(np.array(ids)).tolist()

    config = json.loads((out / "model" / "config.json").read_text())
    assert [config["bos_token_id"], config["eos_token_id"]] == key(0, 1)
    generation = json.loads((out / "model" / "generation_config.json").read_text())
    assert generation == {
        "bos_token_id": key(0)[0],
        "eos_token_id": key(1, 7),
        "pad_token_id": None,
        "suppress_tokens": key(3, 4, 60),
        "begin_suppress_tokens": key(5),
        "bad_words_ids": [key(8), key(9, 10)],
        "temperature": 0.7,
        "do_sample": True,
        "max_new_tokens": 9,
    }


def test_the_cloud_gets_no_word_and_no_template(protected: Any) -> None:
    _, out, bundle = protected
    hosted = b"".join(path.read_bytes() for path in (out / "model").iterdir())
    for word in (b"plainword", b"plainadded", b"plaintemplate"):
        assert word not in hosted
    kept = b"".join(path.read_bytes() for path in (out / "device").iterdir())
    assert b"plainword" in kept
    assert b"plainadded" in kept
    assert bundle.info.chat_template == "{{ plaintemplate }}"
    assert not (out / "device" / "embedding.safetensors").exists()


def test_every_row_has_a_word_padding_and_added_tokens_too(protected: Any) -> None:
    _, out, bundle = protected
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    assert len(tokenizer) == bundle.info.vocabulary == 64
    keyed_ids = bundle.keyed_ids(np.arange(64)).tolist()
    assert tokenizer(opaque.words(keyed_ids))["input_ids"] == keyed_ids
    assert sorted(keyed_ids) == list(range(64))
    assert keyed_ids != list(range(64))


def test_stock_generate_stops_and_suppresses_as_the_original(protected: Any) -> None:
    """The hosted folder alone, its own configuration, ids keyed: the original's tokens."""
    source, out, bundle = protected
    original = AutoModelForCausalLM.from_pretrained(source)
    hosted = AutoModelForCausalLM.from_pretrained(out / "model")
    lengths = set()
    for seed in range(12):
        ids = np.random.default_rng(seed).integers(0, 64, 6)
        answers = []
        for model, given in ((original, ids), (hosted, bundle.keyed_ids(ids))):
            given = torch.from_numpy(given)[None]
            answer = model.generate(
                given,
                attention_mask=torch.ones_like(given),
                do_sample=False,
                temperature=None,
                max_new_tokens=24,
                pad_token_id=0,
            )
            answers.append(answer[0, 6:].numpy())
        assert bundle.plain_ids(answers[1]).tolist() == answers[0].tolist()
        assert not {3, 4, 60} & set(answers[0].tolist())
        lengths.add(len(answers[0]))
    assert len(lengths) > 1  # some ended before the limit


def test_how_beams_are_ranked_and_ended_is_hosted() -> None:
    beams = {"num_beams": 4, "early_stopping": True, "length_penalty": 2.0}
    assert hosted_generation(beams, np.arange(3)) == beams


def test_what_is_no_token_id_is_refused() -> None:
    order = np.array([2, 0, 1])
    assert keyed([0, [1, 5], [1, 2], -1, None], order) == [2, [0, 1]]
    assert hosted_generation({"eos_token_id": 9}, order) == {"eos_token_id": None}
    for value in ("1", 1.5, True, {"id": 1}):
        with pytest.raises(CheckpointError, match="token id"):
            keyed([value], order)


def test_learned_positions_are_hosted_keyed(
    make_model: Any, bits_of: Any, tmp_path: Path
) -> None:
    source = make_model("gpt2")
    plan = protect(
        str(source), tmp_path / "out", choices=Choices(interface=Interface.TOKENS)
    ).plan
    name = "transformer.wpe.weight"
    assert plan.device_tables() == {}
    before, after = bits_of(source)[name], bits_of(tmp_path / "out" / "model")[name]
    assert (before != after).any()
    assert (np.sort(before) == np.sort(after)).all()
