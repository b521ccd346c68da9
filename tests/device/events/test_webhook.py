"""Webhooks: signed, at least once, and never to where the operator did not mean."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from headless import until
from tls_server import tls_server
from webhook_receiver import Receiver

from triparty.common.errors import ForbiddenError
from triparty.device.events import webhook as module
from triparty.device.events.database import database_url as url_of
from triparty.device.events.destinations import choose_address, may_connect
from triparty.device.events.event import Event
from triparty.device.events.outbox import Outbox
from triparty.device.events.store import EventStore
from triparty.device.events.webhook import Hook, Webhook, signature

LOOPBACK = ("127.0.0.0/8",)
KEY = "a key that both sides have"


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("8.8.8.8", True),
        ("2606:4700:4700::1111", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("192.168.1.20", False),
        ("100.64.0.1", False),
        ("100.100.100.200", False),  # a cloud's metadata
        ("169.254.169.254", False),  # most clouds' metadata
        ("224.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00:ec2::254", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::a9fe:a9fe", False),  # the same through NAT64
        ("64:ff9b::808:808", True),
        ("2002:a9fe:a9fe::1", False),  # and through 6to4
        ("::127.0.0.1", False),
    ],
)
def test_only_public_addresses_are_gone_to(address: str, good: bool) -> None:
    assert may_connect(address, ()) is good
    assert may_connect(address, ("192.168.0.0/16",)) is (good or address == "192.168.1.20")


def resolved(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Makes every name mean these addresses; returns the names that are asked for."""
    asked: list[str] = []

    def answer(host: str, port: int, *rest: Any, **more: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


def test_a_name_is_judged_by_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved(monkeypatch, "169.254.169.254", "10.0.0.1")
    with pytest.raises(ForbiddenError, match="not public"):
        choose_address("innocent.example", 443, allow=())
    assert choose_address("innocent.example", 443, allow=("10.0.0.0/8",)) == "10.0.0.1"
    resolved(monkeypatch, "127.0.0.1", "8.8.8.8")
    assert choose_address("innocent.example", 443, allow=()) == "8.8.8.8"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    monkeypatch.setattr(module, "POLL_S", 0.05)


def hook(port: int, **more: Any) -> Hook:
    url = more.pop("url", f"http://127.0.0.1:{port}/in?from=yard")
    return Hook("home", url, KEY, **{"allow": LOOPBACK, **more})


class Site:
    """A store with a webhook."""

    def __init__(self, path: Path, to: Hook) -> None:
        self.store = EventStore(url_of(path), keep_s=1e12, recipients=[to])
        self.outbox = Outbox(self.store.engine, to.name)
        self.webhook = Webhook(to, self.store.engine, clock=lambda: 1000.0)
        self.store.after_events(self.webhook.wake)

    def happens(self, wall: float, **more: Any) -> None:
        head = {"type": "event", "camera": "yard", "wall": wall, "time": 1.5, "task": "people"}
        self.store.write([{**head, "kind": "enter", "before": 0, "after": 1, **more}], wall)

    def close(self) -> None:
        self.webhook.close()
        self.store.close()


def test_an_event_is_posted_and_signed(receiver: Receiver, tmp_path: Path) -> None:
    site = Site(tmp_path / "r.db", hook(receiver.port, kinds=("enter",)))
    site.happens(999.5, label="person", zone="door", confidence=0.5)
    site.happens(999.6, kind="leave")
    until(lambda: site.webhook.status().sent == 1)
    ((headers, body),) = receiver.got
    expected = {"camera": "yard", "zone": "door", "label": "person", "kind": "enter", "id": 1}
    document = json.loads(body)
    assert expected.items() <= document.items()
    assert document["time"] == "1970-01-01T00:16:39.500+00:00"
    assert headers["Host"] == f"127.0.0.1:{receiver.port}"
    assert headers["X-Triparty-Delivery"] == "home-1"
    message = headers["X-Triparty-Timestamp"].encode() + b"." + body
    ours = hmac.new(KEY.encode(), message, hashlib.sha256).hexdigest()
    assert headers["X-Triparty-Signature"] == f"sha256={ours}"
    assert signature("another", headers["X-Triparty-Timestamp"], body) != f"sha256={ours}"
    until(lambda: site.outbox.waiting() == 0)
    site.close()


def test_what_was_not_taken_comes_again_even_after_a_restart(
    receiver: Receiver, tmp_path: Path
) -> None:
    receiver.answers = [(500, {})] * 3
    site = Site(tmp_path / "r.db", hook(receiver.port))
    site.webhook._clock = itertools.count(1000).__next__  # a second at each look
    site.happens(1.0)
    until(lambda: site.webhook.status().sent == 1)
    assert receiver.events == [1.0] * 4
    assert {headers["X-Triparty-Delivery"] for headers, _ in receiver.got} == {"home-1"}
    assert (site.webhook.status().failures, site.webhook.status().well) == (3, True)
    receiver.answers = [(503, {"Retry-After": "3000"})]
    site.webhook._clock = lambda: 5000.0
    site.happens(2.0)
    until(lambda: not site.webhook.status().well)
    site.close()
    assert site.webhook.status().waiting == 1
    (letter,) = site.outbox.due(8000.0, limit=9)
    assert letter.tries == 1
    assert site.outbox.due(7999.0, limit=9) == []
    again = Site(tmp_path / "r.db", hook(receiver.port))
    again.webhook._clock = lambda: 9000.0
    again.webhook.wake()
    until(lambda: again.webhook.status().sent == 1)
    assert receiver.events == [*[1.0] * 4, 2.0, 2.0]
    again.close()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(status: int, receiver: Receiver, tmp_path: Path) -> None:
    other = Receiver()
    there = {"Location": f"http://127.0.0.1:{other.port}/"}
    receiver.answers = [(status, there)]
    site = Site(tmp_path / "r.db", hook(receiver.port))
    site.happens(1.0)
    until(lambda: site.webhook.status().failures)
    assert site.webhook.status().last_error == f"answered {status}"
    site.close()
    other.close()
    assert other.got == []


@pytest.mark.parametrize(
    ("reason", "more"),
    [
        ("not public", {"allow": ()}),
        ("not public", {"allow": ("10.0.0.0/8",)}),
        ("https", {"url": "http://rebound.example/"}),
    ],
)
def test_a_place_that_was_not_meant_is_not_gone_to(
    reason: str, more: Any, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module,
        "choose_address",
        choose_address if "url" not in more else lambda *_, **__: "1.1.1.1",
    )
    site = Site(tmp_path / "r.db", hook(receiver.port, **more))
    site.happens(1.0)
    until(lambda: site.webhook.status().failures)
    assert reason in str(site.webhook.status().last_error)
    site.close()
    assert receiver.got == []


def test_a_name_is_resolved_once_and_what_was_judged_is_connected_to(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolved(monkeypatch, "127.0.0.1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # a proxy would resolve it anew
    name = f"http://hook.example:{receiver.port}/"
    site = Site(tmp_path / "r.db", hook(receiver.port, url=name))
    site.happens(1.0)
    until(lambda: receiver.got)
    until(lambda: site.outbox.waiting() == 0)
    site.close()
    assert receiver.got[0][0]["Host"] == f"hook.example:{receiver.port}"
    assert [host for host in asked if "example" in host] == ["hook.example"]


def test_certificates_are_those_of_the_name(tmp_path: Path) -> None:
    with tls_server(tmp_path) as server:
        port = httpx.URL(server.url).port or 0
        (tmp_path / "ca.pem").write_text(server.certificate_pem)
        url = f"https://localhost:{port}/in"
        good = Site(tmp_path / "a.db", hook(port, url=url, ca_file=tmp_path / "ca.pem"))
        good.happens(1.0)
        until(lambda: good.webhook.status().sent == 1)
        good.close()
        bad = Site(tmp_path / "b.db", hook(port, url=url))
        bad.happens(1.0)
        until(lambda: bad.webhook.status().failures)
        assert "certificate" in str(bad.webhook.status().last_error).lower()
        bad.close()


def test_what_is_too_old_or_too_much_is_given_up_and_counted(tmp_path: Path) -> None:
    to = hook(1, give_up_s=500.0, most_waiting=3)
    store = EventStore(url_of(tmp_path / "r.db"), keep_s=1e12, recipients=[to])
    site = Site.__new__(Site)
    site.store = store
    for wall in (100.0, 200.0, 600.0, 601.0, 602.0, 603.0):
        site.happens(wall)
    webhook = Webhook(to, store.engine, clock=lambda: 1000.0)
    until(lambda: webhook.status().dropped == 3)
    left = [
        json.loads(each.body)["wall"] for each in Outbox(store.engine, "home").due(1e9, limit=9)
    ]
    assert left == [601.0, 602.0, 603.0]
    webhook.close()
    store.close()


def test_what_a_hook_wants() -> None:
    event = Event(1, 0.0, "yard", "people", "enter", 0, 1)
    assert hook(1, cameras=("yard",), tasks=("people", "cats")).body(event)
    assert hook(1, cameras=("hall",)).body(event) is None
    assert hook(1, tasks=("cats",)).body(event) is None
    assert hook(1, kinds=("leave", "count")).body(event) is None


def test_nothing_shows_the_key() -> None:
    shown = repr(hook(1, url="https://x.example/token-in-the-path"))
    assert KEY not in shown
    assert "token" not in shown
