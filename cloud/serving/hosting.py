"""Loaded models: each with what runs it and its thread, loaded when first asked for.

All methods are for the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from triparty.cloud.serving.engine import (
    Decoder,
    Encoder,
    EncoderInfo,
    Engine,
    Loaded,
    ModelInfo,
    Passage,
    SeeingEngine,
    Work,
)
from triparty.cloud.serving.scheduler import Limits
from triparty.cloud.serving.settings import ModelSettings, ServingSettings
from triparty.cloud.serving.weights import weight_bytes
from triparty.cloud.serving.worker import Tasks, Worker, WorkerCounts
from triparty.common.errors import LimitError, TooLargeError

_log = logging.getLogger(__name__)

BUSY_RETRY_S = 5
FLOAT32_BYTES = 4
CHUNK_ROWS = 512
"""Most rows of prompts in a batch: what a decoder waits for between two of its rows."""


class ServableModel(Protocol):
    """A published model; `catalog.PublishedModel` is one."""

    @property
    def developer(self) -> str:
        """Whose model."""

    @property
    def name(self) -> str:
        """Name among the developer's models."""

    @property
    def version(self) -> int:
        """Rises with every publication."""

    @property
    def epoch(self) -> int:
        """Key generation."""

    @property
    def current(self) -> int:
        """The lowest version that its developer calls current."""

    @property
    def once(self) -> bool:
        """Whether it is for one session alone."""

    @property
    def folder(self) -> Path:
        """Verified files laid out as a Hugging Face folder."""


@dataclass(frozen=True)
class ModelKey:
    """Which model, exactly."""

    developer: str
    name: str
    version: int
    epoch: int

    @classmethod
    def of(cls, model: ServableModel) -> ModelKey:
        """The key of a published model."""
        return cls(model.developer, model.name, model.version, model.epoch)


class _Threads(ABC):
    """What models do with their threads, however many they have."""

    @property
    @abstractmethod
    def workers(self) -> tuple[AnyWorker, ...]:
        """All its threads."""

    @property
    def counts(self) -> WorkerCounts:
        """What its threads have done."""
        return sum((worker.counts for worker in self.workers), WorkerCounts())

    @property
    def waiting(self) -> int:
        """Tasks and calls that wait or run, about; any thread may ask."""
        return sum(worker.waiting for worker in self.workers)

    def stop(self) -> None:
        """Ends its threads; what waits fails."""
        for worker in self.workers:
            worker.stop()


@dataclass(frozen=True, eq=False)
class Hosted(_Threads):
    """A loaded decoder.

    Attributes:
        key: which.
        engine: the model; only the worker may call its methods.
        worker: runs its tasks.
        positions: most rows of a session.
        sight: what makes rows of images, for a model that takes some in its texts.
    """

    key: ModelKey
    engine: Decoder
    worker: Tasks[Work]
    positions: int
    sight: HostedEncoder | None = None

    @property
    def workers(self) -> tuple[AnyWorker, ...]:
        """All its threads."""
        return (self.worker,) if self.sight is None else (self.worker, self.sight.worker)


@dataclass(frozen=True, eq=False)
class HostedEncoder(_Threads):
    """A loaded encoder.

    Attributes:
        key: which.
        info: what it takes and answers.
        worker: runs its tasks.
    """

    key: ModelKey
    info: EncoderInfo
    worker: Tasks[Passage]

    @property
    def workers(self) -> tuple[AnyWorker, ...]:
        """Its thread."""
        return (self.worker,)


@dataclass(frozen=True, eq=False)
class HostedElsewhere(_Threads):
    """A model that another engine runs, for one answer.

    Attributes:
        key: which.
    """

    key: ModelKey

    @property
    def workers(self) -> tuple[AnyWorker, ...]:
        """None."""
        return ()


AnyWorker: TypeAlias = Tasks[Work] | Tasks[Passage]
AnyHosted: TypeAlias = Hosted | HostedEncoder | HostedElsewhere


