"""Completions by an engine behind the cloud: passed on, counted, ended, and never trusted."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from served_app import make_app

from triparty.cloud.serving import Serving
from triparty.cloud.serving.upstream import Upstream
from triparty.common import opaque
from triparty.common.events import event, events

Run = Callable[[Coroutine[Any, Any, Any]], Any]
WORDS = ("aaab", "aaac", "aaad")
KEY = "sk-the-engines-own-key"
ASKED = {"model": "story", "prompt": "aaaa", "max_tokens": 3, "temperature": 0}


def document(text: str, reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "finish_reason": reason}
    return {"id": "x", "object": "text_completion", "model": "/srv/secret", "choices": [choice]}


@dataclass
class Engine(httpx.AsyncByteStream):
    """A stock engine, as what it is sent and what it answers.

    Attributes:
        status: of its answers.
        pieces: what it sends.
        asked: the requests that it got.
        gate: it waits for this before the second piece and all later ones.
        closed: whether a client let go of an answer.
        sent: pieces that were taken.
    """

    status: int = 200
    pieces: list[bytes] = field(default_factory=list)
    asked: list[httpx.Request] = field(default_factory=list)
    gate: asyncio.Event | None = None
    closed: bool = False
    sent: int = 0
    error: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number, piece in enumerate(self.pieces):
            if number and self.gate is not None:
                await self.gate.wait()
            self.sent += 1
            yield piece
        if self.error is not None:
            raise self.error

    async def aclose(self) -> None:
        self.closed = True

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.error is not None and not self.pieces:
            raise self.error
        return httpx.Response(self.status, stream=self)


def streaming(*, done: bool = True) -> list[bytes]:
    reasons = (None, None, "length" if done else None)
    said = [document(*each) for each in zip(WORDS, reasons, strict=True)]
    return [*(event(json.dumps(one)) for one in said), *([event("[DONE]")] if done else [])]


@pytest.fixture
def cloud(settings: Any, published: Any, tmp_path: Path) -> Any:
    """An async context of an application whose completions an engine answers."""
    (tmp_path / opaque.TOKENIZER_FILE).write_text("{}")

    def load(_: Path) -> Any:
        raise AssertionError("no model is loaded for what another engine answers")

    @asynccontextmanager
    async def started(engine: Engine, **changes: Any) -> AsyncIterator[Any]:
        serving = Serving(settings(metrics_names=4, **changes), load=load)
        await serving.start()
        app = make_app(serving, published(tmp_path, version=7, epoch=2))
        app.state.upstream = Upstream(
            "http://engine/v1",
            model="{name}-{version}",
            key=KEY,
            silence_s=5,
            transport=httpx.MockTransport(engine.answer),
        )
        try:
            yield app
        finally:
            await app.state.upstream.close()
            await serving.stop()

    return started


async def ask(app: Any, **changes: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    headers = {"Authorization": "Bearer alice"}
    async with httpx.AsyncClient(transport=transport, base_url="http://cloud") as http:
        return await http.post("/v1/completions", json=ASKED | changes, headers=headers)


def test_an_answer_is_passed_on_under_the_models_own_name(cloud: Any, run: Run) -> None:
    engine = Engine(pieces=[json.dumps(document("aaabaaac", "length")).encode()])

    async def story() -> None:
        async with cloud(engine) as app:
            answer = await ask(app)
            assert answer.status_code == 200, answer.text
            assert answer.json()["choices"][0]["text"] == "aaabaaac"
            assert answer.json()["model"] == "story"
            assert "/srv/secret" not in answer.text
            assert (answer.headers["Triparty-Version"], answer.headers["Triparty-Epoch"]) == (
                "7",
                "2",
            )
            totals = app.state.serving.totals()
            assert (totals.tokens, totals.sessions, totals.opened) == (2, 0, 1)

    run(story())
    (sent,) = engine.asked
    assert json.loads(sent.content) == ASKED | {"model": "story-7"}
    assert sent.url == "http://engine/v1/completions"
    assert sent.headers["Authorization"] == f"Bearer {KEY}"
    assert "alice" not in str(sent.headers)


@pytest.mark.parametrize("cut", [1, 7, 10_000])
def test_events_are_passed_on_however_they_are_cut(cloud: Any, run: Run, cut: int) -> None:
    whole = b"".join(streaming())
    engine = Engine(pieces=[whole[at : at + cut] for at in range(0, len(whole), cut)])

    async def story() -> None:
        async with cloud(engine) as app:
            answer = await ask(app, stream=True)
            *told, done = events([answer.content], limit_bytes=1 << 20)
            assert done == "[DONE]"
            documents = [json.loads(one) for one in told]
            assert [one["choices"][0]["text"] for one in documents] == list(WORDS)
            assert {one["model"] for one in documents} == {"story"}
            assert app.state.serving.totals().tokens == 3

    run(story())


def test_an_engine_may_leave_out_the_last_event(cloud: Any, run: Run) -> None:
    engine = Engine(pieces=streaming()[:-1])

    async def story() -> None:
        async with cloud(engine) as app:
            *told, done = events([(await ask(app, stream=True)).content], limit_bytes=1 << 20)
            assert (len(told), done) == (3, "[DONE]")

    run(story())


@pytest.mark.parametrize(
    ("engine", "status"),
    [
        (Engine(status=400, pieces=[b'{"error": "/srv/secret"}']), 400),
        (Engine(status=422), 400),
        (Engine(status=413), 413),
        (Engine(status=429), 429),
        (Engine(status=401), 503),
        (Engine(status=404), 503),
        (Engine(status=302), 503),
        (Engine(status=500), 503),
        (Engine(error=httpx.ConnectError("engine:1")), 503),
        (Engine(error=httpx.ReadTimeout("engine:1")), 503),
        (Engine(pieces=[b"<html>/srv/secret"]), 500),
        (Engine(pieces=[b'{"error": {"message": "/srv/secret"}}']), 500),
        (Engine(pieces=[b'{"choices": [{"text": 3}]}']), 500),
        (Engine(pieces=[b"[" * 100_000]), 500),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_goes_wrong_behind_the_cloud_is_a_problem_that_tells_nothing_of_it(
    cloud: Any,
    run: Run,
    caplog: pytest.LogCaptureFixture,
    engine: Engine,
    status: int,
    stream: bool,
) -> None:
    caplog.set_level(logging.DEBUG)
    pieces = [event(piece.decode()) for piece in engine.pieces] if stream else engine.pieces
    broken = Engine(status=engine.status, pieces=pieces, error=engine.error)

    async def story() -> None:
        async with cloud(broken) as app:
            answer = await ask(app, stream=stream)
            assert answer.status_code == status, answer.text
            assert answer.json()["type"].startswith("urn:triparty:problem:")
            for secret in ("/srv/secret", "engine:1", KEY, "http://engine"):
                assert secret not in answer.text
            assert KEY not in caplog.text
            assert app.state.serving.session_count() == 0

    run(story())


@pytest.mark.parametrize("error", [None, httpx.ReadError("engine:1")])
def test_an_answer_that_breaks_off_ends_in_an_error(
    cloud: Any, run: Run, error: Exception | None
) -> None:
    engine = Engine(pieces=streaming(done=False), error=error)

    async def story() -> None:
        async with cloud(engine) as app:
            answer = await ask(app, stream=True)
            *told, last = events([answer.content], limit_bytes=1 << 20)
            assert len(told) == len(WORDS)
            assert "broke" in json.loads(last)["error"]["detail"]
            assert engine.closed

    run(story())


@pytest.mark.parametrize("how", ["client", "revoked"])
def test_an_answer_ends_when_nobody_reads_it_or_may(cloud: Any, run: Run, how: str) -> None:
    engine = Engine(pieces=streaming())

    async def story() -> None:
        engine.gate = asyncio.Event()
        async with cloud(engine, max_sessions_per_principal=1) as app:
            serving: Serving = app.state.serving
            told: list[Any] = []
            gone = asyncio.Event()
            call = asyncio.create_task(leaving(app, told, gone))
            async with asyncio.timeout(5):
                while engine.sent < 1 or len(told) < 2:
                    await asyncio.sleep(0.01)
            assert (await ask(app)).status_code == 429  # the one session that alice may have
            if how == "client":
                gone.set()
            else:
                assert serving.close_sessions_of("alice") == 1
            await asyncio.wait_for(call, 5)
            assert engine.closed
            assert serving.session_count() == 0
            body = b"".join(message.get("body", b"") for message in told)
            assert (b'"error"' in body) == (how == "revoked")

    run(story())


def test_an_engine_is_read_no_faster_than_its_client_reads(cloud: Any, run: Run) -> None:
    engine = Engine(pieces=[*streaming(done=False)] * 50 + [event("[DONE]")])

    async def story() -> None:
        async with cloud(engine) as app:
            told, gone = list[Any](), asyncio.Event()
            call = asyncio.create_task(leaving(app, told, gone, most=2))
            async with asyncio.timeout(5):
                while len(told) < 2:
                    await asyncio.sleep(0.01)
            for _ in range(50):
                await asyncio.sleep(0)
            assert engine.sent <= 3
            gone.set()
            await asyncio.wait_for(call, 5)
            assert engine.closed

    run(story())


async def leaving(app: Any, told: list[Any], gone: asyncio.Event, *, most: int = 1000) -> None:
    """A streamed request of alice's, whose client goes away when `gone` is set.

    It takes no more than `most` messages.
    """
    body = json.dumps(ASKED | {"stream": True}).encode()
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        told.append(message)
        if len(told) >= most:
            await asyncio.Event().wait()

    headers = {"authorization": "Bearer alice", "content-type": "application/json"}
    await app(
        {
            "type": "http",
            "method": "POST",
            "path": "/v1/completions",
            "raw_path": b"/v1/completions",
            "query_string": b"",
            "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        },
        receive,
        send,
    )


def test_a_model_that_takes_rows_is_not_passed_on(cloud: Any, run: Run, tmp_path: Path) -> None:
    engine = Engine()

    async def story() -> None:
        async with cloud(engine) as app:
            (tmp_path / opaque.TOKENIZER_FILE).unlink()
            answer = await ask(app)
            assert answer.status_code == 400
            assert "takes rows" in answer.json()["detail"]

    run(story())
    assert engine.asked == []


def test_a_version_that_is_out_of_use_is_not_passed_on(cloud: Any, run: Run) -> None:
    engine = Engine(pieces=streaming())

    async def story() -> None:
        engine.gate = asyncio.Event()
        async with cloud(engine) as app:
            told: list[Any] = []
            call = asyncio.create_task(leaving(app, told, asyncio.Event()))
            async with asyncio.timeout(5):
                while len(told) < 2:
                    await asyncio.sleep(0.01)
            app.state.serving.retire("ed25519:dev", frozenset({("story", 7)}), drain_s=0)
            await asyncio.wait_for(call, 5)
            assert b"retired" in told[-2]["body"] + told[-1].get("body", b"")
            assert (await ask(app)).status_code == 410
            assert len(engine.asked) == 1

    run(story())
