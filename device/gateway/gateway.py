"""The one loop that watches all cameras: rounds of arrivals, choices, decodes and answers.

A round, every 40 ms by default:

1. hear what was decoded and what models saw, and tell the policy;
2. take what arrived from all streams;
3. decode whole what cannot be gated, and charge it;
4. let the policy value and the optimizer choose under what is left (`rounds.py`);
5. hand the closures to the decoding threads.

The policy, the closures and all bookkeeping are touched by the loop's thread alone. Streams,
decoders, stages and files have threads of their own and talk through queues.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from triparty.common.errors import SettingsError
from triparty.device.gate.bounded import Bounded
from triparty.device.gate.policy import Policy
from triparty.device.gate.traces import Task
from triparty.device.gateway.answering import Answering
from triparty.device.gateway.audit import Auditor
from triparty.device.gateway.auditing import Auditing
from triparty.device.gateway.camera import Camera
from triparty.device.gateway.cameras import Cameras
from triparty.device.gateway.clock import Clock, WallClock
from triparty.device.gateway.decoding import Decoding
from triparty.device.gateway.filtering import FilteredStage, Filters
from triparty.device.gateway.looking import Looker
from triparty.device.gateway.models import DetectorStage
from triparty.device.gateway.outputs import Outputs
from triparty.device.gateway.planning import LINKS, Planner
from triparty.device.gateway.recorder import Recorder
from triparty.device.gateway.reloading import Changes, changes
from triparty.device.gateway.rounds import Batch, Judged, decide, feedback
from triparty.device.gateway.settings import CameraSettings, WatchSettings
from triparty.device.gateway.showing import Showing
from triparty.device.gateway.stages import Chain, Outcome, Stage
from triparty.device.gateway.status import CameraStatus, GatewayStatus
from triparty.device.gateway.workers import Report
from triparty.device.streams.opening import Opened
from triparty.device.streams.packets import Packet
from triparty.device.streams.sources import Gap, ReaderOf, Ungateable
from triparty.device.streams.status import FINAL
from triparty.device.streams.typer import Typer

log = logging.getLogger(__name__)

STATUS_S = 1.0
STOP_S = 10.0
"""How long each kind of thread is waited for at the end."""


class Gateway:
    """Watches cameras until it is stopped.

    Args:
        settings: of everything.
        policy: ranks packets.
        leftover: how what does not fit into the budget is treated; see `optimizer.choose`.
        stages: look at frames, in order.
        tasks: what is asked; classes are numbers.
        labels: names of the classes of each model, for results.
        planner: chooses which of the models run; None: all do.
        outputs: where results and events go.
        clock: whose time rounds follow.
        wall: seconds since 1970.
        reader_of: makes what reads a stream's headers.
        seed: of the jitter of retries; None for another one each time.
    """

    def __init__(
        self,
        settings: WatchSettings,
        *,
        policy: Policy,
        leftover: str,
        stages: Sequence[Stage],
        tasks: Sequence[Task],
        labels: Mapping[str, Sequence[str]],
        outputs: Outputs,
        planner: Planner | None = None,
        clock: Clock | None = None,
        wall: Callable[[], float] = time.time,
        reader_of: ReaderOf = Typer.of,
        seed: int | None = None,
    ) -> None:
        """Starts the threads, and opens the cameras of the settings.

        Raises:
            SettingsError: an address that cannot be, or a filter that cannot be used.
        """
        self.settings = settings
        self.clock: Clock = clock or WallClock()
        self._cameras = Cameras(settings, tasks, self.clock, reader_of=reader_of, seed=seed)
        for camera in settings.cameras:
            self._cameras.check(camera)
        self._policy, self._leftover = policy, leftover
        self._tasks = tuple(tasks)
        gate = settings.gate
        self._tick_s = gate.tick_ms / 1e3
        self._began = self.clock.now()
        self._outcomes: queue.SimpleQueue[Sequence[Outcome]] = queue.SimpleQueue()
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._rounds = self._late_rounds = 0
        self._stopping = False
        self._expected_ms = 0.0
        self._reloads = 0
        self._refused: str | None = None
        models = [model.name for model in settings.models]
        self._planner = planner
        self._filters = Filters(settings, tasks)
        observe = gate.observe_dependencies
        links = [
            FilteredStage(stage, self._filters, observe=observe)
            if stage.name in models
            else stage
            for stage in stages
        ]
        lookers = models if planner is None else [*models, LINKS]
        self._chain = chain = Chain(links, lookers, observe=observe)
        self._stage_counts = chain.counts
        self._looker = Looker(chain, self._outcomes.put)
        self._showing = Showing(
            self._looker,
            self.clock,
            wall,
            models_observe=observe,
            stages_observe=chain.wants_dependencies,
            **({} if planner is None else {"asked": planner.asked}),
        )
        self._decoding = Decoding(gate, observes=chain.wants_dependencies)
        self._recorder = Recorder(settings, labels, outputs.sinks, wall)
        auditor = Auditor(
            self._tasks, share=gate.audit_share, budget_ms=gate.budget_ms, seed=seed
        )
        self._audits = Auditing(auditor, do=self._decoding.do, show=self._showing.audit)
        self._answering = Answering(self._recorder, self._audits)
        self._stages = {stage.name: stage for stage in stages}
        self._outputs, self._labels = outputs, labels
        outputs.hear(settings, self._tasks, labels)
        for camera in settings.cameras:
            self._add(camera)
        self.status = self._status()

    # What other threads may call.

    def add(self, camera: CameraSettings) -> None:
        """Adds a camera, with the next round.

        Raises:
            SettingsError: its address cannot be, or its name is taken.
        """
        self._cameras.check(camera)
        if self._cameras.named(camera.name) is not None:
            raise SettingsError(f"there is a camera '{camera.name}' already")
        self._commands.put(partial(self._add, camera))

    def remove(self, name: str) -> None:
        """Removes a camera by name, with the next round; others are not touched."""
        self._commands.put(partial(self._remove, name))

    def stop(self) -> None:
        """Ends `run` after the round that it is in; may be called by a signal handler."""
        self._stopping = True
        self.clock.interrupt()

    # What the loop's thread calls.

    def run(
        self,
        *,
        seconds: float | None = None,
        enough: Callable[[GatewayStatus], bool] | None = None,
        told: Callable[[GatewayStatus], None] | None = None,
    ) -> None:
        """Runs rounds until `stop`, or until all files have ended.

        Args:
            seconds: and at most so long.
            enough: asked once a second whether to end.
            told: hears once a second how things stand.
        """
        planned = self.clock.now()
        end = np.inf if seconds is None else planned + seconds
        while not self._stopping:
            now = self.clock.now()
            if now > planned + self._tick_s:
                self._late_rounds += 1
            self.round(now)
            if now - self._began >= self.status.seconds + STATUS_S:
                self._housekeeping(now)
                if told is not None:
                    told(self.status)
                if enough is not None and enough(self.status):
                    break
            if now >= end or self._all_ended():
                break
            planned = max(planned + self._tick_s, self.clock.now())
            self.clock.wait_until(planned)
        self._settle()
        for camera in self._cameras:
            self._audits.finish(camera, at_once=True)
        self.status = self._status()

    def round(self, now: float) -> None:
        """One round; `now` on the loop's clock."""
        self._rounds += 1
        while not self._commands.empty():
            self._commands.get()()
        self._collect()
        for camera in self._cameras:
            self._receive(camera, now)
        self._decoding.bucket.begin_round()
        for camera in self._cameras:
            if camera.whole is not None:
                self._decoding.decode_newest(camera)
        self._audits.begin_round(self._cameras)
        self._decide(now)
        for camera in self._cameras:
            camera.fresh, camera.own_ms = [], []
        if self.clock.virtual:
            self._settle()

    def _all_ended(self) -> bool:
        return not self._decoding.outstanding and all(c.ended for c in self._cameras)

    def reload(self, load: Callable[[], WatchSettings]) -> None:
        """Makes cameras and filters what a new configuration says; others run on.

        A configuration that is wrong, or changes something else, is refused as a whole: the
        log and the status say why.

        Args:
            load: reads it.
        """
        try:
            made = self._take(load())
        except SettingsError as error:
            self._refused = error.message
            log.error("new configuration refused, the old one stays: %s", error.message)
        else:
            self._reloads, self._refused = self._reloads + 1, None
            log.info("configuration read again: %s", made)
        self.status = self._status()

    def close(self) -> bool:
        """Ends all threads; returns whether all of them have ended in time."""
        for camera in self._cameras:
            camera.source.stop()
            self._finish_run(camera)
        sources = self._cameras.sources()
        ended = [self._decoding.stop(STOP_S), self._looker.stop(STOP_S)]
        self._collect()
        for camera in self._cameras:
            self._recorder.end_traces(camera)
        end = time.monotonic() + STOP_S
        ended += [source.join(max(0.0, end - time.monotonic())) for source in sources]
        ended.append(self._recorder.stop(STOP_S))
        return all(ended)

    # Cameras.

    def _add(self, settings: CameraSettings) -> None:
        row = int(self._policy.join(1)[0])
        worker = self._decoding.least_loaded(self._cameras)
        camera = self._cameras.add(settings, row=row, worker=worker)
        self._audits.auditor.join(camera.row)
        camera.source.start()

    def _remove(self, name: str) -> None:
        camera = self._cameras.named(name)
        if camera is None:
            return
        camera.source.stop()
        self._finish_run(camera)
        self._looker.forget(name)
        self._decoding.forget(camera)
        self._policy.leave(camera.row)
        self._audits.auditor.forget(camera.row)
        self._recorder.end_traces(camera)
        self._cameras.remove(camera)
        self._recorder.state(camera, "removed")

    def _take(self, settings: WatchSettings) -> Changes:
        """Makes cameras and filters what new settings say.

        Raises:
            SettingsError: they change something else, or a camera or filter in them cannot
                be; then nothing was changed.
        """
        made = changes(self.settings, settings, has_moved=self._cameras.has_moved)
        for camera in settings.cameras:
            self._cameras.check(camera)
        filters = self._filters.made(settings)
        self._change_thresholds(settings)
        for name in (*made.removed, *(camera.name for camera in made.changed)):
            self._remove(name)
        for camera in (*made.changed, *made.added):
            self._add(camera)
        self._cameras.arrange([camera.name for camera in settings.cameras])
        for name in self._filters.take(filters, [camera.name for camera in settings.cameras]):
            log.info("filter '%s' is another one now", name)
        observes = self._chain.wants_dependencies
        self._decoding.observes = self._showing.stages_observe = observes
        self.settings = settings
        self._outputs.hear(settings, self._tasks, self._labels)
        return made

    def _change_thresholds(self, settings: WatchSettings) -> None:
        """Takes over the budget, and when models and tasks say something."""
        budget_ms = settings.gate.budget_ms
        self._decoding.bucket.grant(budget_ms)
        self._audits.auditor.budget_ms = budget_ms
        self._cameras.change(settings.tasks)
        for model in settings.models:
            if isinstance(stage := self._stages.get(model.name), DetectorStage):
                stage.change(model)

    # Arrivals.

    def _receive(self, camera: Camera, now: float) -> None:
        packets: list[Packet] = []
        for item in camera.source.take(now, wait=self.clock.virtual):
            if isinstance(item, Packet):
                packets.append(item)
                continue
            self._admit(camera, packets)
            packets = []
            if isinstance(item, Opened):
                self._open(camera, item)
            elif isinstance(item, Gap):
                self._recorder.finish_clip(camera)
                camera.gap()
                self._audits.give_up(camera)
            elif isinstance(item, Ungateable):
                camera.decode_whole(item.reason)
        self._admit(camera, packets)
        if camera.source.finished and not camera.ended:
            self._finish_run(camera)
            camera.ended = True

    def _open(self, camera: Camera, opened: Opened) -> None:
        self._finish_run(camera)
        camera.open(opened)
        self._recorder.begin_trace(camera)

    def _finish_run(self, camera: Camera) -> None:
        """What a connection leaves behind: frames in the decoder, a clip, a trace."""
        self._recorder.finish_clip(camera)
        if camera.opened is None:
            return
        self._audits.give_up(camera)
        if camera.whole is not None:
            self._decoding.decode_newest(camera)
        camera.fresh, camera.own_ms = [], []
        self._decoding.drain(camera)

    def _admit(self, camera: Camera, packets: Sequence[Packet]) -> None:
        if not packets or camera.opened is None:
            return
        costs = self._decoding.estimate(camera.opened, packets)
        camera.own_ms += costs
        expected_ms = sum(costs)
        camera.expected_ms += expected_ms
        self._expected_ms += expected_ms
        for packet, cost_ms in zip(packets, costs, strict=True):
            if camera.expect(packet) and (backlog := camera.closures.backlog()) is not None:
                self._decoding.decode(camera, backlog, 0.0)
            camera.add(packet, cost_ms)
            self._recorder.gather(camera, packet)
        camera.fresh += packets
        camera.arrived += len(packets)
        self._recorder.packets(camera, packets)

    # Choices.

    def _decide(self, now: float) -> None:
        gated = [c for c in self._cameras if c.fresh and c.whole is None]
        batches = [
            Batch(
                c.row,
                c.fresh,
                c.own_ms,
                c.closures,
                waited_s=now - (c.added if c.looked is None else c.looked),
                may_offer=not c.jobs,
            )
            for c in gated
        ]
        bucket = self._decoding.bucket
        picked = decide(
            self._policy,
            self._leftover,
            now - self._began,
            batches,
            budget_ms=bucket.spendable,
            most_ms=bucket.second_ms,
        )
        for pick in picked:
            camera = gated[pick.batch]
            camera.selected += not pick.closure.part
            bucket.charge(pick.cost_ms)
            self._decoding.decode(camera, pick.closure, pick.cost_ms)

    # What comes back.

    def _collect(self) -> None:
        for report in self._decoding.reports():
            self._hear_decoded(report)
        judged: list[Judged] = []
        while not self._outcomes.empty():
            for outcome in self._outcomes.get():
                if (camera := self._cameras.get(outcome.frame.key)) is not None:
                    judged += self._answering.hear(camera, outcome)
        if judged and self._tasks:
            self._policy.learn(feedback(self.clock.now() - self._began, judged))

    def _settle(self) -> None:
        """Waits until everything that was begun is done and heard."""
        for report in self._decoding.reports(wait=True):
            self._hear_decoded(report)
        self._looker.settle(STOP_S if not self.clock.virtual else 10 * STOP_S)
        self._collect()

    def _hear_decoded(self, report: Report) -> None:
        camera = self._cameras.get(report.job.key)
        if camera is None:
            return
        if report.job.audit is not None:
            self._audits.hear_decoded(camera, report, report.job.audit)
            return
        camera.jobs -= 1
        camera.decoded += len(report.spent)
        camera.cpu_ms += report.cpu_ms
        if report.error is not None:
            camera.fail(report)
        self._recorder.costs(camera, report)
        for frame in report.frames:
            self._showing.show(camera, report.job.run, frame)

    # How it stands.

    def _housekeeping(self, now: float) -> None:
        for camera in self._cameras:
            camera.source.watch()
            self._recorder.state(camera, camera.source.status.state.value)
        self.status = self._status()
        self._recorder.prune(now)

    def _status(self) -> GatewayStatus:
        now = self.clock.now()
        bucket, auditor = self._decoding.bucket, self._audits.auditor
        store, outlets = self._outputs.status()
        overdue = set[int]()
        if isinstance(self._policy, Bounded):
            overdue = set(self._policy.overdue(now - self._began).tolist())
        return GatewayStatus(
            seconds=now - self._began,
            cameras=[self._camera_status(c, now, overdue) for c in self._cameras],
            rounds=self._rounds,
            late_rounds=self._late_rounds,
            charged_ms=bucket.counters.charged,
            measured_ms=bucket.counters.measured,
            granted_ms=bucket.counters.granted,
            lapsed_ms=bucket.counters.lapsed,
            budget_cores=self.settings.gate.budget_ms / self.settings.gate.tick_ms,
            frames_dropped=self._looker.dropped,
            write_failures=self._recorder.failures,
            events_dropped=self._recorder.events_dropped,
            stages={name: replace(count) for name, count in self._stage_counts.items()},
            store=store,
            outlets=outlets,
            audits=auditor.estimates() if auditor.is_on else {},
            audited_groups=auditor.groups,
            audit_ms=self._audits.cpu_ms,
            costs=self._decoding.costs.lines(),
            reloads=self._reloads,
            refused=self._refused,
            filters=self._filters.status(),
            plan=None if self._planner is None else self._planner.status,
            expected_ms=self._expected_ms,
        )

    def _camera_status(self, camera: Camera, now: float, overdue: set[int]) -> CameraStatus:
        gated = camera.whole is None and camera.source.status.state not in FINAL
        return camera.status(now, overdue=gated and camera.row in overdue)
