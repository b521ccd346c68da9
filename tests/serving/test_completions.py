"""`POST /v1/completions`: the stock model's text, and nobody's slot held for nothing."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from fastapi import FastAPI, Request
from permuted import Permuted, permute

from triparty.cloud.accounts import Principal
from triparty.cloud.problems import add_handlers
from triparty.cloud.serving import Serving, completions, routes
from triparty.cloud.serving.engine import Arrays, ModelInfo, Reply, ReplyKind, Work
from triparty.cloud.serving.families import FAMILIES
from triparty.cloud.serving.generation import Token
from triparty.cloud.serving.loading import load_text_rules
from triparty.cloud.serving.local import LocalEngine
from triparty.cloud.serving.text import TextRules
from triparty.common import opaque
from triparty.common.errors import (
    CheckpointError,
    CloudError,
    NotFoundError,
    UnauthenticatedError,
    from_problem,
)
from triparty.common.events import events

Run = Callable[[Coroutine[Any, Any, Any]], Any]
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


def make_app(serving: Any, model: Any) -> FastAPI:
    app = FastAPI()
    for module in (routes, completions):
        app.include_router(module.router)
    app.state.serving = serving

    class Catalog:
        def model_for(
            self, principal: Principal, name: str, *, version: int | None = None
        ) -> Any:
            if name != "story":
                raise NotFoundError("no such model")
            return model

    app.state.catalog = Catalog()

    async def who(request: Request) -> Principal:
        name = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not name:
            raise UnauthenticatedError("no token")
        return Principal(id=name, role="device", developer="d", scopes=frozenset({"infer"}))

    app.dependency_overrides[routes.may_infer] = who
    add_handlers(app)
    return app


def client(app: FastAPI, name: str = "alice") -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://cloud/v1",
        headers={"Authorization": f"Bearer {name}"},
    )


@pytest.fixture(scope="session")
def permuted(
    tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Permuted]:
    """Each tiny model with a permuted vocabulary."""
    folder = tmp_path_factory.mktemp("permuted")
    return {
        name: permute(source, folder / name, eos_token_id=None)
        for name, source in tiny_folders.items()
    }


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cloud(settings: Any, published: Any) -> Any:
    """An async context of an application over a folder, and its serving."""

    @asynccontextmanager
    async def started(
        folder: Path, load: Any = None, **changes: Any
    ) -> AsyncIterator[tuple[FastAPI, Serving]]:
        options = {} if load is None else {"load": load}
        serving = Serving(settings(**changes), **options)
        await serving.start()
        try:
            yield make_app(serving, published(folder)), serving
        finally:
            await serving.stop()

    return started


def stock(folder: Path, prompt: Sequence[int], count: int, **changes: Any) -> list[int]:
    """What stock `transformers.generate` says greedily."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([list(prompt)])
    with torch.inference_mode():
        whole = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=count,
            pad_token_id=0,
            **changes,
        )
    new: list[int] = whole[0, len(prompt) :].tolist()
    return new


def body(prompt: str, **changes: Any) -> dict[str, Any]:
    return {"model": "story", "prompt": prompt, "temperature": 0, "max_tokens": 20} | changes


async def ask(http: httpx.AsyncClient, document: dict[str, Any]) -> httpx.Response:
    return await http.post("/completions", json=document)


