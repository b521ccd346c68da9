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
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import count
from random import Random

import numpy as np

from triparty.common.errors import SettingsError
from triparty.common.files import make_private_folder
from triparty.device.gate.bounded import Bounded
from triparty.device.gate.detectors import Detections
from triparty.device.gate.policy import Policy
from triparty.device.gate.trace_files import TraceWriter
from triparty.device.gate.traces import Task
from triparty.device.gateway.answers import Answer, Change, answer, judge
from triparty.device.gateway.audit import Auditor, Group
from triparty.device.gateway.camera import Camera, debounces, told
from triparty.device.gateway.clips import Recording, prune, suffix_for, write_clip
from triparty.device.gateway.clock import Clock, WallClock
from triparty.device.gateway.frames import Purpose, StreamFrame
from triparty.device.gateway.looking import Looker
from triparty.device.gateway.results import Sink
from triparty.device.gateway.rounds import Batch, Judged, decide, feedback, shown_beside
from triparty.device.gateway.settings import CameraSettings, WatchSettings
from triparty.device.gateway.stages import Chain, Outcome, Stage
from triparty.device.gateway.status import CameraStatus, GatewayStatus
from triparty.device.gateway.workers import Job, Report, Worker
from triparty.device.gateway.writer import Writer
from triparty.device.streams.budget import TokenBucket
from triparty.device.streams.cost import CostModel
from triparty.device.streams.decoder import Frame
from triparty.device.streams.opening import Opened
from triparty.device.streams.packets import Packet, PictureType
from triparty.device.streams.reachability import Closure
from triparty.device.streams.sources import Gap, ReaderOf, Source, Ungateable
from triparty.device.streams.status import FINAL
from triparty.device.streams.typer import Typer

log = logging.getLogger(__name__)

STATUS_S = 1.0
PRUNE_S = 60.0
STOP_S = 10.0
"""How long each kind of thread is waited for at the end."""
MARGIN_S = 2.0
"""How much longer packets are kept for clips than clips ask for: models answer late."""
MOST_FRAMES = 64
"""Frames that one job hands out of a stream that is decoded whole."""
_UNSAFE = re.compile(r"[^\w.-]+")


