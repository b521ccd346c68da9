"""Serving as the routes see it: models on demand, sessions, steps.

The path of a step: `routes` -> `Serving.step` -> `worker` -> `scheduler` -> `engine`, and the
answer back through the step's future. A forward request is a session of its own from before its
body is read until it is answered, so that limits, revocation and unloading know it; each of its
texts and images is a task. Everything here runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from triparty.cloud.serving.admission import Admission
from triparty.cloud.serving.checks import check_open, check_source, check_step
from triparty.cloud.serving.engine import (
    Arrays,
    Ids,
    Inputs,
    Loaded,
    Passage,
    Reply,
    Rows,
    Text,
)
from triparty.cloud.serving.futures import all_of
from triparty.cloud.serving.hosting import (
    FLOAT32_BYTES,
    AnyHosted,
    Backend,
    Hosted,
    HostedElsewhere,
    HostedEncoder,
    LocalBackend,
    ModelKey,
    Models,
    ServableModel,
)
from triparty.cloud.serving.kinds import (
    can_encode,
    decoder_of,
    encoder_of,
    is_any,
    is_decoder,
)
from triparty.cloud.serving.openings import Asked, Openings
from triparty.cloud.serving.records import ForwardTurn, SessionInfo, StepRequest
from triparty.cloud.serving.sessions import (
    Ending,
    Session,
    SessionLimits,
    Sessions,
    StoredReply,
    answered_error,
    session_not_found,
)
from triparty.cloud.serving.settings import ServingSettings
from triparty.cloud.serving.shares import Shares
from triparty.cloud.serving.totals import ServingTotals
from triparty.cloud.serving.traffic import Trace
from triparty.cloud.serving.usage import Usage
from triparty.cloud.serving.worker import Reading, Step, Whole, WorkerCounts
from triparty.common.errors import (
    LimitError,
    NotFoundError,
    PositionError,
    RequestError,
    UnavailableError,
)
from triparty.common.wire import Frame, encode_frames

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

MAX_PENDING = 2
"""Requests on one session at a time: the running one, and the retry of a client in doubt."""

FORWARD_RETRY_S = 1
LOOP_TIMEOUT_S = 30.0


class Serving:
    """All loaded models and open sessions of a cloud."""

    def __init__(
        self,
        settings: ServingSettings,
        *,
        load: Callable[[Path], Loaded] | None = None,
        backend: Backend | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serving that is not started yet.

        Args:
            settings: limits.
            load: makes an engine or an encoder of a model's folder; called in a thread. None:
                from its weights.
            backend: where models run; None: in this process, by `load`.
            clock: seconds that never go back, for idle times.
        """
        self._settings = settings
        self._backend = backend or LocalBackend(settings, load=load)
        self._models = Models(
            settings, backend=self._backend, reserved_bytes=self._reserved_bytes
        )
        self._sessions: Sessions[AnyHosted] = Sessions(
            SessionLimits(
                per_principal=settings.max_sessions_per_principal,
                per_developer=settings.max_sessions_per_developer,
                in_all=settings.max_sessions,
                idle_s=settings.session_idle_s,
            ),
            on_close=self._free,
            clock=clock,
        )
        self._by_model = Usage(settings.metrics_names)
        self._by_principal = Usage(settings.metrics_names)
        self._tokens = 0
        self._passages = 0
        self._shares = Shares(
            steps=settings.max_steps_per_developer,
            cache_bytes=settings.max_cache_bytes_per_developer,
        )
        self._admission = Admission(
            self._sessions, self._models, check_running=self._check_running
        )
        self._openings: Openings[Session[AnyHosted]] = Openings()
        self._trace: Trace | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.get_ident()

    async def start(self) -> None:
        """Accepts sessions from now on.

        Raises:
            SettingsError: the trace file cannot be opened, or models cannot run here.
        """
        await asyncio.to_thread(self._backend.start)
        if self._settings.trace is not None:
            self._trace = Trace(self._settings.trace)
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Ends all sessions, fails what waits, and stops the models' threads."""
        self._loop = None
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
            self._sweeper = None
        await self._openings.stop()
        await self._models.stop()
        self._sessions.close_all()
        await self._admission.stop()
        await asyncio.to_thread(self._backend.stop)
        if self._trace is not None:
            self._trace.close()
            self._trace = None

    async def open_session(self, principal_id: str, model: ServableModel) -> SessionInfo:
        """Opens a session on a model, loading the model if need be.

        Of an encoder on a one-time instance alone, for one forward request.

        Raises:
            LimitError: too many sessions.
            RequestError: the model is an encoder, and no one-time instance.
            CheckpointError: the model cannot be served.
            UnavailableError: the cloud is shutting down.
        """
        return SessionInfo.of(await self._open_any(principal_id, model), self._settings)

    async def open_session_once(
        self, asked: Asked, model: Callable[[], Awaitable[ServableModel]]
    ) -> SessionInfo:
        """As `open_session`, to its end; a request that is repeated gets the same session.

        Args:
            asked: the request.
            model: finds the model; not called when the request is a repeated one.
        """
        self._check_running()

        async def opened() -> Session[AnyHosted]:
            return await self._open_any(asked.principal, await model())

        session = await self._openings.opened(asked, opened)
        check_open(session)
        self._sessions.touch(session)
        return SessionInfo.of(session, self._settings)

    async def _open_any(self, principal_id: str, model: ServableModel) -> Session[AnyHosted]:
        """A session for a client: on a decoder, or on a one-time instance."""
        return await self._admission.opened(
            principal_id, model, fits=is_any if model.once else is_decoder
        )

    @asynccontextmanager
    async def forwarding(
        self, principal_id: str, model: ServableModel
    ) -> AsyncIterator[ForwardTurn]:
        """Room for one forward request, from before its body is read.

        On an encoder, or on a decoder that makes rows of images.

        It counts as a step of the model's developer and as a session of the principal.

        Raises:
            LimitError: too many steps or sessions.
            RequestError: the model is a decoder, or a one-time instance.
            CheckpointError: the model cannot be served.
            UnavailableError: the cloud is shutting down.
        """
        self._check_running()
        if model.once:
            raise RequestError(
                f"'{model.name}' has one-time instances: open a session on one with "
                f"POST /v1/models/{model.name}/sessions and name it in Triparty-Session"
            )
        with self._shares.step(model.developer):
            session = await self._admission.opened(principal_id, model, fits=can_encode)
            session.pending = 1
            try:
                yield ForwardTurn(session, encoder_of(session))
            finally:
                self._sessions.close(session)

    @asynccontextmanager
    async def forwarding_in(
        self, principal_id: str, model: str, session_id: str, request_id: str
    ) -> AsyncIterator[ForwardTurn]:
        """As `forwarding`, for the one request of a session on a one-time instance.

        Raises:
            NotFoundError: no such session of this principal on an encoder of this name.
            SpentError: another request was its one.
            LimitError: too many steps, or too many requests on one session at once.
            UnavailableError: the cloud is shutting down.
        """
        self._check_running()
        session = self._sessions.find(session_id, principal_id)
        encoder = session.hosted
        if not isinstance(encoder, HostedEncoder) or encoder.key.name != model:
            raise session_not_found()
        with self._shares.step(session.developer):
            async with self._turn(principal_id, session_id):
                if session.asked not in (None, request_id):
                    raise answered_error()
                session.asked = request_id
                yield ForwardTurn(session, encoder, request_id)

    async def forward(self, turn: ForwardTurn, passages: Sequence[Passage]) -> list[Arrays]:
        """What the encoder answers to each of some texts or images that it takes.

        Cancelling frees what has not run yet.

        Raises:
            LimitError: the request's place was given to somebody else, or access was revoked.
            NotFoundError: so was its session's, on a one-time instance.
            UnavailableError: the cloud is shutting down.
            CloudError: the model failed.
        """
        session = turn.session
        tasks = [Whole(session.principal, passage) for passage in passages]
        try:
            check_open(session)
            if self._trace is not None:
                for passage in passages:
                    if isinstance(passage, Text) and passage.tokens.ndim == 2:
                        self._trace.record(np.asarray(passage.tokens, np.float32))
            session.running = all_of([task.future for task in tasks])
            for task in tasks:
                turn.hosted.worker.submit(task)
            arrays: list[Arrays] = await asyncio.wrap_future(session.running)
        except NotFoundError as error:
            if session.once:
                raise
            raise LimitError(
                "the cloud ended this request, to make room or for lost access: repeat it",
                retry_after_s=FORWARD_RETRY_S,
            ) from error
        finally:
            session.running = None
        self._passages += len(passages)
        self._count(session, sum(each.rows for each in passages), len(passages))
        return arrays

    async def step(
        self, principal_id: str, session_id: str, request: StepRequest
    ) -> StoredReply:
        """Runs a step; a repeated request id gets the stored answer again.

        A step that is cancelled or fails leaves the session where it was; what it takes back
        is taken back in every case.

        Raises:
            NotFoundError: no such session of this principal.
            PositionError: the step does not continue the session.
            TooLargeError: more rows than a step, its reply or the session may have.
            LimitError: too many requests on one session at once.
            RequestError: rows of the wrong width, or more values than the model has.
            UnavailableError: the cloud is shutting down.
            CloudError: the model failed.
        """
        async with self._turn(principal_id, session_id) as session:
            if session.stored and session.stored.request_id == request.request_id:
                return session.stored
            check_step(session, request, self._settings)
            session.position = request.position  # the engine cuts the cache there
            if self._trace is not None:
                self._trace.record(request.rows)
            arrays = await self._run(session, request.rows, request.reply)
            session.stored = StoredReply(
                request_id=request.request_id,
                body=encode_frames(*(Frame.of(array) for array in arrays)),
                position=session.position,
            )
            return session.stored

    @asynccontextmanager
    async def text_session(
        self, principal_id: str, model: ServableModel
    ) -> AsyncIterator[Session[AnyHosted]]:
        """A session of the cloud's own for a block, on a model that takes ids.

        It counts among the principal's sessions, and is closed in every case.

        Raises:
            LimitError: too many sessions.
            RequestError: the model takes rows.
            CheckpointError: the model cannot be served.
            UnavailableError: the cloud is shutting down.
        """
        session = await self._admission.opened(principal_id, model, fits=is_decoder)
        try:
            if decoder_of(session).engine.info.text is None:
                raise RequestError(
                    f"model '{model.name}' takes rows, not words: open a session on it"
                )
            yield session
        finally:
            self._sessions.close(session)

    @asynccontextmanager
    async def elsewhere(
        self, principal_id: str, model: ServableModel
    ) -> AsyncIterator[Future[None]]:
        """Room for one answer of an engine behind the cloud.

        It counts as a step of the model's developer and as a session of the principal.

        Yields:
            What fails when the answer has to end: access was revoked, or the version retired.

        Raises:
            LimitError: too many steps or sessions.
            UnavailableError: the cloud is shutting down.
        """
        self._check_running()
        self._admission.check_current(model)
        with self._shares.step(model.developer):
            hosted = HostedElsewhere(ModelKey.of(model))
            session = await self._admission.admitted(principal_id, model, hosted)
            session.pending, ended = 1, Future[None]()
            session.running = ended
            try:
                yield ended
            finally:
                session.running = None
                self._sessions.close(session)

    def count_words(self, principal_id: str, model: ServableModel, words: int) -> None:
        """Counts the words of an answer that was made elsewhere."""
        self._tokens += words
        self._by_model.count(model.name, rows=words, replies=1)
        self._by_principal.count(principal_id, rows=words, replies=1)

    async def advance(self, session: Session[AnyHosted], ids: Ids, reply: Reply) -> Arrays:
        """Appends ids (T,) to a `text_session`; answers about the last one.

        The caller has checked that the ids exist and that there is room for them.

        Raises:
            NotFoundError: the session was closed.
            LimitError: no memory is left for it.
            UnavailableError: the cloud is shutting down.
            CloudError: the model failed.
        """
        check_open(session)
        arrays = await self._run(session, ids, reply)
        self._tokens += 1
        return arrays

    async def read_source(self, principal_id: str, session_id: str, rows: Rows) -> int:
        """Has the model's encoder read the text that a session answers; returns its rows.

        It waits for its turn, as steps do. At position 0 alone, where another text takes the
        place of the one before.

        Raises:
            NotFoundError: no such session of this principal.
            PositionError: the session has rows of an answer.
            TooLargeError: more rows than a step may have.
            LimitError: too many requests on one session at once, or no memory for the text.
            RequestError: a model without an encoder, or rows of the wrong width.
            UnavailableError: the cloud is shutting down.
            CloudError: the model failed.
        """
        async with self._turn(principal_id, session_id) as session:
            hosted = decoder_of(session)
            check_source(session, rows, self._settings)
            if self._trace is not None:
                self._trace.record(rows)
            session.source_rows, session.stored = 0, None
            await self._reserve(session, hosted, len(rows))
            reading = Reading(session.id, session.principal, rows)
            hosted.worker.submit(reading)
            await self._ran(session, reading.future)
            session.source_rows = len(rows)
            self._count(session, len(rows), 0)
            return len(rows)

    async def rollback(self, principal_id: str, session_id: str, position: int) -> int:
        """Forgets the rows from `position` on; returns the new position.

        Raises:
            NotFoundError: no such session of this principal.
            PositionError: the session has fewer rows.
        """
        async with self._turn(principal_id, session_id) as session:
            decoder_of(session)
            if position > session.position:
                raise PositionError(
                    f"cannot roll back to {position}: the session has {session.position} rows",
                    position=session.position,
                )
            session.position = position  # the next step cuts the cache there
            session.stored = None
            return position

    async def fork(self, principal_id: str, session_id: str) -> SessionInfo:
        """Opens a second session with the same rows; the two go on independently.

        Raises:
            NotFoundError: no such session of this principal.
            LimitError: too many sessions.
        """
        async with self._turn(principal_id, session_id) as source:
            if source.once:
                raise RequestError("a one-time instance is for one session: it takes no fork")
            hosted, position = decoder_of(source), source.position
            target = self._sessions.open(principal_id, hosted, developer=hosted.key.developer)
            try:
                target.source_rows = source.source_rows
                await self._reserve(target, hosted, position)
                copied = hosted.worker.call(
                    lambda: hosted.engine.fork(source.id, target.id, position=position)
                )
                await asyncio.wrap_future(copied)
            except BaseException:
                self._sessions.close(target)
                raise
            target.position = position
            return SessionInfo.of(target, self._settings)

    def close(self, principal_id: str, session_id: str) -> None:
        """Closes a session; a step that runs on it fails.

        Raises:
            NotFoundError: no such session of this principal.
        """
        self._sessions.close(self._sessions.find(session_id, principal_id))

    def close_sessions_of(self, principal_id: str) -> int:
        """Closes all sessions of a principal at once; returns how many.

        Any thread may call; another than the event loop's waits for the loop to do it.
        """
        return self._in_loop(lambda: self._sessions.close_of(principal_id))

    def close_sessions_of_developer(self, developer: str) -> int:
        """Closes all sessions on a developer's models at once; returns how many.

        Any thread may call, as `close_sessions_of`.
        """
        return self._in_loop(lambda: self._sessions.close_of_developer(developer))

    def retire(
        self, developer: str, versions: frozenset[tuple[str, int]], *, drain_s: float
    ) -> None:
        """Takes versions of a developer's models out of use.

        No session begins on them. Those that are open go on for `drain_s` seconds if their
        version was not named before, and end then; their clients are told to replay.

        Any thread may call.

        Args:
            developer: whose models.
            versions: names and versions, all that are out of use.
            drain_s: 0 ends sessions before this returns.
        """

        def taken() -> int:
            new = self._admission.retire(developer, versions)
            if not drain_s or self._loop is None:
                return self._admission.end(developer, new)
            self._loop.call_later(drain_s, self._admission.end, developer, new)
            return 0

        self._in_loop(taken)

    def ask_before_opening(self, admit: Callable[[str, ServableModel], None]) -> None:
        """Has `admit` called in a thread with a principal's id and a model at each opening.

        The session is known by then but nobody has its id, so that a revocation either makes
        the check raise or finds the session and closes it.
        """
        self._admission.ask = admit

    def after_use(self, remove: Callable[[str, str, int], None]) -> None:
        """Has `remove` called, in a thread, when a one-time instance was used.

        It gets developer, name and version; the model is no longer loaded by then.
        """
        self._admission.remove_used = remove

    def has(self, model: ServableModel) -> bool:
        """Whether a model is loaded and ready."""
        return self._models.has(ModelKey.of(model))

    def session_count(self) -> int:
        """How many sessions are open. Any thread may call."""
        return len(self._sessions)

    def counts(self) -> dict[ModelKey, WorkerCounts]:
        """What each loaded model has done."""
        return {hosted.key: hosted.counts for hosted in self._models.loaded()}

    def totals(self) -> ServingTotals:
        """Sums over all models. Any thread may call."""
        counts, loaded = self._models.counts(), self._models.loaded()
        return ServingTotals(
            models=len(loaded),
            sessions=len(self._sessions),
            waiting=sum(hosted.waiting for hosted in loaded),
            cache_bytes=sum(
                hosted.engine.cache_bytes for hosted in loaded if isinstance(hosted, Hosted)
            ),
            batches=counts.batches,
            failed_batches=counts.failed_batches,
            works=counts.works,
            rows=counts.rows,
            steps=counts.steps,
            tokens=self._tokens,
            passages=self._passages,
            opened=self._sessions.opened,
            weight_bytes=self._models.weight_bytes,
            reserved_bytes=self._reserved_bytes(),
            memory_limit_bytes=self._settings.max_memory_bytes or 0,
            evicted_models=self._models.evicted,
            ran=counts.ran,
            waited=counts.waited,
            by_model=self._by_model.read(),
            by_principal=self._by_principal.read(),
            endings={ending.value: self._sessions.endings[ending] for ending in Ending},
        )

    def step_limit_bytes(self, principal_id: str, session_id: str) -> int:
        """Most payload bytes of a step on a session.

        Raises:
            NotFoundError: no such session of this principal.
        """
        self._check_running()
        session = self._sessions.find(session_id, principal_id)
        row_bytes = decoder_of(session).engine.info.width * FLOAT32_BYTES
        return min(self._settings.max_rows_per_step * row_bytes, self._settings.max_body_bytes)

    @contextmanager
    def step_turn(self, principal_id: str, session_id: str) -> Iterator[int]:
        """Room for one more step on a session, from before its body is read.

        Yields:
            Most payload bytes of the step.

        Raises:
            NotFoundError: no such session of this principal.
            LimitError: too many steps of its developer at once.
        """
        limit_bytes = self.step_limit_bytes(principal_id, session_id)
        developer = self._sessions.find(session_id, principal_id).developer
        with self._shares.step(developer):
            yield limit_bytes

    @property
    def rows_per_step(self) -> int:
        """Most rows in one step."""
        return self._settings.max_rows_per_step

    @property
    def body_bytes(self) -> int:
        """Most bytes of rows in one request."""
        return self._settings.max_body_bytes

    @property
    def idle_s(self) -> float:
        """Seconds after which an unused session is dropped."""
        return self._settings.session_idle_s

    def _check_running(self) -> None:
        if self._loop is None:
            raise UnavailableError("the cloud is shutting down: repeat the request")

    @asynccontextmanager
    async def _turn(
        self, principal_id: str, session_id: str
    ) -> AsyncIterator[Session[AnyHosted]]:
        """A session of the principal, to itself until the block ends."""
        self._check_running()
        session = self._sessions.find(session_id, principal_id)
        if session.pending >= MAX_PENDING:
            raise LimitError(
                f"a session takes {MAX_PENDING} requests at a time", retry_after_s=1
            )
        session.pending += 1
        try:
            async with session.lock:
                check_open(session)
                yield session
        finally:
            session.pending -= 1

    def _free(self, session: Session[AnyHosted]) -> None:
        """Fails the step that runs on a closed session, and frees its cache."""
        if session.running is not None:
            with suppress(InvalidStateError):
                session.running.set_exception(session.because)
        hosted = session.hosted
        if isinstance(hosted, Hosted):
            hosted.worker.call(lambda: hosted.engine.close(session.id))
        if session.once and self._loop is not None:  # else the next start removes it
            self._admission.ended(session)

    def _in_loop(self, close: Callable[[], int]) -> int:
        """What `close` returns, called in the event loop's thread."""
        if self._loop is None or threading.get_ident() == self._thread:
            return close()

        async def closing() -> int:
            return close()

        return asyncio.run_coroutine_threadsafe(closing(), self._loop).result(LOOP_TIMEOUT_S)

    async def _run(self, session: Session[AnyHosted], rows: Inputs, reply: Reply) -> Arrays:
        hosted = decoder_of(session)
        await self._reserve(session, hosted, session.position + len(rows))
        step = Step(
            session=session.id,
            principal=session.principal,
            position=session.position,
            rows=rows,
            reply=reply,
        )
        hosted.worker.submit(step)
        arrays = await self._ran(session, step.future)
        session.position += len(rows)
        self._count(session, len(rows))
        return arrays

    async def _ran(self, session: Session[AnyHosted], work: Future[_T]) -> _T:
        """What the model made of a session's work.

        Raises:
            NotFoundError: the session ended meanwhile, or whoever ran it lost it.
        """
        session.running = work
        try:
            made = await asyncio.wrap_future(work)
        except NotFoundError:  # who ran it lost what it had of the session
            self._sessions.close(session)
            raise
        finally:
            session.running = None
            self._sessions.touch(session)
        check_open(session)
        return made

    async def _reserve(self, session: Session[AnyHosted], hosted: Hosted, rows: int) -> None:
        """Counts the memory of a session that will hold `rows` rows.

        Raises:
            LimitError: over the developer's share, or the cloud's memory.
        """
        rows += session.source_rows
        more_bytes = self._shares.more_bytes(session, hosted, rows, self._sessions)
        if more_bytes:
            in_use = self._sessions.has_any_on
            await self._models.make_memory(more_bytes, in_use=in_use, what="the session")
            check_open(session)
            session.reserved_bytes += more_bytes

    def _reserved_bytes(self) -> int:
        return sum(session.reserved_bytes for session in list(self._sessions))

    def _count(self, session: Session[AnyHosted], rows: int, replies: int = 1) -> None:
        """Counts what was used under its names."""
        self._by_model.count(session.hosted.key.name, rows=rows, replies=replies)
        self._by_principal.count(session.principal, rows=rows, replies=replies)

    async def _sweep(self) -> None:
        """Drops idle sessions, and models that a newer version has replaced."""
        pause_s = min(30.0, max(0.05, self._settings.session_idle_s / 4))
        while True:
            await asyncio.sleep(pause_s)
            if dropped := self._sessions.drop_idle():
                _log.info("idle sessions dropped", extra={"count": dropped})
            await self._models.unload_replaced(self._sessions.has_any_on)
