"""Tenants never meet: for every route, what is somebody else's is as if it were not there.

The same requests are sent to two clouds: one in which the other tenant has everything, and one
in which it never was. Answers and database statements must not differ, and afterwards the other
tenant must find everything as it was. So there is nothing to tell "not yours" from "not there"
by, neither in an answer nor in the work that was done for it.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from made_jobs import body_of, data_of, post, samples
from sqlalchemy import event
from starlette.routing import Mount, Route

from tests.cloud.conftest import START, URL, Cloud, Developer, Device, b64, proof_of, sha
from triparty.cloud.app import create_app
from triparty.cloud.blobs import BlobStore
from triparty.cloud.catalog import Catalog
from triparty.cloud.disk_blobs import DiskBlobs
from triparty.cloud.initialise import initialise
from triparty.cloud.page.app import OPERATOR_PATH
from triparty.cloud.rates import RequestRates
from triparty.cloud.serving.hosting import Models
from triparty.cloud.serving.sessions import Sessions
from triparty.cloud.settings import load_settings
from triparty.cloud.tables import InviteRow
from triparty.common.artifacts import Kind, sign_manifest
from triparty.common.invites import Invite
from triparty.common.signing import PrivateKey
from triparty.common.telemetry import request_id
from triparty.common.wire import Frame, encode_frames

BLOB = b"a blob that only the other tenant has"
PARTIAL = b"an upload that the other tenant has not finished"
UPLOAD = b"an upload of the other tenant's device"
JOB = "0123456789abcdef" * 2
ROOT, PUBLISHING = (PrivateKey.from_seed(seed * 32) for seed in (b"r", b"p"))
ROWS = encode_frames(Frame.of(np.ones((1, 16), np.float32)))


@dataclass
class Tenant:
    """Who must be left alone: a developer with a device, a session and more."""

    developer: Developer
    device: Device
    session: str
    invite: Invite
    used: dict[str, Any]
    """The body with which its device enrolled."""

    @property
    def manifest(self) -> dict[str, Any]:
        return self.developer.request("GET", "/v1/artifacts").json()["artifacts"][0]

    def finds(self) -> list[object]:
        """Everything that it can see of its own, and whose its invite is."""
        mine, device = self.developer.request, self.device.request
        with self.developer.cloud.app.state.database.reading() as session:
            inviter = session.get_one(InviteRow, self.invite.login_hash).inviter
        answers = [
            mine("GET", "/v1/devices"),
            mine("GET", "/v1/artifacts"),
            mine("GET", "/v1/latest"),
            mine("GET", f"/v1/blobs/{sha(BLOB)}"),
            mine("HEAD", f"/v1/blobs/{sha(PARTIAL)}"),
            device("GET", "/v1/artifacts"),
            step(device, self.session, "first", position=0),  # the stored reply
            step(device, self.session, "wrong", position=9),  # where the session stands
            device("GET", "/v1/jobs"),
            device("HEAD", f"/v1/blobs/{sha(UPLOAD)}"),
        ]
        return [inviter, *((a.status_code, a.headers.get("range"), a.content) for a in answers)]


@dataclass
class Asker:
    """Who asks: a developer of its own and its device, both new."""

    developer: Developer
    device: Device

    def tokens(self) -> dict[str, str | None]:
        return {
            "nobody": None,
            "operator": self.developer.cloud.fresh_operator(),
            "developer": self.developer.token,
            "device": self.device.token,
        }


def step(ask: Callable[..., httpx.Response], session: str, name: str, *, position: int) -> Any:
    headers = {
        "Triparty-Position": str(position),
        "Triparty-Request-Id": name,
        "Triparty-Reply": "hidden",
    }
    return ask("POST", f"/v1/sessions/{session}/step", content=ROWS, headers=headers)


def step_headers(**changes: str) -> dict[str, str]:
    return {
        "Triparty-Position": "1",
        "Triparty-Request-Id": "first",
        "Triparty-Reply": "hidden",
    } | changes


Probe = Callable[[Asker, Tenant], tuple[str, dict[str, Any]]]


def plain(path: str, **kwargs: Any) -> Probe:
    return lambda asker, other: (
        path.format(
            device=other.device.id,
            developer=other.developer.id,
            session=other.session,
            blob=sha(BLOB),
            partial=sha(PARTIAL),
            sealed=sha(sealed(other)),
            job=JOB,
            upload=sha(UPLOAD),
        ),
        kwargs,
    )


def sealed(other: Tenant) -> bytes:
    return b"sealed to " + other.device.id.encode()


def piece(data: bytes, first: int, last: int) -> dict[str, Any]:
    return {
        "content": data[first : last + 1],
        "headers": {"Content-Range": f"bytes {first}-{last}/{len(data)}"},
    }


def with_body(path: str, body: Callable[[Asker, Tenant], dict[str, Any]]) -> Probe:
    return lambda asker, other: (path, {"json": body(asker, other)})


def names_a_blob(asker: Asker, other: Tenant) -> dict[str, Any]:
    """A manifest of the asker about a blob that it never sent."""
    manifest = asker.developer.manifest({"config.json": BLOB}, name="thief")
    return signed(asker.developer, manifest)


def takes_the_name(asker: Asker, other: Tenant) -> dict[str, Any]:
    """The other tenant's name and version, over a blob of the asker's own."""
    assert asker.developer.put(b"{}").status_code == 201
    return signed(asker.developer, asker.developer.manifest({"config.json": b"{}"}))


def for_its_device(asker: Asker, other: Tenant) -> dict[str, Any]:
    manifest = asker.developer.manifest(
        {"bundle.sealed": b"x"}, kind=Kind.BUNDLE, recipient=other.device.id
    )
    return signed(asker.developer, manifest)


def signed(developer: Developer, manifest: Any) -> dict[str, Any]:
    document = sign_manifest(manifest, developer.publishing)
    return {"manifest": b64(document.payload), "signature": b64(document.signature)}


def its_manifest(asker: Asker, other: Tenant) -> dict[str, Any]:
    return {name: other.manifest[name] for name in ("manifest", "signature")}


def its_statements(asker: Asker, other: Tenant) -> dict[str, Any]:
    return other.developer.request("GET", "/v1/latest").json()


def its_invite(asker: Asker, other: Tenant) -> dict[str, Any]:
    return {
        "role": "device",
        "login_hash": other.invite.login_hash,
        "expires_in_s": 3600,
        "label": "mine",
    }


def its_enrolment(asker: Asker, other: Tenant) -> dict[str, Any]:
    return other.used


def with_its_spent_login(asker: Asker, other: Tenant) -> dict[str, Any]:
    login = hashlib.sha256(b"no such login").digest()
    body = asker.device.enrolment(asker.developer.invite()) | {"login": b64(login)}
    invite = hashlib.sha256(login).hexdigest()
    return body | proof_of(_Login(invite), asker.device.identity, asker.device.sealing)


def as_its_device(asker: Asker, other: Tenant) -> dict[str, Any]:
    """The other's device key under an invite of the asker's."""
    body = asker.device.enrolment(asker.developer.invite())
    return body | {"identity": other.device.identity.public.to_text()}


def with_its_id(asker: Asker, other: Tenant) -> dict[str, Any]:
    """The other's job id, over an upload that the asker never sent."""
    return body_of(asker.device, UPLOAD, job=JOB)