def load_local(folder: Path, settings: ModelSettings) -> Loaded:
    """The engine of this process; imports torch and transformers when first called.

    Raises:
        SettingsError: a device that this machine does not have.
        CheckpointError: the folder cannot be served.
    """
    from triparty.cloud.serving.encoding import LocalEncoder
    from triparty.cloud.serving.loading import holds_encoder, holds_seq2seq, holds_visual
    from triparty.cloud.serving.local import LocalEngine
    from triparty.cloud.serving.placement import Placement
    from triparty.cloud.serving.seq2seq import Seq2SeqEngine
    from triparty.cloud.serving.sight import load_seeing

    placement = Placement.of(settings)
    if holds_visual(folder):
        return load_seeing(folder, placement)
    if holds_seq2seq(folder):
        return Seq2SeqEngine.load(folder, placement)
    kind = LocalEncoder if holds_encoder(folder) else LocalEngine
    return kind.load(folder, placement)


def limits_of(settings: ModelSettings, info: ModelInfo | EncoderInfo) -> Limits:
    """How large the batches of a model may be.

    Those of an encoder are bounded by what they answer, too: a row may become a vocabulary.
    """
    rows = max(2, settings.max_batch_rows)
    if isinstance(info, ModelInfo):
        return Limits(batch_rows=rows, chunk_rows=min(CHUNK_ROWS, settings.max_batch_rows))
    if info.per_row:
        answered = settings.max_body_bytes // (FLOAT32_BYTES * info.outputs)
        rows = max(2, min(rows, answered))
    return Limits(batch_rows=rows, whole=True)


def set_threads(threads: int | None) -> None:
    """How many threads of the processor the models of this process use."""
    if threads:
        import torch

        torch.set_num_threads(threads)


class Backend(Protocol):
    """Where models run."""

    @property
    def copies(self) -> int:
        """How many times a loaded model's weights may be in memory at once."""

    def start(self) -> None:
        """Makes ready; called in a thread, before any load.

        Raises:
            SettingsError: it cannot run here.
        """

    def load(self, folder: Path) -> Loaded:
        """Loads a published folder; called in a thread.

        Raises:
            CheckpointError: the folder cannot be served.
        """

    def worker(self, loaded: Engine | Encoder, *, name: str) -> Tasks[Any]:
        """What runs the tasks of a loaded model, or of one part of it."""

    def stop(self) -> None:
        """Ends what `start` began, if it did; called in a thread, after all models stopped."""


class LocalBackend:
    """Models in this process, each with a thread of its own."""

    copies = 1
    """See `Backend.copies`."""

    def __init__(
        self,
        settings: ServingSettings,
        *,
        load: Callable[[Path], Loaded] | None = None,
    ) -> None:
        """No model yet.

        Args:
            settings: limits, and where weights go.
            load: makes an engine or an encoder of a model's folder; None: `load_local`.
        """
        self._settings = settings
        self._load = load or partial(load_local, settings=settings)

    def start(self) -> None:
        """Nothing to make ready."""

    def load(self, folder: Path) -> Loaded:
        """See `Backend.load`."""
        return self._load(folder)

    def worker(self, loaded: Engine | Encoder, *, name: str) -> Tasks[Any]:
        """A thread."""
        runner: Any = loaded
        return Worker(
            runner,
            limits_of(self._settings, loaded.info),
            name=name,
            on_start=lambda: set_threads(self._settings.threads),
        )

    def stop(self) -> None:
        """Nothing to end."""


