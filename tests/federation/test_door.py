"""What of a SuperLink can be reached from outside: Flower's Fleet API, and nothing else."""

from __future__ import annotations

import asyncio
import ssl

import httpx
import pytest

pytest.importorskip("flwr", reason="needs the extra federation")

from triparty.developer.federation import door as module
from triparty.developer.federation.door import door

UPSTREAM = "https://127.0.0.1:1"
Request = tuple[str, str]


def answers(*requests: Request, content: bytes = b"body") -> list[httpx.Response]:
    """What a door answers to methods and paths."""

    async def ask() -> list[httpx.Response]:
        application = door(UPSTREAM, ssl.create_default_context())
        async with application.router.lifespan_context(application):
            transport = httpx.ASGITransport(application)
            async with REAL(transport=transport, base_url="https://door") as web:
                return [
                    await web.request(method, path, content=content, headers={"x-key": "k"})
                    for method, path in requests
                ]

    return asyncio.run(ask())


REAL = httpx.AsyncClient


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
    """What comes through to a SuperLink that says yes to everything."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=b"yes", headers={"x-flower": "1"})

    def client(**options: object) -> httpx.AsyncClient:
        return REAL(transport=httpx.MockTransport(answer))

    monkeypatch.setattr(module.httpx, "AsyncClient", client)
    return seen


def test_what_a_site_says_is_passed_on(passed: list[httpx.Request]) -> None:
    (came,) = answers(("POST", "/v1/fleet/pull-messages"))
    assert (came.status_code, came.content, came.headers["x-flower"]) == (200, b"yes", "1")
    (request,) = passed
    assert request.url == f"{UPSTREAM}/v1/fleet/pull-messages"
    assert (request.content, request.headers["x-key"]) == (b"body", "k")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/runtime/push-messages"),
        ("POST", "/v1/fleet/../control/start-run"),
        ("POST", "/v1/fleet/%2e%2e/control/start-run"),
        ("POST", "/v1/fleet/..%2fcontrol%2fstart-run"),
        ("POST", "/v1/fleet//v1/control/start-run"),
        ("POST", "/v1/fleet/A"),
        ("POST", "/"),
        ("GET", "/health"),
        ("GET", "/v1/fleet/pull-messages"),
        ("PUT", "/v1/fleet/pull-messages"),
    ],
)
def test_nothing_else_is(passed: list[httpx.Request], method: str, path: str) -> None:
    (came,) = answers((method, path))
    assert came.status_code in (404, 405)
    assert not passed


def test_a_body_has_a_limit(
    passed: list[httpx.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT_BYTES", 10)
    assert answers(("POST", "/v1/fleet/x"), content=b"0" * 11)[0].status_code == 413
    assert answers(("POST", "/v1/fleet/x"), content=b"0" * 10)[0].status_code == 200
    assert len(passed) == 1


def test_a_superlink_that_is_away_is_said_to_be() -> None:
    assert answers(("POST", "/v1/fleet/x"))[0].status_code == 503
