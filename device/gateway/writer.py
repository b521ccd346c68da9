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
_FAILURES = (OSError, TripartyError, av.error.FFmpegError, ValueError)


@dataclass
class WriterCount:
    """What the writer has done.

    Attributes:
        documents: written to every sink.
        tasks: done.
        failures: writes that failed.
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
        sinks: that take documents.
        clock: seconds since 1970.
    """

    def __init__(
        self, sinks: Sequence[Sink], *, clock: Callable[[], float] = time.time
    ) -> None:
        """Starts the thread."""
        self._sinks = tuple(sinks)
        self._clock = clock
        self._queue: queue.Queue[Document | Task | None] = queue.Queue()
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
        while True:
            try:
                what = self._queue.get(timeout=IDLE_S)
            except queue.Empty:
                self._write(())  # what a sink holds back is written now
                continue
            if what is None:
                break
            if callable(what):
                self.count.tasks += self._try(what)
            else:
                self.count.documents += self._write((what,))
            self._queue.task_done()
        for sink in self._sinks:
            self._try(sink.close)
        self._queue.task_done()

    def _write(self, documents: Sequence[Document]) -> bool:
        now = self._clock()
        written = [self._try(partial(sink.write, documents, now)) for sink in self._sinks]
        return all(written)

    def _try(self, write: Task) -> bool:
        try:
            write()
        except _FAILURES as error:
            self.count.failures += 1
            self.count.last_error = f"{type(error).__name__}: {error}"
            if self.count.failures in (1, 10) or self.count.failures % 1000 == 0:
                log.warning("cannot write (%d times): %s", self.count.failures, error)
            return False
        return True
