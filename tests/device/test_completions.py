"""The device and the interface `tokens`: words out, words in, nothing else believed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from triparty.common import opaque
from triparty.common.connection import Connection
from triparty.common.deviceinfo import DeviceInfo
from triparty.common.errors import (
    CloudError,
    LimitError,
    RequestError,
    RollbackError,
    SettingsError,
    TripartyError,
    UnreachableError,
)
from triparty.common.events import event
from triparty.common.keying import Bundle
from triparty.device.inference.completions import Completions, StockEngine, text_pieces
from triparty.device.inference.generation import (
    Generation,
    collect,
    question_of,
    read_tokenizer,
)
from triparty.device.inference.options import GenerationOptions

V, END, OTHER_END = 40, 7, 8
PROMPT = "w3 w1 w4 w1 w5"
PLAIN = [3, 1, 4, 1, 5]
KEYS = {"Triparty-Version": "2", "Triparty-Epoch": "1"}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    order = np.random.default_rng(6).permutation(V).astype(np.int32)
    save_file({"order": order}, tmp_path / "head.safetensors")
    info = DeviceInfo(
        family="llama",
        task="causal-lm",
        interface="tokens",
        width=8,
        vocabulary=V,
        outputs=V,
        max_positions=30,
        positions=False,
        segments=0,
        image=None,
        dtype="float32",
        transport="float32",
        bos_id=None,
        eos_ids=(END, OTHER_END),
        pad_id=None,
        chat_template=None,
        replies=(),
        epoch=1,
    )
    (tmp_path / "device.json").write_bytes(info.to_json())
    tokenizer = Tokenizer(WordLevel({f"w{i}": i for i in range(V)}, unk_token="w0"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return Bundle.open(tmp_path)


def chunk(text: str, reason: str | None = None) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": reason}
    return event(json.dumps({"object": "text_completion", "choices": [choice]}))


DONE = event("[DONE]")


class Engine:
    """Answers with the given bytes, and keeps what it was asked."""

    def __init__(self, *answers: bytes | list[bytes] | httpx.Response) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []
        self.closed = False

    def handle(self, request: httpx.Request) -> httpx.Response:
        assert (request.method, request.url.path) == ("POST", "/v1/completions")
        self.asked.append(json.loads(request.content))
        answer = self.answers.pop(0)
        if isinstance(answer, httpx.Response):
            return answer
        pieces = [answer] if isinstance(answer, bytes) else answer
        return httpx.Response(200, headers=KEYS, stream=Pieces(self, pieces))


class Pieces(httpx.SyncByteStream):
    def __init__(self, engine: Engine, pieces: list[bytes]) -> None:
        self._engine, self._pieces = engine, pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if piece == b"cut":
                raise httpx.ReadError("cut")
            yield piece

    def close(self) -> None:
        self._engine.closed = True


Ask = Callable[..., Generation]


@pytest.fixture
def ask(bundle: Bundle) -> Ask:
    """One generation; the pieces must add up to the whole."""

    def asked(engine: Engine, *, prompt: str = PROMPT, **wanted: Any) -> Generation:
        *pieces, last = list(stream(engine, bundle, prompt=prompt, **wanted))
        assert isinstance(last, Generation)
        assert "".join(getattr(piece, "text", "") for piece in pieces) == last.text
        assert tuple(getattr(piece, "token_id", -1) for piece in pieces) == last.token_ids
        return last

    return asked


def stream(
    engine: Engine,
    bundle: Bundle,
    *,
    prompt: str = PROMPT,
    model: str | None = "known",
    key: tuple[int, int] | None = (2, 1),
    **wanted: Any,
) -> Iterator[Any]:
    connection = Connection(
        "https://cloud.test",
        transport=httpx.MockTransport(engine.handle),
        sleep=lambda _: None,
    )
    options = GenerationOptions(**({"max_tokens": 12} | wanted))
    tokenizer = read_tokenizer(bundle)
    question = question_of(tokenizer.encode(prompt).ids, bundle, options)
    with connection:
        yield from collect(
            text_pieces(
                question,
                bundle=bundle,
                tokenizer=tokenizer,
                completions=Completions(connection, model, key),
                options=options,
            ),
            question=question,
        )


@pytest.fixture
def words(bundle: Bundle) -> Callable[..., str]:
    """The opaque words of plain ids."""
    return lambda *ids: opaque.words(bundle.keyed_ids(np.array(ids, np.int64)))


def test_words_go_out_and_text_comes_back(ask: Ask, words: Any) -> None:
    engine = Engine([chunk(words(9)), chunk(words(2, 6)), chunk(words(END), "stop"), DONE])
    generation = ask(engine)
    assert generation.token_ids == (9, 2, 6, END)
    assert generation.text.split() == ["w9", "w2", "w6", f"w{END}"]
    assert generation.finish_reason == "stop"
    assert engine.asked == [
        {
            "model": "known",
            "prompt": words(*PLAIN),
            "max_tokens": 12,
            "temperature": 0.0,
            "top_p": 1.0,
            "stream": True,
        }
    ]
    assert engine.closed


def test_options_are_sent_only_where_they_say_something(ask: Ask, words: Any) -> None:
    engine = Engine(chunk(words(9), "length"))
    options: dict[str, Any] = {"temperature": 0.5, "top_k": 3, "top_p": 0.9, "seed": 0}
    options |= {"min_p": 0.1, "repetition_penalty": 1.2}
    ask(engine, model=None, key=None, max_tokens=100, ignore_eos=True, **options)
    (asked,) = engine.asked
    assert "model" not in asked
    del asked["prompt"]
    assert asked == {
        "max_tokens": 25,  # as many as fit behind the prompt
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "seed": 0,
        "stream": True,
        "ignore_eos": True,
    }


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_words_cut_anywhere_are_read(size: int, ask: Ask, words: Any) -> None:
    """However bytes, events and words are cut."""
    text = words(9, 2, 6, 9, 9)
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    sent = b": hello\r\n\r\n" + b"".join(map(chunk, parts)) + chunk("", "length") + DONE
    engine = Engine([sent[at : at + size] for at in range(0, len(sent), size)])
    assert ask(engine).token_ids == (9, 2, 6, 9, 9)


@pytest.mark.parametrize(
    ("ids", "said", "reason"),
    [
        ((9, END), "length", "stop"),  # `transformers serve`, when the limit ends there too
        ((9, 2), "stop", "stop"),  # an engine that leaves the end token out
        ((), "stop", "stop"),
        ((9, 2), "length", "length"),
    ],
)
def test_why_an_answer_ended(
    ids: tuple[int, ...], said: str, reason: str, ask: Ask, words: Any
) -> None:
    generation = ask(Engine(chunk(words(*ids)) + chunk("", said)))
    assert (generation.token_ids, generation.finish_reason) == (ids, reason)


def test_ends_without_a_reason(ask: Ask, words: Any) -> None:
    usage = event(json.dumps({"choices": [], "usage": {"total_tokens": 7}}))
    assert ask(Engine(chunk(words(9, END)) + usage + DONE)).finish_reason == "stop"
    assert ask(Engine(chunk(words(9)) + DONE)).finish_reason == "length"


@pytest.mark.parametrize(
    ("answer", "error", "named"),
    [
        ([chunk("the quick fox"), DONE], CloudError, "not made of this model's words"),
        ([chunk(" aaab"), DONE], CloudError, "not made of this model's words"),
        ([chunk("7777"), DONE], CloudError, "not made of this model's words"),
        ([chunk("aaabaa"), DONE], CloudError, "inside a word"),
        ([chunk("aaab" * 13, "length"), DONE], CloudError, "more than the 12 words"),
        ([DONE], CloudError, "no words"),
        ([chunk("aaab")], CloudError, "broke off"),
        ([b""], CloudError, "broke off"),
        ([chunk("aaab"), b"cut"], UnreachableError, "cut"),
        ([chunk("aaab", "abort")], CloudError, "abort"),
        ([event("{")], CloudError, "not JSON"),
        ([event("[" * 100_000)], CloudError, "not JSON"),
        ([event("[]")], CloudError, "no JSON object|not a JSON object"),
        ([event("{}")], CloudError, "no text"),
        ([event('{"choices": [{"text": 1}]}')], CloudError, "no text"),
        ([event('{"choices": [1]}')], CloudError, "no text"),
        ([event('{"error": "out of \\u001b[2Jmemory"}')], CloudError, "out of  .2Jmemory"),
        ([event('{"error": {"message": "no"}}')], CloudError, "failed: no"),
        (
            [
                chunk("aaab"),
                event('{"error": {"type": "urn:triparty:problem:limit", "detail": "full"}}'),
            ],
            LimitError,
            "full",
        ),
    ],
)
def test_answers_that_make_no_sense_are_typed_errors(
    answer: list[bytes], error: type[TripartyError], named: str, ask: Ask
) -> None:
    engine = Engine(answer)
    with pytest.raises(error, match=named):
        ask(engine)
    assert engine.closed


def test_another_version_or_epoch_is_not_believed(ask: Ask, words: Any) -> None:
    for key in ((3, 1), (2, 2)):
        with pytest.raises(RollbackError, match="triparty device pull"):
            ask(Engine(chunk(words(9), "length")), key=key)
    bare = httpx.Response(200, content=chunk(words(9), "length"))
    with pytest.raises(RollbackError, match="version \\?"):
        ask(Engine(bare))


def test_a_busy_cloud_is_asked_again_and_refusals_are_told(ask: Ask, words: Any) -> None:
    problem = {"type": "urn:triparty:problem:limit", "detail": "full"}
    busy = httpx.Response(
        429,
        json=problem,
        headers={"Retry-After": "1", "Content-Type": "application/problem+json"},
    )
    engine = Engine(busy, chunk(words(9), "length"))
    assert ask(engine).token_ids == (9,)
    assert engine.asked[0] == engine.asked[1]
    stock = httpx.Response(422, json={"detail": "Unexpected fields: {'top_k'}"})
    with pytest.raises(CloudError, match=r"422 .*: Unexpected fields: \{'top_k'\}"):
        ask(Engine(stock))
    openai = httpx.Response(404, json={"error": {"message": "no such model"}})
    with pytest.raises(CloudError, match=r"404 .*: no such model"):
        ask(Engine(openai))


def test_prompts_that_do_not_fit_are_refused_before_anything_is_sent(ask: Ask) -> None:
    engine = Engine()
    for prompt, wanted in (("", {}), ("w1 " * 30, {}), (PROMPT, {"max_tokens": 0})):
        with pytest.raises((RequestError, SettingsError)):
            ask(engine, prompt=prompt, **wanted)
    assert engine.asked == []


def test_a_listener_who_leaves_ends_the_request(bundle: Bundle, words: Any) -> None:
    engine = Engine([chunk(words(9)), chunk(words(2)), chunk(words(4), "length"), DONE])
    listening = stream(engine, bundle)
    assert next(listening).token_id == 9
    assert not engine.closed
    listening.close()
    assert engine.closed


def test_engines_are_named_as_openais_clients_name_them() -> None:
    for url in (
        "http://127.0.0.1:8000",
        "http://127.0.0.1:8000/v1",
        "http://127.0.0.1:8000/v1/",
    ):
        with StockEngine(url).connection() as connection:
            assert connection.url == "http://127.0.0.1:8000"
    with pytest.raises(SettingsError, match="use https"):
        StockEngine("http://example.org/v1").connection()
    assert "secret" not in repr(StockEngine("http://127.0.0.1", "m", "secret"))