def with_its_signature(asker: Asker, other: Tenant) -> dict[str, Any]:
    return body_of(other.device, UPLOAD, job=JOB)


@dataclass
class _Login:
    login_hash: str


SESSION = "/v1/sessions/{session}"
PROBES: dict[tuple[str, str], list[Probe]] = {
    ("GET", "/healthz"): [plain("/healthz")],
    ("GET", "/readyz"): [plain("/readyz")],
    ("GET", "/openapi.json"): [plain("/openapi.json")],
    ("GET", "/metrics"): [plain("/metrics")],
    ("POST", "/v1/clean"): [plain("/v1/clean")],
    ("POST", "/v1/enroll"): [
        with_body("/v1/enroll", its_enrolment),
        with_body("/v1/enroll", with_its_spent_login),
        with_body("/v1/enroll", as_its_device),
    ],
    ("POST", "/v1/invites"): [with_body("/v1/invites", its_invite)],
    ("GET", "/v1/developers"): [plain("/v1/developers")],
    ("DELETE", "/v1/developers/{developer}"): [plain("/v1/developers/{developer}")],
    ("GET", "/v1/devices"): [plain("/v1/devices")],
    ("GET", "/v1/devices/{device}"): [
        plain("/v1/devices/{device}"),
        plain("/v1/devices/{developer}"),
    ],
    ("DELETE", "/v1/devices/{device}"): [
        plain("/v1/devices/{device}"),
        plain("/v1/devices/{developer}"),
        plain("/v1/devices/operator"),
    ],
    ("POST", "/v1/tokens/rotate"): [plain("/v1/tokens/rotate")],
    ("GET", "/v1/status"): [plain("/v1/status")],
    ("HEAD", "/v1/blobs/{sha256}"): [
        plain("/v1/blobs/{blob}"),
        plain("/v1/blobs/{partial}"),
        plain("/v1/blobs/{sealed}"),
        plain("/v1/blobs/{upload}"),
    ],
    ("GET", "/v1/blobs/{sha256}"): [
        plain("/v1/blobs/{blob}"),
        plain("/v1/blobs/{upload}"),
        plain("/v1/blobs/{partial}"),
        plain("/v1/blobs/{sealed}", headers={"Range": "bytes=0-0"}),
    ],
    ("PUT", "/v1/blobs/{sha256}"): [
        plain("/v1/blobs/{blob}", content=BLOB),
        plain("/v1/blobs/{blob}", content=BLOB[::-1]),
        plain("/v1/blobs/{upload}", content=UPLOAD),
        plain("/v1/blobs/{upload}", **piece(UPLOAD, 0, 0)),
        plain("/v1/blobs/{blob}", **piece(BLOB, 0, 0)),
        plain("/v1/blobs/{blob}", **piece(BLOB, len(BLOB), len(BLOB) - 1)),
        plain("/v1/blobs/{partial}", **piece(PARTIAL, 10, len(PARTIAL) - 1)),
    ],
    ("POST", "/v1/artifacts"): [
        with_body("/v1/artifacts", names_a_blob),
        with_body("/v1/artifacts", takes_the_name),
        with_body("/v1/artifacts", for_its_device),
        with_body("/v1/artifacts", its_manifest),
    ],
    ("GET", "/v1/artifacts"): [
        plain("/v1/artifacts"),
        plain("/v1/artifacts?kind=bundle"),
        plain("/v1/artifacts?kind=model&name=tiny"),
    ],
    ("GET", "/v1/latest"): [plain("/v1/latest")],
    ("PUT", "/v1/latest"): [with_body("/v1/latest", its_statements)],
    ("POST", "/v1/models/{name}/sessions"): [plain("/v1/models/tiny/sessions", json={})],
    ("POST", "/v1/models/{name}/forward"): [
        plain("/v1/models/tiny/forward", content=ROWS),
        plain("/v1/models/tiny/forward", content=b"no frame"),
    ],
    ("POST", "/v1/completions"): [
        plain("/v1/completions", json={"model": "tiny", "prompt": "aaaa"})
    ],
    ("POST", "/v1/sessions/{session_id}/step"): [
        plain(f"{SESSION}/step", content=ROWS, headers=step_headers()),
        plain(
            f"{SESSION}/step",
            content=ROWS,
            headers=step_headers(**{"Triparty-Request-Id": "new"}),
        ),
        plain(f"{SESSION}/step", content=b"no frame", headers={}),
    ],
    ("POST", "/v1/sessions/{session_id}/source"): [
        plain(f"{SESSION}/source", content=ROWS),
        plain(f"{SESSION}/source", content=b"no frame"),
    ],
    ("POST", "/v1/sessions/{session_id}/rollback"): [
        plain(f"{SESSION}/rollback", json={"position": 0})
    ],
    ("POST", "/v1/sessions/{session_id}/fork"): [plain(f"{SESSION}/fork")],
    ("DELETE", "/v1/sessions/{session_id}"): [plain(SESSION)],
    ("POST", "/v1/jobs"): [
        with_body("/v1/jobs", with_its_id),
        with_body("/v1/jobs", with_its_signature),
    ],
    ("GET", "/v1/jobs"): [plain("/v1/jobs")],
    ("GET", "/v1/jobs/{job}"): [plain("/v1/jobs/{job}")],
    ("GET", "/v1/jobs/{job}/events"): [plain("/v1/jobs/{job}/events")],
    ("DELETE", "/v1/jobs/{job}"): [plain("/v1/jobs/{job}")],
}
FOR_OPERATORS = {
    ("GET", "/v1/status"),
    ("POST", "/v1/clean"),
    ("GET", "/v1/developers"),
    ("DELETE", "/v1/developers/{developer}"),
}
CASES = [
    pytest.param(route, probe, id=f"{route[0]} {route[1]} {number}")
    for route, probes in PROBES.items()
    for number, probe in enumerate(probes)
]


