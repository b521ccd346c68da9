"""`cloud init`: a data folder, its configuration, its database, and one operator token."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from triparty.cloud.accounts import add_operator, issue_token
from triparty.cloud.database import Database
from triparty.cloud.settings import CONFIG_FILE, CloudSettings, check_url, load_settings
from triparty.cloud.tls import read_pin, write_certificate
from triparty.common.errors import SettingsError, StateError
from triparty.common.files import make_private_folder, replace_folder, write_private

ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104  compared with, not bound


@dataclass(frozen=True)
class NewCloud:
    """What `cloud init` made; the token is shown once."""

    token: str
    url: str | None
    pin: str | None
    data: Path

    def __repr__(self) -> str:
        """Hides the token."""
        return f"NewCloud(data={self.data})"


def initialise(
    data: Path,
    *,
    host: str | None = None,
    port: int | None = None,
    url: str | None = None,
    database: str | None = None,
    self_signed: bool = False,
    now: datetime,
) -> NewCloud:
    """Makes a cloud's data folder.

    Args:
        data: the folder; made if absent, mode 0700.
        host: address that `cloud serve` will listen on.
        port: port that it will listen on; None takes the URL's, if that names one.
        url: how others reach the cloud; goes into invites.
        database: SQLAlchemy URL, if not SQLite in the folder.
        self_signed: make a TLS certificate.
        now: the time.

    Raises:
        StateError: there is a cloud in the folder already; nothing was changed.
        ConflictError: the database belongs to a cloud already.
        SettingsError: a value that cannot be used.
    """
    if (data / CONFIG_FILE).exists():
        raise StateError(f"{data} holds a cloud already: its operator token is shown only once")
    if data.is_dir() and any(data.iterdir()):
        raise StateError(f"{data} is not empty: name a new folder, it is made for one cloud")
    if port is None and url is not None:
        port = urlsplit(check_url(url)).port
    given = {"host": host, "port": port, "url": url and check_url(url), "database": database}
    settings = CloudSettings.load(None, data=data, **given)
    config = config_text(given)  # refuses what it cannot hold, before anything is made
    try:
        make_private_folder(data)
    except OSError as error:
        raise StateError(f"cannot make {data}: {error.strerror}") from error
    store = Database(settings.database_url)
    try:
        with store.writing() as session:
            operator = add_operator(session, now=now)
            life = timedelta(days=settings.token_days)
            token = issue_token(session, operator, life=life, now=now).token
    finally:
        store.close()
    pin = None
    if self_signed:
        pin = read_pin(write_certificate(data, _names(settings), now=now))
    write_private(data / CONFIG_FILE, config.encode())
    return NewCloud(token, settings.url or _default_url(settings, self_signed), pin, data)


def renew_certificate(data: Path, *, now: datetime) -> str:
    """Makes another key and certificate in the place of the cloud's own; returns the pin.

    The cloud shows it when it is started again; every home has to trust it then.

    Args:
        data: the folder of a cloud.
        now: the time.

    Raises:
        StateError: it has no self-signed certificate of its own.
    """
    if not (data / "tls" / "cert.pem").is_file():
        raise StateError(
            f"{data} has no certificate of its own: it was made without --self-signed"
        )
    settings = load_settings(data)
    making = data / ".tls.new"
    shutil.rmtree(making, ignore_errors=True)  # of a renewal that was cut
    pin = read_pin(write_certificate(making, _names(settings), now=now))
    replace_folder(making / "tls", data / "tls")
    making.rmdir()
    if pin is None:
        raise StateError("a self-signed certificate has a pin")
    return pin


def _names(settings: CloudSettings) -> list[str]:
    names = [socket.gethostname(), settings.host]
    if settings.url:
        names.append(urlsplit(settings.url).hostname or "")
    return [name for name in names if name and name not in ANY_ADDRESS and name.isascii()]


def _default_url(settings: CloudSettings, is_tls: bool) -> str | None:
    if settings.port == 0 or settings.host in ANY_ADDRESS:
        return None
    return url_of(settings.host, settings.port, is_tls=is_tls)


def url_of(host: str, port: int, *, is_tls: bool) -> str:
    """The URL of an address."""
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if is_tls else 'http'}://{shown}:{port}"


def config_text(values: Mapping[str, Any]) -> str:
    """The text of a `cloud.toml`; None is left out.

    Raises:
        SettingsError: a control character.
    """
    lines = ["# triparty cloud; `triparty cloud serve --help` explains the keys."]
    for key, value in values.items():
        if isinstance(value, str) and not value.isprintable():
            raise SettingsError(f"{key}: control characters are not allowed")
        if value is not None:  # a JSON string without control characters is a TOML string
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"
