"""The law of replicas: the answers of one engine, whatever becomes of a replica.

One Ray for all tests of this file; its processes take a while to start.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from tiny_encoders import tiny_encoder
from tiny_llava import SIZE, tiny_llava
from tiny_seq2seq import tiny_seq2seq

from triparty.cloud.serving import Serving
from triparty.cloud.serving.engine import Image, Reply, Text, Work
from triparty.cloud.serving.hosting import load_local
from triparty.cloud.serving.local import LocalEngine
from triparty.cloud.serving.placement import Placement
from triparty.cloud.serving.ray_backend import RayBackend
from triparty.cloud.serving.records import StepRequest
from triparty.cloud.serving.seq2seq import Seq2SeqEngine
from triparty.cloud.serving.sight import load_seeing
from triparty.common.errors import CheckpointError, NotFoundError
from triparty.common.wire import decode_frames

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("ray") is None, reason="pip install 'triparty[ray]'"),
    # Ray's own, of its processes and sockets.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning"),
]

WAIT_S = 120
Rows = NDArray[np.float32]


class RunningRay(RayBackend):
    """A Ray that outlives the clouds that use it."""

    def start(self) -> None:
        """Done."""

    def stop(self) -> None:
        """Not yet."""

    def with_settings(self, settings: Any) -> RunningRay:
        """The same Ray for other settings."""
        other = RunningRay(settings)
        other.__dict__ |= self.__dict__ | {"_settings": settings}
        return other


@pytest.fixture(scope="module")
def ray_of(settings: Any) -> Iterator[Callable[[Any], RunningRay]]:
    """A backend for settings."""
    running = RunningRay(settings())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        RayBackend.start(running)
        running.wait()
    yield running.with_settings
    RayBackend.stop(running)


@pytest.fixture
def start(ray_of: Any, settings: Any) -> Callable[..., Any]:
    """Makes an async context of a started `Serving` on replicas."""

    @asynccontextmanager
    async def started(**changes: Any) -> AsyncIterator[Serving]:
        chosen = settings(**changes)
        serving = Serving(chosen, backend=ray_of(chosen))
        await serving.start()
        try:
            yield serving
        finally:
            await serving.stop()

    return started


def rows_of(count: int, seed: int = 1) -> Rows:
    return np.random.default_rng(seed).normal(size=(count, 32)).astype(np.float32)


async def ask(serving: Serving, session: str, position: int, rows: Rows) -> Rows:
    """The logits about the last of some rows."""
    request = StepRequest(position, os.urandom(8).hex(), Reply.parse("logits"), rows)
    stored = await serving.step("phone", session, request)
    (frame,) = decode_frames(stored.body, limit_bytes=1 << 20)
    return frame.array[0]


async def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, "it does not come to hold"
        await asyncio.sleep(0.2)


async def runner_pid(serving: Serving, session: str) -> int:
    """The process in which a session's model runs."""
    (hosted,) = {each.hosted for each in serving._sessions if each.id == session}
    hold = await hosted.engine._places[session]
    return int(await hold.runner.process.remote())


def replica_pids(name: str) -> list[int]:
    """Ray's processes whose title begins with a name."""
    ours = psutil.Process().children(recursive=True)
    return [p.pid for p in ours if p.status() != "zombie" and _title(p).startswith(name)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_sessions_on_replicas_answer_as_one_engine(
    family: str, start: Any, published: Any, tiny_folders: dict[str, Path]
) -> None:
    tiny_folder = tiny_folders[family]
    alone = LocalEngine.load(tiny_folder)

    async def run() -> None:
        async with start(replicas=2) as serving:
            opened = [
                (await serving.open_session("phone", published(tiny_folder))).session
                for _ in range(6)
            ]
            answers = await asyncio.gather(
                *(ask(serving, name, 0, rows_of(9, n)) for n, name in enumerate(opened))
            )
            pids = {await runner_pid(serving, name) for name in opened}
            assert len(pids) == 2, "all sessions are on one replica"
            fork = (await serving.fork("phone", opened[1])).session
            assert await runner_pid(serving, fork) == await runner_pid(serving, opened[1])
            await serving.rollback("phone", opened[2], 4)
            answers += await asyncio.gather(
                ask(serving, opened[0], 9, rows_of(2, 7)),
                ask(serving, fork, 9, rows_of(1, 8)),
                ask(serving, opened[1], 9, rows_of(1, 9)),
                ask(serving, opened[2], 4, rows_of(3, 10)),
            )
            assert serving.totals().steps == 10
            assert serving.totals().cache_bytes > 0
            expected = [_alone(alone, [rows_of(9, n)]) for n in range(6)] + [
                _alone(alone, [rows_of(9, 0), rows_of(2, 7)]),
                _alone(alone, [rows_of(9, 1), rows_of(1, 8)]),
                _alone(alone, [rows_of(9, 1), rows_of(1, 9)]),
                _alone(alone, [rows_of(9, 2)[:4], rows_of(3, 10)]),
            ]
            np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-5)
            for name in (*opened, fork):
                serving.close("phone", name)
            await until(lambda: not serving.totals().cache_bytes)

    asyncio.run(run())