class Models:
    """The loaded models."""

    def __init__(
        self,
        settings: ServingSettings,
        *,
        backend: Backend,
        reserved_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        """No model yet.

        Args:
            settings: limits.
            backend: where they run.
            reserved_bytes: memory that sessions count for.
        """
        self._settings = settings
        self._backend = backend
        self._tasks: dict[ModelKey, asyncio.Task[AnyHosted]] = {}
        self._reserved_bytes = reserved_bytes
        self._weights: dict[ModelKey, int] = {}
        self._current: dict[tuple[str, str], int] = {}
        self._has_stopped = False
        self.evicted = 0
        self._unloading: set[AnyHosted] = set()
        self._unloaded = WorkerCounts()

    async def host(
        self, model: ServableModel, *, in_use: Callable[[AnyHosted], bool]
    ) -> AnyHosted:
        """The loaded model; requests that ask at once share one load.

        A load goes on when its request is cancelled; one that fails is tried again by the
        next request.

        Args:
            model: which.
            in_use: whether a loaded model must stay; others make room if their developer has
                as many as it may have.

        Raises:
            CheckpointError: the folder cannot be served.
            LimitError: all of the developer's models are in use.
        """
        key = ModelKey.of(model)
        line = (key.developer, key.name)
        self._current[line] = max(model.current, self._current.get(line, 0))
        while True:
            task = await self._task(key, model.folder, in_use)
            hosted = await asyncio.shield(task)
            # It may have made room for another between its load's end and this moment.
            if self._has_stopped or self._tasks.get(key) is task:
                return hosted

    async def _task(
        self, key: ModelKey, folder: Path, in_use: Callable[[AnyHosted], bool]
    ) -> asyncio.Task[AnyHosted]:
        """The load of a model, begun if need be; others make room for it."""
        if key not in self._tasks:
            copy = await asyncio.to_thread(weight_bytes, folder, dtype=self._settings.dtype)
            size = copy * self._backend.copies
            await self._make_room(key.developer, in_use)
            await self.make_memory(size, in_use=in_use, what=f"model '{key.name}'")
        task = self._tasks.pop(key, None)
        if task is None:
            self._weights[key] = size
            task = asyncio.create_task(self._host(key, folder))
            task.add_done_callback(lambda done: self._forget_failed(key, done))
        self._tasks[key] = task  # last: those that were asked for longest ago make room first
        return task

    @property
    def weight_bytes(self) -> int:
        """Memory of models that are loaded or being loaded, of all copies that may be."""
        return sum(list(self._weights.values()))

    async def make_memory(
        self, more_bytes: int, *, in_use: Callable[[AnyHosted], bool], what: str
    ) -> None:
        """Returns when the cloud's memory has room for `more_bytes`.

        Models without sessions are unloaded for it, the one first that was asked for longest
        ago; if that is not enough, none is.

        Args:
            more_bytes: memory that is wanted, beside what is used.
            in_use: whether a loaded model must stay.
            what: that wants it, for the message.

        Raises:
            LimitError: there is not so much, now; a TooLargeError if there never is.
        """
        limit = self._settings.max_memory_bytes
        if limit is None:
            return
        if more_bytes > limit:
            raise TooLargeError(
                f"{what} needs {more_bytes} bytes of memory, this cloud has {limit} for models "
                "and sessions: its operator can raise max_memory_bytes"
            )
        surplus = self.weight_bytes + self._reserved_bytes() + more_bytes - limit
        chosen = []
        for hosted in self._ready():
            if surplus <= 0:
                break
            if not in_use(hosted):
                surplus -= self._weights[hosted.key]
                chosen.append(hosted)
        if surplus > 0:
            raise LimitError(
                f"{what} needs {more_bytes} bytes of memory, {surplus} too many: wait",
                retry_after_s=BUSY_RETRY_S,
            )
        for hosted in chosen:
            if hosted.key in self._tasks and not in_use(hosted):
                self.evicted += 1
                await self._unload(hosted)
        if chosen:  # others may have asked for room meanwhile
            await self.make_memory(more_bytes, in_use=in_use, what=what)

    def has(self, key: ModelKey) -> bool:
        """Whether a model is ready."""
        return any(hosted.key == key for hosted in self._ready())

    def loaded(self) -> list[AnyHosted]:
        """The models that are ready."""
        return list(self._ready())

    def counts(self) -> WorkerCounts:
        """What all models have done, those that were unloaded included."""
        hosts = [*self._ready(), *self._unloading]
        return sum((hosted.counts for hosted in hosts), self._unloaded)

    async def _make_room(self, developer: str, in_use: Callable[[AnyHosted], bool]) -> None:
        most = self._settings.max_models_per_developer
        mine = [key for key in self._tasks if key.developer == developer]
        unused = [
            hosted
            for hosted in self._ready()
            if hosted.key.developer == developer and not in_use(hosted)
        ]
        surplus = len(mine) + 1 - most
        if surplus > len(unused):
            raise LimitError(
                f"{most} models of this developer are in use, which is the limit: wait",
                retry_after_s=BUSY_RETRY_S,
            )
        for hosted in unused[: max(0, surplus)]:  # asked for longest ago
            self.evicted += 1
            await self._unload(hosted)

    async def _unload(self, hosted: AnyHosted) -> None:
        del self._tasks[hosted.key]
        del self._weights[hosted.key]
        self._unloading.add(hosted)
        await asyncio.to_thread(hosted.stop)
        self._unloading.remove(hosted)
        self._unloaded += hosted.counts
        _log.info(
            "model unloaded",
            extra={"model": hosted.key.name, "version": hosted.key.version},
        )

    async def unload_replaced(self, in_use: Callable[[AnyHosted], bool]) -> None:
        """Unloads each model without sessions that its developer has replaced."""
        for hosted in self.loaded():
            current = self._current[hosted.key.developer, hosted.key.name]
            if hosted.key.version < current and not in_use(hosted):
                await self._unload(hosted)

    async def discard(self, hosted: AnyHosted) -> None:
        """Unloads a model that is not used again; nothing if it is not loaded."""
        if hosted.key in self._tasks:
            await self._unload(hosted)

    async def stop(self) -> None:
        """Stops all models' threads; steps that wait fail."""
        self._has_stopped = True
        tasks = list(self._tasks.values())
        self._tasks.clear()
        self._weights.clear()
        for hosted in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(hosted, AnyHosted):
                await asyncio.to_thread(hosted.stop)

    async def _host(self, key: ModelKey, folder: Path) -> AnyHosted:
        loaded = await asyncio.to_thread(self._backend.load, folder)
        hosted: AnyHosted
        if isinstance(loaded, SeeingEngine):
            sight = self._hosted_encoder(key, loaded.sight)
            hosted = replace(self._hosted_decoder(key, loaded.engine), sight=sight)
        elif isinstance(loaded.info, EncoderInfo):
            hosted = self._hosted_encoder(key, loaded)
        else:
            hosted = self._hosted_decoder(key, loaded)
        for worker in hosted.workers:
            worker.start()
        _log.info(
            "model loaded",
            extra={"model": key.name, "version": key.version, "epoch": key.epoch},
        )
        return hosted

    def _hosted_decoder(self, key: ModelKey, engine: Engine) -> Hosted:
        worker = self._backend.worker(engine, name=f"model-{key.name}")
        return Hosted(
            key, engine, worker, min(self._settings.max_positions, engine.info.positions)
        )

    def _hosted_encoder(self, key: ModelKey, encoder: Encoder) -> HostedEncoder:
        worker = self._backend.worker(encoder, name=f"model-{key.name}")
        return HostedEncoder(key, encoder.info, worker)

    def _forget_failed(self, key: ModelKey, task: asyncio.Task[AnyHosted]) -> None:
        failed = task.cancelled() or task.exception() is not None
        if failed and self._tasks.get(key) is task:
            del self._tasks[key]
            del self._weights[key]

    def _ready(self) -> Iterator[AnyHosted]:
        for task in list(self._tasks.values()):
            if task.done() and not task.cancelled() and task.exception() is None:
                yield task.result()
