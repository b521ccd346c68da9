"""One replica of a model: an engine and its worker, in a process of their own.

What the cloud asks of it are the methods of `Runner`, which run in one event loop. Sessions are
known from their first row on; a replica that was started anew knows none, and says so, upon
which the device replays. Nothing here knows what carries the calls.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self, cast

from triparty.cloud.serving.engine import (
    Arrays,
    Decoder,
    EncoderInfo,
    Inputs,
    ModelInfo,
    Passage,
    Reply,
    Rows,
    SeeingEngine,
)
from triparty.cloud.serving.hosting import limits_of, load_local, set_threads
from triparty.cloud.serving.sessions import session_not_found
from triparty.cloud.serving.settings import ModelSettings
from triparty.cloud.serving.worker import Reading, Step, Task, Whole, Worker, WorkerCounts
from triparty.common.errors import TripartyError, from_problem, to_problem


@dataclass(frozen=True)
class ReplicaSettings:
    """What a replica is told of the cloud's settings: nothing that is secret."""

    device: str
    max_memory: Mapping[str, str]
    dtype: str | None
    max_batch_rows: int
    max_body_bytes: int
    threads: int | None

    @classmethod
    def of(cls, settings: ModelSettings) -> Self:
        """The part of the cloud's settings."""
        return cls(**{each.name: getattr(settings, each.name) for each in fields(cls)})


@dataclass(frozen=True, eq=False)
class Answer:
    """What a call came to.

    Attributes:
        arrays: the reply; empty for calls without one.
        problem: the error instead, as its problem document, or None.
        process: whose counts these are.
        counts: what that part of the replica has done since it started.
        cache_bytes: that its sessions take.
    """

    arrays: Arrays
    problem: Mapping[str, Any] | None
    process: int
    counts: WorkerCounts
    cache_bytes: int

    def raise_problem(self) -> None:
        """Raises the error that the call came to, if it did."""
        if self.problem is not None:
            raise from_problem(int(self.problem["status"]), self.problem)


@dataclass(eq=False)
class Runner:
    """The model of a replica.

    Attributes:
        folder: of the published model.
        settings: see `ReplicaSettings`.
    """

    folder: str
    settings: ReplicaSettings
    _sessions: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        """Loads the model; one that cannot be served is told by `describe`."""
        self._problem: Mapping[str, Any] | None = None
        self._decoder: Decoder | None = None
        self._workers: dict[type[Task[Any]], Worker[Any]] = {}
        try:
            loaded = load_local(Path(self.folder), self.settings)
        except TripartyError as error:
            self._problem = to_problem(error)
            return
        parts = (loaded.engine, loaded.sight) if isinstance(loaded, SeeingEngine) else (loaded,)
        self._infos = tuple(part.info for part in parts)
        for part, info in zip(parts, self._infos, strict=True):
            is_encoder = isinstance(info, EncoderInfo)
            if not is_encoder:
                self._decoder = cast(Decoder, part)
            self._workers[Whole if is_encoder else Step] = self._worker_of(part, info)

    def _worker_of(self, part: Any, info: ModelInfo | EncoderInfo) -> Worker[Any]:
        worker: Worker[Any] = Worker(
            part,
            limits_of(self.settings, info),
            name="model",
            on_start=lambda: set_threads(self.settings.threads),
        )
        worker.start()
        return worker

    async def describe(self) -> tuple[ModelInfo | EncoderInfo, ...] | Mapping[str, Any]:
        """What the parts of the model are, or the problem document of why there are none.

        One part, or a decoder and what makes rows of images for it.
        """
        return self._problem or self._infos

    async def process(self) -> int:
        """The id of the process."""
        return os.getpid()

    async def step(
        self, session: str, principal: str, position: int, rows: Inputs, reply: Reply
    ) -> Answer:
        """The answer to a session's next rows; they wait for their turn in a batch."""
        known = session in self._sessions
        if not known and (position or (self._decoder and self._decoder.info.reads)):
            return self._answer(Step, (), session_not_found())
        self._sessions.add(session)
        return await self._run(Step(session, principal, position, rows, reply))

    async def read(self, session: str, principal: str, rows: Rows) -> Answer:
        """Has the encoder read the text that a session answers, when it is its turn."""
        if self._decoder is None or not self._decoder.info.reads:
            return self._answer(Step, (), session_not_found())
        self._sessions.add(session)
        return await self._run(Reading(session, principal, rows))

    async def whole(self, principal: str, passage: Passage) -> Answer:
        """The answer to a text or an image."""
        return await self._run(Whole(principal, passage))

    async def fork(self, source: str, target: str, position: int) -> Answer:
        """Gives `target` a copy of `source`'s first rows."""
        decoder = self._decoder
        if decoder is None or source not in self._sessions:
            return self._answer(Step, (), session_not_found())
        answer = await self._called(lambda: decoder.fork(source, target, position=position))
        if answer.problem is None:
            self._sessions.add(target)
        return answer

    async def _called(self, function: Callable[[], None]) -> Answer:
        """Runs a function between two batches of the decoder."""
        try:
            await asyncio.wrap_future(self._workers[Step].call(function))
        except TripartyError as error:
            return self._answer(Step, (), error)
        return self._answer(Step, ())

    async def close(self, session: str) -> Answer:
        """Frees a session's cache."""
        self._sessions.discard(session)
        decoder = self._decoder
        if decoder is None:
            return self._answer(Step, (), session_not_found())
        return await self._called(lambda: decoder.close(session))

    async def _run(self, task: Task[Any]) -> Answer:
        """Cancelling takes the task out of the queue."""
        kind: type[Task[Any]] = Whole if isinstance(task, Whole) else Step
        self._workers[kind].submit(task)
        try:
            return self._answer(kind, await asyncio.wrap_future(task.future))
        except TripartyError as error:
            return self._answer(kind, (), error)

    def _answer(
        self, kind: type[Task[Any]], arrays: Arrays, error: TripartyError | None = None
    ) -> Answer:
        return Answer(
            arrays=arrays,
            problem=to_problem(error) if error else None,
            process=os.getpid(),
            counts=self._workers[kind].counts,
            cache_bytes=self._decoder.cache_bytes if self._decoder and kind is Step else 0,
        )