def said(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def streamed(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    *chunks, last = events([answer.content], limit_bytes=1 << 16)
    assert last == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def slug_of(answer: httpx.Response) -> str:
    assert answer.headers["Content-Type"] == "application/problem+json"
    return from_problem(answer.status_code, answer.json()).slug


def test_greedy_text_is_that_of_stock_generate(
    family: str,
    permuted: dict[str, Permuted],
    tiny_folders: dict[str, Path],
    cloud: Any,
    run: Run,
) -> None:
    """Token for token on the same folder, and un-keyed on the original one."""
    model = permuted[family]
    prompt = np.random.default_rng(1).integers(0, 53, 90).tolist()

    async def story() -> None:
        # batches smaller than the prompt: it goes through the model in chunks
        async with cloud(model.model, max_batch_rows=16) as (app, serving):
            words = model.words(prompt)
            document = said(await ask(client(app), body(words, max_tokens=40)))
            text = document["choices"][0]["text"]
            keyed = opaque.ids(words, 2**20).tolist()
            assert opaque.ids(text, 2**20).tolist() == stock(model.model, keyed, 40)
            assert model.plain(text) == stock(
                tiny_folders[family], prompt, 40, eos_token_id=None
            )
            if family != "gemma2":  # whose random weights, tied, repeat one word
                assert len(set(model.plain(text))) > 3, "the model says more than one thing"
            assert document["usage"] == {
                "prompt_tokens": 90,
                "completion_tokens": 40,
                "total_tokens": 130,
            }
            assert document["choices"][0]["finish_reason"] == "length"
            assert (document["object"], document["model"]) == ("text_completion", "story")
            assert serving.session_count() == 0

    run(story())


def test_the_stream_is_the_same_text_word_by_word(
    permuted: dict[str, Permuted], cloud: Any, run: Run
) -> None:
    model = permuted["llama"]

    async def story() -> None:
        async with cloud(model.model) as (app, serving):
            document = body(model.words(PROMPT))
            whole = said(await ask(client(app), document))["choices"][0]["text"]
            answer = await ask(
                client(app),
                document | {"stream": True, "stream_options": {"include_usage": True}},
            )
            assert (answer.headers["Triparty-Version"], answer.headers["Triparty-Epoch"]) == (
                "1",
                "1",
            )
            *chunks, usage = streamed(answer)
            assert [len(chunk["choices"][0]["text"]) for chunk in chunks] == [4] * 20
            assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole
            reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
            assert reasons == [None] * 19 + ["length"]
            assert len({chunk["id"] for chunk in chunks}) == 1
            assert usage["choices"] == []
            assert usage["usage"]["total_tokens"] == len(PROMPT) + 20
            assert serving.session_count() == 0

    run(story())


def test_completions_and_sessions_share_one_batch(
    family: str, permuted: dict[str, Permuted], cloud: Any, run: Run
) -> None:
    """Ids and rows in one batch give what each gives alone."""
    model = permuted[family]
    engine = LocalEngine.load(model.model)
    with torch.inference_mode():  # called, not read: Gemma scales what it looks up
        table = engine._embedding(torch.arange(engine.info.vocabulary)).numpy()
    keyed = model.order[np.array([PROMPT, PROMPT[::-1]])]
    reply = Reply.parse("logits")
    alone = [engine.run([Work(str(i), 0, ids, reply)])[0][0] for i, ids in enumerate(keyed)]
    mixed = engine.run(
        [
            Work("a", 0, keyed[0], reply),
            Work("b", 0, table[keyed[1]], reply),
            Work("c", 0, table[keyed[0]], reply),
            Work("d", 0, keyed[1], reply),
        ]
    )
    for (got,), expected in zip(mixed, [alone[0], alone[1], alone[0], alone[1]], strict=True):
        assert np.allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(alone[0], alone[1], rtol=1e-2)

    async def story() -> None:
        async with cloud(model.model) as (app, _):
            documents = [body(model.words([*PROMPT, i])) for i in range(6)]
            one_by_one = [said(await ask(client(app), each)) for each in documents]
            together = await asyncio.gather(*(ask(client(app), each) for each in documents))
            assert [said(answer)["choices"] for answer in together] == [
                each["choices"] for each in one_by_one
            ]

    run(story())


def test_an_end_id_stops_and_suppressed_ids_are_never_said(
    tiny_folders: dict[str, Path], tmp_path: Path, cloud: Any, run: Run
) -> None:
    source = tiny_folders["llama"]
    free = stock(source, PROMPT, 12, eos_token_id=None)
    rules: dict[str, Any] = {
        "begin_suppress_tokens": [free[0]],
        "suppress_tokens": [free[2]],
    }
    end = stock(source, PROMPT, 12, eos_token_id=None, **rules)[8]
    rules["eos_token_id"] = [end, 60]
    model = permute(source, tmp_path / "out", **rules)
    expected = stock(model.model, model.order[PROMPT].tolist(), 30)
    assert len(expected) < 30, "the case must stop at an end id"
    assert model.order[free[0]] != expected[0]
    assert model.order[free[2]] not in expected

    async def story() -> None:
        async with cloud(model.model) as (app, _):
            document = body(model.words(PROMPT), max_tokens=30)
            (choice,) = said(await ask(client(app), document))["choices"]
            assert opaque.ids(choice["text"], 61).tolist() == expected
            assert choice["finish_reason"] == "stop"
            on = said(await ask(client(app), document | {"ignore_eos": True}))
            (choice,) = on["choices"]
            assert opaque.ids(choice["text"], 61).tolist()[: len(expected)] == expected
            assert on["usage"]["completion_tokens"] == 30
            assert choice["finish_reason"] == "length"
            drawn = document | {"temperature": 50, "ignore_eos": True, "seed": 3}
            text = said(await ask(client(app), drawn | {"max_tokens": 250}))["choices"][0]
            ids = opaque.ids(text["text"], 61).tolist()
            assert int(model.order[free[2]]) not in ids
            assert len(set(ids)) > 40, "hot draws reach most of the vocabulary"

    run(story())


def test_draws_repeat_under_a_seed_and_follow_their_options(
    permuted: dict[str, Permuted], cloud: Any, run: Run
) -> None:
    model = permuted["llama"]

    async def story() -> None:
        async with cloud(model.model) as (app, _):

            async def text(**changes: Any) -> str:
                document = body(model.words(PROMPT), **changes)
                return str(said(await ask(client(app), document))["choices"][0]["text"])

            greedy = await text()
            first = await text(temperature=1.5, seed=5)
            assert first == await text(temperature=1.5, seed=5)
            assert first != await text(temperature=1.5, seed=6)
            assert first != greedy
            assert await text(temperature=1.5, top_k=1) == greedy
            assert await text(temperature=1.5, top_p=1e-9) == greedy
            unset = body(model.words(PROMPT), seed=5)
            del unset["temperature"]
            answer = said(await ask(client(app), unset))["choices"][0]["text"]
            assert answer == await text(temperature=1.0, seed=5) != greedy

    run(story())


def test_penalties_and_min_p_change_what_is_said(
    permuted: dict[str, Permuted], tiny_folders: dict[str, Path], cloud: Any, run: Run
) -> None:
    """The repetition penalty is stock's; the others are checked by what they are for."""
    model = permuted["llama"]

    async def story() -> None:
        async with cloud(model.model) as (app, _):

            async def ids(**changes: Any) -> list[int]:
                document = body(model.words(PROMPT), ignore_eos=True, **changes)
                return model.plain(said(await ask(client(app), document))["choices"][0]["text"])

            greedy = await ids()
            assert await ids(repetition_penalty=1.7) == stock(
                tiny_folders["llama"], PROMPT, 20, repetition_penalty=1.7, eos_token_id=None
            )
            assert await ids(temperature=1.5, min_p=1.0, seed=1) == greedy
            for name in ("presence_penalty", "frequency_penalty"):
                assert await ids(**{name: 2.0}) != greedy
                assert len(set(await ids(**{name: 2.0}))) > len(set(greedy))
                assert len(set(await ids(**{name: -2.0}))) <= len(set(greedy))

    run(story())


def test_logprobs_are_the_models_own_in_openais_form(
    permuted: dict[str, Permuted], tiny_folders: dict[str, Path], cloud: Any, run: Run
) -> None:
    model = permuted["llama"]

    async def story() -> None:
        async with cloud(model.model) as (app, _):
            asked = body(model.words(PROMPT), max_tokens=6, logprobs=3, temperature=1.5, seed=4)
            choice = said(await ask(client(app), asked))["choices"][0]
            told = choice["logprobs"]
            answer = model.plain(choice["text"])
            assert model.plain("".join(told["tokens"])) == answer
            assert told["text_offset"] == [0, 4, 8, 12, 16, 20]
            logs = model_logs(tiny_folders["llama"], [*PROMPT, *answer])[len(PROMPT) - 1 : -1]
            for token, log, top, row in zip(
                answer, told["token_logprobs"], told["top_logprobs"], logs, strict=True
            ):
                assert log == pytest.approx(row[token], abs=1e-4)
                likeliest = sorted(row, reverse=True)[:3]
                assert list(top.values()) == pytest.approx(likeliest, abs=1e-4)
                assert model.plain(next(iter(top))) == [int(np.argmax(row))]
            chunks = streamed(await ask(client(app), asked | {"stream": True}))
            parts = [chunk["choices"][0]["logprobs"] for chunk in chunks]
            for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
                assert [part[name][0] for part in parts] == told[name]
            bare = said(await ask(client(app), asked | {"logprobs": 0}))["choices"][0]
            assert bare["logprobs"]["top_logprobs"] is None
            assert bare["logprobs"]["token_logprobs"] == told["token_logprobs"]
            assert bare["text"] == choice["text"]

    run(story())


def model_logs(folder: Path, ids: Sequence[int]) -> list[list[float]]:
    """Log-probabilities of a stock model after each id."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        logits = model(torch.tensor([list(ids)])).logits[0]
    logs: list[list[float]] = torch.log_softmax(logits.double(), dim=-1).tolist()
    return logs


@pytest.mark.parametrize(
    ("changes", "slug", "named"),
    [
        ({"prompt": "Once upon a time"}, "request", "opaque words"),
        ({"prompt": ""}, "request", "no words"),
        ({"prompt": opaque.words([61])}, "request", "below 61"),
        ({"prompt": "aaaa" * 300}, "too-large", "300 positions"),
        ({"prompt": ["aaaa", "aaab"]}, "request", "prompt"),
        ({"prompt": []}, "request", "prompt"),
        ({"prompt": [1, 2]}, "request", "prompt"),
        ({"model": "other"}, "not-found", "no such model"),
        ({"max_tokens": 0}, "request", "max_tokens"),
        ({"temperature": -1}, "request", "temperature"),
        ({"top_p": 0}, "request", "top_p"),
        ({"seed": -1}, "request", "seed"),
        ({"n": 2}, "request", "body.n"),
        ({"best_of": 2}, "request", "best_of"),
        ({"echo": True}, "request", "echo"),
        ({"logprobs": 21}, "request", "logprobs"),
        ({"stop": ["x"]}, "request", "stop"),
        ({"suffix": "x"}, "request", "suffix"),
        ({"frequency_penalty": 2.5}, "request", "frequency_penalty"),
        ({"presence_penalty": -3}, "request", "presence_penalty"),
        ({"repetition_penalty": 0}, "request", "repetition_penalty"),
        ({"logit_bias": {"5": 1}}, "request", "logit_bias"),
        ({"min_p": 1.1}, "request", "min_p"),
        ({"min_tokens": 3}, "request", "min_tokens"),
    ],
)
def test_what_is_not_done_is_refused(
    changes: dict[str, Any],
    slug: str,
    named: str,
    permuted: dict[str, Permuted],
    cloud: Any,
    run: Run,
) -> None:
    async def story() -> None:
        async with cloud(permuted["llama"].model) as (app, serving):
            for stream in (False, True):
                document = body("aaaa", stream=stream) | changes
                answer = await ask(client(app), document)
                assert slug_of(answer) == slug
                assert named in answer.json()["detail"]
                assert serving.session_count() == 0

    run(story())


def test_neutral_values_of_the_form_are_taken(
    permuted: dict[str, Permuted], cloud: Any, run: Run
) -> None:
    neutral = {
        "n": 1,
        "best_of": 1,
        "echo": False,
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logprobs": None,
        "stop": None,
        "suffix": None,
        "logit_bias": None,
        "seed": None,
        "top_p": None,
        "stream": None,
    }

    async def story() -> None:
        async with cloud(permuted["llama"].model) as (app, _):
            answer = said(await ask(client(app), body("aaaa") | neutral))
            document = body("aaaa") | {"prompt": ["aaaa"]}
            assert said(await ask(client(app), document))["choices"] == answer["choices"]
            del document["max_tokens"]
            assert said(await ask(client(app), document))["usage"]["completion_tokens"] == 16

    run(story())


def test_an_answer_ends_where_the_positions_end(
    permuted: dict[str, Permuted], cloud: Any, run: Run
) -> None:
    async def story() -> None:
        async with cloud(permuted["llama"].model, max_positions=20) as (app, _):
            answer = said(await ask(client(app), body("aaaa" * 15, max_tokens=400)))
            assert answer["usage"]["completion_tokens"] == 5
            assert answer["choices"][0]["finish_reason"] == "length"
            assert slug_of(await ask(client(app), body("aaaa" * 20))) == "too-large"

    run(story())


def test_a_model_of_rows_and_a_client_without_a_token_are_refused(
    tiny_folders: dict[str, Path], cloud: Any, run: Run
) -> None:
    async def story() -> None:
        async with cloud(tiny_folders["llama"]) as (app, serving):
            answer = await ask(client(app), body("aaaa"))
            assert slug_of(answer) == "request"
            assert "takes rows" in answer.json()["detail"]
            assert serving.session_count() == 0
            assert slug_of(await ask(client(app, ""), body("aaaa"))) == "unauthenticated"

    run(story())


def test_only_the_very_tokenizer_says_that_a_model_takes_words(
    permuted: dict[str, Permuted], tmp_path: Path
) -> None:
    """Negative controls: another vocabulary's, a plain one, one byte more."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"eos_token_id": 3}')
    assert load_text_rules(folder, vocabulary=9) is None
    right = opaque.tokenizer_files(9)["tokenizer.json"]
    for other in (opaque.tokenizer_files(8)["tokenizer.json"], b"{}", right + b" "):
        (folder / "tokenizer.json").write_bytes(other)
        assert load_text_rules(folder, vocabulary=9) is None
    (folder / "tokenizer.json").write_bytes(right)
    assert load_text_rules(folder, vocabulary=9) == TextRules(frozenset({3}))
    (folder / "generation_config.json").write_text('{"eos_token_id": [4, 4, -1, 9, 2]}')
    assert load_text_rules(folder, vocabulary=9) == TextRules(frozenset({2, 4}))
    for odd in ('{"eos_token_id": "x"}', json.dumps({"suppress_tokens": list(range(9))}), "["):
        (folder / "generation_config.json").write_text(odd)
        with pytest.raises(CheckpointError):
            load_text_rules(folder, vocabulary=9)


@dataclass
class CountingEngine:
    """An engine whose every next id is the last one and one; each batch waits for a permit."""

    info: ModelInfo = field(
        default_factory=lambda: ModelInfo("fake", 4, 1000, 300, TextRules(frozenset({999})))
    )
    permits: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    batches: list[int] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)
    fail_at: int = 0
    cache_bytes: int = 0

    def run(self, batch: Sequence[Work]) -> list[Arrays]:
        assert self.permits.acquire(timeout=10)
        self.batches.append(len(batch))
        if len(self.batches) == self.fail_at:
            raise CloudError("the model failed")
        return [self._one(work) for work in batch]

    def _one(self, work: Work) -> Arrays:
        if work.reply is None:
            return ()
        assert work.reply.kind is ReplyKind.ID
        return (np.array([int(work.rows[-1]) + 1], np.int32),)

    def fork(self, source: str, target: str, *, position: int) -> None:
        raise NotImplementedError

    def close(self, session: str) -> None:
        self.closed.set()


