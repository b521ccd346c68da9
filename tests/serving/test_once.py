"""One-time instances of encoders: each answers one request, whoever repeats or races."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from served_app import FakeCatalog, make_app

from triparty.cloud.accounts import Principal
from triparty.cloud.serving import Serving
from triparty.cloud.serving.openings import Asked
from triparty.common.errors import (
    NotFoundError,
    SpentError,
    TripartyError,
    UnavailableError,
    from_problem,
)
from triparty.common.wire import Frame, decode_frames, encode_frames

Run = Callable[[Coroutine[Any, Any, Any]], Any]
ROWS = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
BODY = encode_frames(Frame.of(ROWS), Frame.of(np.ones((1, 3), np.int32)))
OTHER = encode_frames(Frame.of(ROWS + 1), Frame.of(np.ones((1, 3), np.int32)))


@dataclass
class Pool(FakeCatalog):
    """A catalog of one-time instances of `story`, by version, which are used up."""

    instances: dict[int, Any]
    spent: list[int] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    failing: TripartyError | None = None
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def model_for(self, principal: Principal, name: str, *, version: int | None = None) -> Any:
        if version in self.spent:
            raise SpentError("used")
        return self.instances[version or max(self.instances)]

    def admit(self, principal: str, model: Any) -> None:
        if self.failing is not None:
            raise self.failing
        if model.once:
            if model.version in self.spent:
                raise SpentError("used")
            self.spent.append(model.version)
            self.gate.wait(10)


@dataclass
class Stage:
    """Serving of a pool, and its routes."""

    app: FastAPI
    serving: Serving
    pool: Pool

    def client(self, name: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app),
            base_url="http://cloud/v1",
            headers={"Authorization": f"Bearer {name}"},
        )

    async def open(
        self, name: str, request_id: str | None = "open", version: int = 1
    ) -> httpx.Response:
        headers = {"Triparty-Version": str(version)}
        headers |= {} if request_id is None else {"Triparty-Request-Id": request_id}
        return await self.client(name).post("/models/story/sessions", headers=headers)

    async def session(self, name: str = "alice", version: int = 1) -> str:
        answer = await self.open(name, version=version)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["session"])

    async def forward(
        self, name: str, session: str, request_id: str = "ask", body: bytes = BODY
    ) -> httpx.Response:
        return await self.client(name).post(
            "/models/story/forward",
            content=body,
            headers={"Triparty-Session": session, "Triparty-Request-Id": request_id},
        )


@pytest.fixture
def start(
    settings: Any, published: Any, tmp_path: Path, fake_encoder: Any
) -> Callable[..., Any]:
    """Makes an async context of a stage with two one-time instances of an encoder."""

    @asynccontextmanager
    async def started(*, load: Any = None, **changes: Any) -> AsyncIterator[Stage]:
        serving = Serving(settings(**changes), load=load or (lambda _: fake_encoder))
        instances = {n: published(tmp_path / str(n), version=n, once=True) for n in (1, 2)}
        pool = Pool(instances)
        serving.ask_before_opening(pool.admit)
        serving.after_use(lambda developer, name, version: pool.removed.append(version))
        await serving.start()
        app = make_app(serving)
        app.state.catalog = pool
        try:
            yield Stage(app, serving, pool)
        finally:
            fake_encoder.gate.set()
            await serving.stop()

    return started


def problem(answer: httpx.Response) -> TripartyError:
    return from_problem(answer.status_code, answer.json())


def doubled(answer: httpx.Response) -> bool:
    assert answer.status_code == 200, answer.text
    (frame,) = decode_frames(answer.content, limit_bytes=1000)
    return np.array_equal(frame.array, 2 * ROWS)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_an_instance_answers_one_request_and_is_gone(
    start: Any, fake_encoder: Any, run: Run
) -> None:
    async def story() -> None:
        async with start() as stage:
            session = await stage.session()
            assert stage.pool.spent == [1]
            first = await stage.forward("alice", session)
            assert doubled(first)
            assert first.headers["Triparty-Version"] == "1"
            again = await stage.forward("alice", session)  # its answer was lost, say
            assert again.content == first.content
            assert again.headers["Triparty-Epoch"] == first.headers["Triparty-Epoch"]
            assert len(fake_encoder.batches) == 1
            second = await stage.forward("alice", session, "another", OTHER)
            assert isinstance(problem(second), SpentError)
            assert "grant" in problem(second).message
            assert len(fake_encoder.batches) == 1
            assert (await stage.client("alice").delete(f"/sessions/{session}")).is_success
            await until(lambda: stage.pool.removed == [1])
            assert not stage.serving.has(stage.pool.instances[1])
            assert isinstance(problem(await stage.forward("alice", session)), NotFoundError)
            assert isinstance(problem(await stage.open("alice", "later")), SpentError)
            assert stage.pool.spent == [1]

    run(story())


def test_of_two_requests_that_race_one_has_the_instance(
    start: Any, fake_encoder: Any, run: Run
) -> None:
    async def story() -> None:
        async with start() as stage:
            opened = await asyncio.gather(*(stage.open("alice", f"o{n}") for n in range(4)))
            assert sorted(each.status_code for each in opened) == [201, 410, 410, 410]
            (session,) = [each.json()["session"] for each in opened if each.is_success]
            fake_encoder.gate.clear()
            asked = [
                asyncio.create_task(stage.forward("alice", session, f"f{n}", body))
                for n, body in enumerate((BODY, OTHER))
            ]
            await until(lambda: len(fake_encoder.batches) == 1)
            fake_encoder.gate.set()
            answers = await asyncio.gather(*asked)
            assert sorted(each.status_code for each in answers) == [200, 410]
            assert len(fake_encoder.batches) == 1

    run(story())


def test_a_repeated_opening_is_the_same_session_while_it_loads_and_after(
    start: Any, fake_encoder: Any, run: Run
) -> None:
    async def story() -> None:
        loads, loading = [], threading.Event()

        def load(folder: Path) -> Any:
            loads.append(folder)
            loading.wait(10)
            return fake_encoder

        async with start(load=load) as stage:
            asked = Asked("alice", "story", 1, "open")

            async def model() -> Any:
                return stage.pool.model_for(None, "story", version=1)

            gone = asyncio.create_task(stage.serving.open_session_once(asked, model))
            await until(lambda: bool(loads))
            gone.cancel()  # its client left
            waiting = asyncio.create_task(stage.open("alice"))
            await asyncio.sleep(0)
            loading.set()
            first = await waiting
            second = await stage.open("alice")
            assert first.status_code == second.status_code == 201
            assert first.json() == second.json()
            assert stage.pool.spent == [1]
            assert len(loads) == 1
            # Nobody else gets it by the same name, nor the same client by another.
            for other in (await stage.open("bob"), await stage.open("alice", "other")):
                assert isinstance(problem(other), SpentError)
            session = first.json()["session"]
            assert isinstance(problem(await stage.forward("bob", session)), NotFoundError)
            assert doubled(await stage.forward("alice", session))
            await stage.client("alice").delete(f"/sessions/{session}")
            assert isinstance(problem(await stage.open("alice")), SpentError)

    run(story())


def test_a_client_that_left_while_its_instance_was_claimed_gets_it(
    start: Any, run: Run
) -> None:
    async def story() -> None:
        async with start() as stage:
            stage.pool.gate.clear()
            gone = asyncio.create_task(stage.open("alice"))
            await until(lambda: stage.pool.spent == [1])
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            stage.pool.gate.set()
            session = (await stage.open("alice")).json()["session"]
            assert doubled(await stage.forward("alice", session))
            assert stage.pool.spent == [1]
            assert stage.pool.removed == []

    run(story())


def test_a_request_that_was_cut_is_run_again_in_its_session(
    start: Any, fake_encoder: Any, run: Run
) -> None:
    async def story() -> None:
        async with start() as stage:
            session = await stage.session()
            fake_encoder.gate.clear()
            cut = asyncio.create_task(stage.forward("alice", session))
            await until(lambda: len(fake_encoder.batches) == 1)
            cut.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cut
            fake_encoder.gate.set()
            other = await stage.forward("alice", session, "another", OTHER)
            assert isinstance(problem(other), SpentError)
            assert doubled(await stage.forward("alice", session))
            assert stage.pool.spent == [1]

    run(story())


def test_without_a_session_nothing_is_used(start: Any, run: Run) -> None:
    async def story() -> None:
        async with start() as stage:
            answer = await stage.client("alice").post("/models/story/forward", content=BODY)
            assert answer.status_code == 400
            assert "Triparty-Session" in problem(answer).message
            assert stage.pool.spent == []
            unnamed = await stage.client("alice").post(
                "/models/story/forward", content=BODY, headers={"Triparty-Session": "x"}
            )
            assert "Triparty-Request-Id" in problem(unnamed).message
            assert stage.pool.spent == stage.pool.removed == []

    run(story())


def test_a_session_on_an_encoder_takes_no_steps(start: Any, run: Run) -> None:
    async def story() -> None:
        async with start() as stage:
            opened = (await stage.open("alice")).json()
            assert opened["limits"]["positions"] == 64
            assert opened["replies"] == ["hidden"]
            client, path = stage.client("alice"), f"/sessions/{opened['session']}"
            rows = encode_frames(Frame.of(ROWS[0]))
            step = {
                "Triparty-Position": "0",
                "Triparty-Request-Id": "x",
                "Triparty-Reply": "hidden",
            }
            for answer in (
                await client.post(f"{path}/step", content=rows, headers=step),
                await client.post(f"{path}/source", content=rows),
                await client.post(f"{path}/rollback", json={"position": 0}),
            ):
                assert answer.status_code == 404, answer.text
            assert (await client.post(f"{path}/fork")).status_code == 400
            assert doubled(await stage.forward("alice", opened["session"]))

    run(story())


def test_an_instance_that_could_not_be_used_stays(start: Any, run: Run) -> None:
    async def story() -> None:
        async with start() as stage:
            stage.pool.failing = UnavailableError("the database is away")
            assert (await stage.open("alice")).status_code == 503
            stage.pool.failing = None
            await asyncio.sleep(0.05)
            assert stage.pool.removed == []
            assert doubled(await stage.forward("alice", await stage.session()))

    run(story())


def test_sessions_that_nobody_uses_end_and_take_their_instance(start: Any, run: Run) -> None:
    async def story() -> None:
        async with start(session_idle_s=0.1) as stage:
            await stage.session()
            await until(lambda: stage.pool.removed == [1])
            assert stage.serving.session_count() == 0
            assert isinstance(problem(await stage.open("alice")), SpentError)
            await stage.session(version=2)
            assert len(stage.serving._openings) == 1  # those that ended are not kept

    run(story())
