"""The operator's commands as HTTP requests: there is one way in, also for the operator.

Whoever can write the database is the operator. So a command that is given the data folder
makes itself a token for a minute, uses the same routes as everyone else, and deletes it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from triparty.cloud.accounts import OPERATOR, hash_token, issue_token
from triparty.cloud.database import Database
from triparty.cloud.server import find_running
from triparty.cloud.settings import check_url, load_settings
from triparty.cloud.state import utc_now
from triparty.cloud.tables import PrincipalRow, TokenRow
from triparty.cloud.tls import read_pin
from triparty.common.connection import Connection
from triparty.common.errors import SettingsError, StateError, UnreachableError
from triparty.common.invites import SECRET_BYTES, Invite
from triparty.common.tls import fetch_pinned_certificate

TOKEN_LIFE = timedelta(seconds=60)


@dataclass(frozen=True)
class Desk:
    """The operator's place: a connection, and what invites say about the cloud.

    Attributes:
        connection: with an operator token.
        url: how others reach the cloud.
        pin: of its certificate; None for the system's authorities.
    """

    connection: Connection
    url: str
    pin: str | None

    def status(self) -> dict[str, Any]:
        """The counts of `GET /v1/status`."""
        return self.connection.request("GET", "/v1/status").document()

    def clean(self) -> dict[str, Any]:
        """What `POST /v1/clean` removed."""
        return self.connection.request("POST", "/v1/clean").document()

    def developers(self) -> list[dict[str, Any]]:
        """The developers of `GET /v1/developers`."""
        listed = self.connection.request("GET", "/v1/developers").document()["developers"]
        return list(listed)

    def revoke(self, wanted: str) -> dict[str, Any]:
        """Revokes the one developer of this id, name, or beginning of an id; returns it.

        Raises:
            SettingsError: none or several; nothing was revoked.
        """
        found = [
            developer
            for developer in self.developers()
            if wanted == developer["name"] or developer["id"].startswith(wanted)
        ]
        if len(found) != 1 or not wanted:
            raise SettingsError(
                f"{len(found)} developers are {wanted!r}: give the id that "
                "'triparty cloud developers' shows"
            )
        path = f"/v1/developers/{quote(found[0]['id'], safe='')}"
        self.connection.request("DELETE", path, accept=(204,))
        return found[0]

    def invite_developer(self, *, label: str, days: float) -> tuple[Invite, str]:
        """Makes an invite here and registers its login hash; returns it and its expiry."""
        secret = secrets.token_bytes(SECRET_BYTES)
        invite = Invite(url=self.url, pin=self.pin, root=None, role="developer", secret=secret)
        body = {
            "role": "developer",
            "login_hash": invite.login_hash,
            "expires_in_s": int(days * 86400),
            "label": label,
        }
        answer = self.connection.request("POST", "/v1/invites", body=body, accept=(201,))
        return invite, str(answer.document()["expires"])


@contextmanager
def desk_of_folder(data: Path) -> Iterator[Desk]:
    """The operator beside the data folder of a running cloud.

    Raises:
        StateError: no cloud in the folder.
        UnreachableError: it is not being served.
    """
    settings = load_settings(data)
    running = find_running(data)
    if running is None:
        raise UnreachableError(
            f"the cloud in {data} is not running: start it with 'triparty cloud serve "
            f"--data {data}'"
        )
    file = Path(running.certificate) if running.certificate else None
    with (
        _minute_token(running.database) as token,
        Connection(
            _dialled(running.url),
            token=token,
            certificate_pem=file.read_text(encoding="ascii") if file else None,
            allow_http=True,  # an address of this machine
        ) as connection,
    ):
        pin = read_pin(file) if file else None
        yield Desk(connection, settings.url or running.url, pin)


@contextmanager
def desk_of_url(url: str, *, pin: str | None, token: str) -> Iterator[Desk]:
    """The operator on another machine.

    Raises:
        CertificateError: the certificate is not the pinned one.
    """
    url = check_url(url)
    certificate = fetch_pinned_certificate(url, pin) if pin else None
    with Connection(url, token=token, certificate_pem=certificate) as connection:
        yield Desk(connection, url, pin)


def check_invite_url(url: str) -> None:
    """Raises `SettingsError` for an address that nobody else can dial."""
    if any(host in url for host in ("//0.0.0.0:", "//[::]:")):
        raise SettingsError(
            "the cloud listens on every address, so its own URL says nothing: set 'url' in "
            "cloud.toml (or TRIPARTY_CLOUD_URL) to the one that others use"
        )


def _dialled(url: str) -> str:
    for anywhere, here in (("//0.0.0.0:", "//127.0.0.1:"), ("//[::]:", "//[::1]:")):
        url = url.replace(anywhere, here)
    return url


@contextmanager
def _minute_token(database_url: str) -> Iterator[str]:
    store = Database(database_url, upgrades=False)
    try:
        with store.writing() as session:
            operator = session.get(PrincipalRow, OPERATOR)
            if operator is None:
                raise StateError("the database has no operator: run 'triparty cloud init'")
            token = issue_token(session, operator, life=TOKEN_LIFE, now=utc_now()).token
        try:
            yield token
        finally:
            with store.writing() as session:
                session.delete(session.get_one(TokenRow, hash_token(token)))
    finally:
        store.close()
