"""Questions that are answered on this machine alone: no model, no cloud, nothing is sent."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from triparty.device.ask.ask import Answer, Resolver, ask
from triparty.device.ask.lexical import Lexical
from triparty.device.ask.places import Site, Task
from triparty.device.events.event import Events
from triparty.device.gateway.settings import ModelSettings, TaskSettings, WatchSettings
from triparty.device.gateway.watching import labels

_LOCALTIME: Final = Path("/etc/localtime")


def asks_here(events: Events, settings: Callable[[], WatchSettings]) -> Callable[[str], Answer]:
    """Answers from events, by likeness of letters; it knows no synonyms.

    Args:
        events: of the site.
        settings: of the gateway, as they are at the time of a question.
    """

    def answer(question: str) -> Answer:
        resolver = Resolver(site_of(settings()), Lexical(), is_local=True)
        return ask(question, events, resolver, time.time())

    return answer


def site_of(settings: WatchSettings) -> Site:
    """What can be asked about: cameras with their zones, objects and tasks."""
    models = {model.name: model for model in settings.models}
    return Site.of(
        local_zone(),
        {camera.name: [zone.name for zone in camera.zones] for camera in settings.cameras},
        sorted({name for task in settings.tasks for name in _names(task, models[task.model])}),
        tasks={
            task.name: Task(task.measure, _only(_names(task, models[task.model])))
            for task in settings.tasks
        },
    )


def local_zone() -> ZoneInfo:
    """The time zone of this machine; UTC if it does not say."""
    linked = str(_LOCALTIME.resolve()).partition("zoneinfo/")[2]
    for name in (os.environ.get("TZ", "").removeprefix(":"), linked):
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            continue
    return ZoneInfo("UTC")


def _names(task: TaskSettings, model: ModelSettings) -> tuple[str, ...]:
    """The objects that a task is about."""
    known = labels(model)
    if not task.classes:
        return known
    return tuple(
        known[each] if isinstance(each, int) and each < len(known) else str(each)
        for each in task.classes
    )


def _only(names: tuple[str, ...]) -> str | None:
    return names[0] if len(names) == 1 else None