def routes_of(monkeypatch: pytest.MonkeyPatch, data: Path) -> set[tuple[str, str]]:
    """Every method and path that the application answers, in its schema or not."""
    included: dict[int, set[tuple[str, str]]] = {}
    include = FastAPI.include_router

    def noting(app: FastAPI, router: Any, **options: Any) -> None:
        prefix = options.get("prefix", "")
        included.setdefault(id(app), set()).update(
            (method, prefix + route.path) for route in router.routes for method in route.methods
        )
        include(app, router, **options)

    monkeypatch.setattr(FastAPI, "include_router", noting)
    initialise(data, now=START)
    app = create_app(load_settings(data))
    app.state.database.close()
    found = included[id(app)]
    own = [route for route in app.routes if getattr(route, "path", None)]
    # The operator's page lets nobody in but with the operator's token: test_operator_page.py.
    assert [route.path for route in own if isinstance(route, Mount)] == [OPERATOR_PATH]
    plain_routes = (route for route in own if isinstance(route, Route))
    found.update((method, route.path) for route in plain_routes for method in route.methods)
    return found - {("HEAD", "/openapi.json")}


def test_every_route_is_probed(monkeypatch, tmp_path):
    """A route without a row would be a route in which tenants may meet."""
    assert routes_of(monkeypatch, tmp_path / "cloud") == set(PROBES)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("checkpoint")
    config = LlamaConfig(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextmanager
def running(folder: Path) -> Iterator[Cloud]:
    token = initialise(folder, url=URL, now=START).token
    cloud = Cloud(
        folder,
        token,
        enrolments_per_minute=100_000,
        failures_per_minute=100_000,
        max_trainers=0,
    ).start()
    try:
        yield cloud
    finally:
        cloud.stop()


def a_developer(cloud: Cloud, checkpoint: dict[str, bytes]) -> Developer:
    """With fixed keys, so that what it signs is the same in every cloud."""
    developer = Developer(cloud, "other")
    developer.root, developer.publishing = ROOT, PUBLISHING
    enrolled = developer.enrol(cloud.invite("developer", cloud.operator))
    developer.token = enrolled.json()["token"]
    assert developer.publish(checkpoint).status_code == 201
    assert developer.put_latest().status_code == 204
    return developer


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, checkpoint: Any) -> Iterator[Tenant]:
    with running(tmp_path_factory.mktemp("beside") / "cloud") as cloud:
        developer = a_developer(cloud, checkpoint)
        device, invite = Device(developer, "phone"), developer.invite()
        body = device.enrolment(invite)
        device.token = cloud.request("POST", "/v1/enroll", json=body).json()["token"]
        assert developer.grant(device).status_code == 201
        assert developer.put(BLOB).status_code == 201
        path = f"/v1/blobs/{sha(PARTIAL)}"
        assert developer.request("PUT", path, **piece(PARTIAL, 0, 9)).status_code == 308
        data = data_of(tmp_path_factory.mktemp("data"), samples())
        assert post(device, data, job=JOB).status_code == 201
        path = f"/v1/blobs/{sha(UPLOAD)}"
        assert device.request("PUT", path, content=UPLOAD).status_code == 201
        opened = device.request("POST", "/v1/models/tiny/sessions", json={})
        session = opened.json()["session"]
        assert step(device.request, session, "first", position=0).status_code == 200
        yield Tenant(developer, device, session, developer.invite(), body)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with running(tmp_path_factory.mktemp("empty") / "cloud") as cloud:
        yield cloud


