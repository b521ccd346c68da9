"""The forward route over HTTP: shared batches, limits, cancelling, and every refusal."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from fastapi import FastAPI
from served_app import make_app
from tiny_encoders import LABELS, tiny_encoder
from transformers import BertForSequenceClassification

from triparty.cloud.serving import Serving, forward, routes
from triparty.common.errors import TripartyError, from_problem
from triparty.common.wire import MEDIA_TYPE, Frame, decode_frames, encode_frames

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def texts(*lengths: int, width: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows (B, T, D) with something in the padding too, and their mask."""
    shape = (len(lengths), max(lengths), width)
    rows = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int32)
    return rows, mask


def body_of(*arrays: np.ndarray) -> bytes:
    return encode_frames(*map(Frame.of, arrays))


def problem_of(answer: httpx.Response) -> TripartyError:
    return from_problem(answer.status_code, answer.json())


class Device:
    """A client of the routes."""

    def __init__(self, app: FastAPI, name: str) -> None:
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://cloud/v1",
            headers={"Authorization": f"Bearer {name}"},
        )

    async def send(self, body: Any, model: str = "story", **headers: str) -> httpx.Response:
        return await self.http.post(f"/models/{model}/forward", content=body, headers=headers)

    async def ask(self, *arrays: np.ndarray, **headers: str) -> np.ndarray:
        answer = await self.send(body_of(*arrays), **headers)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == MEDIA_TYPE
        (frame,) = decode_frames(answer.content, limit_bytes=1 << 20)
        return frame.array


@pytest.fixture
def start(settings: Any, published: Any, tmp_path: Path) -> Callable[..., Any]:
    """Makes an async context of an application over loaded models, `story` among them."""

    @asynccontextmanager
    async def started(
        engine: Any = None, *, others: Any = None, folder: Path = tmp_path, **changes: Any
    ) -> AsyncIterator[FastAPI]:
        others = others or {}
        by_folder = {folder: engine} | {folder / name: one for name, one in others.items()}
        load = {} if engine is None else {"load": by_folder.__getitem__}
        serving = Serving(settings(**changes), **load)
        await serving.start()
        models = [published(folder)]
        models += [published(folder / name, name=name) for name in others]
        try:
            yield make_app(serving, *models)
        finally:
            for one in by_folder.values():
                if one is not None:
                    one.gate.set()
            await serving.stop()

    return started


@pytest.fixture
def cloud(start: Any, fake_encoder: Any) -> Callable[..., Any]:
    return functools.partial(start, fake_encoder)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_a_classifier_over_http_equals_the_stock_model(
    start: Any, run: Run, tmp_path: Path
) -> None:
    folder = tiny_encoder("bert-labels", tmp_path / "model")
    model = BertForSequenceClassification.from_pretrained(folder)
    rows, mask = texts(3, 7, 1, width=24)

    async def story() -> None:
        async with start(folder=folder) as app:
            answer = await Device(app, "alice").send(body_of(rows, mask))
            assert answer.status_code == 200, answer.text
            assert answer.headers["Triparty-Reply"] == "logits"
            assert answer.headers["Triparty-Version"] == "1"
            assert answer.headers["Triparty-Epoch"] == "1"
            (frame,) = decode_frames(answer.content, limit_bytes=1 << 20)
            assert frame.array.shape == (3, len(LABELS))
            for got, row, length in zip(frame.array, rows, (3, 7, 1), strict=True):
                with torch.inference_mode():
                    alone = model(inputs_embeds=torch.from_numpy(row[:length])[None]).logits[0]
                assert np.abs(got - alone.numpy()).max() <= 1e-5 * np.abs(alone.numpy()).max()

    run(story())


def test_answers_have_zeros_where_a_text_has_ended(cloud: Any, run: Run) -> None:
    async def story() -> None:
        async with cloud() as app:
            rows, mask = texts(3, 5)
            got = await Device(app, "alice").ask(rows, mask)
            assert (got == 2 * rows * mask[..., None]).all()
            swapped = await Device(app, "alice").ask(
                mask, rows, **{"Triparty-Inputs": "mask,rows"}
            )
            assert (swapped == got).all()

    run(story())


def test_requests_of_several_devices_share_a_batch(
    cloud: Any, fake_encoder: Any, run: Run
) -> None:
    async def story() -> None:
        async with cloud() as app:
            fake_encoder.gate.clear()
            first = asyncio.create_task(Device(app, "alice").ask(*texts(2)))
            await asyncio.to_thread(fake_encoder.entered.wait, 5)
            given = {
                name: texts(4, 9, 2, seed=ord(name[0])) for name in ("bob", "carol", "dan")
            }
            later = [asyncio.create_task(Device(app, name).ask(*given[name])) for name in given]
            serving = app.state.serving
            await until(lambda: serving.totals().waiting >= 9)
            fake_encoder.gate.set()
            await first
            for name, answer in zip(given, await asyncio.gather(*later), strict=True):
                rows, mask = given[name]
                assert (answer == 2 * rows * mask[..., None]).all()
            assert [len(batch) for batch in fake_encoder.batches] == [1, 9]
            assert serving.totals().passages == 10
            assert serving.totals().sessions == 0

    run(story())


