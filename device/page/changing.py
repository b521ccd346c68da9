"""What forms and scripts of the page ask to be changed, as one checked `Edit`; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from triparty.common.errors import RequestError
from triparty.common.pages.forms import Form, field
from triparty.device.gateway.editing import Edit
from triparty.device.gateway.settings import CameraSettings, WatchSettings
from triparty.device.streams.redaction import redacted

TASK_KEYS = ("hold_s", "looks")
CAMERA_KEYS = ("looks_per_s", "before_s", "after_s")


def checked(document: Any) -> Edit:
    """An edit that has the form of one.

    Raises:
        RequestError: an unknown key, or a value of another kind; what was given is not
            repeated, for it may be a password.
    """
    try:
        edit = Edit.model_validate(document)
        json.dumps(edit.model_dump(), allow_nan=False)  # no limit holds what is no number
    except ValidationError as wrong:
        first = wrong.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"] if part != "[key]")
        raise RequestError(f"{where or 'the edit'}: {first['msg']}"[:300]) from None
    except ValueError:
        raise RequestError("a value is no finite number") from None
    return edit


def of_gateway(form: Form, settings: WatchSettings) -> Edit:
    """What a form says of budget, tasks and models otherwise than the settings.

    Raises:
        RequestError: a value of another kind.
    """
    tasks, models = dict[str, Any](), dict[str, Any]()
    for task in settings.tasks:
        prefix = f"task/{task.name}/"
        if f"{prefix}looks" not in form:
            continue
        given = _changed(form, prefix, task, TASK_KEYS)
        if (events := f"{prefix}events" in form) != task.events:
            given["events"] = events
        if given:
            tasks[task.name] = given
    for model in settings.models:
        if given := _changed(form, f"model/{model.name}/", model, ("least_score",)):
            models[model.name] = given
    gate = _changed(form, "", settings.gate, ("budget_ms",))
    return checked({**gate, "tasks": tasks, "models": models})


def of_camera(form: Form, camera: CameraSettings) -> Edit:
    """What a form says of a camera otherwise than the settings.

    Raises:
        RequestError: a value of another kind.
    """
    given = _changed(form, "", camera, CAMERA_KEYS)
    url = field(form, "url").strip()
    if url and url not in (camera.url, redacted(camera.url)):
        given["url"] = url
    if (whole := "whole" in form) != camera.whole:
        given["whole"] = whole
    return checked({"cameras": {camera.name: given} if given else {}})


def shown(settings: WatchSettings) -> dict[str, Any]:
    """What may be changed, as it is now; addresses without passwords."""
    return {
        "budget_ms": settings.gate.budget_ms,
        "cameras": {
            camera.name: {
                "url": redacted(camera.url),
                "tasks": camera.tasks,
                "zones": [zone.model_dump(mode="json") for zone in camera.zones],
                "masks": [mask.model_dump(mode="json") for mask in camera.masks],
                "whole": camera.whole,
                **{key: getattr(camera, key) for key in CAMERA_KEYS},
            }
            for camera in settings.cameras
        },
        "tasks": {
            task.name: {key: getattr(task, key) for key in ("events", *TASK_KEYS)}
            for task in settings.tasks
        },
        "models": {model.name: {"least_score": model.least_score} for model in settings.models},
    }


def _changed(form: Form, prefix: str, now: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a form that say something else than what is."""
    found = dict[str, Any]()
    for key in keys:
        text = field(form, prefix + key).strip()
        if text and _number(text) != float(getattr(now, key)):
            found[key] = text
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None  # the edit says what is wrong


def edit_of(document: Any) -> tuple[Edit, str | None]:
    """The body of a request: `{"edit": ..., "seen": ...}`.

    Raises:
        RequestError: another form.
    """
    if not isinstance(document, Mapping) or not set(document) <= {"edit", "seen"}:
        raise RequestError('expected {"edit": {...}, "seen": "..."}')
    seen = document.get("seen")
    if seen is not None and not isinstance(seen, str):
        raise RequestError("seen: expected the digest that GET /api/settings tells")
    return checked(document.get("edit")), seen