@pytest.fixture(scope="module")
def childless(tmp_path_factory: pytest.TempPathFactory, checkpoint: Any) -> Iterator[Developer]:
    """The same developer in a cloud where its device never was."""
    with running(tmp_path_factory.mktemp("childless") / "cloud") as cloud:
        yield a_developer(cloud, checkpoint)


@contextmanager
def statements(cloud: Cloud) -> Iterator[list[str]]:
    """The SQL that the cloud executes, without its values."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    engine = cloud.app.state.database.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


PATH_WORK = {"open", "stat", "mkdir", "unlink", "rename", "replace", "iterdir", "glob", "rglob"}
WORKERS: tuple[type, ...] = (BlobStore, DiskBlobs, Catalog, Models, Sessions, Path)


@contextmanager
def calls() -> Iterator[list[str]]:
    """Every function of `WORKERS` that is called: blobs, files, models, sessions.

    What costs time is done by them or by the database, so two requests with the same calls and
    statements take the same time but for what the machine adds.
    """
    seen: list[str] = []

    def noted(name: str, function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if request_id.get():  # not what goes on by itself
                seen.append(name)
            return function(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for worker in WORKERS:
            for name, function in vars(worker).items():
                is_work = worker is not Path or name in PATH_WORK
                if inspect.isfunction(function) and not name.startswith("__") and is_work:
                    patch.setattr(worker, name, noted(f"{worker.__name__}.{name}", function))
        yield seen


def seen_by(asker: Asker, role: str, method: str, probe: Probe, other: Tenant) -> object:
    """What one request shows: the answer, and the work that was done for it."""
    cloud = asker.developer.cloud
    path, kwargs = probe(asker, other)
    cloud.app.state.tokens.forget_all()
    with statements(cloud) as sql, calls() as work:
        answer = cloud.request(method, path, asker.tokens()[role], **kwargs)
    headers = {k: v for k, v in answer.headers.items() if k != "triparty-request"}
    text = answer.text.replace(asker.developer.id, "DEVELOPER")
    text = text.replace(asker.device.id, "DEVICE")
    text = re.sub(r"tpt_[\w-]{43}", "TOKEN", text)
    for own in ("artifact", "sealing", "confirmation", "identity", "invite", "job_key"):
        if answer.headers.get("content-type") == "application/json" and own in text:
            text = re.sub(rf'"{own}":"[\w-]+"', f'"{own}":"OWN"', text)
    return answer.status_code, headers, text, sql, work


ROLES = ["nobody", "developer", "device", "operator"]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("route", "probe"), CASES)
def test_another_tenant_is_as_if_it_were_not_there(
    route: tuple[str, str], probe: Probe, role: str, other: Tenant, empty: Cloud
) -> None:
    if role == "operator" and route in FOR_OPERATORS:
        pytest.skip("the operator sees who is there")
    before = other.finds()
    seen = []
    for cloud in (empty, other.developer.cloud):
        developer = cloud.developer()
        asker = Asker(developer, developer.device())
        seen.append(seen_by(asker, role, route[0], probe, other))
    assert seen[0] == seen[1]
    assert other.finds() == before


@pytest.mark.parametrize(("route", "probe"), CASES)
def test_another_device_of_the_developer_is_as_if_it_were_not_there(
    route: tuple[str, str], probe: Probe, other: Tenant, childless: Developer
) -> None:
    before = other.finds()
    seen = []
    for developer in (childless, other.developer):
        asker = Asker(developer, developer.device("sibling"))
        seen.append(seen_by(asker, "device", route[0], probe, other))
        developer.request("DELETE", f"/v1/devices/{asker.device.id}")
    assert seen[0] == seen[1]
    after = other.finds()
    assert before[:1] + before[2:] == after[:1] + after[2:]  # its list of devices grew


def test_the_comparison_sees_a_difference(other: Tenant, empty: Cloud) -> None:
    """What is the tenant's own does differ: the law above can fail."""
    developer = empty.developer()
    stranger = Asker(developer, developer.device())
    owner = Asker(other.developer, other.device)
    for route in (
        ("GET", "/v1/devices/{device}"),
        ("GET", "/v1/blobs/{sha256}"),
        ("HEAD", "/v1/blobs/{sha256}"),
    ):
        probe = PROBES[route][0]
        mine = seen_by(owner, "developer", route[0], probe, other)
        assert mine != seen_by(stranger, "developer", route[0], probe, other)


