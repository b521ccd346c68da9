"""One thread that owns a loaded model: takes waiting tasks, runs batches, answers futures.

A task is a step of a session, a text that a session's encoder reads, or a text or an image
that runs whole.

The event loop and the thread share nothing but a queue of messages and the tasks' futures.
Cancelling is done on the future: the thread looks at the futures before each batch, and
drops the tasks whose future is already done, so that a slot is free at the next batch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field, replace
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast

import numpy as np

from triparty.cloud.serving.durations import NONE, Durations
from triparty.cloud.serving.engine import Arrays, Inputs, Passage, Reply, Rows, Work
from triparty.cloud.serving.scheduler import Limits, Schedule, Slice, WaitingStep
from triparty.common.errors import CloudError, TripartyError, UnavailableError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
WorkT = TypeVar("WorkT")
TakenT = TypeVar("TakenT", contravariant=True)
MadeT = TypeVar("MadeT", covariant=True)


class Runner(Protocol[TakenT]):
    """What a worker needs of an engine or an encoder."""

    def run(self, batch: Sequence[TakenT], /) -> list[Arrays]:
        """Runs a batch; the arrays of each work."""


class Reader(Protocol):
    """What a worker needs of an engine whose sessions answer texts."""

    def read(self, session: str, rows: Rows, /) -> None:
        """Has the encoder read the text that a session answers."""


class Task(Protocol[MadeT]):
    """Rows on their way through a model.

    Attributes:
        alone: whether it runs by itself, and is never cut.
        principal: whose turn it uses.
        future: gets the reply's arrays, or an error; done early means cancelled.
        done: rows that have run.
        submitted_s: when it was made, by a clock that never goes back.
        replies: what the model said of them, piece by piece.
    """

    alone: ClassVar[bool]
    principal: str
    future: Future[Arrays]
    done: int
    submitted_s: float
    replies: list[Arrays]

    @property
    def rows_in_all(self) -> int:
        """All rows, done or not."""

    def work(self, rows: int) -> MadeT:
        """The next `rows` rows as the engine takes them."""


@dataclass(eq=False)
class Step:
    """The rows of one request on their way through the model.

    Attributes:
        session: whose.
        principal: whose turn it uses.
        position: rows of the session before these.
        rows: all rows of the request (T, D), or their ids (T,).
        reply: what to answer about the last rows.
        future: gets the reply's arrays, or an error; done early means cancelled.
        done: rows that have run.
        submitted_s: when it was made.
        replies: what the model said of them, piece by piece.
    """

    alone: ClassVar[bool] = False
    session: str
    principal: str
    position: int
    rows: Inputs
    reply: Reply
    future: Future[Arrays] = field(default_factory=Future)
    done: int = 0
    submitted_s: float = field(default_factory=time.monotonic)
    replies: list[Arrays] = field(default_factory=list)

    @property
    def rows_in_all(self) -> int:
        """All rows of the request."""
        return len(self.rows)

    def work(self, rows: int) -> Work:
        """The next `rows` rows as the engine takes them."""
        end = self.done + rows
        first = max(self.done, self.rows_in_all - self.reply.rows)  # of those asked about
        return Work(
            session=self.session,
            position=self.position + self.done,
            rows=self.rows[self.done : end],
            reply=replace(self.reply, rows=end - first) if first < end else None,
        )


@dataclass(eq=False)
class Reading:
    """A text on its way through the encoder of a decoder; by itself, and never cut.

    Attributes:
        session: that answers it.
        principal: whose turn it uses.
        rows: of the text (S, D).
        future: gets no arrays, or an error; done early means cancelled.
        done: rows that were read.
        submitted_s: when it was made.
        replies: nothing.
    """

    alone: ClassVar[bool] = True
    session: str
    principal: str
    rows: Rows
    future: Future[Arrays] = field(default_factory=Future)
    done: int = 0
    submitted_s: float = field(default_factory=time.monotonic)
    replies: list[Arrays] = field(default_factory=list)

    @property
    def rows_in_all(self) -> int:
        """All rows of the text."""
        return len(self.rows)

    def work(self, rows: int) -> Work:
        """The text, of which nothing is answered."""
        return Work(self.session, 0, self.rows, None)


@dataclass(eq=False)
class Whole:
    """A text or an image on its way through an encoder, never cut.

    Attributes:
        principal: whose turn it uses.
        passage: the text or image.
        future: gets the answer, or an error; done early means cancelled.
        done: rows that have run.
        submitted_s: when it was made.
        replies: what the model said of it.
    """

    alone: ClassVar[bool] = False
    principal: str
    passage: Passage
    future: Future[Arrays] = field(default_factory=Future)
    done: int = 0
    submitted_s: float = field(default_factory=time.monotonic)
    replies: list[Arrays] = field(default_factory=list)

    @property
    def rows_in_all(self) -> int:
        """Rows that the model makes of it."""
        return self.passage.rows

    def work(self, rows: int) -> Passage:
        """The passage as the encoder takes it."""
        return self.passage


@dataclass(frozen=True)
class WorkerCounts:
    """What a worker has done since it started.

    Attributes:
        batches: passes of the model.
        rows: in all batches.
        failed_batches: of these, failed.
        works: sessions, texts and images in all batches.
        steps: tasks that ran to their end.
        ran: how long each batch ran.
        waited: how long each task waited for its first batch.
    """

    batches: int = 0
    rows: int = 0
    failed_batches: int = 0
    works: int = 0
    steps: int = 0
    ran: Durations = NONE
    waited: Durations = NONE

    def __add__(self, other: WorkerCounts) -> WorkerCounts:
        """Both together."""
        return WorkerCounts(
            batches=self.batches + other.batches,
            rows=self.rows + other.rows,
            failed_batches=self.failed_batches + other.failed_batches,
            works=self.works + other.works,
            steps=self.steps + other.steps,
            ran=self.ran + other.ran,
            waited=self.waited + other.waited,
        )


class Tasks(Protocol[TakenT]):
    """Whoever runs the tasks of a loaded model; `Worker` does so in this process."""

    @property
    def counts(self) -> WorkerCounts:
        """What was done; any thread may ask."""

    @property
    def waiting(self) -> int:
        """Tasks and calls that wait or run, about; any thread may ask."""

    def start(self) -> None:
        """Called once, in the event loop, before all others."""

    def submit(self, task: Task[TakenT]) -> None:
        """Queues a task; its future is answered in time, unless it is done early."""

    def call(self, function: Callable[[], _T]) -> Future[_T]:
        """Runs a function that calls the model's methods, in a thread where that is right."""

    def stop(self) -> None:
        """Fails what waits, and ends; called in a thread."""