def test_a_batch_has_no_more_rows_than_the_setting(
    cloud: Any, fake_encoder: Any, run: Run
) -> None:
    async def story() -> None:
        async with cloud(max_batch_rows=16) as app:
            await Device(app, "alice").ask(*texts(*[10] * 5))
            assert [len(batch) for batch in fake_encoder.batches] == [1] * 5
            fake_encoder.batches.clear()
            await Device(app, "alice").ask(*texts(*[4] * 5, 20))
            rows = [sum(text.rows for text in batch) for batch in fake_encoder.batches]
            assert rows == [16, 4, 20]

    run(story())


def test_a_client_that_leaves_frees_what_has_not_run(
    cloud: Any, fake_encoder: Any, run: Run
) -> None:
    async def story() -> None:
        async with cloud() as app:
            serving = app.state.serving
            fake_encoder.gate.clear()
            first = asyncio.create_task(Device(app, "alice").ask(*texts(2)))
            await asyncio.to_thread(fake_encoder.entered.wait, 5)
            gone = asyncio.Event()
            sent: list[Any] = []
            call = asyncio.create_task(leaving(app, body_of(*texts(1, 1, 1, 1)), gone, sent))
            await until(lambda: serving.totals().waiting >= 4)
            assert serving.session_count() == 2
            gone.set()
            await call
            assert sent[0]["status"] == routes.CLIENT_CLOSED_REQUEST
            assert serving.session_count() == 1
            fake_encoder.gate.set()
            await first
            await Device(app, "alice").ask(*texts(3))
            assert [len(batch) for batch in fake_encoder.batches] == [1, 1]

    run(story())


def test_a_client_that_leaves_while_a_model_loads_is_dropped(
    settings: Any, published: Any, fake_encoder: Any, tmp_path: Path, run: Run
) -> None:
    loading, may_load = threading.Event(), threading.Event()

    def load(_: Path) -> Any:
        loading.set()
        may_load.wait(5)
        return fake_encoder

    async def story() -> None:
        serving = Serving(settings(max_steps_per_developer=1), load=load)
        await serving.start()
        app = make_app(serving, published(tmp_path))
        gone, sent = asyncio.Event(), list[Any]()
        call = asyncio.create_task(leaving(app, body_of(*texts(1, 2)), gone, sent))
        await asyncio.to_thread(loading.wait, 5)
        gone.set()
        await call
        assert sent[0]["status"] == routes.CLIENT_CLOSED_REQUEST
        waiting = asyncio.create_task(Device(app, "alice").ask(*texts(3)))  # the one step
        may_load.set()
        await waiting
        assert [len(batch) for batch in fake_encoder.batches] == [1]
        assert (serving.totals().opened, serving.session_count()) == (1, 0)
        await serving.stop()

    run(story())


def test_a_body_that_comes_while_a_model_loads_is_read_whole(
    settings: Any, published: Any, fake_encoder: Any, tmp_path: Path, run: Run
) -> None:
    """In pieces, before and after the model is there, and at most as much as may be."""
    loading, may_load = threading.Event(), threading.Event()

    def load(_: Path) -> Any:
        loading.set()
        may_load.wait(5)
        return fake_encoder

    async def story() -> None:
        serving = Serving(settings(), load=load)
        await serving.start()
        app, (rows, mask) = make_app(serving, published(tmp_path)), texts(5, 9)
        body = body_of(rows, mask)

        async def pieces() -> AsyncIterator[bytes]:
            yield body[:50]
            await asyncio.to_thread(loading.wait, 5)
            yield body[50:70]
            may_load.set()
            await asyncio.sleep(0)
            yield body[70:]

        answer = await Device(app, "alice").send(pieces())
        (frame,) = decode_frames(answer.content, limit_bytes=1 << 20)
        assert np.array_equal(frame.array[1], 2 * rows[1])
        await serving.stop()

    run(story())


