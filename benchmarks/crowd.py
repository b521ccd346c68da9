"""Many open sessions of mixed length on one cloud: errors, tail latency, memory, fairness.

Every session sends its next row when it has the answer to the last; some begin with a long
prompt. Sessions of a crowd are of one device, so that nothing but the scheduler shares.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import httpx
import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.checkpoints import real_model
from benchmarks.clouds import device_with
from benchmarks.harness import Case, Effort, case
from triparty.common.wire import MEDIA_TYPE, Frame, encode_frames
from triparty.device.home import Home

MODEL, WIDTH = "stories", 64
PROMPTS = (1, 4, 16, 64, 200)
"""Rows with which sessions begin, in turn."""
LARGE = 100_000
LIMITS = {
    "max_sessions": 1024,
    "max_sessions_per_principal": 1024,
    "max_sessions_per_developer": 1024,
    "max_steps_per_developer": 1024,
    "max_connections_per_address": 1024,
    "header_timeout_s": 600,  # a busy machine is no slow client
    "requests_per_s_per_principal": LARGE,
    "requests_per_s_per_developer": LARGE,
}
Rows = NDArray[np.float32]


@dataclass
class Crowd:
    """What became of a crowd.

    Attributes:
        steps: answered, by session; prompts do not count.
        seconds: of each of these steps.
        errors: answers that are none.
        memory_mb: most resident memory of the server, above what it had with no session.
        wanted: steps of all together, at which the crowd goes home.
        elapsed_s: from the first step to the last.
    """

    wanted: int
    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    errors: int = 0
    memory_mb: float = 0.0
    elapsed_s: float = 0.0


@cache
def _crowd(sessions: int, quick: bool) -> Crowd:
    with (
        tempfile.TemporaryDirectory() as name,
        device_with(real_model("stories260K"), Path(name), name=MODEL, **LIMITS) as device,
    ):
        device.generate(MODEL, "It", max_tokens=1)
        access = Home(Path(name) / "device").access()
        (server,) = (each for each in psutil.Process().children() if "serve" in each.cmdline())
        wanted = sessions * (4 if quick else 16)
        return asyncio.run(_run(access.url, access.token, server, sessions, wanted))


async def _run(
    url: str, token: str, server: psutil.Process, sessions: int, wanted: int
) -> Crowd:
    found = Crowd(wanted, steps=[0] * sessions)
    rows = np.random.default_rng(1).standard_normal((max(PROMPTS) + 1, WIDTH))
    before = server.memory_info().rss
    began = asyncio.Barrier(sessions)
    async with AsyncExitStack() as stack:
        # A pool for each: one for all would search its connections at every request, and be
        # slower than the cloud.
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=f"{url}/v1",
                    headers={"Authorization": f"Bearer {token}"},
                    timeout=600,
                )
            )
            for _ in range(sessions)
        ]
        tasks = [
            _session(http, number, rows.astype(np.float32), found, began)
            for number, http in enumerate(clients)
        ]
        watch = asyncio.create_task(_watched(server, found, before))
        await asyncio.gather(*tasks)
        watch.cancel()
    return found


async def _watched(server: psutil.Process, found: Crowd, before: int) -> None:
    while True:
        resident = (server.memory_info().rss - before) / 1e6
        found.memory_mb = max(found.memory_mb, resident)
        await asyncio.sleep(0.2)


async def _session(
    http: httpx.AsyncClient,
    number: int,
    rows: Rows,
    found: Crowd,
    began: asyncio.Barrier,
) -> None:
    """One session: a prompt, then, when all have theirs, row by row until all have enough."""
    opened = await http.post(f"/models/{MODEL}/sessions", json={})
    await began.wait()
    session, position = opened.json().get("session"), PROMPTS[number % len(PROMPTS)]
    status = await _step(http, session, 0, rows[:position])
    await began.wait()
    start = time.perf_counter()
    while status == 200 and sum(found.steps) < found.wanted and position < 500:
        begun = time.perf_counter()
        status = await _step(http, session, position, rows[-1:])
        found.seconds.append(time.perf_counter() - begun)
        found.steps[number] += status == 200
        position += 1
    found.errors += status != 200
    found.elapsed_s = max(found.elapsed_s, time.perf_counter() - start)
    await http.delete(f"/sessions/{session}")


async def _step(http: httpx.AsyncClient, session: str, position: int, rows: Rows) -> int:
    headers = {
        "Content-Type": MEDIA_TYPE,
        "Triparty-Position": str(position),
        "Triparty-Request-Id": os.urandom(8).hex(),
        "Triparty-Reply": "id",
    }
    content = encode_frames(Frame.of(rows))
    try:
        answer = await http.post(f"/sessions/{session}/step", content=content, headers=headers)
    except httpx.TransportError:
        return 0
    return answer.status_code


def _cases(sessions: int) -> tuple[Case, ...]:
    told = f"{sessions} open sessions of mixed length, all sending, stories260K over HTTP"

    @case(f"errors, {told}", unit="count", better="lower", target=0.0)
    def errors(effort: Effort) -> Iterator[float]:
        yield float(_crowd(sessions, effort.quick).errors)

    @case(f"99th percentile of a step, {told}", unit="ms", better="lower")
    def tail(effort: Effort) -> Iterator[float]:
        yield 1e3 * float(np.percentile(_crowd(sessions, effort.quick).seconds, 99))

    @case(
        f"steps of the slowest session over the median's, {told}",
        unit="ratio",
        better="higher",
        target=0.5,
        reference="nobody starves: those with long prompts before get about as far",
    )
    def fairness(effort: Effort) -> Iterator[float]:
        steps = _crowd(sessions, effort.quick).steps
        yield min(steps) / max(1.0, statistics.median(steps))

    @case(f"memory beyond that of the model, {told}", unit="MB", better="lower")
    def memory(effort: Effort) -> Iterator[float]:
        yield _crowd(sessions, effort.quick).memory_mb

    @case(f"tokens a second, {told}", unit="1/s", better="higher")
    def rate(effort: Effort) -> Iterator[float]:
        crowd = _crowd(sessions, effort.quick)
        yield sum(crowd.steps) / crowd.elapsed_s

    return errors, tail, fairness, memory, rate


CASES: tuple[Case, ...] = tuple(each for count in (64, 512) for each in _cases(count))
