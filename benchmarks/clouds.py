"""A real cloud process with an enrolled developer, for the suites."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from triparty.cloud.accounts import SCOPES, Principal
from triparty.cloud.blob_stores import open_blob_store
from triparty.cloud.database import Database
from triparty.cloud.initialise import initialise
from triparty.cloud.publishing import publish
from triparty.cloud.settings import load_settings
from triparty.common.artifacts import FileEntry, Kind, Manifest, sign_manifest
from triparty.common.connection import Connection
from triparty.common.files import sha256_file
from triparty.common.invites import Invite
from triparty.common.transport import CloudClient
from triparty.developer.enroll import enroll
from triparty.developer.grant import find_device, grant_model
from triparty.developer.home import Home
from triparty.developer.invite import invite_device
from triparty.developer.protect import protect
from triparty.developer.publish import publish_model
from triparty.developer.settings import DeveloperSettings
from triparty.device.client import Device


@contextmanager
def serving(data: Path, **settings: int) -> Iterator[str]:
    """A cloud process while the block runs, with changed settings; its address."""
    command = [sys.executable, "-m", "triparty.common", "cloud", "serve", "--json"]
    process = subprocess.Popen(
        [*command, "--data", str(data), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ
        | {f"TRIPARTY_CLOUD_{name.upper()}": str(value) for name, value in settings.items()},
    )
    with process:
        assert process.stdout
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.send_signal(signal.SIGTERM)


def start_up_s(data: Path) -> float:
    """From the command to the line that says that connections are accepted, in seconds."""
    begun = time.perf_counter()
    with serving(data):
        return time.perf_counter() - begun


def new_cloud(folder: Path) -> tuple[Path, Home, str]:
    """A data folder, the home of a developer who is enrolled in it, the operator's token."""
    data, home = folder / "cloud", Home(folder / "developer")
    now = datetime.now(UTC)
    token = initialise(data, now=now).token
    home.make_keys(key_days=365, now=now)
    with serving(data) as url:
        _enroll(home, url, token, now)
    return data, home, token


@contextmanager
def device_with(source: Path, folder: Path, *, name: str, **limits: int) -> Iterator[Device]:
    """A device that has pulled one model, while a cloud process serves it.

    Args:
        source: the model.
        folder: for all three parties; `out` in it is the protected model.
        name: under which it is published.
        limits: settings of the cloud.
    """
    data, home = folder / "cloud", Home(folder / "developer")
    now, settings = datetime.now(UTC), DeveloperSettings()
    token = initialise(data, now=now).token
    home.make_keys(key_days=365, now=now)
    protect(str(source), folder / "out")
    with serving(data, **limits) as url:
        _enroll(home, url, token, now)
        later = now + timedelta(seconds=2)
        publish_model(home, folder / "out", name=name, settings=settings, now=later)
        code, _ = invite_device(home, label="bench", days=1, now=later)
        device = Device(folder / "device")
        device.enroll(code, name="bench")
        later += timedelta(seconds=2)
        with home.access().client() as client:
            record = find_device(home, client, "bench")
            model = home.existing_model(name)
            grant_model(home, client, model, record, settings=settings, now=later)
        device.pull()
        yield device


def _enroll(home: Home, url: str, token: str, now: datetime) -> None:
    """Enrols a developer with a cloud whose operator has this token."""
    invite = Invite(url, None, None, "developer", secrets.token_bytes(32))
    with CloudClient(Connection(url, token=token)) as operator:
        operator.create_invite(
            role="developer", login_hash=invite.login_hash, expires_in_s=600, label="bench"
        )
    enroll(home, invite, cloud=url, name="bench", latest_days=30, now=now)


def fill(data: Path, home: Home, count: int) -> None:
    """Publishes artifacts through the store's own functions."""
    settings, now = load_settings(data), datetime.now(UTC)
    blobs = open_blob_store(settings)
    publishing, developer = home.publishing(), home.delegation(now).developer
    principal = Principal(developer, "developer", developer, SCOPES["developer"])
    content = data.parent / "config.json"
    content.write_bytes(b"{}")
    entry = FileEntry("config.json", sha256_file(content), content.stat().st_size)
    upload = blobs.begin(developer, entry.sha256, start=None, total=entry.size)
    assert upload
    upload.write(content.read_bytes())
    upload.finish()
    database = Database(settings.database_url)
    with database.writing() as session:
        for number in range(count):
            manifest = Manifest(
                kind=Kind.MODEL,
                name=f"model-{number}",
                version=1,
                epoch=1,
                developer=developer,
                signer=publishing.public.key_id,
                files=(entry,),
                created=now,
                expires=now + timedelta(days=30),
            )
            signed = sign_manifest(manifest, publishing)
            publish(session, principal, signed, blobs=blobs, limit=count, now=now)
    database.close()
