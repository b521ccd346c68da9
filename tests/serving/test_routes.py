"""The session routes over HTTP, with a real tiny model behind them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from served_app import make_app

from triparty.cloud.serving import Serving, routes
from triparty.common.errors import TripartyError, from_problem
from triparty.common.wire import MEDIA_TYPE, DType, Frame, decode_frames, encode_frames

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Device:
    """A client of the session routes."""

    def __init__(self, app: FastAPI, name: str) -> None:
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://cloud/v1",
            headers={"Authorization": f"Bearer {name}"},
        )

    async def open(self) -> str:
        answer = await self.http.post("/models/story/sessions", json={})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["session"])

    async def step(
        self, session: str, position: int, frame: Any, *, reply: str = "logits"
    ) -> httpx.Response:
        body = encode_frames(frame if isinstance(frame, Frame) else Frame.of(frame))
        return await self.send(session, body, step_headers(position, reply=reply))

    async def send(self, session: str, body: Any, headers: dict[str, str]) -> httpx.Response:
        return await self.http.post(f"/sessions/{session}/step", content=body, headers=headers)


def step_headers(position: int = 0, *, reply: str = "id") -> dict[str, str]:
    return {
        "Triparty-Position": str(position),
        "Triparty-Request-Id": f"at-{position}",
        "Triparty-Reply": reply,
    }


@pytest.fixture
def cloud(tiny_folder: Path, settings: Any, published: Any) -> Any:
    """An async context of an application over a tiny model."""

    @asynccontextmanager
    async def started(**changes: Any) -> AsyncIterator[FastAPI]:
        serving = Serving(settings(**changes))
        await serving.start()
        try:
            yield make_app(serving, published(tiny_folder))
        finally:
            await serving.stop()

    return started


def some_rows(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(count, 32)).astype(np.float32)


def arrays(answer: httpx.Response) -> list[Any]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == MEDIA_TYPE
    return [frame.array for frame in decode_frames(answer.content, limit_bytes=1 << 20)]


def problem_of(answer: httpx.Response) -> TripartyError:
    return from_problem(answer.status_code, answer.json())


def test_a_session_over_http_equals_the_stock_model(
    cloud: Any, reference: Any, run: Run
) -> None:
    async def story() -> None:
        async with cloud() as app:
            device = Device(app, "alice")
            answer = await device.http.post("/models/story/sessions", json={})
            body = answer.json()
            assert body.pop("session")
            assert body == {
                "model": "story",
                "version": 1,
                "epoch": 1,
                "position": 0,
                "replies": ["hidden", "logits", "topk", "id"],
                "limits": {
                    "rows_per_step": 256,
                    "reply_rows": 64,
                    "positions": 300,
                    "idle_s": 600.0,
                },
            }
            session = await device.open()
            rows = some_rows(12)
            expected = reference.logits(rows)
            first = await device.step(session, 0, rows[:10])
            assert first.headers["Triparty-Position"] == "10"
            (logits,) = arrays(first)
            assert np.allclose(logits[0], expected[9], rtol=1e-4, atol=1e-4)
            values, indices = arrays(
                await device.step(session, 10, rows[10:11], reply="topk=3")
            )
            assert indices[0].tolist() == np.argsort(-expected[10])[:3].tolist()
            assert (values.dtype, indices.dtype) == (np.float32, np.int32)
            (best,) = arrays(await device.step(session, 11, rows[11:], reply="id"))
            assert best.tolist() == [int(expected[11].argmax())]

    run(story())


def test_rollback_fork_and_close_over_http(cloud: Any, run: Run) -> None:
    async def story() -> None:
        async with cloud() as app:
            device = Device(app, "alice")
            session = await device.open()
            rows = some_rows(5)
            (before,) = arrays(await device.step(session, 0, rows))
            url = f"/sessions/{session}"
            answer = await device.http.post(f"{url}/rollback", json={"position": 2})
            assert (answer.status_code, answer.json()) == (200, {"position": 2})
            fork = await device.http.post(f"{url}/fork")
            assert (fork.status_code, fork.json()["position"]) == (201, 2)
            for name in (session, fork.json()["session"]):
                (after,) = arrays(await device.step(name, 2, rows[2:]))
                assert np.allclose(before, after, rtol=1e-4, atol=1e-4)
            assert (await device.http.delete(url)).status_code == 204
            assert (await device.http.delete(url)).status_code == 404
            for body in (b"", b"[]", b'{"position": -1}', b'{"position": true}', b"[" * 4000):
                name = fork.json()["session"]
                answer = await device.http.post(f"/sessions/{name}/rollback", content=body)
                assert problem_of(answer).slug == "request"

    run(story())


def test_repeats_and_wrong_positions_over_http(cloud: Any, run: Run) -> None:
    async def story() -> None:
        async with cloud() as app:
            device = Device(app, "alice")
            session = await device.open()
            first = await device.step(session, 0, some_rows(3))
            again = await device.step(session, 0, some_rows(3))
            assert again.content == first.content
            assert again.headers["Triparty-Position"] == "3"
            wrong = await device.step(session, 1, some_rows(1))
            assert wrong.status_code == 409
            assert (problem_of(wrong).slug, problem_of(wrong).extra["position"]) == (
                "position",
                3,
            )

    run(story())


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16])
def test_half_precision_rows_are_taken_and_answered_in_float32(
    cloud: Any, reference: Any, run: Run, dtype: DType
) -> None:
    rows = np.ones((2, 32), np.float32)
    array = rows.astype(np.float16) if dtype is DType.F16 else np.full((2, 32), 0x3F80, "<u2")

    async def story() -> None:
        async with cloud() as app:
            device = Device(app, "alice")
            answer = await device.step(await device.open(), 0, Frame(dtype, array))
            (logits,) = arrays(answer)
            assert logits.dtype == np.float32
            assert np.allclose(logits[0], reference.logits(rows)[1], rtol=1e-4, atol=1e-4)

    run(story())


@pytest.mark.parametrize(
    "headers",
    [
        {"Triparty-Position": "x"},
        {"Triparty-Position": "-1"},
        {"Triparty-Position": ""},
        {"Triparty-Position": "9" * 400},
        {"Triparty-Request-Id": ""},
        {"Triparty-Request-Id": "a" * 65},
        {"Triparty-Request-Id": "a b"},
        {"Triparty-Reply": "everything"},
        {"Triparty-Reply": "topk=100000"},
    ],
)
def test_bad_headers_are_refused(cloud: Any, run: Run, headers: dict[str, str]) -> None:
    async def story() -> None:
        async with cloud() as app:
            device = Device(app, "alice")
            body = encode_frames(Frame.of(some_rows(1)))
            answer = await device.send(await device.open(), body, step_headers() | headers)
            assert answer.status_code == 400
            assert problem_of(answer).slug == "request"

    run(story())


@pytest.mark.parametrize(
    ("body", "slug"),
    [
        (b"", "frame"),
        (b"TPF1", "frame"),
        (b"x" * 100, "frame"),
        (encode_frames(*[Frame.of(np.ones((1, 32), np.float32))] * 2), "frame"),
        (encode_frames(Frame.of(np.ones((1, 32), np.int32))), "frame"),
        (encode_frames(Frame.of(np.full((1, 32), np.nan, np.float32))), "request"),
        (encode_frames(Frame.of(np.full((1, 32), np.inf, np.float32))), "request"),
        (encode_frames(Frame.of(np.ones((1, 31), np.float32))), "request"),
        (encode_frames(Frame.of(np.ones((257, 32), np.float32))), "too-large"),
        (b"x" * 40_000, "too-large"),
    ],
)
def test_bad_bodies_are_refused(cloud: Any, run: Run, body: bytes, slug: str) -> None:
    async def story() -> None:
        async with cloud() as app:
            device = Device(app, "alice")
            answer = await device.send(await device.open(), body, step_headers())
            assert problem_of(answer).slug == slug

    run(story())


def test_an_endless_body_is_cut_off(cloud: Any, run: Run) -> None:
    sent = [0]

    async def endless() -> AsyncIterator[bytes]:
        while True:
            sent[0] += 1000
            yield b"x" * 1000

    async def story() -> None:
        async with cloud() as app:
            device = Device(app, "alice")
            answer = await device.send(await device.open(), endless(), step_headers())
            assert answer.status_code == 413

    run(story())
    assert sent[0] < 50_000


def test_others_cannot_tell_that_a_session_exists(cloud: Any, run: Run) -> None:
    async def story() -> None:
        async with cloud() as app:
            alice, bob = Device(app, "alice"), Device(app, "bob")
            session = await alice.open()
            answers = set()
            for name in (session, "unknown"):
                url = f"/sessions/{name}"
                for answer in (
                    await bob.step(name, 0, some_rows(1)),
                    await bob.step(name, 0, some_rows(1), reply="nonsense"),
                    await bob.http.post(f"{url}/rollback", json={"position": 0}),
                    await bob.http.post(f"{url}/rollback", content=b"nonsense"),
                    await bob.http.post(f"{url}/fork"),
                    await bob.http.delete(url),
                ):
                    assert answer.status_code == 404
                    answers.add(answer.content)
            assert len(answers) == 1
            assert (await alice.step(session, 0, some_rows(1))).status_code == 200

    run(story())


def test_no_token_and_no_model_are_refused(cloud: Any, run: Run) -> None:
    async def story() -> None:
        async with cloud() as app:
            nobody, alice = Device(app, ""), Device(app, "alice")
            answer = await nobody.http.post("/models/story/sessions", json={})
            assert answer.status_code == 401
            answer = await alice.http.post("/models/other/sessions", json={})
            assert answer.status_code == 404

    run(story())


async def leaving(
    app: Any, path: str, headers: dict[str, str], body: bytes, until: Callable[[], Any]
) -> int:
    """The status that a client is answered with that sends a request, and leaves at a time."""
    gone = asyncio.Event()
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
    }
    call = asyncio.create_task(app(scope, receive, send))
    assert await asyncio.to_thread(until)
    gone.set()
    await call
    status: int = sent[0]["status"]
    return status


def test_a_client_that_leaves_frees_its_slot(
    settings: Any, published: Any, fake_engine: Any, tmp_path: Path, run: Run
) -> None:
    async def story() -> None:
        serving = Serving(settings(), load=lambda _: fake_engine)
        await serving.start()
        app = make_app(serving, published(tmp_path))
        device = Device(app, "alice")
        session = await device.open()
        fake_engine.gate.clear()
        body = encode_frames(Frame.of(np.ones((1, 4), np.float32)))
        path = f"/v1/sessions/{session}/step"
        names = {"Authorization": "Bearer alice"} | step_headers(reply="hidden")
        status = await leaving(app, path, names, body, lambda: fake_engine.entered.wait(5))
        assert status == routes.CLIENT_CLOSED_REQUEST
        fake_engine.gate.set()
        answer = await device.step(session, 0, np.ones((1, 4), np.float32), reply="hidden")
        assert answer.headers["Triparty-Position"] == "1"
        await serving.stop()

    run(story())


def test_a_client_that_leaves_while_a_model_loads_takes_no_session(
    settings: Any, published: Any, fake_engine: Any, tmp_path: Path, run: Run
) -> None:
    loading, may_load = threading.Event(), threading.Event()

    def load(_: Path) -> Any:
        loading.set()
        may_load.wait(5)
        return fake_engine

    async def story() -> None:
        serving = Serving(settings(max_sessions_per_principal=1), load=load)
        await serving.start()
        app = make_app(serving, published(tmp_path))
        names = {"Authorization": "Bearer alice"}
        path = "/v1/models/story/sessions"
        status = await leaving(app, path, names, b"", lambda: loading.wait(5))
        assert status == routes.CLIENT_CLOSED_REQUEST
        may_load.set()
        assert await Device(app, "alice").open()  # the one that she may have
        assert serving.totals().opened == 1
        await serving.stop()

    run(story())


def test_the_routes_are_in_the_published_api(cloud: Any, run: Run) -> None:
    async def story() -> None:
        async with cloud() as app:
            paths = app.openapi()["paths"]
            step = paths["/v1/sessions/{session_id}/step"]["post"]
            assert MEDIA_TYPE in step["requestBody"]["content"]
            assert MEDIA_TYPE in step["responses"]["200"]["content"]
            names = {parameter["name"] for parameter in step["parameters"]}
            assert {"Triparty-Position", "Triparty-Request-Id", "Triparty-Reply"} <= names

    run(story())
