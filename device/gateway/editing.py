"""Changes of the configuration by others than its owner's editor, as from a page.

Only what `Edit` names can be changed: cameras with their addresses, zones, masks and tasks,
thresholds, the budget. Never code, files, commands, or where anything is sent. The file is
written whole or not at all, with its comments, and is then read as after SIGHUP.
"""

from __future__ import annotations

import hashlib
import stat
import threading
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import tomlkit
from pydantic import Field
from tomlkit.items import AoT

from triparty.common.errors import ConflictError, NotFoundError, SettingsError, StateError
from triparty.common.files import PRIVATE_MODE, write_atomic
from triparty.device.gateway.reloading import changes
from triparty.device.gateway.settings import MaskSettings, WatchSettings, ZoneSettings
from triparty.device.gateway.table import Name, Table
from triparty.device.gateway.watching import check_settings
from triparty.device.streams.redaction import HIDDEN, redacted

SCHEMES: Final = ("rtsp", "rtsps", "http", "https")
Document = dict[str, Any]


class CameraEdit(Table):
    """Of a camera: what is given is set, what is None goes back to its default."""

    name: Name | None = Field(default=None, description="Another name.")
    url: str | None = Field(default=None, repr=False)
    tasks: tuple[Name, ...] | None = None
    zones: tuple[ZoneSettings, ...] | None = None
    masks: tuple[MaskSettings, ...] | None = None
    whole: bool | None = None
    looks_per_s: float | None = None
    before_s: float | None = None
    after_s: float | None = None


class TaskEdit(Table):
    """Of a task: when a changed answer is an event."""

    events: bool | None = None
    hold_s: float | None = None
    looks: int | None = None


class ModelEdit(Table):
    """Of a model."""

    least_score: float | None = None


class Edit(Table):
    """Changes, by the names of what they are of.

    Attributes:
        budget_ms: of the gate.
        cameras: changed or, under new names, added; None removes one.
        tasks: changed.
        models: changed.
    """

    budget_ms: float | None = None
    cameras: Mapping[Name, CameraEdit | None] = Field(default_factory=dict)
    tasks: Mapping[Name, TaskEdit] = Field(default_factory=dict)
    models: Mapping[Name, ModelEdit] = Field(default_factory=dict)


@dataclass(frozen=True)
class Edited:
    """A configuration as it is in its file.

    Attributes:
        settings: that it says.
        digest: of the file's bytes; whoever changes it says which file was seen.
    """

    settings: WatchSettings
    digest: str


class Editor:
    """Changes one configuration; safe to use from several threads.

    Args:
        file: TOML.
        parse: makes settings of its text, as whoever runs the gateway reads it.
        running: the settings that run, to refuse early what only a restart can change.
        ask: has the file read again.
    """

    def __init__(
        self,
        file: Path,
        *,
        parse: Callable[[str], WatchSettings],
        running: Callable[[], WatchSettings],
        ask: Callable[[], None],
    ) -> None:
        """Reads nothing yet."""
        self._file = file.resolve()
        self._parse, self._running, self._ask = parse, running, ask
        self._lock = threading.Lock()

    def read(self) -> Edited:
        """The configuration as it is in the file now.

        Raises:
            SettingsError: it cannot be read.
        """
        text = _text(self._file)
        return Edited(self._parse(text), _digest(text))

    def apply(self, edit: Edit, *, seen: str | None = None) -> Edited:
        """Writes changes, and has the file read again, which the loop does within a second.

        Args:
            edit: what shall be otherwise.
            seen: digest of the file that the changes were made for; None for any.

        Raises:
            ConflictError: the file is another one now.
            NotFoundError: something is changed that is not there.
            SettingsError: the result cannot be, or only a restart can change it.
            StateError: the file cannot be written.
        """
        with self._lock:
            before = _text(self._file)
            if seen is not None and seen != _digest(before):
                raise ConflictError("the configuration was changed meanwhile: look at it again")
            text = edited(before, edit)
            settings = self._parse(text)
            changes(self._running(), settings)
            check_settings(settings)
            self._write(text, edit)
        self._ask()
        return Edited(settings, _digest(text))

    def _write(self, text: str, edit: Edit) -> None:
        try:
            mode = stat.S_IMODE(self._file.stat().st_mode)
            if any(
                each is not None and _has_password(each.url) for each in edit.cameras.values()
            ):
                mode &= PRIVATE_MODE
            write_atomic(self._file, text.encode(), mode=mode)
        except OSError as error:
            raise StateError(
                f"{self._file} cannot be written ({error.strerror}): it and its folder must "
                "belong to whom the gateway runs as"
            ) from error


