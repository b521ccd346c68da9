"""The edges: errors, limits, logs, health."""

from __future__ import annotations

import asyncio
import io
import json
import logging

import numpy as np
import pytest

from triparty.common.errors import PROBLEM_PREFIX
from triparty.common.telemetry import JsonFormatter, log_to
from triparty.common.wire import MEDIA_TYPE, Frame, encode_frames

ZEROS = "0" * 64


def test_health(cloud):
    assert cloud.request("GET", "/healthz").json() == {"status": "ok"}
    assert cloud.request("GET", "/readyz").json() == {"status": "ready"}
    cloud.app.state.is_ready = False
    refused = cloud.request("GET", "/readyz")
    assert refused.status_code == 503
    assert refused.headers["Retry-After"]
    cloud.app.state.is_ready = True


def test_openapi_names_the_routes(cloud):
    document = cloud.request("GET", "/openapi.json").json()
    assert {"/v1/enroll", "/v1/blobs/{sha256}", "/v1/sessions/{session_id}/step"} <= set(
        document["paths"]
    )


@pytest.mark.parametrize(
    ("method", "path", "status", "expected"),
    [
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/docs", 404, "not-found"),
        ("DELETE", "/healthz", 405, "request"),
        ("GET", "/v1/enroll", 405, "request"),
        ("POST", "/v1/enroll", 422, "request"),
    ],
)
def test_errors_of_the_framework_are_problems(cloud, slug, method, path, status, expected):
    refused = cloud.request(method, path)
    assert (refused.status_code, slug(refused)) == (status, expected)
    assert set(refused.json()) == {"type", "title", "status", "detail"}


def test_an_unexpected_error_tells_nothing_but_its_id(cloud, caplog):
    @cloud.app.get("/broken")
    def broken() -> None:
        raise ZeroDivisionError("tpt_secret /internal/path")

    with caplog.at_level(logging.ERROR):
        refused = cloud.request("GET", "/broken")
    assert refused.status_code == 500
    problem = refused.json()
    assert problem["type"] == PROBLEM_PREFIX + "cloud"
    assert problem["request"] == refused.headers["Triparty-Request"]
    assert "secret" not in refused.text
    assert any(record.exc_info for record in caplog.records)


def test_each_request_has_its_own_id(cloud):
    ids = {cloud.request("GET", "/healthz").headers["Triparty-Request"] for _ in range(3)}
    assert len(ids) == 3


def test_validation_errors_do_not_repeat_the_input(cloud):
    secret = "tpt_" + "S" * 43
    for body in ({"login": secret}, {"login": [secret]}, {"role": secret}):
        assert secret not in cloud.request("POST", "/v1/enroll", json=body).text


@pytest.mark.parametrize(
    "content_type", ["text/plain", "", "application/x-www-form-urlencoded"]
)
def test_only_json_is_json(cloud, slug, content_type):
    refused = cloud.request(
        "POST", "/v1/enroll", content=b"{}", headers={"Content-Type": content_type}
    )
    assert (refused.status_code, slug(refused)) == (415, "request")


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 10_000, b'{"role": NaN}'])
def test_broken_json(cloud, slug, body):
    headers = {"Content-Type": "application/json"}
    refused = cloud.request("POST", "/v1/enroll", content=body, headers=headers)
    assert refused.status_code in (400, 422)
    assert slug(refused) == "request"


@pytest.mark.parametrize("path", ["/v1/enroll", "/v1/invites", "/v1/models/m/sessions"])
def test_large_json_is_refused_unread_where_it_has_no_meaning(cloud, slug, path):
    refused = cloud.request("POST", path, json={f"unknown {i}": 0 for i in range(2000)})
    assert (refused.status_code, slug(refused)) == (413, "too-large")


def test_announced_and_unannounced_bodies_are_bounded(make_cloud, slug):
    cloud = make_cloud(max_json_bytes=2000)
    headers = {"Content-Type": "application/json"}
    big = cloud.request("POST", "/v1/enroll", content=b" " * 2001, headers=headers)
    assert (big.status_code, slug(big)) == (413, "too-large")
    sent = 0

    async def endless():
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b" " * 1000

    big = cloud.request("POST", "/v1/enroll", content=endless(), headers=headers)
    assert (big.status_code, slug(big)) == (413, "too-large")
    assert sent < 10  # it was not read to its end
    fits = cloud.request("POST", "/v1/enroll", content=b" " * 1998 + b"{}", headers=headers)
    assert fits.status_code == 422


