"""The cameras that are watched: made of their settings, found by key or name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from random import Random
from typing import Final

from triparty.common.errors import SettingsError
from triparty.device.gate.traces import Task
from triparty.device.gateway.camera import Camera, debounces
from triparty.device.gateway.clock import Clock
from triparty.device.gateway.questions import questions
from triparty.device.gateway.settings import CameraSettings, TaskSettings, WatchSettings
from triparty.device.streams.sources import ReaderOf, Source

MARGIN_S: Final = 2.0
"""How much longer packets are kept for clips than clips ask for: models answer late."""


class Cameras:
    """All cameras. The loop's thread changes it, others may read.

    Args:
        settings: of everything.
        tasks: that may be asked.
        clock: the loop's.
        reader_of: makes what reads a stream's headers.
        seed: of the jitter of retries; None for another one each time.
    """

    def __init__(
        self,
        settings: WatchSettings,
        tasks: Sequence[Task],
        clock: Clock,
        *,
        reader_of: ReaderOf,
        seed: int | None,
    ) -> None:
        """Has no camera."""
        self._folder, self._tasks = settings.folder, tuple(tasks)
        self._task_settings = {task.name: task for task in settings.tasks}
        self._clock, self._reader_of, self._seed = clock, reader_of, seed
        self._keys = count()
        self._by_key: dict[int, Camera] = {}
        self._leaving: list[Source] = []

    def __iter__(self) -> Iterator[Camera]:
        """In the order of the settings."""
        return iter(self._by_key.values())

    def get(self, key: int) -> Camera | None:
        """The camera of a key; None once it has been removed."""
        return self._by_key.get(key)

    def named(self, name: str) -> Camera | None:
        """The camera of a name."""
        return next((camera for camera in list(self) if camera.name == name), None)

    def sources(self) -> list[Source]:
        """Those of all cameras, and of removed ones whose threads may still run."""
        return self._leaving + [camera.source for camera in self]

    def check(self, camera: CameraSettings) -> None:
        """Opens nothing.

        Raises:
            SettingsError: its address cannot be, or cannot be read at the clock's speed.
        """
        address = camera.address(self._folder)
        address.options(timeout_s=camera.timeout_s, more=camera.ffmpeg)
        if self._clock.virtual and address.live:
            raise SettingsError(f"camera '{camera.name}' cannot be read faster than it sends")

    def has_moved(self, camera: CameraSettings) -> bool:
        """Whether the address of a camera that is watched, or its password, is another now."""
        watched = self.named(camera.name)
        return watched is None or watched.source.address != camera.address(self._folder)

    def add(self, settings: CameraSettings, *, row: int, worker: int) -> Camera:
        """Makes a camera; its source waits to be started.

        Args:
            settings: of it.
            row: of it in the policy.
            worker: place of the worker that decodes it.
        """
        key = next(self._keys)
        now = self._clock.now()
        asked = [settings.tasks is None or task.name in settings.tasks for task in self._tasks]
        tasks = [task for task, yes in zip(self._tasks, asked, strict=True) if yes]
        asked_of = questions(tasks, settings)
        source = Source(
            settings.name,
            settings.address(self._folder),
            reader_of=self._reader_of,
            options=settings.source_options(),
            origin=now,
            rng=None if self._seed is None else Random(self._seed + key),  # noqa: S311
        )
        camera = Camera(
            key=key,
            row=row,
            settings=settings,
            source=source,
            worker=worker,
            asked=asked,
            tasks=tasks,
            questions=asked_of,
            added=now,
            ring_s=self._ring_s(settings),
            debounces=debounces(asked_of, self._task_settings),
        )
        self._by_key = {**self._by_key, key: camera}
        return camera

    def remove(self, camera: Camera) -> None:
        """Forgets a camera, but for its source's thread."""
        self._by_key = {key: one for key, one in self._by_key.items() if one is not camera}
        self._leaving = [source for source in self._leaving if not source.join(0)]
        self._leaving.append(camera.source)

    def change(self, tasks: Sequence[TaskSettings]) -> None:
        """From now on other changes of answers are events; what is in view stays so."""
        self._task_settings = {task.name: task for task in tasks}
        for camera in self:
            fresh = debounces(camera.questions, self._task_settings)
            camera.debounces = {
                name: replace(camera.debounces[name], hold_s=each.hold_s, looks=each.looks)
                if name in camera.debounces
                else each
                for name, each in fresh.items()
            }
            camera.ring.reach(self._ring_s(camera.settings))

    def _ring_s(self, settings: CameraSettings) -> float:
        hold_s = max((task.hold_s for task in self._task_settings.values()), default=0.0)
        return settings.before_s + hold_s + MARGIN_S

    def arrange(self, names: Sequence[str]) -> None:
        """Puts cameras into the order of names that has all of them."""
        ordered = sorted(self, key=lambda camera: names.index(camera.name))
        self._by_key = {camera.key: camera for camera in ordered}
