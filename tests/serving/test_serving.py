"""Serving over a fake engine: positions, repeats, cancelling, limits, failures."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triparty.cloud.serving import Serving
from triparty.cloud.serving.engine import Reply, ReplyKind
from triparty.cloud.serving.records import StepRequest
from triparty.cloud.serving.sessions import session_not_found
from triparty.common.errors import (
    CheckpointError,
    CloudError,
    LimitError,
    NotFoundError,
    PositionError,
    RequestError,
    TooLargeError,
    UnavailableError,
)
from triparty.common.wire import decode_frames

Run = Callable[[Coroutine[Any, Any, Any]], Any]
ALICE, BOB = "device:alice", "device:bob"


def rows(*values: float, width: int = 4) -> np.ndarray[Any, Any]:
    return np.array([[value] * width for value in values], np.float32)


def request(
    position: int, *values: float, request_id: str = "", width: int = 4, reply: str = "hidden"
) -> StepRequest:
    return StepRequest(
        position=position,
        request_id=request_id or f"at-{position}",
        reply=Reply.parse(reply),
        rows=rows(*values, width=width),
    )


def answer_of(body: bytes) -> float:
    (frame,) = decode_frames(body, limit_bytes=1000)
    return float(frame.array[0, 0])


@pytest.fixture
def start(settings: Any, fake_engine: Any) -> Callable[..., Any]:
    """Makes an async context of a started `Serving` over the fake engine."""

    @asynccontextmanager
    async def started(*, load: Any = None, clock: Any = None, **changes: Any) -> Any:
        options = {} if clock is None else {"clock": clock}
        serving = Serving(settings(**changes), load=load or (lambda _: fake_engine), **options)
        await serving.start()
        try:
            yield serving
        finally:
            fake_engine.gate.set()
            await serving.stop()

    return started


@pytest.fixture
def model(published: Any, tmp_path: Path) -> Any:
    return published(tmp_path)


async def entered(engine: Any) -> None:
    """Returns when a batch has begun."""
    assert await asyncio.to_thread(engine.entered.wait, 60)
    engine.entered.clear()


def test_a_session_goes_from_open_to_close(start: Any, model: Any, run: Run) -> None:
    async def story() -> None:
        async with start() as serving:
            info = await serving.open_session(ALICE, model)
            assert (info.model, info.version, info.epoch) == ("story", 1, 1)
            assert (info.position, info.positions) == (0, 300)
            first = await serving.step(ALICE, info.session, request(0, 1, 2))
            assert (first.position, answer_of(first.body)) == (2, 3)
            second = await serving.step(ALICE, info.session, request(2, 4))
            assert (second.position, answer_of(second.body)) == (3, 7)
            assert serving.session_count() == 1
            serving.close(ALICE, info.session)
            assert serving.session_count() == 0
            with pytest.raises(NotFoundError):
                await serving.step(ALICE, info.session, request(3, 1))

    run(story())


def test_a_repeated_request_gets_the_stored_bytes_and_does_not_advance(
    start: Any, model: Any, fake_engine: Any, run: Run
) -> None:
    async def story() -> None:
        async with start() as serving:
            name = (await serving.open_session(ALICE, model)).session
            first = await serving.step(ALICE, name, request(0, 1, request_id="x"))
            again = await serving.step(ALICE, name, request(0, 1, request_id="x"))
            assert again is first
            assert len(fake_engine.batches) == 1
            with pytest.raises(PositionError):  # the same step under another name is new
                await serving.step(ALICE, name, request(0, 1, request_id="y"))

    run(story())


def test_a_retry_beside_the_running_request_waits_for_its_answer(
    start: Any, model: Any, fake_engine: Any, run: Run
) -> None:
    async def story() -> None:
        async with start() as serving:
            name = (await serving.open_session(ALICE, model)).session
            fake_engine.gate.clear()
            both = [
                asyncio.create_task(serving.step(ALICE, name, request(0, 1, request_id="x")))
                for _ in range(2)
            ]
            await entered(fake_engine)
            with pytest.raises(LimitError) as error:
                await serving.step(ALICE, name, request(0, 1, request_id="x"))
            assert error.value.extra["retry_after_s"] == 1
            fake_engine.gate.set()
            first, second = await asyncio.gather(*both)
            assert first is second
            assert len(fake_engine.batches) == 1

    run(story())


@pytest.mark.parametrize("position", [0, 1, 3])
def test_a_wrong_position_is_told_the_right_one(
    start: Any, model: Any, run: Run, position: int
) -> None:
    async def story() -> None:
        async with start() as serving:
            name = (await serving.open_session(ALICE, model)).session
            await serving.step(ALICE, name, request(0, 1, 2, request_id="first"))
            with pytest.raises(PositionError) as error:
                await serving.step(ALICE, name, request(position, 3, request_id="second"))
            assert error.value.extra == {"position": 2}

    run(story())


@pytest.mark.parametrize(
    ("bad", "kind", "word"),
    [
        (request(0, 1, width=5), RequestError, r"\(T, 4\)"),
        (request(0), RequestError, "at least 1"),
        (request(0, *range(11)), TooLargeError, "10 rows"),
        (request(0, 1, reply="topk=8"), RequestError, "vocabulary"),
    ],
)
def test_bad_steps_are_refused(
    start: Any, model: Any, run: Run, bad: StepRequest, kind: type[Exception], word: str
) -> None:
    async def story() -> None:
        async with start(max_rows_per_step=10) as serving:
            name = (await serving.open_session(ALICE, model)).session
            with pytest.raises(kind, match=word):
                await serving.step(ALICE, name, bad)
            assert (await serving.step(ALICE, name, request(0, 1))).position == 1

    run(story())


def test_a_flat_frame_is_refused(start: Any, model: Any, run: Run) -> None:
    async def story() -> None:
        async with start() as serving:
            name = (await serving.open_session(ALICE, model)).session
            flat = StepRequest(0, "x", Reply.parse("id"), np.ones(4, np.float32))
            with pytest.raises(RequestError, match=r"\(T, 4\)"):
                await serving.step(ALICE, name, flat)
            scalar = StepRequest(0, "x", Reply.parse("id"), np.ones((), np.float32))
            with pytest.raises(RequestError, match=r"\(T, 4\)"):
                await serving.step(ALICE, name, scalar)

    run(story())


@pytest.mark.parametrize(("setting", "limit"), [(8192, 300), (50, 50)])
def test_a_step_past_the_last_position_names_the_limit(
    start: Any, model: Any, run: Run, setting: int, limit: int
) -> None:
    async def story() -> None:
        async with start(max_positions=setting, max_rows_per_step=1000) as serving:
            info = await serving.open_session(ALICE, model)
            assert info.positions == limit
            await serving.step(ALICE, info.session, request(0, *[1] * limit))
            with pytest.raises(TooLargeError, match=f"at most {limit} positions"):
                await serving.step(ALICE, info.session, request(limit, 1))

    run(story())


def test_rollback_then_redo_equals_fresh(start: Any, model: Any, run: Run) -> None:
    async def story() -> None:
        async with start() as serving:
            name = (await serving.open_session(ALICE, model)).session
            await serving.step(ALICE, name, request(0, 1, 2, 4, request_id="x"))
            assert await serving.rollback(ALICE, name, 1) == 1
            answer = await serving.step(ALICE, name, request(1, 8, request_id="x"))
            assert (answer.position, answer_of(answer.body)) == (2, 9)
            with pytest.raises(PositionError) as error:
                await serving.rollback(ALICE, name, 3)
            assert error.value.extra == {"position": 2}

    run(story())


def test_a_fork_is_independent_and_counts(start: Any, model: Any, run: Run) -> None:
    async def story() -> None:
        async with start(max_sessions_per_principal=2) as serving:
            source = (await serving.open_session(ALICE, model)).session
            await serving.step(ALICE, source, request(0, 1, 2))
            fork = await serving.fork(ALICE, source)
            assert fork.position == 2
            assert fork.session != source
            left = await serving.step(ALICE, source, request(2, 4))
            right = await serving.step(ALICE, fork.session, request(2, 8))
            assert (answer_of(left.body), answer_of(right.body)) == (7, 11)
            with pytest.raises(LimitError):
                await serving.fork(ALICE, source)

    run(story())


def test_a_failed_fork_leaves_no_session(
    start: Any, model: Any, fake_engine: Any, run: Run
) -> None:
    async def story() -> None:
        async with start() as serving:
            source = (await serving.open_session(ALICE, model)).session
            fake_engine.fork_error = MemoryError()
            with pytest.raises(CloudError):
                await serving.fork(ALICE, source)
            assert serving.session_count() == 1

    run(story())


def test_a_cancelled_step_frees_its_slot_and_changes_nothing(
    start: Any, model: Any, fake_engine: Any, run: Run
) -> None:
    async def story() -> None:
        async with start(max_batch_rows=4) as serving:
            name = (await serving.open_session(ALICE, model)).session
            await serving.step(ALICE, name, request(0, 1))
            fake_engine.entered.clear()
            fake_engine.gate.clear()
            step = asyncio.create_task(serving.step(ALICE, name, request(1, *[2] * 100)))
            await entered(fake_engine)
            step.cancel()
            with pytest.raises(asyncio.CancelledError):
                await step
            again = asyncio.create_task(serving.step(ALICE, name, request(1, 16)))
            await asyncio.sleep(0)
            fake_engine.gate.set()
            answer = await again
            assert (answer.position, answer_of(answer.body)) == (2, 17)
            assert len(fake_engine.batches) == 3  # of 26 chunks, only the first had begun

    run(story())


def test_sessions_of_several_principals_share_batches(
    start: Any, model: Any, fake_engine: Any, run: Run
) -> None:
    async def story() -> None:
        async with start() as serving:
            names = [
                (await serving.open_session(f"device:{n}", model)).session for n in range(8)
            ]
            fake_engine.gate.clear()
            steps = [
                asyncio.create_task(serving.step(f"device:{n}", name, request(0, n)))
                for n, name in enumerate(names)
            ]
            await entered(fake_engine)
            while len(fake_engine.batches[0]) + sum(not s.done() for s in steps) < 8:
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)
            fake_engine.gate.set()
            answers = await asyncio.gather(*steps)
            assert [answer_of(answer.body) for answer in answers] == list(range(8))
            assert len(fake_engine.batches) <= 3
            (counts,) = serving.counts().values()
            assert (counts.rows, counts.failed_batches) == (8, 0)

    run(story())


def test_a_model_without_a_head_replies_nothing_but_hidden_states(
    start: Any, model: Any, fake_engine: Any, run: Run
) -> None:
    fake_engine.info = replace(fake_engine.info, replies=(ReplyKind.HIDDEN,))

    async def story() -> None:
        async with start() as serving:
            opened = await serving.open_session(ALICE, model)
            assert opened.replies == (ReplyKind.HIDDEN,)
            for reply in ("logits", "topk=3", "id"):
                with pytest.raises(RequestError, match=r"replies hidden, got \w+: its head"):
                    await serving.step(ALICE, opened.session, request(0, 1, reply=reply))
            assert not fake_engine.batches
            answer = await serving.step(ALICE, opened.session, request(0, 1))
            assert (answer.position, answer_of(answer.body)) == (1, 1.0)

    run(story())


def test_a_session_whose_cache_is_lost_ends(
    start: Any, model: Any, fake_engine: Any, run: Run
) -> None:
    """So that it counts no more while its client replays it to another."""

    async def story() -> None:
        async with start() as serving:
            name = (await serving.open_session(ALICE, model)).session
            kept = (await serving.open_session(ALICE, model)).session
            await serving.step(ALICE, name, request(0, 1))
            fake_engine.error = session_not_found()
            with pytest.raises(NotFoundError, match="replay"):
                await serving.step(ALICE, name, request(1, 2))
            assert serving.session_count() == 1
            await serving.step(ALICE, kept, request(0, 1))

    run(story())


def test_closing_fails_the_step_that_runs(
    start: Any, model: Any, fake_engine: Any, run: Run
) -> None:
    async def story() -> None:
        async with start() as serving:
            name = (await serving.open_session(ALICE, model)).session
            kept = (await serving.open_session(BOB, model)).session
            fake_engine.gate.clear()
            step = asyncio.create_task(serving.step(ALICE, name, request(0, 1)))
            await entered(fake_engine)
            assert await asyncio.to_thread(serving.close_sessions_of, ALICE) == 1
            with pytest.raises(NotFoundError):
                await step
            fake_engine.gate.set()
            assert (await serving.step(BOB, kept, request(0, 5))).position == 1
            assert set(fake_engine.caches) == {kept}
            assert serving.session_count() == 1

    run(story())


def test_a_foreign_session_is_an_unknown_one(start: Any, model: Any, run: Run) -> None:
    async def story() -> None:
        async with start() as serving:
            name = (await serving.open_session(ALICE, model)).session
            messages = set()
            for session in (name, "unknown"):
                for attempt in (
                    serving.step(BOB, session, request(0, 1)),
                    serving.rollback(BOB, session, 0),
                    serving.fork(BOB, session),
                ):
                    with pytest.raises(NotFoundError) as error:
                        await attempt
                    messages.add(error.value.message)
                with pytest.raises(NotFoundError) as error:
                    serving.close(BOB, session)
                messages.add(error.value.message)
            assert len(messages) == 1
            assert serving.session_count() == 1

    run(story())


def test_an_engine_error_fails_its_batch_alone_and_is_logged(
    start: Any, model: Any, fake_engine: Any, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with start() as serving:
            name = (await serving.open_session(ALICE, model)).session
            fake_engine.error = ZeroDivisionError("secret detail")
            with pytest.raises(CloudError) as error:
                await serving.step(ALICE, name, request(0, 1))
            assert "secret" not in error.value.message
            assert (await serving.step(ALICE, name, request(0, 1))).position == 1
            (counts,) = serving.counts().values()
            assert (counts.batches, counts.failed_batches) == (2, 1)

    with caplog.at_level(logging.ERROR):
        run(story())
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_an_engines_own_error_reaches_the_client(
    start: Any, model: Any, fake_engine: Any, run: Run
) -> None:
    async def story() -> None:
        async with start() as serving:
            name = (await serving.open_session(ALICE, model)).session
            fake_engine.error = LimitError("no memory", retry_after_s=5)
            with pytest.raises(LimitError):
                await serving.step(ALICE, name, request(0, 1))

    run(story())


def test_idle_sessions_are_dropped_and_their_caches_freed(
    start: Any, model: Any, fake_engine: Any, run: Run
) -> None:
    now = [0.0]

    async def story() -> None:
        async with start(session_idle_s=0.1, clock=lambda: now[0]) as serving:
            name = (await serving.open_session(ALICE, model)).session
            await serving.step(ALICE, name, request(0, 1))
            now[0] = 1.0
            while serving.session_count() or fake_engine.caches:
                await asyncio.sleep(0.01)

    run(story())


def test_one_principal_cannot_take_all_sessions(start: Any, model: Any, run: Run) -> None:
    async def story() -> None:
        async with start(max_sessions_per_principal=2) as serving:
            for _ in range(2):
                await serving.open_session(ALICE, model)
            with pytest.raises(LimitError) as error:
                await serving.open_session(ALICE, model)
            assert error.value.extra["retry_after_s"] > 0
            await serving.open_session(BOB, model)

    run(story())


def test_a_model_loads_once_however_many_ask(
    start: Any, model: Any, fake_engine: Any, run: Run
) -> None:
    loads = []

    def load(folder: Path) -> Any:
        loads.append(folder)
        return fake_engine

    async def story() -> None:
        async with start(load=load) as serving:
            await asyncio.gather(*(serving.open_session(ALICE, model) for _ in range(5)))
            await serving.open_session(BOB, model)
            assert loads == [model.folder]

    run(story())


def test_a_load_that_fails_is_tried_again(
    start: Any, model: Any, fake_engine: Any, run: Run
) -> None:
    outcomes = iter([CheckpointError("broken"), fake_engine])

    def load(_: Path) -> Any:
        outcome = next(outcomes)
        if isinstance(outcome, CheckpointError):
            raise outcome
        return outcome

    async def story() -> None:
        async with start(load=load) as serving:
            with pytest.raises(CheckpointError):
                await serving.open_session(ALICE, model)
            assert serving.session_count() == 0
            await serving.open_session(ALICE, model)

    run(story())


def test_a_replaced_model_is_unloaded_when_its_sessions_end(
    start: Any, published: Any, tmp_path: Path, run: Run
) -> None:
    async def story() -> None:
        async with start(session_idle_s=0.2, clock=lambda: 0.0) as serving:
            old = (await serving.open_session(ALICE, published(tmp_path))).session
            await serving.open_session(ALICE, published(tmp_path, version=2))
            await asyncio.sleep(0.15)
            assert len(serving.counts()) == 2
            serving.close(ALICE, old)
            while len(serving.counts()) == 2:
                await asyncio.sleep(0.01)
            (key,) = serving.counts()
            assert key.version == 2

    run(story())


def test_stopping_fails_what_waits_and_refuses_the_rest(
    start: Any, model: Any, fake_engine: Any, run: Run
) -> None:
    before = set(threading.enumerate())

    async def story() -> None:
        async with start() as serving:
            name = (await serving.open_session(ALICE, model)).session
            other = (await serving.open_session(BOB, model)).session
            fake_engine.gate.clear()
            running = asyncio.create_task(serving.step(ALICE, name, request(0, 1)))
            await entered(fake_engine)
            waiting = asyncio.create_task(serving.step(BOB, other, request(0, 1)))
            await asyncio.sleep(0.02)
            stop = asyncio.create_task(serving.stop())
            await asyncio.sleep(0.02)
            fake_engine.gate.set()
            await stop
            results = await asyncio.gather(running, waiting, return_exceptions=True)
            assert isinstance(results[1], UnavailableError)
            assert serving.session_count() == 0
            with pytest.raises(UnavailableError):
                await serving.open_session(ALICE, model)
            with pytest.raises(UnavailableError):
                await serving.step(ALICE, name, request(1, 1))
            started = set(threading.enumerate()) - before
            assert not [thread for thread in started if thread.name.startswith("model-")]

    run(story())


def test_the_trace_holds_every_accepted_row_and_nothing_else(
    start: Any, model: Any, tmp_path: Path, run: Run
) -> None:
    path = tmp_path / "trace" / "rows.tpf"

    async def story() -> None:
        async with start(trace=path) as serving:
            name = (await serving.open_session(ALICE, model)).session
            await serving.step(ALICE, name, request(0, 1, 2, request_id="x"))
            await serving.step(ALICE, name, request(0, 1, 2, request_id="x"))
            with pytest.raises(PositionError):
                await serving.step(ALICE, name, request(9, 9, request_id="y"))
            await serving.step(ALICE, name, request(2, 3, request_id="z"))

    run(story())
    run(story())  # a restart goes on in the same file
    frames = decode_frames(path.read_bytes(), limit_bytes=1000)
    assert [frame.array[:, 0].tolist() for frame in frames] == 2 * [[1, 2], [3]]
    assert path.stat().st_mode & 0o777 == 0o600


def test_importing_serving_loads_no_model_library() -> None:
    code = (
        "import sys, triparty.cloud.serving;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_totals_count_what_was_done_and_outlive_the_model(
    start: Any, published: Any, tmp_path: Path, fake_engine: Any, run: Run
) -> None:
    async def story() -> None:
        async with start(session_idle_s=0.2, clock=lambda: 0.0, max_batch_rows=2) as serving:
            name = (await serving.open_session(ALICE, published(tmp_path))).session
            await serving.step(ALICE, name, request(0, 1, 2, 3))  # two batches
            await serving.step(ALICE, name, request(3, 4))
            await serving.step(ALICE, name, request(3, 4))  # repeated: not run
            fake_engine.error = RuntimeError("wrong")
            with pytest.raises(CloudError):
                await serving.step(ALICE, name, request(4, 5))
            totals = serving.totals()
            assert (totals.models, totals.sessions, totals.waiting) == (1, 1, 0)
            assert totals.cache_bytes == 4 * 4 * 4  # rows, columns, bytes
            assert (totals.batches, totals.failed_batches, totals.works) == (4, 1, 4)
            assert (totals.rows, totals.steps, totals.tokens) == (5, 2, 0)
            assert (totals.ran.count, totals.waited.count) == (4, 3)  # passes; steps
            assert totals.ran.sum_s > 0
            assert (totals.opened, sum(totals.endings.values())) == (1, 0)

            fake_engine.gate.clear()
            fake_engine.entered.clear()
            step = asyncio.create_task(serving.step(ALICE, name, request(4, 5)))
            await entered(fake_engine)
            assert serving.totals().waiting == 1
            fake_engine.gate.set()
            await step

            await serving.open_session(ALICE, published(tmp_path, version=2))
            serving.close(ALICE, name)
            while serving.totals().models == 2:
                await asyncio.sleep(0.01)
            assert (serving.totals().batches, serving.totals().steps) == (5, 3)
            assert serving.totals().ran.count == 5
            assert serving.totals().endings["closed"] == 1

    run(story())