@dataclass(eq=False)
class _Call(Generic[_T]):
    """A function to run between two batches."""

    function: Callable[[], _T]
    future: Future[_T] = field(default_factory=Future)

    def run(self) -> None:
        try:
            _answer(self.future, self.function())
        except Exception as error:  # noqa: BLE001 - the thread's edge: logged and answered
            _fail(self.future, as_ours(error, "the engine failed"))

    def refuse(self) -> None:
        _fail(self.future, shutting_down())


class _Stop:
    """The message that ends the thread."""


@dataclass(frozen=True, eq=False)
class _Submitted(Generic[WorkT]):
    """A task that joins the queue."""

    task: Task[WorkT]

    def refuse(self) -> None:
        _fail(self.task.future, shutting_down())


class Worker(Generic[WorkT]):
    """Runs the tasks of one engine in a thread of its own."""

    def __init__(
        self,
        engine: Runner[WorkT],
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
        self._inbox: SimpleQueue[_Submitted[WorkT] | _Call[Any] | _Stop] = SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._numbers = count()
        self._tasks: dict[int, Task[WorkT]] = {}
        self._schedule = Schedule()
        self._stopping = False
        self._ended = False
        self.counts = WorkerCounts()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def submit(self, task: Task[WorkT]) -> None:
        """Queues a task; its future is answered in time."""
        self._put(_Submitted(task))

    @property
    def waiting(self) -> int:
        """Tasks and calls that wait or run, about; any thread may ask."""
        return len(self._tasks) + self._inbox.qsize()

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

    def _put(self, message: _Submitted[WorkT] | _Call[Any] | _Stop) -> None:
        self._inbox.put(message)
        if self._ended:  # nobody may be left to take it: whoever of the two sees it, fails it
            self._fail_inbox()

    def _loop(self) -> None:
        self._on_start()
        while not self._stopping:
            self._receive()
            self._run_batch()
        self._ended = True
        for task in self._tasks.values():
            _fail(task.future, shutting_down())
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
        """Takes in all messages; waits for one when no task waits."""
        arrived: list[WaitingStep] = []
        while not self._stopping and (
            not self._inbox.empty() or (not self._schedule.waiting and not arrived)
        ):
            message = self._inbox.get()
            if isinstance(message, _Stop):
                self._stopping = True
            elif isinstance(message, _Submitted):
                number, task = next(self._numbers), message.task
                self._tasks[number] = task
                rows = task.rows_in_all
                arrived.append(WaitingStep(number, task.principal, rows, task.alone))
            else:
                message.run()
        self._schedule = self._schedule.with_steps(arrived)

    def _run_batch(self) -> None:
        self._drop(number for number, task in self._tasks.items() if task.future.done())
        slices, self._schedule = self._schedule.next_batch(self._limits)
        if not slices or self._stopping:
            return
        tasks = [self._tasks[part.number] for part in slices]
        pairs = list(zip(slices, tasks, strict=True))
        works = [task.work(part.rows) for part, task in pairs]
        failure: TripartyError | None = None
        started_s = time.monotonic()
        try:
            replies = self._run(tasks, works)
        except Exception as error:  # noqa: BLE001 - the thread's edge: logged and answered
            failure = as_ours(error, "a batch failed")
        rows = sum(part.rows for part in slices)
        ended = sum(
            task.done + part.rows == task.rows_in_all and not task.alone for part, task in pairs
        )
        self.counts += WorkerCounts(
            batches=1,
            rows=rows,
            failed_batches=int(failure is not None),
            works=len(slices),
            steps=0 if failure else ended,
            ran=Durations.of(time.monotonic() - started_s),
            waited=Durations.of(
                *(started_s - task.submitted_s for _, task in pairs if not task.done)
            ),
        )
        if failure is not None:
            self._fail_batch(slices, failure)
            return
        for (part, task), reply in zip(pairs, replies, strict=True):
            self._advance(part, task, reply)

    def _run(self, tasks: Sequence[Task[WorkT]], works: Sequence[WorkT]) -> list[Arrays]:
        (first, *_) = tasks
        if isinstance(first, Reading):
            cast(Reader, self._engine).read(first.session, first.rows)
            return [()]
        return self._engine.run(works)

    def _advance(self, part: Slice, task: Task[WorkT], reply: Arrays) -> None:
        task.done += part.rows
        task.replies.append(reply)
        if task.done == task.rows_in_all:
            del self._tasks[part.number]
            _answer(task.future, _joined(task.replies))

    def _fail_batch(self, slices: tuple[Slice, ...], failure: TripartyError) -> None:
        futures = [self._tasks[part.number].future for part in slices]
        self._drop(part.number for part in slices)
        for future in futures:
            _fail(future, failure)

    def _drop(self, numbers: Iterable[int]) -> None:
        chosen = set(numbers)
        if chosen:
            self._schedule = self._schedule.without(chosen)
            for number in chosen:
                del self._tasks[number]


def _joined(replies: Sequence[Arrays]) -> Arrays:
    """The reply of a task from those of its slices, which may say nothing, in order."""
    said = [reply for reply in replies if reply]
    if len(said) == 1:
        return said[0]
    return tuple(np.concatenate(arrays) for arrays in zip(*said, strict=True))


def _answer(future: Future[_T], result: _T) -> None:
    try:
        future.set_result(result)
    except InvalidStateError:
        _log.debug("task cancelled while it ran")


def _fail(future: Future[_T], error: TripartyError) -> None:
    try:
        future.set_exception(error)
    except InvalidStateError:
        _log.debug("task cancelled before it failed")


def shutting_down() -> UnavailableError:
    """What everything that waits gets when the model's worker stops."""
    return UnavailableError("the cloud is shutting down: repeat the request")


def as_ours(error: Exception, event: str) -> TripartyError:
    """The error to answer; a foreign one is logged with its trace and told nobody."""
    if isinstance(error, TripartyError):
        return error
    _log.error(event, exc_info=error)
    return CloudError("the cloud failed to run this step: repeat it, or replay the session")
