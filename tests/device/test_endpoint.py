"""The endpoint without a cloud: who is answered, and in which form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_device import URL, SmallDevice

from triparty.common.errors import (
    CloudError,
    DeadlineError,
    LimitError,
    RollbackError,
    TokenExpiredError,
    TripartyError,
    UnreachableError,
)
from triparty.device.cli_serve import warning
from triparty.device.client import Device
from triparty.device.endpoint import app as endpoint_app
from triparty.device.endpoint.app import BODY_LIMIT_BYTES, create_app
from triparty.device.endpoint.failures import Failure
from triparty.device.endpoint.guard import Admission
from triparty.device.endpoint.requests import ChatRequest, CompletionRequest, read
from triparty.device.endpoint.server import Listening

ASKED = {"model": "known", "prompt": "w3 w1 w4", "max_tokens": 5, "temperature": 0}


@pytest.fixture
def device(tmp_path: Path) -> SmallDevice:
    return SmallDevice(tmp_path)


def ask(
    device: SmallDevice,
    method: str = "POST",
    path: str = "/v1/completions",
    *,
    admission: Admission | None = None,
    headers: dict[str, str] | None = None,
    **given: Any,
) -> httpx.Response:
    async def asked() -> httpx.Response:
        app = create_app(cast(Device, device), admission or Admission())
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
            return await client.request(method, path, headers=headers, **given)

    return asyncio.run(asked())


def code_of(answer: httpx.Response) -> tuple[int, str | None]:
    document = answer.json()
    assert set(document) == {"error"}
    assert set(document["error"]) == {"message", "type", "param", "code"}
    return answer.status_code, document["error"]["code"]


def test_the_rightful_client_is_answered(device: SmallDevice) -> None:
    answer = ask(device, json=ASKED)
    assert answer.status_code == 200
    assert len(answer.json()["choices"][0]["text"].split()) == 5
    assert not device.cloud.sessions


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8765",
        "127.0.0.1",
        "[::1]:8765",
    ],
)
def test_names_of_this_machine_are_answered(device: SmallDevice, host: str) -> None:
    assert ask(device, "GET", "/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8765",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example@localhost@evil.example",
        "192.168.1.5",
        "[::2]",
        "[",
        "",
    ],
)
def test_a_name_that_was_rebound_to_this_machine_is_refused(
    device: SmallDevice, host: str
) -> None:
    for method, path, body in (("GET", "/v1/models", None), ("POST", "/v1/completions", ASKED)):
        answer = ask(device, method, path, headers={"Host": host}, json=body)
        assert code_of(answer) == (403, "host_not_allowed")
    assert device.cloud.steps == 0


@given(host=st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=40))
def test_whatever_a_host_is_called_only_ours_pass(host: str) -> None:
    from starlette.datastructures import Headers

    refusal = Admission().refusal("GET", Headers(raw=[(b"host", host.encode("latin-1"))]))
    ours = {"localhost", "127.0.0.1", "[::1]"}
    name = host.rpartition("@")[2].rpartition(":")[0] or host.rpartition("@")[2]
    assert refusal is not None or name.strip().lower() in ours or host.lower() in ours


def test_two_hosts_are_none(device: SmallDevice) -> None:
    from starlette.datastructures import Headers

    twice = Headers(raw=[(b"host", b"localhost"), (b"host", b"evil.example")])
    assert Admission().refusal("GET", twice) is not None
    assert Admission().refusal("GET", Headers(raw=[])) is not None


def test_names_and_addresses_that_were_allowed_are_answered(device: SmallDevice) -> None:
    wide = Listening(host="0.0.0.0", hosts=("Desk.Home",))
    for host in ("desk.home:8765", "192.168.1.5:8765", "localhost"):
        answer = ask(
            device, "GET", "/v1/models", headers={"Host": host}, admission=wide.admission
        )
        assert answer.status_code == 200
    rebound = {"Host": "evil.example"}
    answer = ask(device, "GET", "/v1/models", headers=rebound, admission=wide.admission)
    assert code_of(answer) == (403, "host_not_allowed")
    assert not wide.is_local
    assert Listening().is_local
    assert Listening(host="::1").is_local
    assert "no API key" in warning(None)
    assert "in the clear" in warning("key")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000"])
def test_a_page_of_another_site_is_refused(device: SmallDevice, origin: str) -> None:
    headers = {"Origin": origin}
    answer = ask(device, headers=headers, json=ASKED)
    assert code_of(answer) == (403, "origin_not_allowed")
    preflight = headers | {"Access-Control-Request-Method": "POST"}
    answer = ask(device, "OPTIONS", headers=preflight)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert device.cloud.steps == 0


def test_a_page_that_was_allowed_is_answered(device: SmallDevice) -> None:
    origin = "https://chat.example"
    allowed = Admission(origins=frozenset({origin}), key="sesame")
    preflight = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    asked = ask(device, "OPTIONS", headers=preflight, admission=allowed)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == origin
    headers = {"Origin": origin, "Authorization": "Bearer sesame"}
    answer = ask(device, headers=headers, json=ASKED, admission=allowed)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_only_json_is_read(device: SmallDevice, kind: str) -> None:
    """What a page may send without asking first is none of these."""
    answer = ask(device, headers={"Content-Type": kind}, content=json.dumps(ASKED))
    assert code_of(answer) == (415, "unsupported_media_type")
    assert device.cloud.steps == 0
    charset = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert ask(device, headers=charset, content=json.dumps(ASKED)).status_code == 200


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer sesam", "Basic sesame", "sesame"]
)
def test_without_the_key_nothing_is_answered(device: SmallDevice, given: str | None) -> None:
    admission = Admission(key="sesame")
    headers = {} if given is None else {"Authorization": given}
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/completions"), ("GET", "/x")):
        answer = ask(device, method, path, headers=headers, admission=admission)
        assert code_of(answer) == (401, "invalid_api_key")
    right = {"Authorization": "bearer sesame"}
    assert ask(device, "GET", "/v1/models", headers=right, admission=admission).is_success


def test_a_body_is_read_up_to_its_limit(
    device: SmallDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_app, "BODY_LIMIT_BYTES", 1000)
    long = json.dumps(ASKED | {"user": "x" * 1000}).encode()
    declared = {"Content-Type": "application/json"}
    assert code_of(ask(device, headers=declared, content=long)) == (413, "body_too_large")

    async def chunks() -> Any:
        for at in range(0, len(long), 100):
            yield long[at : at + 100]

    answer = ask(device, headers=declared, content=chunks())
    assert code_of(answer) == (413, "body_too_large")
    assert BODY_LIMIT_BYTES > 1 << 20


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff{}"])
def test_bodies_that_are_no_request(device: SmallDevice, body: bytes) -> None:
    answer = ask(device, headers={"Content-Type": "application/json"}, content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_unknown_places_are_told_in_the_same_form(device: SmallDevice) -> None:
    assert code_of(ask(device, "GET", "/v1/files")) == (404, None)
    assert code_of(ask(device, "GET", "/v1/completions")) == (405, None)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (LimitError("full", retry_after_s=7), 429),
        (TokenExpiredError("expired"), 403),
        (RollbackError("pull"), 422),
        (UnreachableError("away"), 502),
        (DeadlineError("late"), 504),
        (CloudError("odd"), 502),
        (TripartyError("else"), 500),
    ],
)
def test_errors_have_their_status_or_are_the_streams_last_event(
    device: SmallDevice, error: TripartyError, status: int
) -> None:
    device.error = error
    for streamed in (False, True):
        answer = ask(device, json=ASKED | {"stream": streamed})
        assert code_of(answer) == (status, error.slug)
        assert answer.headers.get("retry-after") == ("7" if status == 429 else None)
    device.error_after = 2
    *events, last = answer_lines(device)
    assert len(events) == 2
    assert json.loads(last)["error"]["code"] == error.slug
    assert not device.cloud.sessions


def answer_lines(device: SmallDevice) -> Iterator[str]:
    answer = ask(device, json=ASKED | {"stream": True})
    assert answer.status_code == 200
    return (line.removeprefix("data: ") for line in answer.text.splitlines() if line)


def test_more_answers_than_places_are_refused(
    device: SmallDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_app, "ANSWERS_AT_ONCE", 2)

    async def asked() -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_app(cast(Device, device), Admission()))
        async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
            many = [client.post("/v1/completions", json=ASKED) for _ in range(6)]
            together = await asyncio.gather(*many)
            later = [await client.post("/v1/completions", json=ASKED) for _ in range(3)]
            assert [answer.status_code for answer in later] == [200] * 3, "places are freed"
            return together

    answers = asyncio.run(asked())
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert not device.cloud.sessions


def test_what_cannot_change_an_answer_is_passed_over_and_the_rest_is_not() -> None:
    base: dict[str, Any] = {"model": "m", "messages": [{"role": "developer", "content": "a"}]}
    labels = {"user": "me", "metadata": {"a": "b"}, "store": False, "n": 1, "logit_bias": {}}
    given = json.dumps(base | labels | {"max_completion_tokens": 3, "max_tokens": 5}).encode()
    (ask_,) = read(given, ChatRequest).asks()
    assert ask_.prompt == [{"role": "system", "content": "a"}]
    assert (ask_.options.temperature, ask_.options.max_tokens) == (1.0, 3)
    for odd in ({"logit_bias": {"5": 1}}, {"echo": True}, {"frequency_penalty": 0.1}):
        with pytest.raises(Failure):
            read(json.dumps(base | odd).encode(), ChatRequest)
    with pytest.raises(Failure) as failure:
        read(b'{"model": "m", "prompt": "a", "best_of": 3}', CompletionRequest)
    assert failure.value.param == "best_of"


def test_seeds_of_choices_are_their_own() -> None:
    body = b'{"model": "m", "prompt": ["a", [1, 2]], "n": 2, "seed": 5, "top_k": -1}'
    asks = read(body, CompletionRequest).asks()
    assert [one.prompt for one in asks] == ["a", "a", [1, 2], [1, 2]]
    assert [one.options.seed for one in asks] == [5, 6, 5, 6]
    assert {one.options.max_tokens for one in asks} == {16}
