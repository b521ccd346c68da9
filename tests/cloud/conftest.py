"""A whole cloud in a temporary folder, driven through its ASGI interface, with a clock."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio.from_thread
import httpx
import pytest
from object_stores import S3Server, missing_for_s3, objects_in_memory, running_s3
from postgres_server import PostgresServer

from triparty.cloud.accounts import OPERATOR, issue_token
from triparty.cloud.app import create_app
from triparty.cloud.database import Database
from triparty.cloud.initialise import initialise
from triparty.cloud.serving import Serving
from triparty.cloud.settings import load_settings
from triparty.cloud.tables import PrincipalRow
from triparty.common.artifacts import FileEntry, Kind, Manifest, sign_manifest
from triparty.common.enrolment import Enrolment, prove_enrolment
from triparty.common.invites import Invite, confirmation
from triparty.common.signing import PrivateKey
from triparty.common.trust import (
    Delegation,
    Latest,
    PublishingKey,
    SignedDocument,
    sign_delegation,
    sign_latest,
)

URL = "http://cloud.test"
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
YEAR = timedelta(days=365)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def a_delegation(root: PrivateKey, publishing: PrivateKey, *, version: int = 1) -> Any:
    keys = (PublishingKey(publishing.public, START + 5 * YEAR),)
    return sign_delegation(
        Delegation(root=root.public, keys=keys, version=version, created=START), root
    )


def proof_of(
    invite: Invite, key: PrivateKey, sealing: bytes | None = None, *, cloud: str = URL
) -> dict[str, str]:
    """The members of an enrolment by which its sender owns the identity key."""
    role = "device" if sealing else "developer"
    enrolment = Enrolment(cloud, role, invite.login_hash, key.public, sealing)
    return {"cloud": cloud, "proof": b64(prove_enrolment(enrolment, key))}


class SpiedServing(Serving):
    """Real serving that remembers whose sessions were ended."""

    closed: list[str]
    sessions: int | None = None

    def close_sessions_of(self, principal_id: str) -> int:
        self.closed.append(principal_id)
        return super().close_sessions_of(principal_id)

    def session_count(self) -> int:
        return super().session_count() if self.sessions is None else self.sessions


class Cloud:
    """A cloud that tests talk to as clients do."""

    def __init__(self, data: Path, operator: str, **settings: Any) -> None:
        self.data = data
        self.operator = operator
        self.now = START
        self.database_name = ""  # on PostgreSQL
        self._settings = settings

    def start(self) -> Cloud:
        settings = load_settings(self.data, **self._settings)
        self.serving = SpiedServing(settings)
        self.serving.closed = []
        self.app = create_app(settings, clock=lambda: self.now, serving=self.serving)
        self._portal_manager = anyio.from_thread.start_blocking_portal()
        self._portal = self._portal_manager.__enter__()
        self._lifespan = self._portal.wrap_async_context_manager(
            self.app.router.lifespan_context(self.app)
        )
        self._lifespan.__enter__()
        transport = httpx.ASGITransport(self.app, client=("192.0.2.1", 5000))
        self._http = httpx.AsyncClient(transport=transport, base_url=URL)
        return self

    def stop(self) -> None:
        self._portal.call(self._http.aclose)
        self._lifespan.__exit__(None, None, None)
        self._portal_manager.__exit__(None, None, None)

    def restart(self) -> None:
        self.stop()
        self.start()

    def request(
        self, method: str, path: str, token: str | None = None, **kwargs: Any
    ) -> httpx.Response:
        headers = dict(kwargs.pop("headers", {}))
        if token:
            headers["Authorization"] = f"Bearer {token}"

        async def send() -> httpx.Response:
            return await self._http.request(method, path, headers=headers, **kwargs)

        response = self._portal.call(send)
        assert response.headers["Triparty-Request"]
        if response.status_code >= 400 and method != "HEAD":
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["status"] == response.status_code
            assert response.json()["type"].startswith("urn:triparty:problem:")
        return response

    def fresh_operator(self) -> str:
        """Another token of the operator, as its commands make one in the database."""
        with self.app.state.database.writing() as session:
            operator = session.get_one(PrincipalRow, OPERATOR)
            return issue_token(session, operator, life=YEAR, now=self.now).token

    def invite(
        self, role: str, inviter: str, *, root: str | None = None, **body: Any
    ) -> Invite:
        invite = Invite(url=URL, pin=None, root=root, role=role, secret=os.urandom(32))
        sent = {
            "role": role,
            "login_hash": invite.login_hash,
            "expires_in_s": 3600,
            "label": "a label",
        } | body
        response = self.request("POST", "/v1/invites", inviter, json=sent)
        assert response.status_code == 201, response.text
        return invite

    def developer(self, name: str = "acme") -> Developer:
        developer = Developer(self, name)
        developer.token = developer.enrol(self.invite("developer", self.operator)).json()[
            "token"
        ]
        return developer


class Developer:
    """A developer with its keys."""

    def __init__(self, cloud: Cloud, name: str) -> None:
        self.cloud = cloud
        self.name = name
        self.root = PrivateKey.generate()
        self.publishing = PrivateKey.generate()
        self.token = ""

    @property
    def id(self) -> str:
        return self.root.public.key_id

    def enrolment(self, invite: Invite) -> dict[str, Any]:
        delegation = a_delegation(self.root, self.publishing)
        return proof_of(invite, self.root) | {
            "role": "developer",
            "login": b64(invite.login),
            "name": self.name,
            "identity": self.root.public.to_text(),
            "delegation": b64(delegation.payload),
            "delegation_signature": b64(delegation.signature),
        }

    def enrol(self, invite: Invite) -> httpx.Response:
        return self.cloud.request("POST", "/v1/enroll", json=self.enrolment(invite))

    def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        return self.cloud.request(method, path, self.token, **kwargs)

    def put(self, data: bytes, **headers: str) -> httpx.Response:
        return self.request("PUT", f"/v1/blobs/{sha(data)}", content=data, headers=headers)

    def manifest(self, files: dict[str, bytes], **changes: Any) -> Manifest:
        entries = [
            FileEntry(path, sha(data), len(data)) for path, data in sorted(files.items())
        ]
        values = {
            "kind": Kind.MODEL,
            "name": "tiny",
            "version": 1,
            "epoch": 1,
            "developer": self.id,
            "signer": self.publishing.public.key_id,
            "files": tuple(entries),
            "created": self.cloud.now,
            "expires": self.cloud.now + YEAR,
        }
        return Manifest(**(values | changes))

    def post(self, signed: SignedDocument) -> httpx.Response:
        body = {"manifest": b64(signed.payload), "signature": b64(signed.signature)}
        return self.request("POST", "/v1/artifacts", json=body)

    def publish(self, files: dict[str, bytes], **changes: Any) -> httpx.Response:
        for data in files.values():
            assert self.put(data).status_code == 201
        return self.post(sign_manifest(self.manifest(files, **changes), self.publishing))

    def grant(self, device: Device, **changes: Any) -> httpx.Response:
        files = {"bundle.sealed": b"sealed to " + device.id.encode()}
        values = {"kind": Kind.BUNDLE, "recipient": device.id} | changes
        return self.publish(files, **values)

    def put_latest(self, *, sequence: int = 1, revoked: tuple[str, ...] = ()) -> httpx.Response:
        latest = Latest(
            developer=self.id,
            sequence=sequence,
            created=self.cloud.now,
            expires=self.cloud.now + timedelta(days=7),
            versions={},
            revoked=revoked,
            signer=self.publishing.public.key_id,
        )
        return self.send_latest(
            a_delegation(self.root, self.publishing), sign_latest(latest, self.publishing)
        )

    def send_latest(self, delegation: SignedDocument, latest: SignedDocument) -> httpx.Response:
        body = {
            "delegation": b64(delegation.payload),
            "delegation_signature": b64(delegation.signature),
            "latest": b64(latest.payload),
            "latest_signature": b64(latest.signature),
        }
        return self.request("PUT", "/v1/latest", json=body)

    def invite(self, **body: Any) -> Invite:
        return self.cloud.invite("device", self.token, root=self.id, **body)

    def device(self, name: str = "phone") -> Device:
        device = Device(self, name)
        device.token = device.enrol(self.invite()).json()["token"]
        return device


class Device:
    """A device of a developer."""

    def __init__(self, developer: Developer, name: str) -> None:
        self.developer = developer
        self.cloud = developer.cloud
        self.name = name
        self.identity = PrivateKey.generate()
        self.sealing = os.urandom(32)
        self.token = ""

    @property
    def id(self) -> str:
        return self.identity.public.key_id

    def enrolment(self, invite: Invite) -> dict[str, Any]:
        tag = confirmation(
            invite.confirm_key, identity=self.identity.public.raw, sealing=self.sealing
        )
        return proof_of(invite, self.identity, self.sealing) | {
            "role": "device",
            "login": b64(invite.login),
            "name": self.name,
            "identity": self.identity.public.to_text(),
            "sealing": b64(self.sealing),
            "confirmation": b64(tag),
        }

    def enrol(self, invite: Invite) -> httpx.Response:
        return self.cloud.request("POST", "/v1/enroll", json=self.enrolment(invite))

    def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        return self.cloud.request(method, path, self.token, **kwargs)


@pytest.fixture(scope="session")
def migrated_postgres(postgres: PostgresServer) -> str:
    """The name of a PostgreSQL database with this version's schema and no rows."""
    name = postgres.new_database()
    Database(postgres.url(name)).close()
    return name


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module that names `DATABASES` or `BLOBS` has its tests run with each of them.

    Beside other kinds of blobs, an object server's turn is `slow` unless a test asks for it.
    """
    for names, fixture in (("DATABASES", "database_kind"), ("BLOBS", "blob_kind")):
        kinds = getattr(metafunc.module, names, None)
        if metafunc.definition.get_closest_marker("one_database"):
            kinds = kinds and kinds[:1]
        if kinds and fixture in metafunc.fixturenames:
            is_asked = metafunc.definition.get_closest_marker("object_server")
            is_slow = len(kinds) > 1 and not is_asked
            chosen = [
                pytest.param(kind, marks=pytest.mark.slow if is_slow and kind == "s3" else ())
                for kind in kinds
            ]
            metafunc.parametrize(fixture, chosen, indirect=True)


@pytest.fixture
def database_kind(request: pytest.FixtureRequest) -> str:
    """SQLite, unless the module names `DATABASES`."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def new_database(
    database_kind: str, request: pytest.FixtureRequest
) -> Iterator[Callable[[], str | None]]:
    """Makes a database for a new cloud; None is SQLite in its folder."""
    made: list[str] = []

    def new() -> str | None:
        if database_kind == "sqlite":
            return None
        server: PostgresServer = request.getfixturevalue("postgres")
        made.append(server.new_database(like=request.getfixturevalue("migrated_postgres")))
        return server.url(made[-1])

    yield new
    for name in made:
        request.getfixturevalue("postgres").drop_database(name)


