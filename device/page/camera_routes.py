"""One camera: how it stands, what to change in it, its zones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from triparty.common.errors import NotFoundError, SettingsError
from triparty.device.events.event import Event, Wanted
from triparty.device.gateway.status import CameraStatus
from triparty.device.page.advice import advice_for
from triparty.device.page.changing import shown
from triparty.device.page.live import live
from triparty.device.page.media import is_kept
from triparty.device.page.watched import Watched, drawer_of, watched_of

NEWEST = 20

router = APIRouter()


@router.get("/cameras/{name}", include_in_schema=False)
def get_camera(request: Request, name: str) -> Response:
    """One camera."""
    watched = watched_of(request)
    camera = _camera(watched, name)
    now = live(watched.feed.now, time.time())
    events = _newest(watched, name)
    return drawer_of(request).page(
        request,
        "camera.html",
        camera=next(each for each in now["cameras"] if each["name"] == name),
        advice=advice_for(camera, watched.settings()),
        events=events,
        picture=_picture(watched, events),
        is_saved="saved" in request.query_params,
        **_own(watched, name),
    )


@router.get("/api/advice/{name}")
def get_advice(request: Request, name: str) -> Response:
    """How gateable a camera is, and what to change in it."""
    watched = watched_of(request)
    found = advice_for(_camera(watched, name), watched.settings())
    document: dict[str, Any] = {"camera": name, "advice": list(found.lines), "found": None}
    if found.found is not None:
        document["found"] = asdict(found.found)
    return JSONResponse(document)


def _camera(watched: Watched, name: str) -> CameraStatus:
    for camera in watched.feed.now.status.cameras:
        if camera.name == name:
            return camera
    raise NotFoundError("no camera of this name is watched")


def _own(watched: Watched, name: str) -> dict[str, Any]:
    """What may be changed of a camera, as it is in the file; nothing if it may not."""
    if watched.editor is not None:
        try:
            now = watched.editor.read()
        except SettingsError:  # somebody is writing it: the page says what runs
            return {"own": None, "seen": None}
        return {"own": shown(now.settings)["cameras"].get(name), "seen": now.digest}
    return {"own": None, "seen": None}


def _picture(watched: Watched, events: Sequence[Event]) -> str | None:
    """The newest picture of these events that is still there."""
    settings = watched.settings()
    if settings.results.snapshots is None:
        return None
    folder = settings.folder / settings.results.snapshots
    names = (event.snapshot for event in events)
    return next((name for name in names if is_kept(folder, name)), None)


def _newest(watched: Watched, name: str) -> Sequence[Event]:
    if watched.events is None:
        return ()
    return watched.events.list(Wanted(cameras=(name,)), limit=NEWEST)
