"""The routes as calls: requests have the form of docs/http.md, answers are checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from scripted_cloud import TOKEN, Answering, Script, document, problem

from triparty.common.entries import Kind
from triparty.common.errors import (
    CloudError,
    ManifestError,
    NotFoundError,
    PositionError,
    SignatureError,
    TripartyError,
)
from triparty.common.replies import DeviceRecord, Enrolled, SessionRecord, Statements
from triparty.common.signing import to_base64url
from triparty.common.transport import CloudClient
from triparty.common.trust import SignedDocument
from triparty.common.wire import MEDIA_TYPE, Frame, decode_frames, encode_frames

SIGNED = SignedDocument(b'{"a":1}', b"s" * 64)
WORD, SIGNATURE = to_base64url(SIGNED.payload), to_base64url(SIGNED.signature)
ROWS = Frame.of(np.arange(6, dtype=np.float32).reshape(2, 3))
LOGITS = Frame.of(np.ones((1, 5), np.float32))
EXPIRES = "2027-01-02T03:04:05Z"
SESSION = {
    "session": "s1",
    "model": "tiny",
    "version": 2,
    "epoch": 1,
    "position": 0,
    "replies": ["logits"],
    "limits": {"rows_per_step": 4, "positions": 64, "idle_s": 600},
}
ENROLLED = {
    "principal": "ed25519:aa",
    "role": "device",
    "developer": "ed25519:bb",
    "token": "tpt_new",
    "expires": EXPIRES,
    "scopes": ["pull"],
}
DEVICE = {
    "id": "ed25519:aa",
    "name": "phone",
    "identity": to_base64url(b"i" * 32),
    "sealing": to_base64url(b"x" * 32),
    "confirmation": to_base64url(b"t" * 32),
    "invite": "0" * 64,
    "created": EXPIRES,
    "revoked": False,
}
STATEMENTS = {
    "delegation": WORD,
    "delegation_signature": SIGNATURE,
    "latest": WORD,
    "latest_signature": SIGNATURE,
}

Call = Callable[[CloudClient], Any]


def asked(call: Call, answer: Answering) -> tuple[httpx.Request, Any]:
    """The one request that a call makes, and what it returns."""
    script = Script(answer)
    with CloudClient(script.connection()) as client:
        result = call(client)
    (request,) = script.requests
    return request, result


def stepped(position: str | None = "9", body: bytes | None = None) -> httpx.Response:
    headers = {} if position is None else {"Triparty-Position": position}
    content = encode_frames(LOGITS) if body is None else body
    return httpx.Response(200, headers=headers, content=content)


def step(client: CloudClient) -> Any:
    return client.step("a/b", ROWS, position=7, request_id="r1", reply="logits")


ROUTES: list[tuple[Call, httpx.Response, str, str, Any, Any]] = [
    (
        lambda c: c.enroll({"role": "device"}),
        document(201, **ENROLLED),
        "POST",
        "/v1/enroll",
        {"role": "device"},
        Enrolled("ed25519:aa", "device", "ed25519:bb", EXPIRES, "tpt_new"),
    ),
    (
        lambda c: c.create_invite(role="device", login_hash="h", expires_in_s=9, label="l"),
        document(201, invite="h", expires=EXPIRES),
        "POST",
        "/v1/invites",
        {"role": "device", "login_hash": "h", "expires_in_s": 9, "label": "l"},
        EXPIRES,
    ),
    (
        lambda c: c.devices(),
        document(devices=[DEVICE]),
        "GET",
        "/v1/devices",
        None,
        (
            DeviceRecord(
                "ed25519:aa",
                "phone",
                b"i" * 32,
                b"x" * 32,
                b"t" * 32,
                "0" * 64,
                EXPIRES,
                is_revoked=False,
            ),
        ),
    ),
    (
        lambda c: c.revoke_device("ed25519:../aa"),
        httpx.Response(204),
        "DELETE",
        "/v1/devices/ed25519%3A..%2Faa",
        None,
        None,
    ),
    (
        lambda c: c.rotate_token(),
        document(token="new", expires=EXPIRES),
        "POST",
        "/v1/tokens/rotate",
        None,
        ("new", EXPIRES),
    ),
    (
        lambda c: c.publish_artifact(SIGNED),
        document(201, artifact="a1"),
        "POST",
        "/v1/artifacts",
        {"manifest": WORD, "signature": SIGNATURE},
        "a1",
    ),
    (
        lambda c: c.artifacts(kind=Kind.BUNDLE, name="tiny"),
        document(artifacts=[{"manifest": WORD, "signature": SIGNATURE, "id": "a1"}]),
        "GET",
        "/v1/artifacts?kind=bundle&name=tiny",
        None,
        (SIGNED,),
    ),
    (
        lambda c: c.artifacts(),
        document(artifacts=[]),
        "GET",
        "/v1/artifacts",
        None,
        (),
    ),
    (
        lambda c: c.statements(),
        document(**STATEMENTS),
        "GET",
        "/v1/latest",
        None,
        Statements(SIGNED, SIGNED),
    ),
    (
        lambda c: c.put_statements(SIGNED, SIGNED),
        httpx.Response(204),
        "PUT",
        "/v1/latest",
        STATEMENTS,
        None,
    ),
    (
        lambda c: c.open_session("tiny"),
        document(201, **SESSION),
        "POST",
        "/v1/models/tiny/sessions",
        {},
        SessionRecord("s1", 2, 1, 0, 4, 64),
    ),
    (
        lambda c: c.rollback_session("s1", position=3),
        document(position=3),
        "POST",
        "/v1/sessions/s1/rollback",
        {"position": 3},
        None,
    ),
    (
        lambda c: c.fork_session("s1"),
        document(201, **SESSION),
        "POST",
        "/v1/sessions/s1/fork",
        None,
        SessionRecord("s1", 2, 1, 0, 4, 64),
    ),
    (
        lambda c: c.close_session("s1"),
        httpx.Response(204),
        "DELETE",
        "/v1/sessions/s1",
        None,
        None,
    ),
]


@pytest.mark.parametrize(("call", "answer", "method", "target", "body", "result"), ROUTES)
def test_the_form_of_a_request(
    call: Call, answer: httpx.Response, method: str, target: str, body: Any, result: Any
) -> None:
    request, returned = asked(call, answer)
    assert (request.method, request.url.raw_path.decode()) == (method, target)
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert (json.loads(request.content) if request.content else None) == body
    assert returned == result


def test_the_form_of_a_step() -> None:
    request, reply = asked(step, stepped())
    assert (request.method, request.url.raw_path) == ("POST", b"/v1/sessions/a%2Fb/step")
    sent = {name: request.headers[name] for name in request.headers if "triparty-" in name}
    assert sent == {
        "triparty-position": "7",
        "triparty-request-id": "r1",
        "triparty-reply": "logits",
    }
    assert request.headers["Content-Type"] == MEDIA_TYPE
    (frame,) = decode_frames(request.content, limit_bytes=1 << 10)
    np.testing.assert_array_equal(frame.array, ROWS.array)
    assert reply.position == 9
    np.testing.assert_array_equal(reply.frames[0].array, LOGITS.array)


def test_the_form_of_a_step_that_begins_inside_the_last_one() -> None:
    def call(client: CloudClient) -> Any:
        return client.step(
            "a",
            ROWS,
            position=7,
            request_id="r2",
            reply="logits",
            reply_rows=2,
            rollback_of="r1",
        )

    request, _ = asked(call, stepped())
    assert request.headers["Triparty-Reply-Rows"] == "2"
    assert request.headers["Triparty-Rollback-Of"] == "r1"


@pytest.mark.parametrize(("limits", "rows"), [({}, 1), ({"reply_rows": 9}, 9)])
def test_a_cloud_may_not_say_about_how_many_rows_it_answers(
    limits: dict[str, int], rows: int
) -> None:
    body = SESSION | {"limits": {"rows_per_step": 4, "positions": 64} | limits}
    _, session = asked(lambda client: client.open_session("tiny"), document(201, **body))
    assert session.reply_rows == rows


def test_a_step_is_repeated_under_one_id() -> None:
    script = Script(
        httpx.ReadError("cut"), problem(503, "unavailable", retry_after="1"), stepped()
    )
    step(CloudClient(script.connection()))
    assert {r.headers["Triparty-Request-Id"] for r in script.requests} == {"r1"}
    assert len({r.content for r in script.requests}) == 1


def test_an_enrolment_that_was_cut_off_is_sent_again() -> None:
    """The cloud answers the same keys with the same invite once more."""
    script = Script(httpx.ReadError("cut"), problem(403, "forbidden"))
    with pytest.raises(TripartyError):
        CloudClient(script.connection()).enroll({"name": "phone"})
    assert len(script.requests) == 2
    assert script.requests[0].content == script.requests[1].content


def test_what_is_sent_once_only() -> None:
    """A rotation uses its token up, a fork opens a session: nobody knows how far it came."""
    calls: list[Call] = [
        lambda c: c.rotate_token(),
        lambda c: c.fork_session("s1"),
    ]
    for call in calls:
        with pytest.raises(TripartyError):
            asked(call, httpx.ReadError("cut"))


def test_a_session_that_is_gone_is_closed() -> None:
    asked(lambda c: c.close_session("s1"), problem(404, "not-found"))
    with pytest.raises(NotFoundError):
        asked(step, problem(404, "not-found"))
    with pytest.raises(PositionError) as raised:
        asked(step, problem(409, "position", position=4))
    assert raised.value.extra["position"] == 4


def test_a_name_that_no_model_has_is_not_sent() -> None:
    script = Script()
    for name in ("", "../x", "A b", "x" * 65):
        with pytest.raises(ManifestError):
            CloudClient(script.connection()).open_session(name)


def without(members: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in members.items() if key != name}


def malformed() -> list[tuple[Call, httpx.Response]]:
    """Each documented answer with one member missing, or of another type."""

    def session(client: CloudClient) -> object:
        return client.open_session("tiny")

    answers: list[tuple[Call, httpx.Response]] = []
    for name in without(ENROLLED, "scopes"):
        answers += [
            (lambda c: c.enroll({}), document(201, **without(ENROLLED, name))),
            (lambda c: c.enroll({}), document(201, **{**ENROLLED, name: 5})),
        ]
    for name in without(DEVICE, "revoked"):
        answers += [
            (lambda c: c.devices(), document(devices=[without(DEVICE, name)])),
            (lambda c: c.devices(), document(devices=[{**DEVICE, name: ["ü"]}])),
        ]
    for name in STATEMENTS:
        answers += [
            (lambda c: c.statements(), document(**without(STATEMENTS, name))),
            (lambda c: c.statements(), document(**{**STATEMENTS, name: "no+base64url="})),
        ]
    for name in ("session", "version", "epoch", "position", "limits"):
        answers += [
            (session, document(201, **without(SESSION, name))),
            (session, document(201, **{**SESSION, name: True})),
            (session, document(201, **{**SESSION, name: -1})),
        ]
    for limits in (
        {},
        {"rows_per_step": 0, "positions": 1},
        {"rows_per_step": 1},
        {"rows_per_step": 1, "positions": 1, "reply_rows": 0},
        {"rows_per_step": 1, "positions": 1, "reply_rows": "2"},
    ):
        answers.append((session, document(201, **{**SESSION, "limits": limits})))
    for listed in (None, {}, "x", [1], [[]]):
        answers += [
            (lambda c: c.devices(), document(devices=listed)),
            (lambda c: c.artifacts(), document(artifacts=listed)),
        ]
    answers += [
        (lambda c: c.artifacts(), document(artifacts=[{"manifest": WORD}])),
        (lambda c: c.publish_artifact(SIGNED), document(201)),
        (lambda c: c.rotate_token(), document(token="new", expires="tomorrow")),
        (lambda c: c.enroll({}), document(201, **{**ENROLLED, "expires": "tomorrow"})),
        (lambda c: c.rotate_token(), document(expires=EXPIRES)),
        (
            lambda c: c.create_invite(role="device", login_hash="h", expires_in_s=9, label=""),
            document(201, expires=9),
        ),
        (lambda c: c.statements(), httpx.Response(200, content=b"<html>")),
        (lambda c: c.devices(), httpx.Response(200, json=[DEVICE])),
        (lambda c: c.enroll({}), document(200, **ENROLLED)),
        (step, stepped(position=None)),
        (step, stepped(position="8")),
        (step, stepped(position="9.0")),
        (step, stepped(body=b"")),
        (step, stepped(body=b"TPF1 but no frame")),
        (step, stepped(body=encode_frames(LOGITS)[:-1])),
        (step, stepped(body=encode_frames(LOGITS) + b"x")),
        (step, httpx.Response(200, json={})),
    ]
    return answers


@pytest.mark.parametrize(("call", "answer"), malformed())
def test_an_answer_that_makes_no_sense(call: Call, answer: httpx.Response) -> None:
    with pytest.raises(CloudError):
        asked(call, answer)


def test_a_signature_of_another_length() -> None:
    short = {**STATEMENTS, "latest_signature": to_base64url(b"s" * 63)}
    with pytest.raises(SignatureError):
        asked(lambda c: c.statements(), document(**short))


def test_text_of_the_cloud_does_nothing_to_a_terminal() -> None:
    hostile = {**DEVICE, "name": "\x1b]0;pwned\x07phone\nroot"}
    _, (device,) = asked(lambda c: c.devices(), document(devices=[hostile]))
    assert device.name.isprintable()


def test_a_device_counts_as_revoked_unless_the_cloud_denies_it() -> None:
    for value in (True, None, 0, "2026-01-01T00:00:00Z"):
        listed = document(devices=[{**DEVICE, "revoked": value}])
        assert asked(lambda c: c.devices(), listed)[1][0].is_revoked


def test_no_secret_is_shown() -> None:
    client = CloudClient(Script().connection())
    assert TOKEN not in repr(client)
    assert "tpt_new" not in repr(Enrolled.of(ENROLLED))
    assert "s1" not in repr(SessionRecord.of(SESSION))
