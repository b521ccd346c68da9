"""The thread that writes: documents into sinks, clips and traces into files.

A disk that is slow or full must not stop a camera: what cannot be written is counted, and what
waits is bounded.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import av.error

from triparty.common.errors import TripartyError
from triparty.device.gateway.results import Document, Sink

log = logging.getLogger(__name__)

Task = Callable[[], object]
"""Something else to be written: a clip, a trace."""

MOST_WAITING = 4096
MOST_EVENTS = 4096
"""Events for which there is room when other things have none."""
IDLE_S = 1.0
BATCH = 500
"""Documents that are handed to sinks at once."""
_FAILURES = (OSError, TripartyError, av.error.FFmpegError, ValueError)


@dataclass
class WriterCount:
    """What the writer has done.

    Attributes:
        documents: written to every sink.
        tasks: done.
        failures: documents and tasks that failed.
        dropped: what was thrown away because too much waited.
        events_dropped: of these, events.
        last_error: of the last failure.
    """

    documents: int = 0
    tasks: int = 0
    failures: int = 0
    dropped: int = 0
    events_dropped: int = 0
    last_error: str | None = None


class Writer:
    """Writes in a thread of its own.

    Args:
        sinks: that take documents: each after those before it, and closed before them.
        clock: seconds since 1970.
    """

    def __init__(
        self, sinks: Sequence[Sink], *, clock: Callable[[], float] = time.time
    ) -> None:
        """Starts the thread."""
        self._sinks = tuple(sinks)
        self._clock = clock
        self._queue: queue.Queue[Document | Task | None] = queue.Queue()
        self._is_ending = False
        self.count = WriterCount()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def put(self, what: Document | Task) -> bool:
        """Hands over a document, or something to be done; never waits.

        Returns:
            Whether there was room.
        """
        is_event = not callable(what) and what["type"] == "event"
        if self._queue.qsize() >= MOST_WAITING + MOST_EVENTS * is_event:
            self.count.dropped += 1
            self.count.events_dropped += is_event
            return False
        self._queue.put(what)
        return True

    def settle(self) -> None:
        """Waits until all that was handed over is written."""
        self._queue.join()

    def stop(self, timeout_s: float) -> bool:
        """Writes what waits and ends; returns whether that was done in time."""
        self._queue.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (waiting := self._take()) is not None:
            documents, task = waiting
            if documents or task is None:  # what a sink holds back is written, too
                self.count.documents += len(documents) * self._write(documents)
            if task is not None:
                self.count.tasks += self._try(task)
            for _ in range(len(documents) + (task is not None)):
                self._queue.task_done()
        for sink in reversed(self._sinks):
            self._try(sink.close)
        self._queue.task_done()

    def _take(self) -> tuple[list[Document], Task | None] | None:
        """Documents that wait, and a task behind them; None at the end.

        Nothing within a while is no document and no task.
        """
        documents: list[Document] = []
        while len(documents) < BATCH and not self._is_ending:
            try:
                what = self._queue.get(timeout=0 if documents else IDLE_S)
            except queue.Empty:
                return documents, None
            if callable(what):
                return documents, what
            if what is None:
                self._is_ending = True
            else:
                documents.append(what)
        return (documents, None) if documents else None

    def _write(self, documents: Sequence[Document]) -> bool:
        now, count = self._clock(), len(documents)
        written = [
            self._try(partial(sink.write, documents, now), counts=max(1, count))
            for sink in self._sinks
        ]
        return all(written)

    def _try(self, write: Task, *, counts: int = 1) -> bool:
        try:
            write()
        except _FAILURES as error:
            before, self.count.failures = self.count.failures, self.count.failures + counts
            self.count.last_error = f"{type(error).__name__}: {error}"
            if before == 0 or before // 1000 < self.count.failures // 1000:
                log.warning("cannot write (%d times): %s", self.count.failures, error)
            return False
        return True
