"""What a developer's devices may use at once: steps, memory, models; others keep theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triparty.cloud.serving.engine import Reply
from triparty.cloud.serving.records import StepRequest
from triparty.cloud.serving.serving import Serving
from triparty.cloud.serving.shares import FIRST_ROWS, reserved_rows
from triparty.common.errors import LimitError, NotFoundError, TokenRevokedError

Run = Callable[[Coroutine[Any, Any, Any]], Any]
ROW_BYTES = 10


@pytest.fixture
def start(settings: Any, fake_engine: Any) -> Callable[..., Any]:
    """Makes an async context of a started `Serving`, whose cache rows have ten bytes."""
    fake_engine.info = replace(fake_engine.info, cache_row_bytes=ROW_BYTES)

    @asynccontextmanager
    async def started(**changes: Any) -> Any:
        serving = Serving(settings(**changes), load=lambda _: fake_engine)
        await serving.start()
        try:
            yield serving
        finally:
            fake_engine.gate.set()
            await serving.stop()

    return started


@pytest.fixture
def mine(published: Any, tmp_path: Path) -> Any:
    return published(folder=tmp_path)


@pytest.fixture
def theirs(published: Any, tmp_path: Path) -> Any:
    return published(folder=tmp_path, developer="ed25519:other")


async def step(serving: Serving, who: str, session: str, position: int, count: int) -> int:
    wanted = StepRequest(
        position=position,
        request_id=f"at-{position}",
        reply=Reply.parse("hidden"),
        rows=np.ones((count, 4), np.float32),
    )
    return (await serving.step(who, session, wanted)).position


def test_memory(start: Any, mine: Any, theirs: Any, run: Run) -> None:
    async def scenario() -> None:
        async with start(max_cache_bytes_per_developer=200 * ROW_BYTES) as serving:
            one = await serving.open_session("a", mine)
            two = await serving.open_session("b", mine)
            assert await step(serving, "a", one.session, 0, 40) == 40  # room for 128
            with pytest.raises(LimitError, match="memory"):
                await step(serving, "b", two.session, 0, 40)
            assert await step(serving, "b", two.session, 0, 20) == 20  # room for 64
            with pytest.raises(LimitError, match="memory"):
                await serving.fork("a", one.session)
            assert serving.session_count() == 2
            other = await serving.open_session("c", theirs)
            assert await step(serving, "c", other.session, 0, 60) == 60
            serving.close("a", one.session)  # makes room
            assert await step(serving, "b", two.session, 20, 20) == 40

    run(scenario())


def test_steps(start: Any, mine: Any, theirs: Any, run: Run) -> None:
    async def scenario() -> None:
        async with start(max_steps_per_developer=2) as serving:
            sessions = [await serving.open_session("a", mine) for _ in range(3)]
            other = await serving.open_session("c", theirs)
            with (
                serving.step_turn("a", sessions[0].session),
                serving.step_turn("a", sessions[1].session),
            ):
                with (
                    pytest.raises(LimitError, match="waiting") as error,
                    serving.step_turn("a", sessions[2].session),
                ):
                    pass
                assert error.value.extra["retry_after_s"] >= 1
                with serving.step_turn("c", other.session):
                    pass
            with serving.step_turn("a", sessions[2].session):
                pass

    run(scenario())


def test_loaded_models(start: Any, mine: Any, theirs: Any, run: Run) -> None:
    async def scenario() -> None:
        async with start(max_models_per_developer=2) as serving:
            names = [replace(mine, name=name) for name in ("x", "y", "z")]
            first = await serving.open_session("a", names[0])
            second = await serving.open_session("a", names[1])
            with pytest.raises(LimitError, match="in use"):
                await serving.open_session("a", names[2])
            await serving.open_session("c", theirs)
            serving.close("a", first.session)
            await serving.open_session("a", names[2])
            loaded = {(key.developer, key.name) for key in serving.counts()}
            me = mine.developer
            assert loaded == {(me, "y"), (me, "z"), (theirs.developer, theirs.name)}
            assert await step(serving, "a", second.session, 0, 1) == 1

    run(scenario())


def test_sessions(start: Any, mine: Any, theirs: Any, run: Run) -> None:
    async def scenario() -> None:
        async with start(max_sessions_per_developer=2) as serving:
            for name in "ab":
                await serving.open_session(name, mine)
            with pytest.raises(LimitError):
                await serving.open_session("c", mine)
            await serving.open_session("d", theirs)
            assert serving.close_sessions_of_developer(mine.developer) == 2
            assert serving.session_count() == 1

    run(scenario())


def test_a_completion_of_somebody_revoked_meanwhile(start: Any, mine: Any, run: Run) -> None:
    def revoked(principal: str, _: object) -> None:
        raise TokenRevokedError(f"{principal} was revoked")

    async def scenario() -> None:
        async with start() as serving:
            serving.ask_before_opening(revoked)
            with pytest.raises(TokenRevokedError):
                async with serving.text_session("a", mine):
                    pytest.fail("let in")
            assert serving.session_count() == 0

    run(scenario())


def test_a_step_that_runs_ends_with_its_developer(
    start: Any, mine: Any, fake_engine: Any, run: Run
) -> None:
    async def scenario() -> None:
        async with start() as serving:
            opened = await serving.open_session("a", mine)
            fake_engine.gate.clear()
            running = asyncio.create_task(step(serving, "a", opened.session, 0, 1))
            await asyncio.to_thread(fake_engine.entered.wait, 10)
            ended = await asyncio.to_thread(serving.close_sessions_of_developer, mine.developer)
            assert ended == 1
            with pytest.raises(NotFoundError, match="no such session"):
                await running

    run(scenario())


def test_the_bound_holds_for_a_real_cache() -> None:
    """However its rows arrive, a cache never has more room than is counted for it."""
    import torch

    from triparty.cloud.serving.cache import GrowingLayer

    rng = np.random.default_rng(0)
    for positions in (40, 300, 4096):
        for _ in range(20):
            layer, held = GrowingLayer(most_rows=positions), 0
            while held < positions:
                count = min(int(rng.integers(1, 400)), positions - held)
                new = torch.zeros(1, 1, count, 1)
                layer.update(new, new)
                held += count
                assert layer.capacity <= reserved_rows(held, positions=positions) <= positions
    assert reserved_rows(0, positions=300) == reserved_rows(1, positions=300) == FIRST_ROWS


def test_whoever_takes_all_sessions_leaves_room_for_others(
    start: Any, mine: Any, theirs: Any, run: Run, fake_engine: Any
) -> None:
    """Also with a step running on every one of them."""

    async def scenario() -> None:
        limits = {"max_sessions": 4, "max_sessions_per_developer": 9}
        async with start(**limits) as serving:
            taken = [await serving.open_session(f"a{n}", mine) for n in range(4)]
            fake_engine.gate.clear()
            steps = [
                asyncio.create_task(step(serving, f"a{n}", each.session, 0, 1))
                for n, each in enumerate(taken)
            ]
            assert await asyncio.to_thread(fake_engine.entered.wait, 5)
            with pytest.raises(LimitError, match="all taken"):
                await serving.open_session("a9", mine)
            opened = [await serving.open_session("b", theirs) for _ in range(2)]
            with pytest.raises(LimitError, match="all taken"):
                await serving.open_session("b", theirs)
            with pytest.raises(LimitError, match="all taken"):
                await serving.open_session("a0", mine)
            fake_engine.gate.set()
            answers = await asyncio.gather(*steps, return_exceptions=True)
            lost = [answer for answer in answers if isinstance(answer, NotFoundError)]
            assert len(lost) == 2
            assert answers.count(1) == 2
            for each in opened:
                assert await step(serving, "b", each.session, 0, 3) == 3

    run(scenario())
