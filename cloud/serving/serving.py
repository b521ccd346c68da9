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
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from triparty.cloud.serving.engine import (
    Arrays,
    EncoderInfo,
    Ids,
    Inputs,
    Loaded,
    ModelInfo,
    Passage,
    Reply,
    ReplyKind,
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
from triparty.cloud.serving.openings import Asked, Openings
from triparty.cloud.serving.sessions import (
    Ending,
    Session,
    SessionLimits,
    Sessions,
    StoredReply,
    answered_error,
    retired_error,
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
    SpentError,
    TooLargeError,
    TripartyError,
    UnavailableError,
)
from triparty.common.wire import Frame, encode_frames

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

MAX_PENDING = 2
"""Requests on one session at a time: the running one, and the retry of a client in doubt."""

FORWARD_RETRY_S = 1
LOOP_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class SessionInfo:
    """What a client learns about its session.

    Attributes:
        session: its id.
        model: name of the model.
        version: of the model.
        epoch: key generation of the model.
        position: rows that the session has.
        positions: most rows that it may have.
        replies: what a step may ask for.
        reply_rows: most rows of a step that it may ask it about.
    """

    session: str
    model: str
    version: int
    epoch: int
    position: int
    positions: int
    replies: tuple[ReplyKind, ...]
    reply_rows: int

    @classmethod
    def of(cls, session: Session[AnyHosted], settings: ServingSettings) -> SessionInfo:
        """The public part of a session."""
        hosted = session.hosted
        key = hosted.key
        replies: tuple[ReplyKind, ...]
        if isinstance(hosted, HostedEncoder):
            positions, replies, reply_rows = hosted.info.positions, (hosted.info.reply,), 1
        else:
            decoder = decoder_of(session)
            positions, replies = decoder.positions, decoder.engine.info.replies
            reply_rows = _reply_rows(decoder.engine.info, settings)
        return cls(
            session=session.id,
            model=key.name,
            version=key.version,
            epoch=key.epoch,
            position=session.position,
            positions=positions,
            replies=replies,
            reply_rows=reply_rows,
        )


@dataclass(frozen=True, eq=False)
class StepRequest:
    """One step as a client sends it.

    Attributes:
        position: where its first row belongs.
        request_id: the client's name for the step; repeating it repeats the answer.
        reply: what to answer.
        rows: (T, D) float32.
        rollback_of: request id of the session's last step, of which the rows from `position`
            on are taken back first; None takes none back.
    """

    position: int
    request_id: str
    reply: Reply
    rows: Rows
    rollback_of: str | None = None


@dataclass(frozen=True, eq=False)
class ForwardTurn:
    """Room for one forward request.

    Attributes:
        session: what it counts as, until it is answered; or the one that it is asked in.
        hosted: the encoder.
        request_id: the client's name for it, in a session.
    """

    session: Session[AnyHosted]
    hosted: HostedEncoder
    request_id: str | None = None

    @property
    def answered(self) -> StoredReply | None:
        """The answer, if the same request had it before."""
        return self.session.stored if self.request_id is not None else None

    def keep(self, body: bytes) -> None:
        """Keeps the answer for a repeated request."""
        if self.request_id is not None:
            self.session.stored = StoredReply(self.request_id, body, 0)

    @property
    def info(self) -> EncoderInfo:
        """What the encoder takes and answers."""
        return self.hosted.info


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
        self._admit: Callable[[str, ServableModel], None] = lambda *_: None
        self._remove_used: Callable[[str, str, int], None] = lambda *_: None
        self._retired: dict[str, frozenset[tuple[str, int]]] = {}
        self._openings: Openings[Session[AnyHosted]] = Openings()
        self._ending: set[asyncio.Task[None]] = set()
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
        await asyncio.gather(*self._ending, return_exceptions=True)
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
        _check_open(session)
        self._sessions.touch(session)
        return SessionInfo.of(session, self._settings)

    async def _open_any(self, principal_id: str, model: ServableModel) -> Session[AnyHosted]:
        """A session for a client: on a decoder, or on a one-time instance."""
        return await self._open(
            principal_id, model, fits=_is_any if model.once else _is_decoder
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
            session = await self._open(principal_id, model, fits=_can_encode)
            session.pending = 1
            try:
                yield ForwardTurn(session, _encoder_of(session))
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
            _check_open(session)
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
            self._check_step(session, request)
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
        session = await self._open(principal_id, model, fits=_is_decoder)
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
        self._check_current(model)
        with self._shares.step(model.developer):
            hosted = HostedElsewhere(ModelKey.of(model))
            session = await self._admitted(principal_id, model, hosted)
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
        _check_open(session)
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
            self._check_source(session, hosted, rows)
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

    def _check_source(self, session: Session[AnyHosted], hosted: Hosted, rows: Rows) -> None:
        width = hosted.engine.info.width
        if not hosted.engine.info.reads:
            raise RequestError(
                f"model '{hosted.key.name}' has no encoder: send the text in steps"
            )
        if session.position:
            raise PositionError(
                "the text is read before the first step: roll back to 0, or open a session",
                position=session.position,
            )
        if rows.ndim != 2 or rows.shape[1] != width or not len(rows):
            raise RequestError(
                f"a text is a frame of shape (S, {width}), S at least 1, got {rows.shape}"
            )
        most = min(self._settings.max_rows_per_step, hosted.positions)
        if len(rows) > most:
            raise TooLargeError(
                f"the text has {len(rows)} rows, this cloud's limit for one that is read whole "
                f"is {most}: shorten it"
            )

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
            new = versions - self._retired.get(developer, frozenset())
            self._retired[developer] = versions
            if not drain_s or self._loop is None:
                return self._end_retired(developer, new)
            self._loop.call_later(drain_s, self._end_retired, developer, new)
            return 0

        self._in_loop(taken)

    def _end_retired(self, developer: str, versions: Collection[tuple[str, int]]) -> int:
        return sum(
            self._sessions.retire(hosted)
            for hosted in [*self._models.loaded(), *self._elsewhere()]
            if hosted.key.developer == developer
            and (hosted.key.name, hosted.key.version) in versions
        )

    def _elsewhere(self) -> list[HostedElsewhere]:
        """What is in use of models that run elsewhere; each answer is of one of its own."""
        hosts = [session.hosted for session in self._sessions]
        return [hosted for hosted in hosts if isinstance(hosted, HostedElsewhere)]

    def ask_before_opening(self, admit: Callable[[str, ServableModel], None]) -> None:
        """Has `admit` called in a thread with a principal's id and a model at each opening.

        The session is known by then but nobody has its id, so that a revocation either makes
        the check raise or finds the session and closes it.
        """
        self._admit = admit

    def after_use(self, remove: Callable[[str, str, int], None]) -> None:
        """Has `remove` called, in a thread, when a one-time instance was used.

        It gets developer, name and version; the model is no longer loaded by then.
        """
        self._remove_used = remove

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
                _check_open(session)
                yield session
        finally:
            session.pending -= 1

    def _check_step(self, session: Session[AnyHosted], request: StepRequest) -> None:
        hosted, rows = decoder_of(session), request.rows
        info = hosted.engine.info
        if request.position != session.position and not _takes_back(session, request):
            raise PositionError(
                f"the session is at position {session.position}, the step begins at "
                f"{request.position}",
                position=session.position,
            )
        if info.reads and not session.source_rows:
            raise RequestError(
                "this model answers a text: have it read with POST "
                "/v1/sessions/{id}/source before the first step"
            )
        if rows.ndim != 2 or rows.shape[1] != info.width or not len(rows):
            raise RequestError(
                f"a step is a frame of shape (T, {info.width}), T at least 1, got {rows.shape}"
            )
        end = request.position + len(rows)
        if len(rows) > self._settings.max_rows_per_step:
            raise TooLargeError(
                f"a step has at most {self._settings.max_rows_per_step} rows, "
                f"got {len(rows)}: send them in several steps"
            )
        if end > hosted.positions:
            raise TooLargeError(
                f"a session of this model has at most {hosted.positions} positions, "
                f"the step would end at {end}"
            )
        if request.reply.kind not in info.replies:
            raise RequestError(
                f"this model replies {', '.join(info.replies)}, got {request.reply.kind}: its "
                f"head is not on the cloud but in the bundles of its devices"
            )
        if request.reply.kind is ReplyKind.TOPK and request.reply.k > info.vocabulary:
            raise RequestError(
                f"topk is at most the vocabulary, {info.vocabulary}, got {request.reply.k}"
            )
        self._check_reply_rows(info, request)

    def _check_reply_rows(self, info: ModelInfo, request: StepRequest) -> None:
        """A reply about one row is always allowed."""
        wanted, most = request.reply.rows, self._settings.max_reply_rows
        if wanted > len(request.rows):
            raise RequestError(
                f"a reply is about at most the {len(request.rows)} rows of its step, "
                f"got {wanted}"
            )
        if wanted > most:
            raise TooLargeError(f"a reply is about at most {most} rows, got {wanted}")
        size, limit = wanted * info.reply_bytes(request.reply), self._settings.max_body_bytes
        if wanted > 1 and size > limit:
            raise TooLargeError(
                f"the reply would have {size} bytes, limit {limit}: ask about fewer rows"
            )

    async def _open(
        self, principal_id: str, model: ServableModel, *, fits: Callable[[AnyHosted], bool]
    ) -> Session[AnyHosted]:
        self._check_running()
        self._check_current(model)
        self._sessions.check_room(principal_id, developer=model.developer)
        hosted = await self._models.host(model, in_use=self._sessions.has_any_on)
        self._check_running()
        if not fits(hosted):
            raise _wrong_kind(model.name, is_encoder=not isinstance(hosted, Hosted))
        return await self._admitted(principal_id, model, hosted)

    async def _admitted(
        self, principal_id: str, model: ServableModel, hosted: AnyHosted
    ) -> Session[AnyHosted]:
        """A new session, of whom may have it."""
        session = self._sessions.open(principal_id, hosted, developer=model.developer)
        session.once = model.once
        try:
            await self._have_admitted(session, model)
            self._check_current(model)
            _check_open(session)
        except BaseException:
            self._sessions.close(session)
            raise
        return session

    async def _have_admitted(self, session: Session[AnyHosted], model: ServableModel) -> None:
        """Asks whether a session may begin, and uses up its one-time instance."""
        try:
            await asyncio.to_thread(self._admit, session.principal, model)
        except SpentError:
            raise
        except TripartyError:
            session.once = False  # it was not used, and stays
            raise

    def _check_current(self, model: ServableModel) -> None:
        if (model.name, model.version) in self._retired.get(model.developer, ()):
            raise retired_error()

    def _free(self, session: Session[AnyHosted]) -> None:
        """Fails the step that runs on a closed session, and frees its cache."""
        if session.running is not None:
            with suppress(InvalidStateError):
                session.running.set_exception(session.because)
        hosted = session.hosted
        if isinstance(hosted, Hosted):
            hosted.worker.call(lambda: hosted.engine.close(session.id))
        if session.once and self._loop is not None:  # else the next start removes it
            task = self._loop.create_task(self._forget_used(hosted))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _forget_used(self, hosted: AnyHosted) -> None:
        if self._sessions.has_any_on(hosted):
            return  # who came first goes on with it
        await self._models.discard(hosted)
        key = hosted.key
        try:
            await asyncio.to_thread(self._remove_used, key.developer, key.name, key.version)
        except TripartyError as error:
            _log.warning(f"a used instance is left to the next start: {error.message}")

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
        _check_open(session)
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
            _check_open(session)
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


def _takes_back(session: Session[AnyHosted], request: StepRequest) -> bool:
    """Whether a step begins inside the last one, and knows which that was.

    A position alone would not do: it comes again, so that a late copy of a step that ran long
    ago could take back what others have appended since.
    """
    last = session.stored
    return (
        last is not None
        and request.rollback_of == last.request_id
        and request.position < session.position
    )


def _reply_rows(info: ModelInfo, settings: ServingSettings) -> int:
    """Most rows that a step may ask about, whether it asks for hidden states or logits."""
    kinds = {ReplyKind.HIDDEN, ReplyKind.LOGITS}.intersection(info.replies)
    widest = max(info.reply_bytes(Reply(kind)) for kind in kinds)
    return max(1, min(settings.max_reply_rows, settings.max_body_bytes // widest))


def _check_open(session: Session[AnyHosted]) -> None:
    if session.closed:
        raise session.because


def decoder_of(session: Session[AnyHosted]) -> Hosted:
    """The decoder of a session that a client has; nobody has the id of a forward request's.

    Raises:
        NotFoundError: it is a forward request's.
    """
    if not isinstance(session.hosted, Hosted):
        raise session_not_found()
    return session.hosted


def _encoder_of(session: Session[AnyHosted]) -> HostedEncoder:
    hosted = session.hosted
    sight = hosted.sight if isinstance(hosted, Hosted) else hosted
    if not isinstance(sight, HostedEncoder):
        raise _wrong_kind(hosted.key.name, is_encoder=False)
    return sight


def _can_encode(hosted: AnyHosted) -> bool:
    """Whether it answers whole inputs: an encoder, or a decoder that makes rows of images."""
    return isinstance(hosted.sight if isinstance(hosted, Hosted) else hosted, HostedEncoder)


def _is_decoder(hosted: AnyHosted) -> bool:
    return isinstance(hosted, Hosted)


def _is_any(_: AnyHosted) -> bool:
    """A one-time instance is for one session, whatever it is an instance of."""
    return True


def _wrong_kind(name: str, *, is_encoder: bool) -> RequestError:
    if is_encoder:
        return RequestError(
            f"model '{name}' is an encoder, which keeps no session: send whole texts or images "
            f"to POST /v1/models/{name}/forward"
        )
    return RequestError(
        f"model '{name}' is a decoder: open a session on it with "
        f"POST /v1/models/{name}/sessions"
    )