async def leaving(app: FastAPI, body: bytes, gone: asyncio.Event, sent: list[Any]) -> None:
    """One request whose client goes away when `gone` is set."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    path = "/v1/models/story/forward"
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer bob")],
    }
    await app(scope, receive, send)


RIGHT = texts(2, 3)


@pytest.mark.parametrize(
    ("body", "headers", "slug"),
    [
        (b"", {}, "frame"),
        (b"TPF1", {}, "frame"),
        (b"x" * 100, {}, "frame"),
        (body_of(*RIGHT, *RIGHT, *RIGHT), {}, "frame"),
        (body_of(RIGHT[0]), {}, "request"),
        (body_of(*RIGHT, RIGHT[1]), {}, "request"),
        (body_of(*reversed(RIGHT)), {}, "request"),
        (body_of(RIGHT[0], 3 * RIGHT[1]), {}, "request"),
        (body_of(RIGHT[0], RIGHT[1][:, ::-1].copy()), {}, "request"),
        (body_of(RIGHT[0] * np.float32("nan"), RIGHT[1]), {}, "request"),
        (body_of(*texts(2, 3, width=5)), {}, "request"),
        (body_of(*RIGHT), {"Triparty-Inputs": "rows,mask,types"}, "request"),
        (body_of(*RIGHT), {"Triparty-Inputs": "ids,mask"}, "request"),
        (body_of(*RIGHT), {"Triparty-Inputs": "nonsense"}, "request"),
        (body_of(*RIGHT), {"Triparty-Reply": "logits"}, "request"),
        (body_of(*RIGHT), {"Triparty-Reply": "topk=3"}, "request"),
        (body_of(*texts(65)), {}, "too-large"),
        (body_of(*texts(*[2] * 129)), {}, "too-large"),
        (b"x" * 40_000, {}, "too-large"),
    ],
)
def test_bad_requests_are_refused_before_the_model(
    cloud: Any, fake_encoder: Any, run: Run, body: bytes, headers: Any, slug: str
) -> None:
    async def story() -> None:
        async with cloud() as app:
            device = Device(app, "alice")
            assert problem_of(await device.send(body, **headers)).slug == slug
            assert not fake_encoder.batches
            assert app.state.serving.session_count() == 0
            await device.ask(*RIGHT)

    run(story())


def test_an_announced_body_that_is_too_large_is_not_read(cloud: Any, run: Run) -> None:
    sent = [0]

    async def endless() -> AsyncIterator[bytes]:
        while True:
            sent[0] += 1000
            yield b"x" * 1000

    async def story() -> None:
        async with cloud() as app:
            device = Device(app, "alice")
            announced = await device.send(endless(), **{"Content-Length": "1000000000"})
            assert problem_of(announced).slug == "too-large"
            assert sent[0] <= 1000
            assert problem_of(await device.send(endless())).slug == "too-large"
            assert sent[0] < 50_000

    run(story())


def test_a_decoder_and_an_encoder_are_told_apart(
    start: Any, fake_encoder: Any, fake_engine: Any, run: Run
) -> None:
    async def story() -> None:
        async with start(fake_encoder, others={"decoder": fake_engine}) as app:
            device = Device(app, "alice")
            answer = await device.send(body_of(*RIGHT), model="decoder")
            assert answer.status_code == 400
            assert "is a decoder: open a session" in problem_of(answer).message
            answer = await device.http.post("/models/story/sessions", json={})
            assert answer.status_code == 400
            assert "POST /v1/models/story/forward" in problem_of(answer).message
            words = {"model": "story", "prompt": "aaaa"}
            answer = await device.http.post("/completions", json=words)
            assert answer.status_code == 400
            assert "is an encoder" in problem_of(answer).message
            assert app.state.serving.session_count() == 0

    run(story())


def test_no_token_and_no_model_are_refused(cloud: Any, run: Run) -> None:
    async def story() -> None:
        async with cloud() as app:
            assert (await Device(app, "").send(b"")).status_code == 401
            answer = await Device(app, "alice").send(body_of(*RIGHT), model="other")
            assert answer.status_code == 404

    run(story())


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("max_steps_per_developer", "waiting"),
        ("max_sessions_per_principal", "one principal"),
        ("max_sessions_per_developer", "this developer's models"),
        ("max_sessions", "all taken"),
    ],
)
def test_a_request_at_a_time_where_one_is_the_limit(
    cloud: Any, fake_encoder: Any, run: Run, setting: str, words: str
) -> None:
    async def story() -> None:
        async with cloud(**{setting: 1}) as app:
            device = Device(app, "alice")
            fake_encoder.gate.clear()
            first = asyncio.create_task(device.ask(*texts(2)))
            await asyncio.to_thread(fake_encoder.entered.wait, 5)
            refused = await device.send(body_of(*RIGHT))
            assert refused.status_code == 429
            assert words in problem_of(refused).message
            fake_encoder.gate.set()
            await first
            await device.ask(*RIGHT)

    run(story())


@pytest.mark.parametrize("whose", ["principal", "developer"])
def test_revoking_ends_what_runs(cloud: Any, fake_encoder: Any, run: Run, whose: str) -> None:
    async def story() -> None:
        async with cloud() as app:
            serving = app.state.serving
            fake_encoder.gate.clear()
            first = asyncio.create_task(Device(app, "alice").send(body_of(*texts(2, 2))))
            await asyncio.to_thread(fake_encoder.entered.wait, 5)
            if whose == "principal":
                assert serving.close_sessions_of("bob") == 0
                assert serving.close_sessions_of("alice") == 1
            else:
                assert serving.close_sessions_of_developer("ed25519:dev") == 1
            answer = await first
            assert answer.status_code == 429
            assert "ended this request" in problem_of(answer).message
            fake_encoder.gate.set()
            await Device(app, "bob").ask(*RIGHT)

    run(story())


def test_a_batch_that_fails_is_answered_and_the_next_one_runs(
    cloud: Any, fake_encoder: Any, run: Run
) -> None:
    async def story() -> None:
        async with cloud() as app:
            device = Device(app, "alice")
            fake_encoder.error = RuntimeError("what nobody may read")
            answer = await device.send(body_of(*RIGHT))
            assert answer.status_code == 500
            assert "nobody may read" not in answer.text
            await device.ask(*RIGHT)
            assert app.state.serving.totals().failed_batches == 1

    run(story())


def test_a_cloud_that_stops_answers_what_waits(cloud: Any, fake_encoder: Any, run: Run) -> None:
    async def story() -> None:
        async with cloud() as app:
            fake_encoder.gate.clear()
            running = asyncio.create_task(Device(app, "alice").send(body_of(*texts(2))))
            await asyncio.to_thread(fake_encoder.entered.wait, 5)
            waiting = asyncio.create_task(Device(app, "bob").send(body_of(*texts(2))))
            (hosted,) = app.state.serving._models.loaded()
            await until(lambda: hosted.worker.waiting >= 2)
            stopping = asyncio.create_task(app.state.serving.stop())
            await until(lambda: hosted.worker.waiting >= 3)  # the order to stop is there
            fake_encoder.gate.set()
            await stopping
            assert (await running).status_code == 200
            assert problem_of(await waiting).slug == "unavailable"
            assert problem_of(await Device(app, "bob").send(b"")).slug == "unavailable"

    run(story())


def test_a_model_that_answers_is_not_unloaded(
    start: Any, fake_encoder: Any, fake_engine: Any, run: Run
) -> None:
    async def story() -> None:
        started = start(
            fake_encoder, others={"decoder": fake_engine}, max_models_per_developer=1
        )
        async with started as app:
            device = Device(app, "alice")
            fake_encoder.gate.clear()
            first = asyncio.create_task(device.ask(*texts(2)))
            await asyncio.to_thread(fake_encoder.entered.wait, 5)
            busy = await device.http.post("/models/decoder/sessions", json={})
            assert busy.status_code == 429
            fake_encoder.gate.set()
            await first
            opened = await device.http.post("/models/decoder/sessions", json={})
            assert opened.status_code == 201
            assert [key.name for key in app.state.serving.counts()] == ["decoder"]

    run(story())


def test_a_large_answer_bounds_the_batch(start: Any, fake_encoder: Any, run: Run) -> None:
    fake_encoder.info = replace(fake_encoder.info, outputs=1 << 12)
    fake_encoder.run = lambda batch: (
        fake_encoder.batches.append(list(batch))
        or [(np.zeros((text.rows, 1 << 12), np.float32),) for text in batch]
    )

    async def story() -> None:
        async with start(fake_encoder) as app:  # a body, and so an answer, has a MiB at most
            device = Device(app, "alice")
            refused = await device.send(body_of(*texts(*[13] * 5)))
            assert problem_of(refused).slug == "too-large"
            assert "send fewer texts" in problem_of(refused).message
            async with asyncio.TaskGroup() as group:
                for name in ("alice", "bob"):
                    group.create_task(Device(app, name).ask(*texts(*[8] * 7)))
            rows = [sum(text.rows for text in batch) for batch in fake_encoder.batches]
            assert max(rows) <= 64

    run(story())


def test_rows_of_texts_are_traced(cloud: Any, run: Run, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    rows, mask = texts(3, 5)

    async def story() -> None:
        async with cloud(trace=trace) as app:
            await Device(app, "alice").ask(rows, mask)

    run(story())
    frames = decode_frames(trace.read_bytes(), limit_bytes=1 << 20)
    assert [frame.array.tolist() for frame in frames] == [
        rows[0, :3].tolist(),
        rows[1].tolist(),
    ]


def test_the_route_is_in_the_published_api(cloud: Any, run: Run) -> None:
    async def story() -> None:
        async with cloud() as app:
            route = app.openapi()["paths"]["/v1/models/{name}/forward"]["post"]
            assert MEDIA_TYPE in route["requestBody"]["content"]
            assert MEDIA_TYPE in route["responses"]["200"]["content"]
            names = {parameter["name"] for parameter in route["parameters"]}
            assert {forward.INPUTS_HEADER, forward.REPLY_HEADER} <= names

    run(story())
