"""One thread that owns a loaded model: takes waiting steps, runs batches, answers futures.

The event loop and the thread share nothing but a queue of messages and the steps' futures.
Cancelling is done on the future: the thread looks at the futures before each batch, and
drops the steps whose future is already done, so that a slot is free at the next batch.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from triparty.cloud.serving.engine import Arrays, Engine, Inputs, Reply, Work
from triparty.cloud.serving.scheduler import Limits, Schedule, Slice, WaitingStep
from triparty.common.errors import CloudError, TripartyError, UnavailableError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(eq=False)
class Step:
    """The rows of one request on their way through the model.

    Attributes:
        session: whose.
        principal: whose turn it uses.
        position: rows of the session before these.
        rows: all rows of the request (T, D), or their ids (T,).
        reply: what to answer about the last row.
        future: gets the reply's arrays, or an error; done early means cancelled.
        done: rows that have run.
    """

    session: str
    principal: str
    position: int
    rows: Inputs
    reply: Reply
    future: Future[Arrays] = field(default_factory=Future)
    done: int = 0

    def work(self, rows: int) -> Work:
        """The next `rows` rows as the engine takes them."""
        end = self.done + rows
        return Work(
            session=self.session,
            position=self.position + self.done,
            rows=self.rows[self.done : end],
            reply=self.reply if end == len(self.rows) else None,
        )

    def refuse(self) -> None:
        """Fails the step because the thread ends."""
        _fail(self.future, _shutting_down())


@dataclass(frozen=True)
class WorkerCounts:
    """What a worker has done since it started.

    Attributes:
        batches: passes of the model.
        rows: in all batches.
        failed_batches: of these, failed.
        works: sessions in all batches.
        steps: that ran to their end.
    """

    batches: int = 0
    rows: int = 0
    failed_batches: int = 0
    works: int = 0
    steps: int = 0

    def __add__(self, other: WorkerCounts) -> WorkerCounts:
        """Both together."""
        return WorkerCounts(
            batches=self.batches + other.batches,
            rows=self.rows + other.rows,
            failed_batches=self.failed_batches + other.failed_batches,
            works=self.works + other.works,
            steps=self.steps + other.steps,
        )


@dataclass(eq=False)
class _Call(Generic[_T]):
    """A function to run between two batches."""

    function: Callable[[], _T]
    future: Future[_T] = field(default_factory=Future)

    def run(self) -> None:
        try:
            _answer(self.future, self.function())
        except Exception as error:  # noqa: BLE001 - the thread's edge: logged and answered
            _fail(self.future, _as_ours(error, "the engine failed"))

    def refuse(self) -> None:
        _fail(self.future, _shutting_down())


class _Stop:
    """The message that ends the thread."""


_Message = Step | _Call[Any] | _Stop


class Worker:
    """Runs the steps of one engine in a thread of its own."""

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        *,
        name: str,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        """A worker that is not started yet.

        Args:
            engine: the model; only this thread calls it from now on.
            limits: how large its batches may be.
            name: of the thread.
            on_start: called first in the thread.
        """
        self._engine = engine
        self._limits = limits
        self._on_start = on_start
        self._inbox: SimpleQueue[_Message] = SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._numbers = count()
        self._steps: dict[int, Step] = {}
        self._schedule = Schedule()
        self._stopping = False
        self._ended = False
        self.counts = WorkerCounts()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def submit(self, step: Step) -> None:
        """Queues a step; its future is answered in time."""
        self._put(step)

    @property
    def waiting(self) -> int:
        """Steps and calls that wait or run, about; any thread may ask."""
        return len(self._steps) + self._inbox.qsize()

    def call(self, function: Callable[[], _T]) -> Future[_T]:
        """Runs a function in the thread, between two batches."""
        call = _Call(function)
        self._put(call)
        return call.future

    def stop(self, *, wait: bool = True) -> None:
        """Fails what waits; returns when the thread has ended, or at once without `wait`."""
        self._inbox.put(_Stop())
        if wait and self._thread.ident is not None:
            self._thread.join()

    def _put(self, message: _Message) -> None:
        self._inbox.put(message)
        if self._ended:  # nobody may be left to take it: whoever of the two sees it, fails it
            self._fail_inbox()

    def _loop(self) -> None:
        self._on_start()
        while not self._stopping:
            self._receive()
            self._run_batch()
        self._ended = True
        for step in self._steps.values():
            step.refuse()
        self._fail_inbox()

    def _fail_inbox(self) -> None:
        while True:
            try:
                message = self._inbox.get_nowait()
            except Empty:
                return
            if not isinstance(message, _Stop):
                message.refuse()

    def _receive(self) -> None:
        """Takes in all messages; waits for one when no step waits."""
        arrived: list[WaitingStep] = []
        while not self._stopping and (
            not self._inbox.empty() or (not self._schedule.waiting and not arrived)
        ):
            message = self._inbox.get()
            if isinstance(message, _Stop):
                self._stopping = True
            elif isinstance(message, Step):
                number = next(self._numbers)
                self._steps[number] = message
                arrived.append(WaitingStep(number, message.principal, len(message.rows)))
            else:
                message.run()
        self._schedule = self._schedule.with_steps(arrived)

    def _run_batch(self) -> None:
        self._drop(number for number, step in self._steps.items() if step.future.done())
        slices, self._schedule = self._schedule.next_batch(self._limits)
        if not slices or self._stopping:
            return
        steps = [self._steps[part.number] for part in slices]
        pairs = list(zip(slices, steps, strict=True))
        works = [step.work(part.rows) for part, step in pairs]
        failure: TripartyError | None = None
        try:
            replies = self._engine.run(works)
        except Exception as error:  # noqa: BLE001 - the thread's edge: logged and answered
            failure = _as_ours(error, "a batch failed")
        rows = sum(part.rows for part in slices)
        ended = sum(step.done + part.rows == len(step.rows) for part, step in pairs)
        self.counts += WorkerCounts(
            batches=1,
            rows=rows,
            failed_batches=int(failure is not None),
            works=len(slices),
            steps=0 if failure else ended,
        )
        if failure is not None:
            self._fail_batch(slices, failure)
            return
        for (part, step), reply in zip(pairs, replies, strict=True):
            self._advance(part, step, reply)

    def _advance(self, part: Slice, step: Step, reply: Arrays) -> None:
        step.done += part.rows
        if step.done == len(step.rows):
            del self._steps[part.number]
            _answer(step.future, reply)

    def _fail_batch(self, slices: tuple[Slice, ...], failure: TripartyError) -> None:
        futures = [self._steps[part.number].future for part in slices]
        self._drop(part.number for part in slices)
        for future in futures:
            _fail(future, failure)

    def _drop(self, numbers: Iterable[int]) -> None:
        chosen = set(numbers)
        if chosen:
            self._schedule = self._schedule.without(chosen)
            for number in chosen:
                del self._steps[number]


def _answer(future: Future[_T], result: _T) -> None:
    try:
        future.set_result(result)
    except InvalidStateError:
        _log.debug("step cancelled while it ran")


def _fail(future: Future[_T], error: TripartyError) -> None:
    try:
        future.set_exception(error)
    except InvalidStateError:
        _log.debug("step cancelled before it failed")


def _shutting_down() -> UnavailableError:
    return UnavailableError("the cloud is shutting down: repeat the request")


def _as_ours(error: Exception, event: str) -> TripartyError:
    """The error to answer; a foreign one is logged with its trace and told nobody."""
    if isinstance(error, TripartyError):
        return error
    _log.error(event, exc_info=error)
    return CloudError("the cloud failed to run this step: repeat it, or replay the session")
