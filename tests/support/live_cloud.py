"""The real cloud application on a loopback socket, in a thread, and a developer who uses it."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from one_model_at_a_time import wait_for_the_cloud
from sqlalchemy import update

from triparty.cloud.app import create_app
from triparty.cloud.initialise import initialise, renew_certificate, url_of
from triparty.cloud.settings import load_settings
from triparty.cloud.tables import PrincipalRow, TokenRow
from triparty.common.artifacts import Kind, Manifest
from triparty.common.connection import Connection
from triparty.common.errors import UnreachableError
from triparty.common.invites import Invite
from triparty.common.replies import DeviceRecord
from triparty.common.tls import certificate_pin
from triparty.common.transport import CloudClient
from triparty.common.trust import Latest
from triparty.developer.account import Developer as Account
from triparty.developer.enroll import enroll
from triparty.developer.grant import Granted, find_device, grant_model
from triparty.developer.home import Home
from triparty.developer.invite import invite_device
from triparty.developer.publish import Publication, publish_model
from triparty.developer.settings import DeveloperSettings
from triparty.device.client import Device

START_LIMIT_S = 60


def utc_now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def cut(owner: type, method: str, *, after: bool) -> Iterator[None]:
    """Breaks off at a method's first call, before it does anything or after it did all."""
    real = getattr(owner, method)
    is_cut = False

    def broken(*args: Any, **kwargs: Any) -> Any:
        nonlocal is_cut
        if is_cut:
            return real(*args, **kwargs)
        is_cut = True
        if after:
            real(*args, **kwargs)
        raise UnreachableError("cut")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, method, broken)
        with pytest.raises(UnreachableError, match="cut"):
            yield
    assert is_cut


@dataclass
class LiveCloud:
    """A cloud that answers; its operator invites, and its database can be tampered with."""

    url: str
    app: FastAPI
    operator: str = field(repr=False)
    certificate_pem: str | None = field(default=None, repr=False)
    data: Path = Path()
    server: uvicorn.Server | None = field(default=None, repr=False)

    def renew_certificate(self) -> str:
        """Makes another certificate and shows it, as after a restart; returns its pin."""
        pin = renew_certificate(self.data, now=utc_now())
        assert self.server is not None
        assert self.server.config.ssl is not None
        folder = self.data / "tls"
        self.server.config.ssl.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self.certificate_pem = (folder / "cert.pem").read_text()
        return pin

    def invite(self, *, url: str | None = None) -> Invite:
        invite = Invite(
            url=url or self.url,
            pin=certificate_pin(self.certificate_pem) if self.certificate_pem else None,
            root=None,
            role="developer",
            secret=secrets.token_bytes(32),
        )
        connection = Connection(
            self.url, token=self.operator, certificate_pem=self.certificate_pem
        )
        with CloudClient(connection) as client:
            client.create_invite(
                role="developer", login_hash=invite.login_hash, expires_in_s=600, label="dev"
            )
        return invite

    def tamper(self, principal: str, **columns: str) -> None:
        """Rewrites columns of an account, as a hostile cloud can."""
        with self.app.state.database.writing() as session:
            row = session.get_one(PrincipalRow, principal)
            for name, value in columns.items():
                setattr(row, name, value)

    def expire_tokens(self, principal: str) -> None:
        """Ends the tokens of an account, as time would."""
        with self.app.state.database.writing() as session:
            mine = update(TokenRow).where(TokenRow.principal == principal)
            session.execute(mine.values(expires=utc_now()))


@contextmanager
def running_cloud(data: Path, *, https: bool = False, **changes: Any) -> Iterator[LiveCloud]:
    """Serves a new cloud until the block ends.

    Args:
        data: its folder.
        https: with a certificate of its own, which its invites pin.
        changes: settings.
    """
    wait_for_the_cloud()
    operator = initialise(data, self_signed=https, now=utc_now()).token
    many = {"enrolments_per_minute": 100_000, "failures_per_minute": 100_000}
    settings = load_settings(data, **many | changes)
    app, files = create_app(settings), settings.certificate_files
    tls = {"ssl_certfile": files[0], "ssl_keyfile": files[1]} if files else {}
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="on", ws="none", **tls
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        end = time.monotonic() + START_LIMIT_S
        while not server.started:
            assert thread.is_alive(), "the cloud did not start"
            assert time.monotonic() < end, "the cloud did not start in time"
            time.sleep(0.01)
        try:
            url = url_of(*listener.getsockname(), is_tls=https)
            pem = files[0].read_text() if files else None
            yield LiveCloud(url, app, operator, pem, data, server)
        finally:
            server.should_exit = True
            thread.join(timeout=30)


@dataclass
class Developer:
    """One developer of a live cloud, and the devices that it invites."""

    cloud: LiveCloud
    home: Home
    folder: Path
    settings: DeveloperSettings
    uses: int = 0

    def now(self) -> datetime:
        """Later at every use, by more than the second that documents carry."""
        self.uses += 1
        return utc_now() + timedelta(seconds=2 * self.uses)

    @classmethod
    def new(cls, cloud: LiveCloud, folder: Path) -> Developer:
        """With keys; not enrolled."""
        home = Home(folder / "developer")
        home.make_keys(key_days=30, now=utc_now())
        return cls(cloud, home, folder, DeveloperSettings())

    def enroll(
        self,
        invite: Invite | None = None,
        *,
        cloud: str | None = None,
        again: bool = False,
    ) -> None:
        enroll(
            self.home,
            invite or self.cloud.invite(),
            cloud=cloud or self.cloud.url,
            name="acme",
            latest_days=7,
            now=self.now(),
            again=again,
        )

    def client(self) -> CloudClient:
        return self.home.access().client()

    def publish(self, out: Path, name: str = "tiny", **options: Any) -> Publication:
        return publish_model(
            self.home, out, name=name, settings=self.settings, now=self.now(), **options
        )

    @property
    def account(self) -> Account:
        """The same, as programs use it."""
        return Account(self.home.folder, settings=self.settings)

    def invite(self, label: str) -> str:
        return invite_device(self.home, label=label, days=1, now=self.now())[0]

    def device(self, label: str, *, name: str | None = None) -> tuple[Device, str]:
        """An enrolled device and its id."""
        device = Device(self.folder / "devices" / secrets.token_hex(4))
        access = device.enroll(self.invite(label), name=name or f"name of {label}")
        return device, access.principal

    def find(self, wanted: str) -> DeviceRecord:
        with self.client() as client:
            return find_device(self.home, client, wanted)

    def grant(self, wanted: str, name: str = "tiny") -> Granted:
        with self.client() as client:
            device = find_device(self.home, client, wanted)
            model = self.home.existing_model(name)
            return grant_model(
                self.home, client, model, device, settings=self.settings, now=self.now()
            )

    def manifests(self, kind: Kind, name: str = "tiny") -> list[Manifest]:
        """What the cloud lists of this developer, newest first."""
        with self.client() as client:
            listed = client.artifacts(kind=kind, name=name)
        return [Manifest.from_bytes(signed.payload) for signed in listed]

    def versions(self, kind: Kind = Kind.MODEL, name: str = "tiny") -> list[int]:
        return [manifest.version for manifest in self.manifests(kind, name)]

    def latest(self) -> Latest:
        """The statement that the cloud shows."""
        with self.client() as client:
            return Latest.from_bytes(client.statements().latest.payload)
