"""What the page shows, and what it may change: its only way into the gateway."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from starlette.requests import HTTPConnection

from triparty.common.pages.website import Drawer
from triparty.device.ask.ask import Answer
from triparty.device.events.event import Events
from triparty.device.gateway.editing import Editor
from triparty.device.gateway.settings import WatchSettings
from triparty.device.page.feed import Feed


@dataclass(frozen=True)
class Watched:
    """A gateway as the page sees it; nothing of it waits for the loop.

    Attributes:
        feed: how it stands.
        settings: those that it runs with now.
        events: that it recorded; None if the settings keep none.
        ask: answers a question about them, in any thread.
        editor: changes the file of the settings; None if there is none.
    """

    feed: Feed
    settings: Callable[[], WatchSettings]
    events: Events | None = None
    ask: Callable[[str], Answer] | None = None
    editor: Editor | None = None


def watched_of(request: HTTPConnection) -> Watched:
    """The gateway of a request's page."""
    return cast(Watched, request.app.state.watched)


def drawer_of(request: HTTPConnection) -> Drawer:
    """What draws a request's page."""
    return cast(Drawer, request.app.state.drawer)
