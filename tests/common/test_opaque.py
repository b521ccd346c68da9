"""Opaque words: exact in both directions, under stock tokenizers and their streamers too."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from triparty.common import opaque
from triparty.common.errors import RequestError

V = 700  # not a power of 32, so that words exist that no id has
any_ids = st.lists(st.integers(0, V - 1), max_size=40)


@given(any_ids)
def test_ids_survive_their_words(ids: list[int]) -> None:
    """`ids(words(x), V) == x`."""
    text = opaque.words(ids)
    assert opaque.ids(text, V).tolist() == ids
    assert len(text) == 4 * len(ids)


@given(any_ids, any_ids)
def test_words_of_a_sequence_are_those_of_its_parts(left: list[int], right: list[int]) -> None:
    assert opaque.words(left + right) == opaque.words(left) + opaque.words(right)


def test_words_are_known() -> None:
    assert opaque.words([0, 1, 31, 32, 2**20 - 1]) == "aaaaaaabaaa7aaba7777"
    assert opaque.ids("7777", 2**20).tolist() == [2**20 - 1]
    assert opaque.words(np.array([], np.float64)) == ""
    assert opaque.ids("", 1).tolist() == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("aaa", "got 3 characters"),
        ("aaaa aaaa", "got 9"),
        ("aaaé", "a-z and 2-7"),
        ("aaaaaaa ", "another at 7"),
        ("aaaA", "another at 3"),
        ("aaa1", "another at 3"),
        ("aaa\x00", "another at 3"),
        (" the", "another at 0"),
        (opaque.words([V]), "below 700, got 700"),
        ("7777", "below 700"),
    ],
)
def test_other_text_is_refused(text: str, named: str) -> None:
    with pytest.raises(RequestError, match=named):
        opaque.ids(text, V)


@given(st.text(max_size=12))
def test_text_is_refused_or_the_words_of_its_ids(text: str) -> None:
    try:
        ids = opaque.ids(text, V)
    except RequestError:
        return
    assert opaque.words(ids) == text


@pytest.mark.parametrize("ids", [[-1], [2**20], [0.5], [[1]], 3])
def test_what_is_no_ids_has_no_words(ids: Any) -> None:
    with pytest.raises(RequestError, match="expected ids"):
        opaque.words(ids)


def test_files_name_every_id_and_nothing_else() -> None:
    files = opaque.tokenizer_files(V)
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    assert tokenizer.get_vocab() == {opaque.words([i]): i for i in range(V)}
    for vocabulary in (0, 2**20 + 1):
        with pytest.raises(RequestError, match="vocabularies"):
            opaque.tokenizer_files(vocabulary)


def test_files_stay_byte_for_byte_what_they_are() -> None:
    """A cloud recognises the tokenizer by its bytes: other bytes are another format."""
    digest = hashlib.sha256(opaque.tokenizer_files(V)["tokenizer.json"]).hexdigest()
    assert digest == "2775b61264517a8d10ddced0646cfef27ed8fa07e2c96a47fcb252b52ab08ac0"


@pytest.fixture(scope="module", params=["llama", "gpt2", "qwen3", "mistral", "gemma3_text"])
def stock(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tokenizer as stock transformers loads it beside a configuration of some family."""
    from transformers import AutoConfig, AutoTokenizer

    folder = tmp_path_factory.mktemp("model")
    for name, data in opaque.tokenizer_files(V).items():
        (folder / name).write_bytes(data)
    special = {"bos_token_id": 5, "eos_token_id": [6, 7], "pad_token_id": 8}
    AutoConfig.for_model(request.param, vocab_size=V, **special).save_pretrained(folder)
    yield AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    shutil.rmtree(folder)


EVERY = [*range(V), 5, 6, 7, 8, 0, 0]  # special ids too, and one twice in a row
TEXT = opaque.words(EVERY)


@pytest.mark.parametrize("skip", [True, False])
def test_the_stock_tokenizer_is_the_codec(stock: Any, skip: bool) -> None:
    assert stock.decode(EVERY, skip_special_tokens=skip) == TEXT
    assert (
        stock.decode(EVERY, skip_special_tokens=skip, clean_up_tokenization_spaces=True) == TEXT
    )
    assert [stock.decode([i], skip_special_tokens=skip) for i in range(V)] == [
        opaque.words([i]) for i in range(V)
    ]
    encoded = stock(TEXT)
    assert encoded["input_ids"] == EVERY
    assert set(encoded) == {"input_ids", "attention_mask"}
    assert stock(TEXT, add_special_tokens=False)["input_ids"] == EVERY
    assert (len(stock), stock.all_special_ids) == (V, [])
    assert stock(TEXT, return_tensors="pt")["input_ids"].tolist() == [EVERY]


@pytest.mark.parametrize("text", ["aaa", "aaaa aaab", "aaaaaaab ", "Hello!", opaque.words([V])])
def test_the_stock_tokenizer_refuses_other_text(stock: Any, text: str) -> None:
    with pytest.raises(Exception, match="UNK"):
        stock(text)


def test_chats_pass_their_words_through(stock: Any) -> None:
    half = len(TEXT) // 2 // 4 * 4
    messages = [
        {"role": "system", "content": TEXT[:half]},
        {"role": "user", "content": TEXT[half:]},
    ]
    encoded = stock.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    assert encoded["input_ids"] == EVERY


@pytest.mark.parametrize("skip", [True, False])
def test_streams_of_tokenizers_give_every_word_at_once(stock: Any, skip: bool) -> None:
    """`DecodeStream`, from nothing as `transformers serve`, from a prompt as vLLM."""
    for prompt in ([], EVERY[:9]):
        stream = DecodeStream(ids=prompt, skip_special_tokens=skip)
        parts = [stream.step(stock._tokenizer, token) for token in EVERY]
        assert parts == [opaque.words([token]) for token in EVERY]


def test_prefix_comparing_streams_give_every_word_at_once(stock: Any) -> None:
    """As vLLM's and SGLang's own detokenisers work: two decodes of a window, the difference."""
    prompt = EVERY[:9]
    ids, at, read, shown = list(prompt), len(prompt) - 5, len(prompt), []
    for token in EVERY:
        ids.append(token)
        tokens = stock.convert_ids_to_tokens(ids, skip_special_tokens=True)
        before = stock.convert_tokens_to_string(tokens[at:read])
        after = stock.convert_tokens_to_string(tokens[at:])
        shown.append(after.removeprefix(before))
        at, read = read, len(ids)
    assert shown == [opaque.words([token]) for token in EVERY]


def test_the_text_streamer_gives_the_same_text(stock: Any) -> None:
    from transformers import TextStreamer

    class Recorder(TextStreamer):  # type: ignore[misc,unused-ignore]
        text = ""

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            self.text += text

    streamer = Recorder(stock, skip_prompt=False, skip_special_tokens=True)
    for token in EVERY[-60:]:
        streamer.put(np.array([token]))
    streamer.end()
    assert streamer.text == opaque.words(EVERY[-60:])


def test_the_codec_needs_no_tokenizer_library() -> None:
    code = (
        "import sys, triparty.common.opaque as o; o.tokenizer_files(9); "
        "print(*{'torch', 'transformers', 'tokenizers', 'typer'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