class Gateway:
    """Watches cameras until it is stopped.

    Args:
        settings: of everything.
        policy: ranks packets.
        leftover: how what does not fit into the budget is treated; see `optimizer.choose`.
        stages: look at frames, in order.
        tasks: what is asked; classes are numbers.
        labels: names of the classes of each model, for results.
        sinks: take results and events.
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
        sinks: Sequence[Sink],
        clock: Clock | None = None,
        wall: Callable[[], float] = time.time,
        reader_of: ReaderOf = Typer.of,
        seed: int | None = None,
    ) -> None:
        """Starts the threads, and opens the cameras of the settings.

        Raises:
            SettingsError: an address that cannot be.
        """
        self.settings = settings
        self.clock: Clock = clock or WallClock()
        for camera in settings.cameras:
            self._check(camera)
        self._wall, self._reader_of, self._seed = wall, reader_of, seed
        self._policy, self._leftover = policy, leftover
        self._tasks, self._labels = tuple(tasks), labels
        self._writer = Writer(sinks)
        gate = settings.gate
        self._tick_s = gate.tick_ms / 1e3
        self._bucket = TokenBucket(gate.budget_ms, 1 / self._tick_s)
        self._auditor = Auditor(
            self._tasks, share=gate.audit_share, budget_ms=gate.budget_ms, seed=seed
        )
        self._groups = count()
        self._audit_ms = 0.0
        self._costs = CostModel()
        self._began = self.clock.now()
        self._wall_began = wall()
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Sequence[Outcome]] = queue.SimpleQueue()
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._keys = count()
        self._cameras: dict[int, Camera] = {}
        self._outstanding = 0
        self._rounds = self._late_rounds = 0
        self._stopping = False
        self._pruned = -np.inf
        self._left: list[Source] = []
        models = [model.name for model in settings.models]
        self._models_observe = gate.observe_dependencies
        chain = Chain(stages, models, observe=self._models_observe)
        self._chain_observes = chain.wants_dependencies
        self._stage_counts = chain.counts
        self._looker = Looker(chain, self._outcomes.put)
        self._workers = [Worker(n, self._reports.put) for n in range(gate.workers)]
        for camera in settings.cameras:
            self._add(camera)
        self.status = self._status()

    # What other threads may call.

    def add(self, camera: CameraSettings) -> None:
        """Adds a camera, with the next round.

        Raises:
            SettingsError: its address cannot be, or its name is taken.
        """
        self._check(camera)
        if any(camera.name == each.name for each in list(self._cameras.values())):
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
        for camera in self._cameras.values():
            self._finish_audits(camera, at_once=True)
        self.status = self._status()

    def round(self, now: float) -> None:
        """One round; `now` on the loop's clock."""
        self._rounds += 1
        while not self._commands.empty():
            self._commands.get()()
        self._collect()
        for camera in self._cameras.values():
            self._receive(camera, now)
        self._bucket.begin_round()
        for camera in self._cameras.values():
            if camera.whole is not None:
                self._decode_newest(camera)
        if self._auditor.is_on:
            self._audit()
        self._decide(now)
        for camera in self._cameras.values():
            camera.fresh, camera.own_ms = [], []
        if self.clock.virtual:
            self._settle()

    def close(self) -> bool:
        """Ends all threads; returns whether all of them have ended in time."""
        for camera in self._cameras.values():
            camera.source.stop()
            self._finish_run(camera)
        sources = self._left + [camera.source for camera in self._cameras.values()]
        ended = [worker.stop(STOP_S) for worker in self._workers]
        ended.append(self._looker.stop(STOP_S))
        self._collect()
        for camera in self._cameras.values():
            self._close_traces(camera)
        end = time.monotonic() + STOP_S
        ended += [source.join(max(0.0, end - time.monotonic())) for source in sources]
        ended.append(self._writer.stop(STOP_S))
        return all(ended)

    # Cameras.

    def _add(self, settings: CameraSettings) -> None:
        key = next(self._keys)
        now = self.clock.now()
        asked = [settings.tasks is None or task.name in settings.tasks for task in self._tasks]
        by_name = {task.name: task for task in self.settings.tasks}
        source = Source(
            settings.name,
            settings.address(self.settings.folder),
            reader_of=self._reader_of,
            options=settings.source_options(),
            origin=now,
            rng=None if self._seed is None else Random(self._seed + key),  # noqa: S311
        )
        loads = [
            sum(c.worker == n for c in self._cameras.values()) for n in self._each_worker()
        ]
        hold_s = max((task.hold_s for task in self.settings.tasks), default=0.0)
        camera = Camera(
            key=key,
            row=int(self._policy.join(1)[0]),
            settings=settings,
            source=source,
            worker=int(np.argmin(loads)),
            asked=asked,
            added=now,
            ring_s=settings.before_s + hold_s + MARGIN_S,
            debounces=debounces(
                [task for task, yes in zip(self._tasks, asked, strict=True) if yes], by_name
            ),
        )
        self._cameras = {**self._cameras, key: camera}
        self._auditor.join(camera.row)
        source.start()

    def _remove(self, name: str) -> None:
        for camera in [each for each in self._cameras.values() if each.name == name]:
            camera.source.stop()
            self._finish_run(camera)
            self._looker.forget(name)
            self._workers[camera.worker].forget(camera.key)
            self._policy.leave(camera.row)
            self._auditor.forget(camera.row)
            self._close_traces(camera)
            self._cameras = {k: c for k, c in self._cameras.items() if k != camera.key}
            self._left = [s for s in self._left if not s.join(0)] + [camera.source]
            self._writer.put({**self._document("state", camera), "state": "removed"})

    def _close_traces(self, camera: Camera) -> None:
        for trace in camera.traces.values():
            self._writer.put(trace.close)
        camera.traces = {}

    def _check(self, camera: CameraSettings) -> None:
        address = camera.address(self.settings.folder)
        address.options(timeout_s=camera.timeout_s, more=camera.ffmpeg)
        if self.clock.virtual and address.live:
            raise SettingsError(f"camera '{camera.name}' cannot be read faster than it sends")

    def _each_worker(self) -> range:
        return range(len(self._workers))

    def _all_ended(self) -> bool:
        return not self._outstanding and all(c.ended for c in self._cameras.values())

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
                self._finish_clip(camera)
                camera.gap()
                self._give_up_audit(camera)
            elif isinstance(item, Ungateable):
                camera.decode_whole(item.reason)
        self._admit(camera, packets)
        if camera.source.finished and not camera.ended:
            self._finish_run(camera)
            camera.ended = True

    def _open(self, camera: Camera, opened: Opened) -> None:
        self._finish_run(camera)
        camera.open(opened)
        folder = self.settings.results.traces
        if folder is not None:
            stamp = _stamp(self._wall())
            traces = self.settings.folder / folder
            make_private_folder(traces)
            path = traces / _safe(camera.name) / f"{stamp}-{camera.run}"
            models = tuple(model.name for model in self.settings.models)
            tasks = self._asked(camera)
            # Results of the connection before may still come; those of earlier ones cannot.
            for run in [run for run in camera.traces if run < camera.run - 1]:
                self._writer.put(camera.traces.pop(run).close)
            trace = TraceWriter(path, camera.origin(), models, tuple(tasks))
            camera.traces[camera.run] = trace

    def _finish_run(self, camera: Camera) -> None:
        """What a connection leaves behind: frames in the decoder, a clip, a trace."""
        self._finish_clip(camera)
        if camera.opened is None:
            return
        self._give_up_audit(camera)
        if camera.whole is not None:
            self._decode_newest(camera)
        camera.fresh, camera.own_ms = [], []
        self._do(camera, Job(camera.key, camera.run, camera.opened, None))

    def _admit(self, camera: Camera, packets: Sequence[Packet]) -> None:
        if not packets or camera.opened is None:
            return
        costs = self._estimate(camera.opened, packets)
        camera.own_ms += costs
        for packet, cost_ms in zip(packets, costs, strict=True):
            if camera.expect(packet) and (backlog := camera.closures.backlog()) is not None:
                self._decode(camera, backlog, 0.0)
            camera.add(packet, cost_ms)
            if camera.recording is not None and camera.recording.add(packet):
                self._finish_clip(camera)
        camera.fresh += packets
        camera.arrived += len(packets)
        if (trace := camera.traces.get(camera.run)) is not None:
            self._writer.put(partial(_add_all, trace, packets))

    # Choices.

    def _decide(self, now: float) -> None:
        gated = [c for c in self._cameras.values() if c.fresh and c.whole is None]
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
        picked = decide(
            self._policy,
            self._leftover,
            now - self._began,
            batches,
            budget_ms=self._bucket.spendable,
            most_ms=self._bucket.second_ms,
        )
        for pick in picked:
            camera = gated[pick.batch]
            camera.selected += not pick.closure.part
            self._bucket.charge(pick.cost_ms)
            self._decode(camera, pick.closure, pick.cost_ms)

    def _audit(self) -> None:
        """Decodes the packets of audited groups."""
        self._auditor.begin_round()
        gated = []
        for camera in self._cameras.values():
            if camera.whole is None:
                gated.append(camera)
            else:
                self._give_up_audit(camera)
        for place in range(max((len(camera.fresh) for camera in gated), default=0)):
            here = [camera for camera in gated if len(camera.fresh) > place]
            picked = self._auditor.packets(
                np.array([camera.row for camera in here], np.int64),
                np.array([bool(camera.fresh[place].picture.entry) for camera in here]),
                np.array([camera.own_ms[place] for camera in here]),
            )
            for camera in here:
                self._audit_packet(camera, camera.fresh[place], picked.get(camera.row))

    def _audit_packet(self, camera: Camera, packet: Packet, chance: float | None) -> None:
        """One packet; `chance` is that of its group, None if that is not audited."""
        if packet.picture.entry:
            self._end_audit(camera)
            if chance is not None:
                camera.auditing = next(self._groups)
                before = (-np.inf, camera.held.answers)
                camera.audits[camera.auditing] = Group(chance, [before])
        group, opened = camera.auditing, camera.opened
        if group is None or opened is None or packet.picture.leading:
            return
        closure = Closure((packet,), restart=bool(packet.picture.entry))
        self._do(camera, Job(camera.key, camera.run, opened, closure, audit=group))

    def _end_audit(self, camera: Camera) -> None:
        """No more packets come of the group that is audited."""
        group, camera.auditing = camera.auditing, None
        if group is not None and camera.opened is not None:
            self._do(camera, Job(camera.key, camera.run, camera.opened, None, audit=group))

    def _give_up_audit(self, camera: Camera) -> None:
        """The group that is audited cannot be seen to its end."""
        if camera.auditing is not None:
            camera.audits.pop(camera.auditing, None)
            self._end_audit(camera)
        self._auditor.forget(camera.row)

    def _decode_newest(self, camera: Camera) -> None:
        """Decodes all that came of a stream that is decoded whole.

        There is nothing to choose, so it is paid for when its cost is known, before others
        may choose again.
        """
        if not camera.fresh:
            return
        for packet in reversed(camera.fresh):
            closure = camera.closures.closure(packet.number)
            if isinstance(closure, Closure):
                self._decode(camera, closure, 0.0)
                return

    def _decode(self, camera: Camera, closure: Closure, cost_ms: float) -> None:
        if camera.opened is None:
            return
        numbers = [packet.number for packet in closure]
        camera.closures.decoded(numbers)
        also = frozenset[int]()
        if camera.whole is not None:
            # Of a long backlog few frames: each is held until it was looked at.
            also = frozenset(numbers[-MOST_FRAMES:])
        elif self._chain_observes and not closure.part:
            also = shown_beside(closure, camera.settings.looks_per_s)
        self._do(camera, Job(camera.key, camera.run, camera.opened, closure, cost_ms, also))

    def _do(self, camera: Camera, job: Job) -> None:
        camera.jobs += job.audit is None
        self._outstanding += 1
        self._workers[camera.worker].do(job)

    # Results.

    def _collect(self) -> None:
        while not self._reports.empty():
            self._hear_worker(self._reports.get())
        judged: list[Judged] = []
        while not self._outcomes.empty():
            for outcome in self._outcomes.get():
                judged += self._hear_stages(outcome)
        if judged and self._tasks:
            self._policy.learn(feedback(self.clock.now() - self._began, judged))

    def _settle(self) -> None:
        """Waits until everything that was begun is done and heard."""
        while self._outstanding:
            self._hear_worker(self._reports.get())
        self._looker.settle(STOP_S if not self.clock.virtual else 10 * STOP_S)
        self._collect()

    def _hear_worker(self, report: Report) -> None:
        self._outstanding -= 1
        self._bucket.settle(report.job.cost_ms, report.cpu_ms)
        self._learn_cost(report)
        camera = self._cameras.get(report.job.key)
        if camera is None:
            return
        if report.job.audit is not None:
            self._hear_audit(camera, report, report.job.audit)
            return
        camera.jobs -= 1
        camera.decoded += len(report.spent)
        camera.cpu_ms += report.cpu_ms
        if report.error is not None:
            self._hear_failure(camera, report)
        if (trace := camera.traces.get(report.job.run)) is not None:
            costs = [(spent.packet.number, spent.cpu_ms) for spent in report.spent]
            self._writer.put(partial(_cost_all, trace, costs))
        for frame in report.frames:
            if self._is_wanted(camera, frame):
                self._show(camera, report.job.run, frame)

    def _hear_audit(self, camera: Camera, report: Report, number: int) -> None:
        self._audit_ms += report.cpu_ms
        group = camera.audits.get(number)
        if group is None:
            return
        if report.error is not None:
            camera.audits.pop(number)
            if camera.auditing == number:
                self._give_up_audit(camera)
            return
        for frame in report.frames:
            if frame.time >= group.shown + 1 / camera.settings.looks_per_s - 1e-6:
                group.shown = frame.time
                group.awaited += 1
                shown = self._frame(camera, report.job.run, frame, Purpose.AUDIT, number)
                self._looker.show(shown, wait=self.clock.virtual)
        group.decoded = report.job.closure is None
        self._finish_audits(camera)

    def _finish_audits(self, camera: Camera, *, at_once: bool = False) -> None:
        """Compares groups that are done, once no frame of theirs is in the gate's decoder."""
        for number, group in list(camera.audits.items()):
            if group.is_done and (at_once or camera.heard > group.shown):
                self._auditor.add(camera.audits.pop(number), self._asked(camera))

    def _asked(self, camera: Camera) -> list[Task]:
        return [task for task, yes in zip(self._tasks, camera.asked, strict=True) if yes]

    def _learn_cost(self, report: Report) -> None:
        if report.spent:
            opened, packets = report.job.opened, [spent.packet for spent in report.spent]
            self._costs.learn(
                *(opened.codec, opened.width, opened.height),
                [packet.size for packet in packets],
                [packet.picture.type is PictureType.I for packet in packets],
                [spent.cpu_ms for spent in report.spent],
            )

    def _estimate(self, opened: Opened, packets: Sequence[Packet]) -> list[float]:
        sizes = [packet.size for packet in packets]
        intra = [packet.picture.type is PictureType.I for packet in packets]
        shape = (opened.codec, opened.width, opened.height)
        costs: list[float] = self._costs.estimate(*shape, sizes, intra).tolist()
        return costs

    def _hear_failure(self, camera: Camera, report: Report) -> None:
        camera.failures += 1
        if camera.failures in (1, 10) or camera.failures % 1000 == 0:
            log.warning(
                "camera %s: decoding failed (%d times): %s",
                camera.name,
                camera.failures,
                camera.source.address.scrub(report.error or ""),
            )
        if report.job.run != camera.run:
            return
        if report.failed is None:
            camera.closures.gap()
        else:
            camera.closures.failed(report.failed)

    def _is_wanted(self, camera: Camera, frame: Frame) -> bool:
        """Whether models look at a frame."""
        if camera.whole is None:
            return frame.target or self._chain_observes
        return frame.time >= camera.look_time + 1 / camera.settings.looks_per_s - 1e-6

    def _show(self, camera: Camera, run: int, frame: Frame) -> None:
        purpose = Purpose.CHOSEN
        if not frame.target:
            purpose = Purpose.DEPENDENCY if camera.whole is None else Purpose.WHOLE
        if self._models_observe or purpose is not Purpose.DEPENDENCY:
            camera.looked, camera.look_time = self.clock.now(), frame.time
        shown = self._frame(camera, run, frame, purpose)
        self._looker.show(shown, wait=self.clock.virtual)

    def _frame(
        self,
        camera: Camera,
        run: int,
        frame: Frame,
        purpose: Purpose,
        group: int | None = None,
    ) -> StreamFrame:
        return StreamFrame(
            stream=camera.name,
            key=camera.key,
            run=run,
            pts=frame.pts,
            time=frame.time,
            wall=self._wall_of(camera.added + frame.time),
            selected=frame.target and purpose is not Purpose.AUDIT,
            image=frame.image,
            purpose=purpose,
            group=group,
        )

    def _wall_of(self, then: float) -> float:
        """Seconds since 1970 of a time on the loop's clock."""
        if self.clock.virtual:
            return self._wall_began + then - self._began
        return self._wall() + then - self.clock.now()

    def _hear_stages(self, outcome: Outcome) -> list[Judged]:
        """Answers the tasks; returns the rewards, if the policy should hear of them."""
        frame = outcome.frame
        camera = self._cameras.get(frame.key)
        if camera is None:
            return []
        if frame.group is not None:
            self._hear_truth(camera, outcome, frame.group)
            return []
        if outcome.failed:
            return []
        if frame.purpose is Purpose.DEPENDENCY:
            camera.observed += 1
            if not (outcome.seen or outcome.redundant):
                return []
        camera.looks += bool(outcome.seen) or frame.purpose is not Purpose.DEPENDENCY
        tasks, answers = self._asked(camera), self._answers(camera, outcome)
        before = camera.held
        camera.held, given = judge(
            tasks, before, answers, frame.time, redundant=outcome.redundant
        )
        if camera.held is not before:
            for group in camera.audits.values():
                group.held.append((frame.time, camera.held.answers))
        if frame.purpose is Purpose.CHOSEN:
            camera.heard = max(camera.heard, frame.time)
            self._finish_audits(camera)
        camera.news += any(reward == 1 for reward in given)
        if outcome.seen or frame.purpose is not Purpose.DEPENDENCY:
            self._record(camera, outcome, answers)
        for name, debounce in camera.debounces.items():
            if name in answers:
                camera.debounces[name], change = debounce.look(answers[name], frame.time)
                if change is not None:
                    self._event(camera, name, change, frame)
        if camera.whole is not None:
            return []
        rewards = np.full(len(self._tasks), np.nan)
        rewards[np.flatnonzero(camera.asked)] = given
        return [Judged(camera.row, frame.time, rewards.tolist(), frame.selected)]

    def _answers(self, camera: Camera, outcome: Outcome) -> dict[str, Answer]:
        return {
            task.name: answer(task, outcome.seen[task.model])
            for task in self._asked(camera)
            if task.model in outcome.seen
        }

    def _hear_truth(self, camera: Camera, outcome: Outcome, number: int) -> None:
        """What models saw in a frame of an audited group; traces learn it too."""
        group = camera.audits.get(number)
        if group is None:
            return
        group.awaited -= 1
        if not outcome.failed:
            group.truth.append((outcome.frame.time, self._answers(camera, outcome)))
            self._trace(camera, outcome)
        self._finish_audits(camera)

    def _record(self, camera: Camera, outcome: Outcome, answers: dict[str, Answer]) -> None:
        frame = outcome.frame
        self._writer.put(
            {
                **self._document("result", camera, frame),
                "selected": frame.selected,
                "redundant": outcome.redundant,
                "answers": {name: told(value) for name, value in answers.items()},
                "seen": {
                    name: _told(seen, self._labels.get(name, ()))
                    for name, seen in outcome.seen.items()
                },
            }
        )
        self._trace(camera, outcome)

    def _trace(self, camera: Camera, outcome: Outcome) -> None:
        frame = outcome.frame
        if (trace := camera.traces.get(frame.run)) is None:
            return
        for place, model in enumerate(self.settings.models):
            if (seen := outcome.seen.get(model.name)) is not None:
                self._writer.put(partial(_result, trace, frame.pts, place, seen))

    def _event(self, camera: Camera, task: str, change: Change, frame: StreamFrame) -> None:
        camera.events += 1
        wall = frame.wall - (frame.time - change.time)
        document = {
            **self._document("event", camera, frame),
            "time": round(change.time, 3),
            "wall": round(wall, 3),
            "task": task,
            "before": told(change.before),
            "after": told(change.after),
        }
        if self.settings.results.clips is not None:
            document["clip"] = self._begin_clip(camera, task, change, wall)
        self._writer.put(document)

    def _document(
        self, kind: str, camera: Camera, frame: StreamFrame | None = None
    ) -> dict[str, object]:
        if frame is None:
            return {"type": kind, "camera": camera.name, "wall": round(self._wall(), 3)}
        return {
            "type": kind,
            "camera": camera.name,
            "time": round(frame.time, 3),
            "wall": round(frame.wall, 3),
        }

    # Clips.

    def _begin_clip(self, camera: Camera, task: str, change: Change, wall: float) -> str | None:
        """The name of the clip that shows an event; one that is gathered already goes on."""
        until = change.time + camera.settings.after_s
        if camera.recording is not None:
            camera.recording.until = max(camera.recording.until, until)
            return camera.recording.path.name
        packets = camera.ring.since(change.time - camera.settings.before_s)
        folder = self.settings.results.clips
        if not packets or camera.opened is None or folder is None:
            return None
        suffix = suffix_for(camera.opened.codec)
        name = f"{_safe(camera.name)}-{_stamp(wall)}-{_safe(task)}{suffix}"
        path = self.settings.folder / folder / name
        camera.recording = Recording(camera.opened, packets, until, camera.ring_bytes, path)
        return name

    def _finish_clip(self, camera: Camera) -> None:
        recording, camera.recording = camera.recording, None
        if recording is not None:
            self._writer.put(
                partial(write_clip, recording.path, recording.opened, recording.packets)
            )

    # How it stands.

    def _housekeeping(self, now: float) -> None:
        for camera in self._cameras.values():
            camera.source.watch()
        self.status = self._status()
        results = self.settings.results
        if results.clips is not None and now - self._pruned >= PRUNE_S:
            self._pruned = now
            oldest = self._wall() - results.keep_days * 86_400
            folder = self.settings.folder / results.clips
            self._writer.put(partial(prune, folder, results.clips_mib << 20, oldest))

    def _status(self) -> GatewayStatus:
        now = self.clock.now()
        overdue = set[int]()
        if isinstance(self._policy, Bounded):
            overdue = set(self._policy.overdue(now - self._began).tolist())
        return GatewayStatus(
            seconds=now - self._began,
            cameras=[self._camera_status(c, now, overdue) for c in self._cameras.values()],
            rounds=self._rounds,
            late_rounds=self._late_rounds,
            charged_ms=self._bucket.counters.charged,
            measured_ms=self._bucket.counters.measured,
            granted_ms=self._bucket.counters.granted,
            lapsed_ms=self._bucket.counters.lapsed,
            budget_cores=self.settings.gate.budget_ms / self.settings.gate.tick_ms,
            frames_dropped=self._looker.dropped,
            write_failures=self._writer.count.failures + self._writer.count.dropped,
            stages=self._stage_counts,
            audits=self._auditor.estimates() if self._auditor.is_on else {},
            audited_groups=self._auditor.groups,
            audit_ms=self._audit_ms,
            costs=self._costs.lines(),
        )

    def _camera_status(self, camera: Camera, now: float, overdue: set[int]) -> CameraStatus:
        gated = camera.whole is None and camera.source.status.state not in FINAL
        return camera.status(now, overdue=gated and camera.row in overdue)


def _safe(name: str) -> str:
    """A name as part of a file name."""
    return _UNSAFE.sub("_", name).strip("._") or "unnamed"


def _stamp(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3]


def _told(seen: Detections | float, names: Sequence[str]) -> object:
    """What a model saw, as JSON has it."""
    if not isinstance(seen, Detections):
        return round(seen, 6)
    return [
        {
            "label": names[label]
            if 0 <= (label := int(seen.labels[n])) < len(names)
            else label,
            "score": round(float(seen.scores[n]), 4),
            "box": [round(float(edge), 4) for edge in seen.boxes[n]],
        }
        for n in range(len(seen.labels))
    ]


def _add_all(trace: TraceWriter, packets: Sequence[Packet]) -> None:
    for packet in packets:
        trace.add(packet)


def _cost_all(trace: TraceWriter, costs: Sequence[tuple[int, float]]) -> None:
    for number, cost_ms in costs:
        trace.cost(number, cost_ms)


def _result(trace: TraceWriter, pts: int, model: int, seen: Detections | float) -> None:
    if isinstance(seen, Detections):
        trace.result(pts, model, boxes=seen.boxes, labels=seen.labels, scores=seen.scores)
    else:
        trace.result(pts, model, value=seen)
