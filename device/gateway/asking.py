"""Questions about what a gateway recorded: its settings as a site, its store as the record."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from triparty.common.errors import SettingsError
from triparty.device.ask.ask import Answer, Resolver, ask
from triparty.device.ask.coverage import Stretch
from triparty.device.ask.lexical import Lexical
from triparty.device.ask.mentions import Rules
from triparty.device.ask.phrase import Writer
from triparty.device.ask.places import Site, Task
from triparty.device.ask.vectors import KeptVectors, Vectors
from triparty.device.events.stored import StoredEvents
from triparty.device.gateway.settings import TaskSettings, WatchSettings
from triparty.device.gateway.watching import labels

if TYPE_CHECKING:
    from triparty.device.client import Device

SHORTEST_GAP_S = 120.0
"""A camera without any look for longer was not watched."""
FOLDER = "ask"
MOST_TOKENS = 120


@dataclass(frozen=True)
class DeviceEmbedder:
    """A protected sentence encoder, asked by this device.

    Attributes:
        device: that holds it.
        model: its name on this device.
        name: with the version of the keys: vectors of two versions are not compared.
    """

    device: Device
    model: str
    name: str

    @classmethod
    def of(cls, device: Device, model: str) -> DeviceEmbedder:
        """The encoder of a name.

        Raises:
            SettingsError: this device holds none of that name.
        """
        for held in device.models():
            if model in (held.name, f"{held.account}/{held.name}"):
                return cls(device, model, f"{held.name} {held.version} {held.epoch}")
        raise SettingsError(
            f"this device holds no model '{model}': pull it, or ask with --local"
        )

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (N, D) of N texts."""
        return self.device.embed(self.model, tuple(texts))


@dataclass(frozen=True)
class StoreWatched:
    """When cameras were looked at, as the results say.

    Attributes:
        events: of the site.
        longest_s: between two looks.
        kept_since: what was before has been deleted.
    """

    events: StoredEvents
    longest_s: float
    kept_since: float | None

    def watched(self, camera: str, since: float, until: float) -> Sequence[Stretch]:
        """When a camera was looked at between two times."""
        return self.events.looked(camera, since, until, longest_s=self.longest_s)


def asked_site(settings: WatchSettings) -> Site:
    """What a gateway's settings say of its site."""
    cameras = {one.name: [zone.name for zone in one.zones] for one in settings.cameras}
    tasks = {task.name: _task(task, settings) for task in settings.tasks}
    known = [task.label for task in tasks.values() if task.label is not None]
    for task in settings.tasks:
        if task.measure == "labels":
            known += [_class(one, tasks[task.name].names) for one in task.classes]
    return Site.of(
        ZoneInfo(settings.ask.timezone),
        cameras,
        known,
        descriptions=settings.ask.descriptions,
        tasks=tasks,
    )


def _task(task: TaskSettings, settings: WatchSettings) -> Task:
    model = next(one for one in settings.models if one.name == task.model)
    names = labels(model)
    label = _class(task.classes[0], names) if len(task.classes) == 1 else None
    return Task(task.measure, label, names)


def _class(one: str | int, names: Sequence[str]) -> str:
    if isinstance(one, int):
        return names[one] if 0 <= one < len(names) else str(one)
    return one


def make_asker(
    settings: WatchSettings,
    events: StoredEvents,
    device: Device | None = None,
    *,
    now: Callable[[], float] = time.time,
    kept: Path | None = None,
) -> Callable[[str], Answer]:
    """Answers questions about a gateway's events.

    Args:
        settings: of the gateway; `ask.model` names the encoder.
        events: its store.
        device: holds the encoder; None asks nobody: words are compared by their letters, which
            knows no synonyms.
        now: seconds since 1970.
        kept: folder for the vectors of the site's own words; None keeps them in memory.

    Raises:
        SettingsError: no encoder is named, or this device does not hold it.
    """
    site = asked_site(settings)
    resolver, writer = _resolver(site, settings, device, kept), _writer(settings, device)
    longest = max(SHORTEST_GAP_S, 4 * (settings.gate.max_staleness_s or 150.0))

    def answer(question: str) -> Answer:
        at = now()
        kept_since = at - settings.results.keep_days * 86_400
        watched = StoreWatched(events, longest, kept_since)
        return ask(question, events, resolver, at, watched=watched, writer=writer)

    return answer


def _resolver(
    site: Site, settings: WatchSettings, device: Device | None, kept: Path | None
) -> Resolver:
    if device is None:
        return Resolver(site, Lexical(), rules=Rules(place=0.4, thing=0.4), is_local=True)
    if settings.ask.model is None:
        raise SettingsError(
            '[ask] names no model: set model = "NAME" of a sentence encoder that this device '
            "holds, or ask with --local, which compares letters and knows no synonyms"
        )
    embedder = DeviceEmbedder.of(device, settings.ask.model)
    file = None
    if kept is not None:
        name = sha256(embedder.name.encode()).hexdigest()[:16]
        file = kept / FOLDER / f"{name}.npz"
    return Resolver(site, embedder, KeptVectors(embedder, file))


def _writer(settings: WatchSettings, device: Device | None) -> Writer | None:
    model = settings.ask.phrase_with
    if device is None or model is None:
        return None
    return lambda prompt: device.generate(model, prompt, max_tokens=MOST_TOKENS).text
