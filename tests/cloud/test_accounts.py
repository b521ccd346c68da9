"""Tokens, scopes, invites, revocation."""

from __future__ import annotations

from datetime import timedelta

import pytest

from triparty.cloud.accounts import NewToken, hash_token
from triparty.cloud.serving.sessions import Ending
from triparty.cloud.tables import TokenRow

DATABASES = ("sqlite", "postgresql")


def test_without_or_with_a_forged_token(cloud, slug):
    for token in (None, "tpt_" + "A" * 43, "A" * 43, "tpt_short", "x" * 5000):
        refused = cloud.request("GET", "/v1/status", token)
        assert (refused.status_code, slug(refused)) == (401, "unauthenticated")
        assert refused.headers["WWW-Authenticate"] == "Bearer"
    basic = cloud.request("GET", "/v1/status", headers={"Authorization": "Basic YTpi"})
    assert slug(basic) == "unauthenticated"
    assert cloud.request("GET", "/v1/status", cloud.operator).status_code == 200


def test_an_expired_token(make_cloud, slug):
    cloud = make_cloud(token_days=1)
    developer = cloud.developer()
    assert developer.request("GET", "/v1/devices").status_code == 200
    cloud.now += timedelta(days=1)
    refused = developer.request("GET", "/v1/devices")
    assert (refused.status_code, slug(refused)) == (401, "token-expired")


def test_rotation_stops_the_old_token_at_once(cloud, developer, slug):
    old = developer.token
    reply = developer.request("POST", "/v1/tokens/rotate")
    assert reply.status_code == 200
    developer.token = reply.json()["token"]
    assert developer.token.startswith("tpt_")
    assert developer.token != old
    assert developer.request("GET", "/v1/devices").status_code == 200
    refused = cloud.request("GET", "/v1/devices", old)
    assert (refused.status_code, slug(refused)) == (401, "token-revoked")
    assert slug(cloud.request("POST", "/v1/tokens/rotate", old)) == "token-revoked"


def test_a_revoked_device_stops_at_once_and_its_sessions_end(cloud, developer, device, slug):
    assert device.request("GET", "/v1/artifacts").status_code == 200
    assert developer.request("DELETE", f"/v1/devices/{device.id}").status_code == 204
    assert cloud.serving.closed == [device.id]
    assert slug(device.request("GET", "/v1/artifacts")) == "token-revoked"
    assert developer.request("GET", f"/v1/devices/{device.id}").json()["revoked"] is True
    again = developer.request("DELETE", f"/v1/devices/{device.id}")
    assert again.status_code == 204


def test_a_foreign_device_looks_like_none(cloud, developer, device):
    other = cloud.developer("other")
    for method in ("GET", "DELETE"):
        foreign = other.request(method, f"/v1/devices/{device.id}")
        absent = other.request(method, "/v1/devices/ed25519:" + "0" * 64)
        itself = other.request(method, f"/v1/devices/{other.id}")
        assert foreign.status_code == 404
        assert foreign.json() == absent.json() == itself.json()
    assert device.request("GET", "/v1/artifacts").status_code == 200


ROUTES = {
    ("GET", "/v1/status"): {"operator"},
    ("POST", "/v1/clean"): {"operator"},
    ("GET", "/v1/developers"): {"operator"},
    ("DELETE", "/v1/developers/x"): {"operator"},
    ("GET", "/v1/devices"): {"developer"},
    ("GET", "/v1/devices/x"): {"developer"},
    ("DELETE", "/v1/devices/x"): {"developer"},
    ("POST", "/v1/invites"): {"operator", "developer"},
    ("PUT", "/v1/blobs/" + "0" * 64): {"developer", "device"},
    ("HEAD", "/v1/blobs/" + "0" * 64): {"developer", "device"},
    ("GET", "/v1/blobs/" + "0" * 64): {"developer", "device"},
    ("POST", "/v1/artifacts"): {"developer"},
    ("GET", "/v1/artifacts"): {"developer", "device"},
    ("GET", "/v1/latest"): {"developer", "device"},
    ("PUT", "/v1/latest"): {"developer"},
    ("POST", "/v1/completions"): {"device"},
    ("POST", "/v1/models/tiny/sessions"): {"device"},
    ("POST", "/v1/sessions/x/step"): {"device"},
    ("POST", "/v1/sessions/x/source"): {"device"},
    ("POST", "/v1/sessions/x/rollback"): {"device"},
    ("POST", "/v1/sessions/x/fork"): {"device"},
    ("DELETE", "/v1/sessions/x"): {"device"},
    ("POST", "/v1/jobs"): {"device"},
    ("GET", "/v1/jobs"): {"device"},
    ("GET", "/v1/jobs/x"): {"device"},
    ("GET", "/v1/jobs/x/events"): {"device"},
    ("DELETE", "/v1/jobs/x"): {"device"},
}


