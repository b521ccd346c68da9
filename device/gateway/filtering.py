"""Models behind filters: a stage in front of which filters of cameras stand.

A frame that a filter answers costs no look of the model. Frames of the gate's audits are shown
to models alone, since they tell the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from triparty.device.gate.traces import Task
from triparty.device.gateway.frame_filter import (
    Count,
    Decision,
    FrameFilter,
    folder_of,
    load,
    stamp_of,
)
from triparty.device.gateway.frames import Purpose, StreamFrame
from triparty.device.gateway.settings import WatchSettings
from triparty.device.gateway.stages import PASS, Stage, Verdict
from triparty.device.gateway.status import FilterStatus


class Filters:
    """All filters of a configuration. The loop's thread changes it, the stages' thread reads.

    Args:
        settings: of everything.
        tasks: of all models.

    Raises:
        SettingsError: a filter that is not there or cannot be used.
    """

    def __init__(self, settings: WatchSettings, tasks: Sequence[Task]) -> None:
        """Loads them."""
        self._tasks = tuple(tasks)
        self._filters: tuple[FrameFilter, ...] = ()
        self._filters = self.made(settings)

    def made(self, settings: WatchSettings) -> tuple[FrameFilter, ...]:
        """The filters of other settings; those that are the same, and their files, stay.

        Args:
            settings: of everything.

        Raises:
            SettingsError: a filter that is not there or cannot be used.
        """
        known = {one.settings.name: one for one in self._filters}
        found = []
        for each in settings.filters:
            old = known.get(each.name)
            stamp = stamp_of(folder_of(each, settings.folder))
            if old is not None and old.settings == each and old.loaded.stamp == stamp:
                found.append(old)
                continue
            loaded = load(each, settings.folder)
            kind = loaded.filter.artifact.design.kind
            found.append(
                FrameFilter(
                    each,
                    loaded,
                    [task for task in self._tasks if task.model == each.model],
                    samples=FrameFilter.folder_of_samples(each, settings.folder, kind),
                    count=old.count if old is not None else Count(),
                )
            )
        return tuple(found)

    def take(self, filters: tuple[FrameFilter, ...], cameras: Sequence[str]) -> list[str]:
        """Puts filters in the place of those that run; frames under way keep theirs.

        Args:
            filters: as `made` returns them.
            cameras: that are watched; of others nothing is kept.

        Returns:
            Names of those that are new or other ones.
        """
        before, self._filters = self._filters, filters
        for old in before:
            if old not in filters:
                old.close()
        for one in filters:
            one.forget(cameras)
        return [one.settings.name for one in filters if one not in before]

    def before(self, model: str) -> tuple[FrameFilter, ...]:
        """The filters in front of a model."""
        return tuple(one for one in self._filters if one.settings.model == model)

    def status(self) -> list[FilterStatus]:
        """How they stand."""
        return [one.status() for one in self._filters]


class FilteredStage:
    """A model's stage behind filters.

    Args:
        stage: of the model.
        filters: of all models.
        observe: whether models look at what was decoded for others alone.
    """

    def __init__(self, stage: Stage, filters: Filters, *, observe: bool) -> None:
        """Wraps a stage."""
        self.name = stage.name
        self._stage, self._filters, self._observe = stage, filters, observe

    @property
    def wants_dependencies(self) -> bool:
        """Whether there is a filter: what it knows of such frames costs no look."""
        return bool(self._filters.before(self.name)) or self._stage_wants

    def process(self, frames: Sequence[StreamFrame]) -> Sequence[Verdict]:
        """What the model saw in each frame, or what stands for that."""
        said = self._said(frames)
        going = [n for n, frame in enumerate(frames) if self._goes(frame, said.get(n))]
        looked = self._stage.process([frames[n] for n in going]) if going else []
        verdicts = dict(zip(going, looked, strict=True))
        for n, (by, decision) in said.items():
            if n not in verdicts:
                told = {} if decision.said is None else {self.name: decision.said}
                verdicts[n] = Verdict(filtered=told)
            elif (seen := verdicts[n].seen.get(self.name)) is not None:
                by.hear(decision, frames[n], seen)
        return [verdicts.get(n, PASS) for n in range(len(frames))]

    def cpu_ms(self) -> float | None:
        """That of the model: filters run in the calling thread."""
        return self._stage.cpu_ms()

    def close(self) -> None:
        """Closes the model, and its filters' samples."""
        for one in self._filters.before(self.name):
            one.close()
        self._stage.close()

    @property
    def _stage_wants(self) -> bool:
        return bool(getattr(self._stage, "wants_dependencies", False))

    def _said(
        self, frames: Sequence[StreamFrame]
    ) -> Mapping[int, tuple[FrameFilter, Decision]]:
        """By place of the frame, what a filter says of it; of others none speaks."""
        said = {}
        for one in self._filters.before(self.name):
            places = [
                n
                for n, frame in enumerate(frames)
                if frame.asks(self.name)
                and frame.purpose is not Purpose.AUDIT
                and one.settings.covers(frame.stream)
            ]
            if places:
                decided = one.decide([frames[n] for n in places], observe=self._observe)
                for n, decision in zip(places, decided, strict=True):
                    said[n] = (one, decision)
        return said

    def _goes(self, frame: StreamFrame, said: tuple[FrameFilter, Decision] | None) -> bool:
        """Whether the model looks at a frame."""
        if said is not None:
            return said[1].runs
        return frame.purpose is not Purpose.DEPENDENCY or self._observe or self._stage_wants
