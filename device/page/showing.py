"""A gateway with its page beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from triparty.device.ask.ask import Answer
from triparty.device.client import Device
from triparty.device.events.stored import StoredEvents
from triparty.device.gateway.asking import make_asker
from triparty.device.gateway.editing import Editor
from triparty.device.gateway.gateway import Gateway
from triparty.device.gateway.outputs import open_events
from triparty.device.gateway.settings import PageSettings
from triparty.device.gateway.status import GatewayStatus
from triparty.device.page.app import create_app
from triparty.device.page.feed import Feed
from triparty.device.page.password import checker, ensure
from triparty.device.page.server import PageServer
from triparty.device.page.watched import Watched
from triparty.device.settings import DeviceSettings

Hears = Callable[[GatewayStatus], None]


@contextmanager
def page_beside(
    gateway: Gateway,
    settings: PageSettings,
    *,
    editor: Editor | None,
    say: Callable[[str], None],
    home: Path | None = None,
) -> Iterator[Hears]:
    """Shows a gateway while the block runs; what it yields is to hear each status.

    Args:
        gateway: to be shown.
        settings: of the page.
        editor: of the file of all settings.
        say: tells people where it is, and a password that was made.
        home: folder of the device that asks questions; None: the usual one.

    Raises:
        SettingsError: a certificate that cannot be used.
        StateError: an address that is taken, or a password's file that is none.
    """
    folder = gateway.settings.folder
    file = folder / settings.password_file
    password = ensure(file)
    if password is not None:
        say(f"the page's password, shown this once: {password}")
    feed = Feed(gateway.status)
    with _events(gateway) as events:
        watched = Watched(
            feed,
            lambda: gateway.settings,
            events,
            ask=_asker(gateway, events, home) if events is not None else None,
            editor=editor,
        )
        server = PageServer(create_app(watched, settings, checker(file)), settings, folder)
        say(f"page on {server.url}")
        try:
            yield feed.hear
        finally:
            server.stop()


def _asker(
    gateway: Gateway, events: StoredEvents, home: Path | None
) -> Callable[[str], Answer]:
    """Answers with the encoder that `[ask]` names; without one nothing leaves the device.

    The device is opened for the first question: one that is not enrolled yet watches as well.
    """

    @cache
    def opened() -> tuple[Device, Path]:
        own = DeviceSettings.load(None, home=home)
        return own.device(), own.home

    def answer(question: str) -> Answer:  # of the settings that run then: zones come and go
        settings = gateway.settings
        device, kept = opened() if settings.ask.model is not None else (None, None)
        return make_asker(settings, events, device, kept=kept)(question)

    return answer


@contextmanager
def _events(gateway: Gateway) -> Iterator[StoredEvents | None]:
    """A reader of its own of the events, if any are kept."""
    if gateway.settings.results.database is None:
        yield None
        return
    events = open_events(gateway.settings)
    try:
        yield events
    finally:
        events.close()