def edited(text: str, edit: Edit) -> str:
    """A configuration with changes; all else of it stays, comments too.

    Args:
        text: TOML.
        edit: what shall be otherwise.

    Raises:
        NotFoundError: something is changed that is not there.
        SettingsError: an address that may not be set so.
    """
    document = tomlkit.parse(text)
    if edit.budget_ms is not None:
        document.setdefault("gate", tomlkit.table())["budget_ms"] = edit.budget_ms
    for name, camera in edit.cameras.items():
        _edit_camera(document, name, camera)
    for kind, rows in (("tasks", edit.tasks), ("models", edit.models)):
        for name, row in rows.items():
            _set(_row(document, kind, name), _given(row))
    made = tomlkit.dumps(document)
    if tomllib.loads(made) != document.unwrap():
        raise StateError("the file is written in a way that cannot be changed: edit it by hand")
    return made


def _edit_camera(document: Any, name: str, camera: CameraEdit | None) -> None:
    rows = document["cameras"]
    place = next((n for n, row in enumerate(rows) if row.get("name") == name), None)
    if camera is None:
        if place is None:
            raise NotFoundError(f"there is no camera '{name}'")
        del rows[place]
        return
    given = _given(camera)
    if place is None:
        if "url" not in given:
            raise NotFoundError(f"there is no camera '{name}'; a new one needs an address")
        rows.append(tomlkit.table() if isinstance(rows, AoT) else tomlkit.inline_table())
        row = rows[-1]
        row["name"] = name
    else:
        row = rows[place]
    if "url" in given and not _takes_url(row, given["url"]):
        del given["url"]
    _set(row, given)


def _takes_url(row: Mapping[str, Any], url: Any) -> bool:
    """Whether an address is another one than a camera has.

    Raises:
        SettingsError: it may not be set so.
    """
    where = f"camera '{row['name']}'"
    before = row.get("url")
    if before is not None and url in (before, redacted(before)):
        return False
    if url is None or urlsplit(url).scheme.lower() not in SCHEMES:
        raise SettingsError(f"{where}: expected an address of {', '.join(SCHEMES)}")
    if HIDDEN in url:
        raise SettingsError(f"{where}: with another address its password must be given anew")
    has_own = "password_file" in row or "password_env" in row
    if has_own and _who_and_where(url) != _who_and_where(str(before)):
        raise SettingsError(
            f"{where} has a password of its own, which would go to another place: "
            "change that in the file"
        )
    return True


def _who_and_where(url: str) -> tuple[str, str]:
    """Scheme, and user, host and port, of an address."""
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc


def _has_password(url: str | None) -> bool:
    return url is not None and redacted(url) != url


def _row(document: Mapping[str, Any], kind: str, name: str) -> Any:
    for row in document.get(kind, ()):
        if row.get("name") == name:
            return row
    raise NotFoundError(f"there is no {kind[:-1]} '{name}'")


def _given(edit: Table) -> Document:
    """What an edit sets, by key."""
    found = edit.model_dump(mode="json", exclude_unset=True)
    for rows in (found.get("zones"), found.get("masks")):
        for row in rows or ():
            if row.get("tasks", ...) is None:
                del row["tasks"]
    return found


def _set(row: Any, given: Document) -> None:
    for key, value in given.items():
        if value is None or value == []:
            row.pop(key, None)
        if value is None or (value == [] and key != "tasks"):
            continue
        row[key] = _tables(value, row) if key in ("zones", "masks") else value


def _tables(rows: list[Document], of: Any) -> Any:
    """Tables of their own where the camera is one, else inline."""
    if not isinstance(of, tomlkit.items.Table):
        return rows
    found = tomlkit.aot()
    for row in rows:
        table = tomlkit.table()
        table.update(row)
        found.append(table)
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {file}: {error}") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
