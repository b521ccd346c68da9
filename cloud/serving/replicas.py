"""A model on replicas, as the cloud sees it: decoder or encoder, and worker, at once.

Ray Serve keeps the replicas: it starts them, spreads new sessions over them, adds and removes
some as load asks, and replaces one that died. A session is pinned: its first step holds a
request open on the replica that Serve chose, by which Serve counts the session as load and
lets it end before it removes the replica. The rows themselves go to the replica's `Runner`
directly. What a replica had of its sessions is lost with it: their next step fails as if the
session had ended, and devices replay.

All methods but those of `Tasks` that say otherwise run in the cloud's event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import ray
from ray.exceptions import RayActorError, RayError

from triparty.cloud.serving.engine import Arrays, EncoderInfo, ModelInfo
from triparty.cloud.serving.replica import Answer
from triparty.cloud.serving.sessions import session_not_found
from triparty.cloud.serving.worker import (
    Reading,
    Step,
    Task,
    Whole,
    WorkerCounts,
    as_ours,
    shutting_down,
)
from triparty.common.errors import TripartyError, UnavailableError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

PLACE_S = 120.0
"""Longest wait for a replica that takes a session: one may have to load the model first."""
PLACE_PAUSE_S = 0.5
CALL_S = 60.0
WHOLE_ATTEMPTS = 3
RETRY_S = 5


@dataclass(eq=False)
class Hold:
    """A request held open on a replica for as long as sessions are there.

    Attributes:
        runner: the replica's actor.
        request: the open request.
        sessions: how many share it.
        process: of the actor, once it has answered.
    """

    runner: Any
    request: Any
    sessions: int = 1
    process: int | None = None

    def leave(self) -> None:
        """One session fewer; the last one lets go."""
        self.sessions -= 1
        if not self.sessions:
            self.request.cancel()


class Replicas:
    """See the module."""

    def __init__(
        self, handle: Any, info: ModelInfo | EncoderInfo, *, remove: Callable[[], None]
    ) -> None:
        """A model that is ready.

        Args:
            handle: of its Serve deployment, a `ReplicaServer`.
            info: what it is.
            remove: ends the deployment; called once, in a thread.
        """
        self._handle = handle
        self._info = info
        self._remove = remove
        self._places: dict[str, asyncio.Task[Hold]] = {}
        self._running: dict[asyncio.Task[None], Future[Arrays]] = {}
        self._calls = ThreadPoolExecutor(1, thread_name_prefix="replicas")
        self._counts: dict[int, WorkerCounts] = {}
        self._cache_bytes: dict[int, int] = {}
        self._stopped = False

    @property
    def info(self) -> Any:
        """What serving must know of the model."""
        return self._info

    @property
    def cache_bytes(self) -> int:
        """As each replica last said; any thread may ask."""
        return sum(list(self._cache_bytes.values()))

    @property
    def counts(self) -> WorkerCounts:
        """As each replica last said, those that ended included; any thread may ask."""
        return sum(list(self._counts.values()), WorkerCounts())

    @property
    def waiting(self) -> int:
        """Tasks on their way; any thread may ask."""
        return len(self._running)

    def start(self) -> None:
        """Binds the event loop."""
        self._loop = asyncio.get_running_loop()

    def submit(self, task: Task[Any]) -> None:
        """Sends a task to its replica; see `Tasks.submit`."""
        if self._stopped:
            _fail(task.future, shutting_down())
            return
        running = self._loop.create_task(self._answered(task))
        self._running[running] = task.future
        running.add_done_callback(self._running.pop)

    def call(self, function: Callable[[], _T]) -> Future[_T]:
        """Runs `function` in a thread of its own; see `Tasks.call`."""
        if self._stopped:
            refused: Future[_T] = Future()
            refused.set_exception(shutting_down())
            return refused
        return self._calls.submit(function)

    def stop(self) -> None:
        """Fails what waits, and ends the replicas; called in a thread."""
        if not self._stopped:
            self._stopped = True
            self._in_loop(self._released())
            self._calls.shutdown()
            self._remove()

    def fork(self, source: str, target: str, *, position: int) -> None:
        """As `Decoder.fork`, on the replica of `source`; called by `call`."""
        self._in_loop(self._forked(source, target, position))

    def close(self, session: str) -> None:
        """As `Decoder.close`; called by `call`."""
        self._in_loop(self._closed(session))

    def _in_loop(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_S)

    async def _released(self) -> None:
        """Fails what waits, and lets go of all replicas, which Serve would else wait for."""
        for future in list(self._running.values()):
            _fail(future, shutting_down())
        places = set(self._places.values())
        self._places.clear()
        for place in places:
            if place.done() and not place.cancelled() and place.exception() is None:
                place.result().request.cancel()
            else:
                place.cancel()

    async def _answered(self, task: Task[Any]) -> None:
        """Answers the future of a task."""
        try:
            if isinstance(task, Step):
                arrays = await self._stepped(task)
            elif isinstance(task, Reading):
                arrays = await self._read(task)
            elif isinstance(task, Whole):
                arrays = await self._run_whole(task)
            else:
                raise TypeError(f"no task of a replica: {type(task).__name__}")
        except Exception as error:  # noqa: BLE001 - the task's edge: logged and answered
            _fail(task.future, as_ours(error, "a call of a replica failed"))
        else:
            with suppress(InvalidStateError):
                task.future.set_result(arrays)

    async def _stepped(self, step: Step) -> Arrays:
        """The reply of a step, by the replica that its session is pinned to.

        Raises:
            NotFoundError: that replica is gone, or was started anew.
        """
        if step.session not in self._places:
            if step.position or self.info.reads:
                raise session_not_found()
            self._places[step.session] = self._loop.create_task(self._place())
        return await self._asked(
            step,
            lambda runner: runner.step.remote(
                step.session, step.principal, step.position, step.rows, step.reply
            ),
        )

    async def _read(self, reading: Reading) -> Arrays:
        """Has a replica read a session's text; a session that begins gets one.

        Raises:
            NotFoundError: the session's replica is gone.
        """
        if reading.session not in self._places:
            self._places[reading.session] = self._loop.create_task(self._place())
        return await self._asked(
            reading,
            lambda runner: runner.read.remote(reading.session, reading.principal, reading.rows),
        )

    async def _asked(self, task: Step | Reading, ask: Callable[[Any], Any]) -> Arrays:
        """The answer of the replica that a task's session is pinned to."""
        hold = await asyncio.shield(self._places[task.session])
        if task.future.done():
            return ()
        try:
            answer = await _unless_done(ask(hold.runner), task.future)
        except RayError as error:
            _log.warning(f"a replica is gone, and its sessions with it: {_line(error)}")
            self._forget(hold, error)
            raise session_not_found() from error
        hold.process = answer.process
        return self._arrays(answer)

    def _forget(self, hold: Hold, error: RayError) -> None:
        """A replica that died has no caches any more."""
        if isinstance(error, RayActorError) and hold.process is not None:
            self._cache_bytes.pop(hold.process, None)

    async def _run_whole(self, whole: Whole) -> Arrays:
        """The answer to a text or image, by any replica; they keep nothing, so it may repeat.

        Raises:
            UnavailableError: each replica that had it died.
        """
        for _ in range(WHOLE_ATTEMPTS):
            request = self._handle.whole.remote(whole.principal, whole.passage)
            whole.future.add_done_callback(_cancelling(request))
            try:
                return self._arrays(await request)
            except RayActorError as error:
                _log.warning(f"a replica is gone: repeating what it ran: {_line(error)}")
        raise UnavailableError("no replica could run this: repeat it", retry_after_s=RETRY_S)

    def _arrays(self, answer: Answer) -> Arrays:
        """The arrays of an answer, as writable ones, its counts noted."""
        self._counts[answer.process] = answer.counts
        self._cache_bytes[answer.process] = answer.cache_bytes
        answer.raise_problem()
        return tuple(np.array(array) for array in answer.arrays)

    async def _place(self) -> Hold:
        """A replica that takes one more session.

        Raises:
            UnavailableError: none did in time.
        """
        end = self._loop.time() + PLACE_S
        while (left := end - self._loop.time()) > 0:
            request = self._handle.options(stream=True).hold.remote()
            try:
                async with asyncio.timeout(left):
                    return Hold(await anext(request), request)
            except (RayError, TimeoutError) as error:
                request.cancel()
                _log.warning(f"a replica did not take a session: {_line(error)}")
                await asyncio.sleep(PLACE_PAUSE_S)
        raise UnavailableError(
            f"no replica took the session within {PLACE_S:.0f} s: repeat it",
            retry_after_s=RETRY_S,
        )

    async def _forked(self, source: str, target: str, position: int) -> None:
        place = self._places.get(source)
        if place is None:
            if position:
                raise session_not_found()
            return
        hold = await asyncio.shield(place)
        try:
            answer = await hold.runner.fork.remote(source, target, position)
        except RayError as error:
            self._forget(hold, error)
            raise session_not_found() from error
        self._arrays(answer)
        hold.sessions += 1
        self._places[target] = place

    async def _closed(self, session: str) -> None:
        place = self._places.pop(session, None)
        if place is None:
            return
        try:
            hold = await place
        except TripartyError:
            return  # it was never placed
        hold.leave()
        try:
            self._arrays(await hold.runner.close.remote(session))
        except RayError as error:
            self._forget(hold, error)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _cancelling(request: Any) -> Callable[[Future[Arrays]], None]:
    """A callback that cancels a request of Serve, if it did not end."""
    return lambda _: request.cancel()


async def _unless_done(reference: Any, future: Future[Any]) -> Answer:
    """What a call returns; it is cancelled if `future` is done first.

    Raises:
        RayError: the replica died.
        TaskCancelledError: cancelled; a RayError too.
    """
    answered = False

    def stop(_: Future[Any]) -> None:
        if not answered:
            ray.cancel(reference)

    future.add_done_callback(stop)
    answer: Answer = await reference
    answered = True
    return answer


def _fail(future: Future[Any], error: TripartyError) -> None:
    with suppress(InvalidStateError):
        future.set_exception(error)
