"""Runs audits beside the loop: groups decoded whole, shown to models, and compared.

`audit.py` has the coin and what a group says; here are its packets, frames and answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import count

import numpy as np

from triparty.device.gateway.answers import Answer
from triparty.device.gateway.audit import Auditor, Group
from triparty.device.gateway.camera import Camera
from triparty.device.gateway.showing import is_due
from triparty.device.gateway.workers import Job, Report
from triparty.device.streams.decoder import Frame
from triparty.device.streams.packets import Packet
from triparty.device.streams.reachability import Closure


class Auditing:
    """The audits of all cameras; used by the loop's thread alone.

    Args:
        auditor: tosses the coin and gathers what groups say.
        do: hands a job to a camera's worker.
        show: hands a frame of a connection and group to the stages.

    Attributes:
        auditor: as given.
        cpu_ms: that decoding took.
    """

    def __init__(
        self,
        auditor: Auditor,
        *,
        do: Callable[[Camera, Job], None],
        show: Callable[[Camera, int, Frame, int], None],
    ) -> None:
        """Nothing was audited yet."""
        self.auditor = auditor
        self.cpu_ms = 0.0
        self._do, self._show = do, show
        self._numbers = count()

    def begin_round(self, cameras: Iterable[Camera]) -> None:
        """Decodes the packets of audited groups."""
        if not self.auditor.is_on:
            return
        self.auditor.begin_round()
        gated = []
        for camera in cameras:
            if camera.whole is None:
                gated.append(camera)
            else:
                self.give_up(camera)
        for place in range(max((len(camera.fresh) for camera in gated), default=0)):
            here = [camera for camera in gated if len(camera.fresh) > place]
            picked = self.auditor.packets(
                np.array([camera.row for camera in here], np.int64),
                np.array([bool(camera.fresh[place].picture.entry) for camera in here]),
                np.array([camera.own_ms[place] for camera in here]),
            )
            for camera in here:
                self._take(camera, camera.fresh[place], picked.get(camera.row))

    def give_up(self, camera: Camera) -> None:
        """The group that is audited cannot be seen to its end."""
        if camera.auditing is not None:
            camera.audits.pop(camera.auditing, None)
            self._end(camera)
        self.auditor.forget(camera.row)

    def hear_decoded(self, camera: Camera, report: Report, number: int) -> None:
        """A job of a group has ended: shows its frames."""
        self.cpu_ms += report.cpu_ms
        group = camera.audits.get(number)
        if group is None:
            return
        if report.error is not None:
            camera.audits.pop(number)
            if camera.auditing == number:
                self.give_up(camera)
            return
        for frame in report.frames:
            if is_due(camera, frame, group.shown):
                group.shown = frame.time
                group.awaited += 1
                self._show(camera, report.job.run, frame, number)
        group.decoded = report.job.closure is None
        self.finish(camera)

    def hear_held(self, camera: Camera, time: float) -> None:
        """What gating holds has changed."""
        for group in camera.audits.values():
            group.held.append((time, camera.held.answers))

    def hear_truth(
        self, camera: Camera, number: int, time: float, answers: Mapping[str, Answer] | None
    ) -> None:
        """What a frame of a group showed; None if nobody knows."""
        group = camera.audits.get(number)
        if group is None:
            return
        group.awaited -= 1
        if answers is not None:
            group.truth.append((time, answers))
        self.finish(camera)

    def finish(self, camera: Camera, *, at_once: bool = False) -> None:
        """Compares groups that are done, once no frame of theirs is in the gate's decoder."""
        for number, group in list(camera.audits.items()):
            if group.is_done and (at_once or camera.heard > group.shown):
                self.auditor.add(camera.audits.pop(number), camera.tasks)

    def _take(self, camera: Camera, packet: Packet, chance: float | None) -> None:
        """One packet; `chance` is that of its group, None if that is not audited."""
        if packet.picture.entry:
            self._end(camera)
            if chance is not None:
                camera.auditing = next(self._numbers)
                before = (-np.inf, camera.held.answers)
                camera.audits[camera.auditing] = Group(chance, [before])
        group, opened = camera.auditing, camera.opened
        if group is None or opened is None or packet.picture.leading:
            return
        closure = Closure((packet,), restart=bool(packet.picture.entry))
        self._do(camera, Job(camera.key, camera.run, opened, closure, audit=group))

    def _end(self, camera: Camera) -> None:
        """No more packets come of the group that is audited."""
        group, camera.auditing = camera.auditing, None
        if group is not None and camera.opened is not None:
            self._do(camera, Job(camera.key, camera.run, camera.opened, None, audit=group))