def test_a_client_that_falls_silent(make_cloud, slug):
    cloud = make_cloud(body_timeout_s=0.01)
    developer = cloud.developer()

    async def stalls():
        yield b"{"
        await asyncio.sleep(60)

    headers = {"Content-Type": "application/json"}
    refused = cloud.request("POST", "/v1/enroll", content=stalls(), headers=headers)
    assert (refused.status_code, slug(refused)) == (408, "request")
    headers = {"Content-Range": "bytes 0-1/2"}
    url = "/v1/blobs/" + "0" * 64
    assert developer.request("PUT", url, content=stalls(), headers=headers).status_code == 408


@pytest.mark.parametrize("length", ["-1", "1e9", "9" * 30, "x"])
def test_nonsense_lengths(cloud, length):
    headers = {"Content-Type": "application/json", "Content-Length": length}
    assert (
        cloud.request("POST", "/v1/enroll", content=b"{}", headers=headers).status_code == 413
    )


@pytest.fixture
def log():
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    log_to(stream)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the client's, not the cloud's
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger("httpx").setLevel(logging.NOTSET)


def test_the_log_tells_who_and_what_but_no_secret(log, make_cloud):
    scrape = "scrape-" + "s" * 40
    cloud = make_cloud(metrics_token=scrape)
    developer = cloud.developer()
    invite = developer.invite()
    device = developer.device()
    developer.publish({"config.json": b'{"weights": "are secret"}'})
    developer.grant(device)
    developer.request("POST", "/v1/tokens/rotate")
    device.request("POST", "/v1/sessions/a-session-id/rollback", json={"position": 0})
    cloud.request("GET", f"/v1/nothing/{device.token}?token={device.token}")
    cloud.request("GET", "/v1/status", "tpt_" + "Z" * 43)
    cloud.request("GET", "/metrics", scrape)
    cloud.request("GET", "/metrics", scrape[:-1] + "t")
    words = {"model": "tiny", "prompt": "aabaaaca", "seed": 902109021090210}
    device.request("POST", "/v1/completions", json=words)
    asked = {
        "Triparty-Position": "0",
        "Triparty-Request-Id": "a-request-id",
        "Triparty-Reply": "logits",
        "Content-Type": MEDIA_TYPE,
    }
    rows = encode_frames(Frame.of(np.full((1, 4), 1234.5, np.float32)))
    device.request("POST", "/v1/sessions/a-session-id/step", content=rows, headers=asked)
    cloud.app.state.drain.begin()
    device.request("GET", "/v1/latest")
    text = log.getvalue()
    lines = [json.loads(line) for line in text.splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert any(
        line["principal"] == device.id and line["route"] == "/v1/sessions/{session_id}/rollback"
        for line in requests
        if "principal" in line
    )
    assert all(line["request_id"] and "duration_ms" in line for line in requests)
    assert any(line.get("problem") == "unauthenticated" for line in requests)
    fields = {"request_id", "method", "route", "status", "duration_ms", "bytes_in", "bytes_out"}
    assert all(fields <= set(line) for line in requests)
    assert {(line["route"], line["status"]) for line in requests} >= {
        ("/metrics", 200),
        ("/metrics", 401),
        ("/v1/completions", 422),
        ("/v1/sessions/{session_id}/step", 404),
        (None, 503),
    }
    assert all("principal" not in line for line in requests if line["route"] == "/metrics")
    secrets = [cloud.operator, developer.token, device.token, "tpt_", invite.to_code()]
    secrets += ["scrape-", "aabaaaca", "902109021090210", "1234.5", "a-request-id"]
    secrets += [
        invite.login_hash,
        "a-session-id",
        "are secret",
        developer.root.public.to_text(),
    ]
    for secret in secrets:
        assert secret not in text
    assert isinstance(logging.getLogger().handlers[0].formatter, JsonFormatter)
