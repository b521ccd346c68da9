"""Events: a list with filters, each one with its clip and picture, and the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, JSONResponse, Response

from triparty.common.errors import NotFoundError
from triparty.device.events.event import KINDS, Event, Events, Wanted
from triparty.device.page.asked import limit_of, wanted_of
from triparty.device.page.media import find, is_kept
from triparty.device.page.timeline import WIDTH, timeline
from triparty.device.page.watched import Watched, drawer_of, watched_of

PAGE = 50

router = APIRouter()


@router.get("/events", include_in_schema=False)
def get_page(request: Request) -> Response:
    """Events with filters, on a line of time and as a list."""
    watched = watched_of(request)
    events: Sequence[Event] = ()
    wanted, size = wanted_of(request.query_params), limit_of(request.query_params, PAGE)
    if watched.events is not None:
        events = watched.events.list(wanted, limit=size + 1)
    has_more, events = len(events) > size, events[:size]
    settings = watched.settings()
    return drawer_of(request).page(
        request,
        "events.html",
        keeps_events=watched.events is not None,
        events=events,
        line=timeline(events),
        width=WIDTH,
        wanted=wanted,
        given={name: request.query_params.get(name, "") for name in ("since", "until")},
        cameras=[camera.name for camera in settings.cameras],
        tasks=[task.name for task in settings.tasks],
        kinds=KINDS,
        older=_older(request, events[-1]) if has_more else None,
    )


@router.get("/events/{number}", include_in_schema=False)
def get_event(request: Request, number: int) -> Response:
    """One event."""
    watched = watched_of(request)
    event, results = _event(watched, number), watched.settings().results
    return drawer_of(request).page(
        request,
        "event.html",
        event=event,
        has_clip=is_kept(_folder(watched, results.clips), event.clip),
        has_picture=is_kept(_folder(watched, results.snapshots), event.snapshot),
        **_neighbours(watched, event),
    )


@router.get("/api/events")
def get_events(request: Request) -> Response:
    """The newest events that are wanted, newest first; see docs/page.md for the fields."""
    query = request.query_params
    found = _events(watched_of(request)).list(wanted_of(query), limit=limit_of(query, PAGE))
    return JSONResponse({"events": [asdict(event) for event in found]})


@router.get("/api/events/{number}")
def get_event_document(request: Request, number: int) -> Response:
    """One event."""
    return JSONResponse(asdict(_event(watched_of(request), number)))


@router.get("/clips/{name}", include_in_schema=False)
def get_clip(request: Request, name: str) -> Response:
    """A clip, or a range of it."""
    results = watched_of(request).settings().results
    return _file(watched_of(request), results.clips, name)


@router.get("/snapshots/{name}", include_in_schema=False)
def get_snapshot(request: Request, name: str) -> Response:
    """A picture."""
    results = watched_of(request).settings().results
    return _file(watched_of(request), results.snapshots, name)


def _file(watched: Watched, folder: Path | None, name: str) -> Response:
    path, media_type = find(_folder(watched, folder), name)
    return FileResponse(path, media_type=media_type)


def _folder(watched: Watched, folder: Path | None) -> Path | None:
    return None if folder is None else watched.settings().folder / folder


def _events(watched: Watched) -> Events:
    if watched.events is None:
        raise NotFoundError("no events are kept: give [results] a database in the settings")
    return watched.events


def _event(watched: Watched, number: int) -> Event:
    event = _events(watched).get(number) if 0 <= number < 1 << 63 else None
    if event is None:
        raise NotFoundError(f"there is no event {number} (any more)")
    return event


def _neighbours(watched: Watched, event: Event) -> dict[str, Any]:
    """The events of the same camera before and after."""
    events, of_camera = _events(watched), Wanted(cameras=(event.camera,))
    before = events.list(replace(of_camera, before_id=event.id), limit=1)
    later = events.list(replace(of_camera, after_id=event.id), limit=1000)
    return {"before": before[0] if before else None, "after": later[-1] if later else None}


def _older(request: Request, last: Event) -> str:
    """The address of the page after one that ends with an event."""
    kept = [
        (name, value)
        for name, value in request.query_params.multi_items()
        if name != "before" and value
    ]
    return f"/events?{urlencode([*kept, ('before', str(last.id))])}"
