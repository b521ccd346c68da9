"""The page as an ASGI application: what it is made of, in one place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from triparty.common.errors import RequestError
from triparty.common.hosts import OwnNames
from triparty.common.pages.build import build
from triparty.common.pages.sessions import Sessions
from triparty.common.pages.throttle import LoginThrottle
from triparty.common.pages.website import Link, Site
from triparty.device.gateway.settings import PageSettings
from triparty.device.page import (
    ask_routes,
    camera_routes,
    event_routes,
    live_routes,
    settings_routes,
)
from triparty.device.page.formats import FORMATS
from triparty.device.page.last_events import LastEvents
from triparty.device.page.watched import Watched

Check = Callable[[str], Awaitable[str | None]]
PARTS = (live_routes, event_routes, camera_routes, ask_routes, settings_routes)
LINKS = (
    Link("/", "Live"),
    Link("/events", "Events"),
    Link("/ask", "Ask"),
    Link("/settings", "Settings"),
)


def create_app(
    watched: Watched,
    settings: PageSettings,
    check: Check,
    *,
    sessions: Sessions | None = None,
    throttle: LoginThrottle | None = None,
) -> FastAPI:
    """The page of one gateway.

    Args:
        watched: what it shows.
        settings: who may see it.
        check: whose a password is; None for a wrong one.
        sessions: others than those of its own; tests have their clock.
        throttle: the same.
    """
    app = FastAPI(title="triparty gateway", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.watched = watched
    if watched.events is not None:
        app.state.last_events = LastEvents(watched.events)
    for part in PARTS:
        app.include_router(part.router)
    site = Site(
        title="Cameras",
        cookie="triparty-cameras",
        names=own_names(settings),
        is_secure=settings.is_secure,
        secret="password",  # noqa: S106  what it is called
        check=check,
        folder=Path(__file__).parent,
        links=LINKS,
        passive=frozenset({live_routes.FRAGMENT, live_routes.HISTORY}),
        formats=FORMATS,
    )
    drawer = build(app, site, sessions=sessions, throttle=throttle)

    async def invalid(request: Request, error: Exception) -> Response:
        first = cast(RequestValidationError, error).errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return drawer.refusal(request, RequestError(f"{where}: {first['msg']}"[:300]), 422)

    app.add_exception_handler(RequestValidationError, invalid)
    return app


def own_names(settings: PageSettings) -> OwnNames:
    """What the page is called by those who ask."""
    names = frozenset(name.lower() for name in (settings.host, *settings.names))
    return OwnNames(names, any_address=not settings.is_local)