def _alone(engine: LocalEngine, parts: list[Rows]) -> Rows:
    rows = np.concatenate(parts)
    ((answer,),) = engine.run([Work("alone", 0, rows, Reply.parse("logits"))])
    return answer[0]


@pytest.mark.parametrize("victim", ["runner", "ray::ServeReplica"])
def test_a_killed_replica_loses_its_sessions_and_no_others(
    victim: str, start: Any, published: Any, tiny_folders: dict[str, Path]
) -> None:
    model = published(tiny_folders["llama"])

    async def run() -> None:
        others = set(replica_pids(victim))
        async with start(replicas=2) as serving:
            names = [(await serving.open_session("phone", model)).session for _ in range(8)]
            first = await asyncio.gather(*(ask(serving, each, 0, rows_of(5)) for each in names))
            where = {each: await runner_pid(serving, each) for each in names}
            if victim == "runner":
                killed = {where[names[0]]}
                os.kill(where[names[0]], signal.SIGKILL)
            else:
                os.kill((set(replica_pids(victim)) - others).pop(), signal.SIGKILL)
                await until(lambda: sum(map(psutil.pid_exists, where.values())) < 8)
                killed = {pid for pid in where.values() if not psutil.pid_exists(pid)}
            assert len(killed) == 1
            survivors = 0
            for name in names:
                if where[name] in killed:
                    with pytest.raises(NotFoundError, match="replay"):
                        await ask(serving, name, 5, rows_of(1))
                    assert not any(each.id == name for each in serving._sessions)
                else:
                    survivors += 1
                    await ask(serving, name, 5, rows_of(1))
            assert survivors == sum(pid not in killed for pid in where.values()) > 0
            for _ in range(4):  # at once, and on replicas that have all of the model
                again = (await serving.open_session("phone", model)).session
                got = await ask(serving, again, 0, rows_of(5))
                np.testing.assert_allclose(got, first[0], rtol=1e-4, atol=1e-5)
                names.append(again)
            for name in names:
                if where.get(name) not in killed:
                    serving.close("phone", name)
            await until(lambda: not serving.totals().cache_bytes)

    asyncio.run(run())


def test_a_cancelled_step_leaves_the_session_as_it_was(
    start: Any, published: Any, tiny_folders: dict[str, Path]
) -> None:
    async def run() -> None:
        async with start(max_batch_rows=16) as serving:
            name = (
                await serving.open_session("phone", published(tiny_folders["llama"]))
            ).session
            expected = await ask(serving, name, 0, rows_of(6))
            long = asyncio.create_task(ask(serving, name, 6, rows_of(250)))
            await asyncio.sleep(0.01)
            long.cancel()
            with pytest.raises(asyncio.CancelledError):
                await long
            await serving.rollback("phone", name, 0)
            np.testing.assert_array_equal(await ask(serving, name, 0, rows_of(6)), expected)

    asyncio.run(run())


def test_a_new_version_gets_replicas_of_its_own_and_the_old_ones_end_with_their_sessions(
    start: Any, published: Any, tiny_folders: dict[str, Path]
) -> None:
    from ray import serve

    old, new = published(tiny_folders["llama"]), published(tiny_folders["mistral"], version=2)

    async def run() -> None:
        before = set(serve.status().applications)
        async with start() as serving:
            name = (await serving.open_session("phone", old)).session
            await ask(serving, name, 0, rows_of(5))
            (old_app,) = set(serve.status().applications) - before
            newer = (await serving.open_session("phone", new)).session
            await ask(serving, newer, 0, rows_of(5))
            await ask(serving, name, 5, rows_of(1))
            assert old_app in serve.status().applications
            serving.close("phone", name)
            await serving._models.unload_replaced(serving._sessions.has_any_on)
            await until(lambda: old_app not in serve.status().applications)
        await until(lambda: set(serve.status().applications) <= before)

    asyncio.run(run())


def test_sessions_are_load_that_adds_a_replica(
    start: Any, published: Any, tiny_folders: dict[str, Path]
) -> None:
    """They do nothing but be open."""

    async def run() -> None:
        others = set(replica_pids("ray::Runner"))
        async with start(max_replicas=2, sessions_per_replica=1) as serving:
            for _ in range(4):
                name = (
                    await serving.open_session("phone", published(tiny_folders["llama"]))
                ).session
                await ask(serving, name, 0, rows_of(2))
            await until(lambda: len(set(replica_pids("ray::Runner")) - others) > 1)

    asyncio.run(run())


def test_an_encoder_answers_from_any_replica(
    start: Any, published: Any, tmp_path: Path, settings: Any
) -> None:
    model = published(tiny_encoder("bert", tmp_path))
    alone: Any = load_local(model.folder, settings())
    texts = [Text(rows[:, : alone.info.text.width]) for rows in (rows_of(5), rows_of(9))]
    expected = alone.run(texts)

    async def run() -> None:
        async with start(replicas=2) as serving, serving.forwarding("phone", model) as turn:
            for (got,), (want,) in zip(
                await serving.forward(turn, texts), expected, strict=True
            ):
                np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)

    asyncio.run(run())