def test_the_comparison_sees_work_that_no_answer_shows(
    other: Tenant, empty: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cloud that looked for a blob among everybody's would be caught by what it does."""
    held = BlobStore.held

    def looks_around(store: BlobStore, developer: str, sha256: str) -> Any:
        found = held(store, developer, sha256)
        if found is None and held(store, other.developer.id, sha256):
            held(store, developer, sha256)
        return found

    monkeypatch.setattr(BlobStore, "held", looks_around)
    (probe, *_), seen = PROBES[("HEAD", "/v1/blobs/{sha256}")], []
    for cloud in (empty, other.developer.cloud):
        developer = cloud.developer()
        asker = Asker(developer, developer.device())
        seen.append(seen_by(asker, "developer", "HEAD", probe, other))
    assert seen[0][:4] == seen[1][:4]
    assert seen[0] != seen[1]


NO_TOKEN = {"/healthz", "/readyz", "/openapi.json", "/metrics", "/v1/enroll"}
"""Not limited by principal: what costs nothing, and what is limited by address."""


@pytest.mark.parametrize("role", ["developer", "device"])
@pytest.mark.parametrize(
    "route", sorted(each for each in PROBES if each[1] not in NO_TOKEN), ids=" ".join
)
def test_who_exhausts_a_route_exhausts_it_for_itself(
    route: tuple[str, str], role: str, other: Tenant
) -> None:
    cloud = other.developer.cloud
    askers = []
    for name in ("greedy", "modest"):
        developer = cloud.developer(name)
        askers.append(Asker(developer, developer.device()))
    greedy, modest = askers
    before, rates = other.finds(), cloud.app.state.rates
    cloud.app.state.rates = RequestRates(per_principal=0.1, per_developer=0.1)
    try:
        statuses = [ask(asker, role, route) for asker in (greedy, greedy, modest)]
        sibling = {"developer": "device", "device": "developer"}[role]
        of_one_developer = ask(greedy, sibling, route)
    finally:
        cloud.app.state.rates = rates
    assert [status == 429 for status in statuses] == [False, True, False]
    assert of_one_developer == 429
    assert other.finds() == before


def ask(asker: Asker, role: str, route: tuple[str, str]) -> int:
    """The status of a request for a route's path, with nothing in it."""
    party = {"developer": asker.developer, "device": asker.device}[role]
    answer = party.request(route[0], re.sub(r"{\w+}", "x", route[1]))
    if answer.status_code == 200 and "token" in answer.json():
        party.token = answer.json()["token"]  # the other one stopped
    return answer.status_code
