"""Where results and events go, as the settings say: opened, told, asked how it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triparty.common.errors import SettingsError
from triparty.device.events.database import database_url, journal_path
from triparty.device.events.homeassistant import Topics
from triparty.device.events.journal import Journal
from triparty.device.events.mqtt import Broker, Mqtt
from triparty.device.events.outlet import Outlet, OutletStatus, Point, Site
from triparty.device.events.secret import Secret
from triparty.device.events.store import EventStore, Recipient, StoreStatus
from triparty.device.events.stored import StoredEvents
from triparty.device.events.webhook import Hook, Webhook
from triparty.device.gate.traces import Task
from triparty.device.gateway.outlet_settings import WebhookSettings
from triparty.device.gateway.questions import questions
from triparty.device.gateway.results import Lines, Sink
from triparty.device.gateway.settings import WatchSettings


@dataclass(frozen=True)
class Outputs:
    """All that a gateway tells.

    Attributes:
        sinks: that take documents, in the order in which they hear of them: the store first,
            so that what others are told is kept. They are closed in the reverse order.
        store: of results and events, if they are kept.
        outlets: integrations.
    """

    sinks: Sequence[Sink] = ()
    store: EventStore | None = None
    outlets: Sequence[Outlet] = ()

    def hear(
        self,
        settings: WatchSettings,
        tasks: Sequence[Task],
        labels: Mapping[str, Sequence[str]],
    ) -> None:
        """Tells integrations what is watched from now on."""
        site = site_of(settings, tasks, labels)
        for outlet in self.outlets:
            outlet.hear_site(site)

    def status(self) -> tuple[StoreStatus | None, list[OutletStatus]]:
        """How the store and the integrations stand."""
        store = None if self.store is None else self.store.status
        return store, [outlet.status() for outlet in self.outlets]


def make_outputs(settings: WatchSettings, lines: Sink | None = None) -> Outputs:
    """Opens what the settings name; nothing is sent yet.

    Args:
        settings: of everything.
        lines: takes documents beside that.

    Raises:
        SettingsError: something that cannot be, or a secret that cannot be read.
        StateError: the database cannot be opened.
    """
    hooks = [_hook(hook, settings) for hook in settings.webhooks]
    topics, broker = _mqtt(settings)
    outlets: list[Outlet] = [Mqtt(broker, topics)] if broker is not None else []
    store = open_store(settings, hooks)
    if store is not None:
        for hook in hooks:
            webhook = Webhook(hook, store.engine)
            store.after_events(webhook.wake)
            outlets.append(webhook)
    sinks: list[Sink] = [] if lines is None else [lines]
    if settings.results.lines is not None:
        to_stdout = str(settings.results.lines) == "-"
        sinks.append(Lines(None if to_stdout else settings.folder / settings.results.lines))
    return Outputs([*([] if store is None else [store]), *sinks, *outlets], store, outlets)


def check_outputs(settings: WatchSettings) -> None:
    """Returns only if all that the settings say of outputs can be; opens nothing.

    Raises:
        SettingsError: something that cannot be, or a secret that cannot be read.
    """
    _url(settings)
    _mqtt(settings)
    for hook in settings.webhooks:
        _hook(hook, settings)


def site_of(
    settings: WatchSettings, tasks: Sequence[Task], labels: Mapping[str, Sequence[str]]
) -> Site:
    """What there is to tell of: cameras, and all answers whose changes are events."""
    telling = {task.name for task in settings.tasks if task.events and task.measure != "boxes"}
    points = [
        Point(
            camera=camera.name,
            task=question.of,
            measure=question.task.measure,
            zone=question.zone,
            labels=tuple(labels.get(question.task.model, ())),
        )
        for camera in settings.cameras
        for question in questions(
            [task for task in tasks if camera.tasks is None or task.name in camera.tasks],
            camera,
        )
        if question.of in telling
    ]
    return Site(tuple(camera.name for camera in settings.cameras), tuple(points))


def open_events(settings: WatchSettings) -> StoredEvents:
    """The events of a site for a reader, whether its gateway runs or not.

    Raises:
        SettingsError: the settings name no database, or one that cannot be.
        StateError: it cannot be opened.
    """
    url = _url(settings)
    if url is None:
        raise SettingsError(
            "the configuration keeps no events: give [results] a database, "
            'for example database = "results.db"'
        )
    return StoredEvents.open(url)


def open_store(
    settings: WatchSettings, recipients: Sequence[Recipient] = ()
) -> EventStore | None:
    """Where a gateway keeps results and events; None for nowhere.

    Raises:
        SettingsError: a database that cannot be.
        StateError: it cannot be opened.
    """
    url = _url(settings)
    if url is None:
        return None
    return EventStore(
        url,
        keep_s=settings.results.keep_days * 86_400,
        recipients=recipients,
        journal=Journal(journal_path(url, settings.folder)),
    )


def _url(settings: WatchSettings) -> Any:
    results = settings.results
    if results.database is None:
        return None
    secret = Secret(
        "[results] database_password",
        results.database_password_file,
        results.database_password_env,
    )
    password = secret.read(settings.folder)
    return database_url(results.database, folder=settings.folder, password=password)


def _hook(hook: WebhookSettings, settings: WatchSettings) -> Hook:
    where = Secret(f"webhook '{hook.name}': secret", hook.secret_file, hook.secret_env)
    secret = where.read(settings.folder)
    if not secret:
        raise SettingsError(f"webhook '{hook.name}': its secret is empty")
    return Hook(
        name=hook.name,
        url=hook.url,
        secret=secret,
        ca_file=None if hook.ca_file is None else settings.folder / hook.ca_file,
        allow=hook.allow,
        cameras=hook.cameras,
        tasks=hook.tasks,
        kinds=hook.kinds,
        timeout_s=hook.timeout_s,
        give_up_s=hook.give_up_h * 3600,
        most_waiting=hook.most_waiting,
    )


def _mqtt(settings: WatchSettings) -> tuple[Topics, Broker | None]:
    mqtt = settings.mqtt
    topics = Topics(mqtt.topic, mqtt.site, mqtt.discovery or "")
    if mqtt.host is None:
        return topics, None
    secret = Secret("[mqtt] password", mqtt.password_file, mqtt.password_env)
    broker = Broker(
        host=mqtt.host,
        port=mqtt.port or (8883 if mqtt.tls else 1883),
        tls=mqtt.tls,
        ca_file=None if mqtt.ca_file is None else settings.folder / mqtt.ca_file,
        user=mqtt.user,
        password=secret.read(settings.folder),
    )
    return topics, broker
