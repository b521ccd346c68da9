"""What the settings say of keeping results and events, opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from triparty.common.errors import SettingsError
from triparty.device.events.database import database_url
from triparty.device.events.secret import Secret
from triparty.device.events.store import EventStore, Outlet
from triparty.device.events.stored import StoredEvents
from triparty.device.gateway.settings import WatchSettings


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


def open_store(settings: WatchSettings, outlets: Sequence[Outlet] = ()) -> EventStore | None:
    """Where a gateway keeps results and events; None for nowhere.

    Raises:
        SettingsError: a database that cannot be.
        StateError: it cannot be opened.
    """
    url = _url(settings)
    if url is None:
        return None
    keep_s = settings.results.keep_days * 86_400
    return EventStore(url, keep_s=keep_s, outlets=outlets)


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
