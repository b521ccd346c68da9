"""Hands closures to the decoding threads, under the budget, and hears what they cost."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from triparty.device.gateway.camera import Camera
from triparty.device.gateway.rounds import shown_beside
from triparty.device.gateway.settings import GateSettings
from triparty.device.gateway.workers import Job, Report, Worker
from triparty.device.streams.budget import TokenBucket
from triparty.device.streams.cost import CostModel
from triparty.device.streams.opening import Opened
from triparty.device.streams.packets import Packet, PictureType
from triparty.device.streams.reachability import Closure

MOST_FRAMES: Final = 64
"""Frames that one job hands out of a stream that is decoded whole."""


class Decoding:
    """The decoding threads and the budget that they share; used by the loop's thread alone.

    Args:
        settings: of the gate.
        observes: whether a stage looks at what was decoded only for others.

    Attributes:
        bucket: the budget.
        costs: what decoding is expected to take.
        outstanding: jobs that were not heard of yet.
        observes: whether a stage looks at what was decoded only for others, now.
    """

    def __init__(self, settings: GateSettings, *, observes: bool) -> None:
        """Starts the threads."""
        self.bucket = TokenBucket(settings.budget_ms, 1e3 / settings.tick_ms)
        self.costs = CostModel()
        self.outstanding = 0
        self.observes = observes
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._workers = [Worker(n, self._reports.put) for n in range(settings.workers)]

    def least_loaded(self, cameras: Iterable[Camera]) -> int:
        """The place of the worker with the fewest cameras."""
        held = [camera.worker for camera in cameras]
        return int(np.argmin([held.count(n) for n in range(len(self._workers))]))

    def forget(self, camera: Camera) -> None:
        """Closes a camera's decoders after the jobs that it has."""
        self._workers[camera.worker].forget(camera.key)

    def stop(self, timeout_s: float) -> bool:
        """Ends all threads, each within a time; returns whether they have."""
        ended = [worker.stop(timeout_s) for worker in self._workers]
        return all(ended)

    def estimate(self, opened: Opened, packets: Sequence[Packet]) -> list[float]:
        """CPU ms that decoding each packet alone is expected to take."""
        sizes = [packet.size for packet in packets]
        intra = [packet.picture.type is PictureType.I for packet in packets]
        shape = (opened.codec, opened.width, opened.height)
        costs: list[float] = self.costs.estimate(*shape, sizes, intra).tolist()
        return costs

    def do(self, camera: Camera, job: Job) -> None:
        """Hands over a job."""
        camera.jobs += job.audit is None
        self.outstanding += 1
        self._workers[camera.worker].do(job)

    def drain(self, camera: Camera) -> None:
        """Takes out what is left in the decoder of the present connection."""
        if camera.opened is not None:
            self.do(camera, Job(camera.key, camera.run, camera.opened, None))

    def decode(self, camera: Camera, closure: Closure, cost_ms: float) -> None:
        """Decodes a closure.

        Args:
            camera: whose it is.
            closure: of the present connection.
            cost_ms: that was charged for it.
        """
        if camera.opened is None:
            return
        numbers = [packet.number for packet in closure]
        camera.closures.decoded(numbers)
        also = frozenset[int]()
        if camera.whole is not None:
            # Of a long backlog few frames: each is held until it was looked at.
            also = frozenset(numbers[-MOST_FRAMES:])
        elif self.observes and not closure.part:
            also = shown_beside(closure, camera.settings.looks_per_s)
        self.do(camera, Job(camera.key, camera.run, camera.opened, closure, cost_ms, also))

    def decode_newest(self, camera: Camera) -> None:
        """Decodes all that came of a stream that is decoded whole.

        There is nothing to choose, so it is paid for when its cost is known, before others
        may choose again.
        """
        for packet in reversed(camera.fresh):
            closure = camera.closures.closure(packet.number)
            if isinstance(closure, Closure):
                self.decode(camera, closure, 0.0)
                return

    def reports(self, *, wait: bool = False) -> Iterator[Report]:
        """Jobs that have ended, settled and learnt from.

        Args:
            wait: until all that was handed over has ended.
        """
        while self.outstanding if wait else not self._reports.empty():
            report = self._reports.get()
            self.outstanding -= 1
            self.bucket.settle(report.job.cost_ms, report.cpu_ms)
            self._learn(report)
            yield report

    def _learn(self, report: Report) -> None:
        if report.spent:
            opened, packets = report.job.opened, [spent.packet for spent in report.spent]
            self.costs.learn(
                *(opened.codec, opened.width, opened.height),
                [packet.size for packet in packets],
                [packet.picture.type is PictureType.I for packet in packets],
                [spent.cpu_ms for spent in report.spent],
            )