@pytest.mark.one_database
@pytest.mark.parametrize(
    ("route", "allowed"), ROUTES.items(), ids=lambda value: " ".join(sorted(value))
)
def test_who_may_ask_what(cloud, developer, device, route, allowed):
    method, path = route
    tokens = {"operator": cloud.operator, "developer": developer.token, "device": device.token}
    assert cloud.request(method, path).status_code == 401
    for role, token in tokens.items():
        if role not in allowed:
            assert cloud.request(method, path, token).status_code == 403, role


def test_every_route_is_in_the_table(cloud):
    """A route without a line above would be a route nobody checked."""
    open_to_all = {("GET", "/healthz"), ("GET", "/readyz"), ("POST", "/v1/enroll")}
    any_token = {("POST", "/v1/tokens/rotate")}
    own_token = {("GET", "/metrics")}
    paths = cloud.request("GET", "/openapi.json").json()["paths"]
    found = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    shapes = {
        (m, "/".join(p.split("/")[:3])) for m, p in found - open_to_all - any_token - own_token
    }
    assert shapes == {(m, "/".join(p.split("/")[:3])) for m, p in ROUTES}


def test_who_may_invite_whom(cloud, developer, slug):
    body = {"login_hash": "0" * 64, "expires_in_s": 3600, "label": "x"}
    for token, role in ((cloud.operator, "device"), (developer.token, "developer")):
        refused = cloud.request("POST", "/v1/invites", token, json=body | {"role": role})
        assert (refused.status_code, slug(refused)) == (403, "forbidden")


@pytest.mark.one_database
@pytest.mark.parametrize(
    "change",
    [
        {"login_hash": "0" * 63},
        {"login_hash": "0" * 64 + "\n"},
        {"login_hash": "A" * 64},
        {"expires_in_s": 0},
        {"expires_in_s": 10**9},
        {"expires_in_s": "3600"},
        {"label": "\x1b[31m"},
        {"secret": "x"},
    ],
    ids=str,
)
def test_invites_are_checked(developer, slug, change):
    body = {"role": "device", "login_hash": "0" * 64, "expires_in_s": 3600, "label": "x"}
    refused = developer.request("POST", "/v1/invites", json=body | change)
    assert (refused.status_code, slug(refused)) == (422, "request")
    assert developer.request("POST", "/v1/invites", json=body).status_code == 201
    assert slug(developer.request("POST", "/v1/invites", json=body)) == "conflict"


def test_open_invites_are_limited(make_cloud, slug):
    cloud = make_cloud(max_invites=2)
    cloud.developer()  # used, so not open
    for number in range(3):
        body = {
            "role": "developer",
            "login_hash": f"{number:064}",
            "expires_in_s": 60,
            "label": "x",
        }
        last = cloud.request("POST", "/v1/invites", cloud.operator, json=body)
    assert (last.status_code, slug(last)) == (429, "limit")
    cloud.now += timedelta(seconds=60)
    assert cloud.request("POST", "/v1/invites", cloud.operator, json=body).status_code == 201


def test_status_counts(cloud, developer, device):
    assert developer.publish({"config.json": b"{}"}).status_code == 201
    assert developer.publish({"config.json": b"{ }"}, version=2).status_code == 201
    cloud.serving.sessions = 3
    counts = cloud.request("GET", "/v1/status", cloud.operator).json()
    assert counts.pop("version")
    developer.invite()
    assert counts == {
        "state": "ready",
        "started": "2026-01-02T03:04:05Z",
        "models": 1,
        "models_loaded": 0,
        "sessions": 3,
        "jobs": 0,
        "developers": 1,
        "devices": 1,
        "invites": 0,
        "artifacts": 2,
        "blob_bytes": 5,
        "uploads": 0,
        "cache_bytes": 0,
        "steps_waiting": 0,
        "steps": 0,
        "tokens": 0,
        "rows": 0,
        "batch_rows": 0.0,
        "queue_ms": 0.0,
        "pass_ms": 0.0,
        "sessions_opened": 0,
        "sessions_ended": dict.fromkeys(Ending, 0),
        "models_evicted": 0,
        "memory_bytes": 0,
        "memory_limit_bytes": 0,
    }
    assert cloud.request("GET", "/v1/status", cloud.operator).json()["invites"] == 1
    cloud.now += timedelta(days=1)
    assert cloud.request("GET", "/v1/status", cloud.operator).json()["invites"] == 0
    device.developer.request("DELETE", f"/v1/devices/{device.id}")
    assert cloud.request("GET", "/v1/status", cloud.operator).json()["devices"] == 0


def test_tokens_are_stored_as_hashes_only(cloud, developer, device):
    tokens = (cloud.operator, developer.token, device.token)
    with cloud.app.state.database.reading() as session:
        for token in tokens:
            assert session.get(TokenRow, hash_token(token))
    stored = b"".join(file.read_bytes() for file in cloud.data.glob("cloud.*"))
    for token in tokens:
        assert token.encode() not in stored
    assert "tpt_" not in repr(NewToken("tpt_x", cloud.now, frozenset()))
