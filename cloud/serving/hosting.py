"""Loaded models: each with what runs it and its thread, loaded when first asked for.

All methods are for the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from triparty.cloud.serving.engine import Encoder, EncoderInfo, Engine, Passage, Work
from triparty.cloud.serving.scheduler import Limits
from triparty.cloud.serving.settings import ServingSettings
from triparty.cloud.serving.worker import Worker, WorkerCounts
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


@dataclass(frozen=True, eq=False)
class Hosted:
    """A loaded decoder.

    Attributes:
        key: which.
        engine: runs it; only the worker's thread may call its methods.
        worker: its thread.
        positions: most rows of a session.
    """

    key: ModelKey
    engine: Engine
    worker: Worker[Work]
    positions: int


@dataclass(frozen=True, eq=False)
class HostedEncoder:
    """A loaded encoder.

    Attributes:
        key: which.
        encoder: runs it; only the worker's thread may call its methods.
        worker: its thread.
    """

    key: ModelKey
    encoder: Encoder
    worker: Worker[Passage]


AnyHosted: TypeAlias = Hosted | HostedEncoder


def _weight_bytes(folder: Path) -> int:
    """Memory that a model will take, by its files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def load_local(folder: Path) -> Engine | Encoder:
    """The engine of this process; imports torch and transformers when first called."""
    from triparty.cloud.serving.encoding import LocalEncoder
    from triparty.cloud.serving.loading import holds_encoder
    from triparty.cloud.serving.local import LocalEngine

    return LocalEncoder.load(folder) if holds_encoder(folder) else LocalEngine.load(folder)


class Models:
    """The loaded models."""

    def __init__(
        self,
        settings: ServingSettings,
        *,
        load: Callable[[Path], Engine | Encoder],
        reserved_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        """No model yet.

        Args:
            settings: limits.
            load: makes an engine or an encoder of a model's folder; called in a thread.
            reserved_bytes: memory that sessions count for.
        """
        self._settings = settings
        self._load = load
        self._limits = Limits(
            batch_rows=max(2, settings.max_batch_rows),
            chunk_rows=min(CHUNK_ROWS, settings.max_batch_rows),
        )
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
            size = await asyncio.to_thread(_weight_bytes, folder)
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
        """Memory of the loaded models, and of those that are being loaded."""
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

    def loaded(self) -> list[AnyHosted]:
        """The models that are ready."""
        return list(self._ready())

    def counts(self) -> WorkerCounts:
        """What all models have done, those that were unloaded included."""
        hosts = [*self._ready(), *self._unloading]
        return sum((hosted.worker.counts for hosted in hosts), self._unloaded)

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
        await asyncio.to_thread(hosted.worker.stop)
        self._unloading.remove(hosted)
        self._unloaded += hosted.worker.counts
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
                await asyncio.to_thread(hosted.worker.stop)

    async def _host(self, key: ModelKey, folder: Path) -> AnyHosted:
        loaded = await asyncio.to_thread(self._load, folder)
        hosted: AnyHosted
        if isinstance(loaded.info, EncoderInfo):
            hosted = self._hosted_encoder(key, loaded)
        else:
            hosted = self._hosted_decoder(key, loaded)
        hosted.worker.start()
        _log.info(
            "model loaded",
            extra={"model": key.name, "version": key.version, "epoch": key.epoch},
        )
        return hosted

    def _hosted_decoder(self, key: ModelKey, engine: Engine) -> Hosted:
        worker = Worker(
            engine, self._limits, name=f"model-{key.name}", on_start=self._set_threads
        )
        positions = min(self._settings.max_positions, engine.info.positions)
        return Hosted(key, engine, worker, positions)

    def _hosted_encoder(self, key: ModelKey, encoder: Encoder) -> HostedEncoder:
        """Its batches are bounded by what they answer, too: a row may become a vocabulary."""
        info, rows = encoder.info, self._limits.batch_rows
        if info.per_row:
            answered = self._settings.max_body_bytes // (FLOAT32_BYTES * info.outputs)
            rows = max(2, min(rows, answered))
        limits = Limits(batch_rows=rows, whole=True)
        worker = Worker(encoder, limits, name=f"model-{key.name}", on_start=self._set_threads)
        return HostedEncoder(key, encoder, worker)

    def _set_threads(self) -> None:
        if self._settings.threads:
            import torch

            torch.set_num_threads(self._settings.threads)

    def _forget_failed(self, key: ModelKey, task: asyncio.Task[AnyHosted]) -> None:
        failed = task.cancelled() or task.exception() is not None
        if failed and self._tasks.get(key) is task:
            del self._tasks[key]
            del self._weights[key]

    def _ready(self) -> Iterator[AnyHosted]:
        for task in list(self._tasks.values()):
            if task.done() and not task.cancelled() and task.exception() is None:
                yield task.result()
