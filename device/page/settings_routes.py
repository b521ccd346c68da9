"""Settings that may be changed from the page: what `editing.Edit` names, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, RedirectResponse, Response

from triparty.common.errors import (
    NotFoundError,
    RequestError,
    SettingsError,
    StateError,
    TripartyError,
    UnavailableError,
)
from triparty.common.pages.forms import Form, field, form_of
from triparty.common.pages.website import root_of
from triparty.device.gateway.editing import Edit, Edited, Editor
from triparty.device.gateway.settings import CameraSettings, WatchSettings
from triparty.device.page.changing import checked, edit_of, of_camera, of_gateway, shown
from triparty.device.page.watched import drawer_of, watched_of

router = APIRouter()


@router.get("/settings", include_in_schema=False)
def get_page(request: Request) -> Response:
    """The form."""
    return _page(request)


@router.post("/settings", include_in_schema=False)
async def post_page(request: Request) -> Response:
    """Budget, tasks and models."""
    return await _by_form(request, "/settings", of_gateway)


@router.post("/settings/cameras", include_in_schema=False)
async def add_camera(request: Request) -> Response:
    """A new camera."""

    def added(form: Form, settings: WatchSettings) -> Edit:
        name = field(form, "name").strip()
        if any(camera.name == name for camera in settings.cameras):
            raise RequestError(f"there is a camera '{name}' already")
        return checked({"cameras": {name: {"url": field(form, "url").strip()}}})

    return await _by_form(request, "/settings", added)


@router.post("/settings/cameras/{name}", include_in_schema=False)
async def change_camera(request: Request, name: str) -> Response:
    """One camera."""

    def changed(form: Form, settings: WatchSettings) -> Edit:
        return of_camera(form, camera_named(settings, name))

    return await _by_form(request, f"/cameras/{quote(name, safe='')}", changed)


@router.post("/settings/cameras/{name}/remove", include_in_schema=False)
async def remove_camera(request: Request, name: str) -> Response:
    """A camera that shall be watched no more."""
    return await _by_form(
        request, "/settings", lambda form, settings: checked({"cameras": {name: None}})
    )


@router.get("/api/settings")
def get_settings(request: Request) -> Response:
    """What may be changed, as it is in the file, and the file's digest."""
    now = _editor(request).read()
    return JSONResponse({"edit": shown(now.settings), "seen": now.digest})


@router.patch("/api/settings")
async def patch_settings(request: Request) -> Response:
    """`{"edit": {...}, "seen": "..."}`: what shall be otherwise, of which file."""
    try:
        document = await request.json()
    except ValueError as error:
        raise RequestError("the body is no JSON") from error
    edit, seen = edit_of(document)
    now = await run_in_threadpool(_apply, _editor(request), edit, seen)
    return JSONResponse({"edit": shown(now.settings), "seen": now.digest})


def camera_named(settings: WatchSettings, name: str) -> CameraSettings:
    """A camera of the settings.

    Raises:
        NotFoundError: there is none.
    """
    for camera in settings.cameras:
        if camera.name == name:
            return camera
    raise NotFoundError("there is no camera of this name in the settings")


async def _by_form(
    request: Request, goes: str, read: Callable[[Form, WatchSettings], Edit]
) -> Response:
    """Applies what a form says; then the page that it came from, or the form with the error."""
    editor, form = _editor(request), await form_of(request)

    def apply() -> None:
        _apply(editor, read(form, editor.read().settings), field(form, "seen") or None)

    try:
        await run_in_threadpool(apply)
    except TripartyError as error:
        return await run_in_threadpool(_page, request, error)
    return RedirectResponse(f"{root_of(request)}{goes}?saved=yes", 303)


def _apply(editor: Editor, edit: Edit, seen: str | None) -> Edited:
    """Writes changes.

    Raises:
        ConflictError: the file is another one now.
        NotFoundError: something is changed that is not there.
        RequestError: the result cannot be.
        UnavailableError: the file cannot be written.
    """
    try:
        return editor.apply(edit, seen=seen)
    except SettingsError as error:
        raise RequestError(error.message) from error
    except StateError as error:
        raise UnavailableError(error.message) from error


def _editor(request: Request) -> Editor:
    editor = watched_of(request).editor
    if editor is None:
        raise NotFoundError("the settings of this gateway are in no file")
    return editor


def _page(request: Request, error: TripartyError | None = None) -> Response:
    now = _editor(request).read()
    return drawer_of(request).page(
        request,
        "settings.html",
        status=error.status if error is not None else 200,
        error=error,
        edit=shown(now.settings),
        seen=now.digest,
        is_saved="saved" in request.query_params,
    )