class Listener:
    """A client of the route at the level of ASGI: it reads piece by piece, and can leave."""

    def __init__(self, app: FastAPI, document: dict[str, Any]) -> None:
        self.pieces: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.gone = asyncio.Event()
        data = json.dumps(document).encode()
        self._messages = [{"type": "http.request", "body": data, "more_body": False}]
        headers = {"authorization": "Bearer alice", "content-type": "application/json"}
        scope = {
            "type": "http",
            "asgi": {"spec_version": "2.3"},
            "method": "POST",
            "path": "/v1/completions",
            "raw_path": b"/v1/completions",
            "query_string": b"",
            "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        }
        self.call = asyncio.create_task(app(scope, self._receive, self.pieces.put))

    async def _receive(self) -> Any:
        if self._messages:
            return self._messages.pop()
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_client_that_leaves_frees_its_slot_at_once(
    after: int, stream: bool, cloud: Any, tmp_path: Path, run: Run
) -> None:
    engine = CountingEngine()

    async def story() -> None:
        async with cloud(tmp_path, lambda _: engine) as (app, serving):
            listener = Listener(app, body("aaaa", max_tokens=200, stream=stream))
            for count in range(after):
                engine.permits.release()
                await until(lambda count=count: len(engine.batches) > count)
                if stream:
                    while "chunk" not in str(message := await listener.pieces.get()):
                        if message["type"].endswith("body"):
                            break
            await until(lambda: serving.session_count() == 1)
            listener.gone.set()
            await until(lambda: serving.session_count() == 0)
            engine.permits.release(3)  # the batch that runs may end
            await listener.call
            assert await asyncio.to_thread(engine.closed.wait, 5)
            assert len(engine.batches) <= after + 1
            engine.permits.release(300)
            answer = said(await ask(client(app), body("aaaa", max_tokens=2)))
            assert answer["choices"][0]["text"] == opaque.words([1, 2])

    run(story())


@pytest.mark.parametrize("has_begun", [True, False])
def test_the_source_of_events_is_closed_while_others_hold_it(has_begun: bool, run: Run) -> None:
    """Also when the client leaves before the first event, or while one is being sent."""
    closed: list[str] = []

    async def source() -> AsyncGenerator[Token, None]:
        try:
            yield Token(1, None)
            yield Token(2, None)
        finally:
            closed.append("source")

    async def story() -> None:
        tokens, sending = source(), asyncio.Event()
        assert (await anext(tokens)).id == 1

        async def events_of() -> AsyncGenerator[bytes, None]:
            async for token in tokens:
                yield str(token.id).encode()

        async def receive() -> Any:
            await sending.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if has_begun == (message["type"] == "http.response.body"):
                sending.set()
                await asyncio.Event().wait()  # a client that does not read

        held = events_of()
        stream = completions.EventStream(held, tokens, {})
        await stream({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
        assert closed == ["source"]
        assert [token async for token in tokens] == []

    run(story())


def test_a_failure_has_a_status_before_the_first_word_and_an_event_after(
    cloud: Any, tmp_path: Path, run: Run
) -> None:
    async def story(engine: CountingEngine) -> httpx.Response:
        engine.permits.release(100)
        async with cloud(tmp_path, lambda _: engine) as (app, serving):
            answer = await ask(client(app), body("aaaa", stream=True))
            assert serving.session_count() == 0
            # The failed pass gave no token; every other one did.
            assert serving.totals().tokens == engine.fail_at - 1
            return answer

    assert run(story(CountingEngine(fail_at=1))).status_code == 500
    answer = run(story(CountingEngine(fail_at=3)))
    assert answer.status_code == 200
    first, second, error = (
        json.loads(data) for data in events([answer.content], limit_bytes=1 << 16)
    )
    assert [first["choices"][0]["text"], second["choices"][0]["text"]] == ["aaab", "aaac"]
    assert from_problem(500, error["error"]).slug == "cloud"
    assert error["error"]["detail"] == "the model failed"


def test_revocation_and_limits_hold_for_completions(
    cloud: Any, tmp_path: Path, run: Run
) -> None:
    engine = CountingEngine()

    async def story() -> None:
        limits = {"max_sessions_per_principal": 2}
        async with cloud(tmp_path, lambda _: engine, **limits) as (app, serving):
            http = client(app)
            waiting = [asyncio.create_task(ask(http, body("aaaa"))) for _ in range(2)]
            await until(lambda: serving.session_count() == 2)
            refused = await ask(http, body("aaaa"))
            assert slug_of(refused) == "limit"
            assert int(refused.headers["Retry-After"]) >= 1
            assert (await http.post("/models/story/sessions", json={})).status_code == 429
            assert serving.close_sessions_of("alice") == 2
            for answer in await asyncio.gather(*waiting):
                assert slug_of(answer) == "not-found"
                assert "revoked" in answer.json()["detail"]
            engine.permits.release(10)

    run(story())
