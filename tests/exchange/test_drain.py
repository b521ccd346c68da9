"""A cloud that is told to stop finishes what runs, and nobody loses an answer by it."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from permuted import permute
from three_parties import Parties, triparty
from tiny_encoders import tiny_encoder

from triparty.common.access import Access
from triparty.common.errors import PROBLEM_PREFIX
from triparty.common.keying import Bundle, KeyedReply
from triparty.common.tls import client_context
from triparty.common.wire import Frame, decode_frames, encode_frames
from triparty.developer.home import Home
from triparty.device.client import Device
from triparty.device.inference.generation import Generation, Piece, read_tokenizer
from triparty.device.inference.reading import classification

BLOB = b"0123456789" * 1000
PROMPT = "Once upon a time"


def until(condition: Callable[[], bool]) -> None:
    """Returns when it holds; bounded by the test's own limit."""
    while not condition():
        time.sleep(0.02)


def log(parties: Parties) -> list[dict[str, Any]]:
    return [json.loads(line) for line in parties.cloud.log.read_text().splitlines()]


def http(access: Access) -> httpx.Client:
    """A client of the cloud with a party's token; its connections are kept alive."""
    return httpx.Client(
        base_url=access.url,
        headers={"Authorization": f"Bearer {access.token}"},
        verify=client_context(access.certificate_pem),
        trust_env=False,
        timeout=60,
    )


def developers(parties: Parties) -> httpx.Client:
    return http(Home(parties.developer).access())


class Held:
    """A request whose body is under way and ends when it is let go."""

    def __init__(self, http: httpx.Client, method: str, path: str, body: bytes) -> None:
        self.go_on, self.is_held = threading.Event(), threading.Event()
        self._method, self._path, self._body = method, path, body
        self._pool = ThreadPoolExecutor(1)
        self.answer = self._pool.submit(self._send, http)
        assert self.is_held.wait(60)

    def _send(self, http: httpx.Client) -> httpx.Response:
        headers = {"Content-Length": str(len(self._body))}
        return http.request(self._method, self._path, content=self._parts(), headers=headers)

    def _parts(self) -> Iterator[bytes]:
        half = len(self._body) // 2
        yield self._body[:half]
        self.is_held.set()
        self.go_on.wait(60)
        yield self._body[half:]


def held_upload(http: httpx.Client, blob: bytes) -> Held:
    return Held(http, "PUT", f"/v1/blobs/{hashlib.sha256(blob).hexdigest()}", blob)


def rest(listening: Iterator[Piece | Generation]) -> Generation:
    *_, whole = listening
    assert isinstance(whole, Generation)
    return whole


@pytest.fixture
def phone(parties: Parties) -> Device:
    return Device(parties.device("phone"))


def test_what_runs_is_finished_and_a_device_goes_on_after_the_restart(
    parties: Parties, phone: Device, stories_model: Any, tmp_path: Any
) -> None:
    parties.publish(permute(stories_model, tmp_path / "out").out, "words")
    triparty("developer", "grant", "phone", "--home", parties.developer)
    parties.pull("phone")
    long: dict[str, Any] = {"max_tokens": 300, "ignore_eos": True}
    expected = {model: phone.generate(model, PROMPT, **long) for model in ("words", "stories")}

    with (
        developers(parties) as idle,
        developers(parties) as publisher,
        ThreadPoolExecutor(2) as pool,
    ):
        assert idle.get("/readyz").status_code == 200
        upload = held_upload(publisher, BLOB)
        words = phone.stream("words", PROMPT, **long)
        rows = phone.stream("stories", PROMPT, **long)
        next(words), next(rows)
        process = parties.cloud.process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        until(lambda: idle.get("/readyz").status_code == 503)
        assert "draining" in idle.get("/readyz").json()["detail"]
        assert idle.get("/healthz").status_code == 200
        refused = idle.get("/v1/devices")  # on the connection that was kept alive
        assert refused.status_code == 503
        assert refused.json()["type"] == PROBLEM_PREFIX + "unavailable"
        assert int(refused.headers["Retry-After"]) > 0
        assert refused.headers["Connection"] == "close"
        with pytest.raises(httpx.ConnectError):
            idle.get("/readyz")  # no new connection

        going_on = pool.submit(rest, rows)
        until(
            lambda: any(
                line.get("status") == 503 and str(line.get("route", "")) == "None"
                and line["method"] == "POST"
                for line in log(parties)
            )
        )  # fmt: skip
        assert rest(words).token_ids == expected["words"].token_ids
        upload.go_on.set()
        assert upload.answer.result(60).status_code == 201
        assert process.wait(60) == 0
        assert not any(line["event"] == "cut off after draining" for line in log(parties))
        parties.cloud.stop()  # it has ended
        parties.cloud.start()
        assert going_on.result(120).token_ids == expected["stories"].token_ids


def test_a_forward_request_under_way_is_answered(
    parties: Parties, phone: Device, tmp_path: Any
) -> None:
    source = tiny_encoder("bert-labels", tmp_path / "source")
    parties.publish(parties.protect(source, "moods"), "moods")
    parties.grant("phone")
    parties.pull("phone")
    (expected,) = phone.classify("moods", ["quiet river"])
    bundle = Bundle.open(phone._home.bundle_folder("moods"))
    ids = read_tokenizer(bundle)
    ids.no_padding()
    rows = bundle.rows(np.array(ids.encode("quiet river").ids), start=0).array[None]
    body = encode_frames(Frame.of(rows), Frame.of(np.ones(rows.shape[:2], np.int32)))
    path = "/v1/models/moods/forward"
    with http(phone._home.access()) as mine, developers(parties) as idle:
        assert idle.get("/readyz").status_code == 200
        held = Held(mine, "POST", path, body)
        process = parties.cloud.process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        until(lambda: idle.get("/readyz").status_code == 503)
        assert idle.post(path, content=body).status_code == 503
        held.go_on.set()
        answer = held.answer.result(60)
    assert answer.status_code == 200
    (frame,) = decode_frames(answer.content, limit_bytes=1 << 20)
    logits = bundle.plain_logits(KeyedReply(frame.as_float32()))[0]
    found = classification(logits, bundle.labels(), bundle.encoding().scores)
    assert found.label == expected.label
    assert found.score == pytest.approx(expected.score, abs=1e-6)
    assert process.wait(60) == 0
    parties.cloud.stop()  # it has ended
    parties.cloud.start()


def test_the_second_signal_ends_it_at_once(parties: Parties) -> None:
    with developers(parties) as idle, developers(parties) as publisher:
        assert idle.get("/readyz").status_code == 200
        upload = held_upload(publisher, BLOB[::-1])
        process = parties.cloud.process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        until(lambda: idle.get("/readyz").status_code == 503)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
        upload.go_on.set()
        assert isinstance(upload.answer.exception(60), httpx.TransportError)
    parties.cloud.stop()  # it has ended
    parties.cloud.start()
    with developers(parties) as again:
        assert again.get("/readyz").status_code == 200
