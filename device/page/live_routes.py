"""How everything stands: the first page, what keeps it fresh, and the same as JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from triparty.common.errors import UnavailableError
from triparty.device.events.event import Event, Wanted
from triparty.device.page.live import history, live
from triparty.device.page.watched import drawer_of, watched_of

NEWEST = 8
FRAGMENT = "/fragments/live"
HISTORY = "/api/history"

router = APIRouter()


@router.get("/", include_in_schema=False)
def get_first(request: Request) -> Response:
    """How everything stands."""
    return drawer_of(request).page(request, "live.html", **_shown(request))


@router.get(FRAGMENT, include_in_schema=False)
def get_fragment(request: Request) -> Response:
    """The part of the first page that changes."""
    return drawer_of(request).page(request, "_live.html", **_shown(request))


@router.get("/api/live")
def get_live(request: Request) -> Response:
    """How everything stands, with the last event of each camera."""
    shown = _shown(request)
    document = shown["live"]
    for camera in document["cameras"]:
        last = shown["last"].get(camera["name"])
        camera["last_event"] = asdict(last) if last is not None else None
    return JSONResponse(document)


@router.get(HISTORY)
def get_history(request: Request) -> Response:
    """The last hour: CPU time saved, budget used, recall by audits."""
    return JSONResponse(history(watched_of(request).feed.samples))


def _shown(request: Request) -> dict[str, Any]:
    watched = watched_of(request)
    moment = watched.feed.now
    last: Mapping[str, Event | None] = {}
    newest: Any = ()
    is_away = False
    if watched.events is not None:
        try:
            names = [camera.name for camera in moment.status.cameras]
            last = request.app.state.last_events.of(names)
            newest = watched.events.list(Wanted(), limit=NEWEST)
        except UnavailableError:  # cameras are worth a look without it
            is_away = True
    return {
        "live": live(moment, time.time()),
        "last": last,
        "newest": newest,
        "keeps_events": watched.events is not None,
        "is_away": is_away,
    }