def test_a_checkpoint_that_cannot_be_served_is_the_error_that_says_so(
    start: Any, published: Any, copy_with: Any, tiny_folders: dict[str, Path]
) -> None:
    broken = published(copy_with(tiny_folders["llama"], hidden_size=33))

    async def run() -> None:
        async with start() as serving:
            with pytest.raises(CheckpointError):
                await serving.open_session("phone", broken)

    asyncio.run(run())


def test_nobody_but_this_cloud_can_speak_to_its_ray(
    start: Any, published: Any, tiny_folders: dict[str, Path]
) -> None:
    """All sockets are on loopback, ask for a token, and files are in a private folder."""
    import ray

    async def run() -> None:
        async with start(replicas=2) as serving:
            await serving.open_session("phone", published(tiny_folders["llama"]))
            family = [psutil.Process(), *psutil.Process().children(recursive=True)]
            heard = [
                (each.name(), connection.laddr.ip)
                for each in family
                for connection in each.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            ]
            assert len(heard) > 8, "the test sees none of Ray's sockets"
            public = [one for one in heard if one[1] not in ("127.0.0.1", "::ffff:127.0.0.1")]
            assert not public
            folder = serving._backend._folder
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            address = ray.get_runtime_context().gcs_address
            with_token, without = _joins(address, os.environ), _joins(address, {})
            assert with_token == "joined"
            assert without == "refused"

    asyncio.run(run())


def _joins(address: str, secrets: Any) -> str:
    """Whether a process with these secrets may use a Ray."""
    code = f"""
import ray
from ray._raylet import GcsClient
try:
    GcsClient(address={address!r}).get_all_node_info()
    print("joined")
except Exception as error:
    print("refused" if "uthentic" in str(error) + type(error).__name__ else repr(error))
"""
    known = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    known |= {k: v for k, v in secrets.items() if k.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=known, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or done.stderr


def test_a_model_that_sees_does_both_on_its_replicas(
    start: Any, published: Any, tmp_path: Path
) -> None:
    model = published(tiny_llava(tmp_path))
    alone = load_seeing(model.folder, Placement())
    pixels = np.random.default_rng(1).normal(size=(3, SIZE, SIZE)).astype(np.float32)
    given = Image(pixels, 10)
    ((expected,),) = alone.sight.run([given])

    async def run() -> None:
        async with start() as serving, serving.forwarding("phone", model) as turn:
            ((got,),) = await serving.forward(turn, [given])
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
            name = (await serving.open_session("phone", model)).session
            answer = await ask(serving, name, 0, got)
            np.testing.assert_allclose(
                answer, _alone(alone.engine, [got]), rtol=1e-4, atol=1e-5
            )

    asyncio.run(run())


def test_a_model_that_answers_texts_reads_them_on_the_replica_of_the_session(
    start: Any, published: Any, tmp_path: Path
) -> None:
    model = published(tiny_seq2seq(tmp_path, "gated"))
    alone = Seq2SeqEngine.load(model.folder, Placement("cpu"))
    width = alone.info.width
    rng = np.random.default_rng(4)
    texts = [rng.normal(size=(n, width)).astype(np.float32) for n in (5, 9, 2)]
    rows = rng.normal(size=(4, width)).astype(np.float32)

    def expected(text: Rows) -> Rows:
        alone.read("", text)
        ((logits,),) = alone.run([Work("", 0, rows, Reply.parse("logits"))])
        alone.close("")
        return logits[-1]

    async def answered(serving: Serving, text: Rows) -> Rows:
        name = (await serving.open_session("phone", model)).session
        await serving.read_source("phone", name, text)
        await ask(serving, name, 0, rows[:2])
        fork = (await serving.fork("phone", name)).session
        got = await ask(serving, fork, 2, rows[2:])
        same = await ask(serving, name, 2, rows[2:])
        np.testing.assert_allclose(got, same, rtol=1e-4, atol=1e-5)
        return got

    async def run() -> None:
        async with start(replicas=2) as serving:
            got = await asyncio.gather(*(answered(serving, text) for text in texts))
            for one, text in zip(got, texts, strict=True):
                np.testing.assert_allclose(one, expected(text), rtol=1e-4, atol=1e-5)
            # A replica that dies loses the text with the session; the device reads it again.
            name = (await serving.open_session("phone", model)).session
            await serving.read_source("phone", name, texts[0])
            await ask(serving, name, 0, rows[:2])
            os.kill(await runner_pid(serving, name), signal.SIGKILL)
            with pytest.raises(NotFoundError):
                await ask(serving, name, 2, rows[2:])
            again = await answered(serving, texts[0])
            np.testing.assert_allclose(again, expected(texts[0]), rtol=1e-4, atol=1e-5)

    asyncio.run(run())
