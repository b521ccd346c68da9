"""Decoding threads: each stream belongs to one of them, and so does its decoder."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from triparty.common.errors import DecodeError
from triparty.device.streams.decoder import Frame, Spent, StreamDecoder
from triparty.device.streams.opening import Opened
from triparty.device.streams.reachability import Closure

Key = int
"""A stream in the gateway; never used again for another."""


@dataclass(frozen=True, eq=False)
class Job:
    """Something to be done with a stream's decoder.

    Attributes:
        key: of the stream.
        run: which opening of the stream it is about.
        opened: the parameters of that opening.
        closure: to be decoded; None to take out what is left at the end of the run.
        cost_ms: that was charged for it.
        audit: the audited group that it is about; audits have a decoder of their own.
        also: numbers of packets whose frames are handed out beside the target's.
    """

    key: Key
    run: int
    opened: Opened
    closure: Closure | None
    cost_ms: float = 0.0
    also: frozenset[int] = frozenset()
    audit: int | None = None


@dataclass(frozen=True, eq=False)
class Report:
    """How a job ended.

    Attributes:
        job: that ended.
        frames: that came out, of this or earlier jobs.
        spent: by packet.
        cpu_ms: all that was spent.
        error: why it failed, if it did.
        failed: the number of the packet that the decoder failed on.
    """

    job: Job
    frames: Sequence[Frame] = ()
    spent: Sequence[Spent] = ()
    cpu_ms: float = 0.0
    error: str | None = None
    failed: int | None = None


@dataclass(eq=False)
class _Held:
    run: int
    decoder: StreamDecoder


class Worker:
    """A thread that decodes.

    Args:
        number: in its name.
        done: called in the thread with the report of every job.
    """

    def __init__(self, number: int, done: Callable[[Report], None]) -> None:
        """Starts the thread."""
        self._jobs: queue.SimpleQueue[Job | Key | None] = queue.SimpleQueue()
        self._done = done
        self._held: dict[tuple[Key, bool], _Held] = {}  # whether it is that of audits
        self._thread = threading.Thread(target=self._run, name=f"decode {number}", daemon=True)
        self._thread.start()

    def do(self, job: Job) -> None:
        """Hands over a job; jobs of one worker are done in order."""
        self._jobs.put(job)

    def forget(self, key: Key) -> None:
        """Closes a stream's decoder after the jobs that it has."""
        self._jobs.put(key)

    def stop(self, timeout_s: float) -> bool:
        """Ends the thread after its jobs; returns whether it has."""
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                self._held.clear()
                return
            if isinstance(job, int):
                self._held.pop((job, False), None)
                self._held.pop((job, True), None)
                continue
            self._done(self._report(job))

    def _report(self, job: Job) -> Report:
        try:
            return self._decode(self._decoder(job), job)
        except Exception as error:  # noqa: BLE001  a stream must not end the others
            self._held.pop(_place(job), None)
            return Report(job, error=f"{type(error).__name__}: {error}")

    def _decoder(self, job: Job) -> StreamDecoder:
        """The decoder of a stream; what an earlier run left in it was taken out at its end."""
        opened, held = job.opened, self._held.get(_place(job))
        if held is None:
            decoder = StreamDecoder(opened.codec, opened.extradata, reorders=opened.reorders)
            held = self._held[_place(job)] = _Held(job.run, decoder)
        elif held.run != job.run:
            held.decoder.reopen(opened.codec, opened.extradata, reorders=opened.reorders)
            held.run = job.run
        return held.decoder

    def _decode(self, decoder: StreamDecoder, job: Job) -> Report:
        before_ms = decoder.cpu_ms
        if job.closure is None:
            frames = decoder.drain()
            if job.audit is not None:
                del self._held[_place(job)]
            return Report(job, frames, cpu_ms=decoder.cpu_ms - before_ms)
        try:
            frames = decoder.decode(job.closure, lambda packet: packet.number in job.also)
        except DecodeError as error:
            number = error.extra.get("number")
            return Report(
                job,
                spent=decoder.spent,
                cpu_ms=decoder.cpu_ms - before_ms,
                error=error.message,
                failed=number if isinstance(number, int) else None,
            )
        return Report(job, frames, decoder.spent, decoder.cpu_ms - before_ms)


def _place(job: Job) -> tuple[Key, bool]:
    """Of the decoder that a job is for."""
    return job.key, job.audit is not None