@pytest.fixture
def blob_kind(request: pytest.FixtureRequest) -> str:
    """A folder, unless the module names `BLOBS`."""
    return str(getattr(request, "param", "disk"))


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 server; where its packages are not installed: skips, and fails in CI."""
    if missing := missing_for_s3():
        absent = f"{missing} is not installed (pip install 'triparty[dev]')"
        if os.environ.get("CI"):
            pytest.fail(absent)
        pytest.skip(absent)
    with running_s3() as server:
        yield server


@pytest.fixture
def blobs_url(
    blob_kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> str | None:
    """Where a new cloud keeps its blobs; None is its own folder."""
    if blob_kind == "memory":
        return objects_in_memory(monkeypatch)
    if blob_kind == "s3":
        server: S3Server = request.getfixturevalue("s3")
        return server.new_bucket(monkeypatch)
    return None


@pytest.fixture
def make_cloud(
    tmp_path: Path, new_database: Callable[[], str | None], blobs_url: str | None
) -> Iterator[Any]:
    running: list[Cloud] = []

    def make(**settings: Any) -> Cloud:
        data = tmp_path / f"cloud{len(running)}"
        database = new_database()
        token = initialise(data, url=URL, database=database, now=START).token
        running.append(Cloud(data, token, **({"blobs": blobs_url} | settings)).start())
        running[-1].database_name = (database or "").partition("@/")[2].partition("?")[0]
        return running[-1]

    yield make
    for cloud in running:
        cloud.stop()


@pytest.fixture
def cloud(make_cloud: Any) -> Cloud:
    return make_cloud()


@pytest.fixture
def developer(cloud: Cloud) -> Developer:
    return cloud.developer()


@pytest.fixture
def device(developer: Developer) -> Device:
    return developer.device()


@pytest.fixture
def slug() -> Any:
    """The last part of a response's problem type."""

    def of(response: httpx.Response) -> str:
        return json.loads(response.content)["type"].removeprefix("urn:triparty:problem:")

    return of
