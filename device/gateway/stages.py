"""What happens to decoded frames: a chain of stages, each a small interface.

A filter, a model (behind filters of its own: `filtering.py`), or a link between models is a
stage. It gets a batch of frames, of several streams and in presentation order within each, and
gives a verdict on each: results, or what stands for them where a model was not run, or that the
frame shows nothing new, or nothing at all, and then the next stage looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from time import thread_time
from typing import Protocol, runtime_checkable

from triparty.device.filters.results import Skipped
from triparty.device.gate.detectors import Detections
from triparty.device.gateway.frames import Purpose, StreamFrame
from triparty.device.gateway.predictions import Predicted

Seen = Detections | float
"""What a model says of a frame: objects, or a number."""


@dataclass(frozen=True, eq=False)
class Reused:
    """What a model saw in an earlier frame that means the same.

    Attributes:
        seen: in that frame.
    """

    seen: Seen


StandIn = Skipped | Reused
"""What a filter says in the place of a model that was not run."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a stage says of one frame.

    Attributes:
        seen: by model; none to pass the frame on as it came.
        redundant: nothing in it is new: later stages do not look at it, and the last results
            of the stream hold.
        filtered: by model that was not run, what stands for what it would have seen.
        predicted: by model that was not run, what links predict of it.
    """

    seen: Mapping[str, Seen] = field(default_factory=dict)
    redundant: bool = False
    filtered: Mapping[str, StandIn] = field(default_factory=dict)
    predicted: Mapping[str, Predicted] = field(default_factory=dict)


PASS = Verdict()
"""The frame goes on."""


class Stage(Protocol):
    """One link of the chain. It is called from one thread, and may take its time.

    A stage with a true attribute `wants_dependencies` is also given frames that were decoded
    only because a chosen one needs them (`Purpose.DEPENDENCY`). Where it calls one redundant,
    that is an observation; else the frame ends there unless models look at such frames too. So
    what a filter compares with must remain the last frame of another purpose that it let pass.

    Attributes:
        name: in metrics and messages.
    """

    name: str

    def process(self, frames: Sequence[StreamFrame]) -> Sequence[Verdict]:
        """A verdict on each frame, in their order. What it raises costs this batch alone."""

    def cpu_ms(self) -> float | None:
        """CPU ms since the last call that this thread did not spend (other threads, other
        processes); None if all is done in the calling thread.
        """  # noqa: D205

    def close(self) -> None:
        """Lets go of what it holds; not called before `process` has returned."""


@runtime_checkable
class Follower(Protocol):
    """A stage that is told what those before it said of each frame: links between models."""

    def follow(
        self,
        frames: Sequence[StreamFrame],
        seen: Sequence[Mapping[str, Seen]],
        filtered: Sequence[Mapping[str, StandIn]],
    ) -> Sequence[Verdict]:
        """In the place of `process`.

        Args:
            frames: as for `process`.
            seen: of each frame, by model.
            filtered: of each frame, by model.
        """


@dataclass(eq=False)
class StageCount:
    """What a stage has done so far.

    Attributes:
        frames: that it was given.
        errors: batches that it raised at.
        cpu_ms: that it took.
        last_error: of the last one.
    """

    frames: int = 0
    errors: int = 0
    cpu_ms: float = 0.0
    last_error: str | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the chain says of one frame.

    Attributes:
        frame: that was looked at.
        seen: by model.
        redundant: a stage found nothing new in it.
        failed: a stage raised: nobody knows what the frame shows.
        filtered: by model that was not run, what stands for what it would have seen.
        predicted: by model that was not run, what links predict of it.
    """

    frame: StreamFrame
    seen: Mapping[str, Seen]
    redundant: bool = False
    failed: bool = False
    filtered: Mapping[str, StandIn] = field(default_factory=dict)
    predicted: Mapping[str, Predicted] = field(default_factory=dict)


class Chain:
    """Runs frames through stages, and counts.

    Args:
        stages: in order.
        models: names of the stages that are models: they alone look at frames of audits.
        observe: whether models look at dependencies, as stages do that want them.
    """

    def __init__(
        self, stages: Sequence[Stage], models: Collection[str] = (), *, observe: bool = False
    ) -> None:
        """Has seen no frame."""
        self.stages = tuple(stages)
        self._models, self._observe = frozenset(models), observe
        self.counts = {stage.name: StageCount() for stage in stages}

    @property
    def wants_dependencies(self) -> bool:
        """Whether any stage looks at frames that were decoded for others alone, now."""
        return any(self._observes(stage) for stage in self.stages)

    def run(self, frames: Sequence[StreamFrame]) -> list[Outcome]:
        """The outcome of each frame, in their order; never raises what a stage raises."""
        seen: list[dict[str, Seen]] = [{} for _ in frames]
        filtered: list[dict[str, StandIn]] = [{} for _ in frames]
        predicted: list[dict[str, Predicted]] = [{} for _ in frames]
        redundant, failed = set[int](), set[int]()
        for stage in self.stages:
            going = [
                n
                for n in range(len(frames))
                if n not in redundant | failed and self._looks(stage, frames[n])
            ]
            if not going:
                continue
            verdicts = self._ask(
                stage,
                [frames[n] for n in going],
                [seen[n] for n in going],
                [filtered[n] for n in going],
            )
            if verdicts is None:
                failed.update(going)
                continue
            for n, verdict in zip(going, verdicts, strict=True):
                seen[n].update(verdict.seen)
                filtered[n].update(verdict.filtered)
                predicted[n].update(verdict.predicted)
                if verdict.redundant:
                    redundant.add(n)
        return [
            Outcome(frame, seen[n], n in redundant, n in failed, filtered[n], predicted[n])
            for n, frame in enumerate(frames)
        ]

    def close(self) -> None:
        """Closes all stages."""
        for stage in self.stages:
            stage.close()

    def _looks(self, stage: Stage, frame: StreamFrame) -> bool:
        if frame.purpose is Purpose.DEPENDENCY:
            return self._observes(stage)
        return frame.purpose is not Purpose.AUDIT or stage.name in self._models

    def _observes(self, stage: Stage) -> bool:
        told = self._observe and stage.name in self._models
        return told or getattr(stage, "wants_dependencies", False)

    def _ask(
        self,
        stage: Stage,
        frames: Sequence[StreamFrame],
        seen: Sequence[Mapping[str, Seen]],
        filtered: Sequence[Mapping[str, StandIn]],
    ) -> Sequence[Verdict] | None:
        count = self.counts[stage.name]
        begin = thread_time()
        try:
            if isinstance(stage, Follower):
                verdicts = stage.follow(frames, seen, filtered)
            else:
                verdicts = stage.process(frames)
            if len(verdicts) != len(frames):
                raise ValueError(f"{len(verdicts)} verdicts on {len(frames)} frames")
        except Exception as error:  # noqa: BLE001  anybody's code; the cameras must go on
            count.errors += 1
            count.last_error = f"{type(error).__name__}: {error}"
            return None
        finally:
            elsewhere_ms = stage.cpu_ms() or 0.0
            count.frames += len(frames)
            count.cpu_ms += (thread_time() - begin) * 1e3 + elsewhere_ms
        return verdicts


Function = Callable[[StreamFrame], Seen]
"""A model as a plain function of one frame."""
