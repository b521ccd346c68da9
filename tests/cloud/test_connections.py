"""Slow and many clients, with raw sockets against real servers."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from triparty.cloud.connections import Connection, ConnectionLimits, Connections
from triparty.cloud.initialise import initialise
from triparty.cloud.server import allow_open_files
from triparty.cloud.state import utc_now
from triparty.common.errors import SettingsError
from triparty.common.hosts import network_of

TOKEN = "scrape-" + "s" * 40
PATIENCE_S = 30


class Server:
    """A cloud process and its address."""

    def __init__(self, process: subprocess.Popen[str], url: httpx.URL, operator: str) -> None:
        self.process, self.url, self.operator = process, url, operator

    def connect(self) -> socket.socket:
        made = socket.create_connection((self.url.host, self.url.port))
        made.settimeout(PATIENCE_S)
        return made

    def get(self, path: str, token: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.get(self.url.join(path), headers=headers, timeout=PATIENCE_S)

    def metric(self, name: str, **labels: str) -> float:
        for family in text_string_to_metric_families(self.get("/metrics", TOKEN).text):
            for sample in family.samples:
                if (sample.name, sample.labels) == (name, labels):
                    return sample.value
        return 0.0


@contextlib.contextmanager
def serving(data: Path, **settings: Any) -> Any:
    operator = initialise(data, now=utc_now()).token
    variables = {f"TRIPARTY_CLOUD_{key.upper()}": str(v) for key, v in settings.items()}
    command = [sys.executable, "-m", "triparty.common", "cloud", "serve", "--json"]
    with (data / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--data", data, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"TRIPARTY_CLOUD_METRICS_TOKEN": TOKEN} | variables,
        )
    try:
        line = process.stdout.readline()
        assert line, (data / "log").read_text()
        yield Server(process, httpx.URL(json.loads(line)["url"]), operator)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (data / "log").read_text()
        process.stdout.close()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cloud that waits for nobody."""
    limits = {
        "header_timeout_s": 1,
        "body_timeout_s": 1,
        "answer_timeout_s": 1,
        "keep_alive_s": 1,
    }
    with serving(tmp_path_factory.mktemp("strict") / "data", **limits) as server:
        yield server


def ended(connection: socket.socket) -> bytes:
    """What arrives until the other side ends the connection."""
    received = b""
    try:
        while piece := connection.recv(1 << 16):
            received += piece
    except ConnectionError:
        pass
    return received


def head(*lines: str, path: str = "/v1/enroll", method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def test_300_idle_sockets_keep_nobody_out(tmp_path):
    limits = {"max_connections": 100, "max_connections_per_address": 100}
    with serving(tmp_path / "data", header_timeout_s=600, **limits) as server:
        idle = [server.connect() for _ in range(150)]
        for _ in range(150):
            idle.append(server.connect())
            idle[-1].send(b"GET /healthz HTT")
        for _ in range(3):
            assert server.get("/healthz").status_code == 200
        assert server.metric("triparty_connections_open") == 100
        assert server.metric("triparty_connections_closed_total", reason="replaced") > 200
        for connection in idle:
            connection.close()


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_headers_are_due(strict, sent):
    before = strict.metric("triparty_connections_closed_total", reason="slow-headers")
    with strict.connect() as connection:
        connection.send(sent)
        assert ended(connection) == b""
    after = strict.metric("triparty_connections_closed_total", reason="slow-headers")
    assert after == before + 1


def drip(connection: socket.socket) -> bytes:
    """Sends a byte at a time until the other side ends the connection; what it said."""
    received = b""
    for _ in range(PATIENCE_S * 10):
        try:
            connection.send(b" ")
            if select.select([connection], [], [], 0.1)[0]:
                piece = connection.recv(1 << 16)
                received += piece
                if not piece:
                    return received
        except ConnectionError:
            return received
    raise TimeoutError(received)


def test_dripped_headers_are_cut(strict):
    with strict.connect() as connection:
        connection.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        drip(connection)


@pytest.mark.parametrize("length", ["Content-Length: 10000", "Transfer-Encoding: chunked"])
def test_a_dripped_body_is_cut_with_408(strict, length):
    with strict.connect() as connection:
        connection.send(head("Content-Type: application/json", length))
        if "chunked" in length:
            connection.send(b"2000\r\n")
        answer = drip(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()
    assert b'"urn:triparty:problem:request"' in answer
    assert b"1024 bytes/s" in answer


def test_speed_at_first_earns_no_time_for_later(strict):
    with strict.connect() as connection:
        asked = head(
            "Content-Type: application/json", "Content-Length: 400000", path="/v1/artifacts"
        )
        connection.sendall(asked + b" " * 200_000)
        assert drip(connection).startswith(b"HTTP/1.1 408 ")


def test_the_rest_of_a_refused_body_is_not_read_for_ever(strict):
    with strict.connect() as connection:
        connection.send(head("Content-Type: text/plain", "Content-Length: 10000"))
        answer = drip(connection)
    assert answer.startswith(b"HTTP/1.1 415 ")


def test_a_body_at_speed_is_taken_however_long_it_is(strict):
    """Longer than the timeout, in pieces, each of which earns its time."""
    piece = b" " * 1000
    with strict.connect() as connection:
        connection.send(
            head("Content-Type: application/json", f"Content-Length: {15 * len(piece)}")
        )
        for _ in range(15):
            connection.send(piece)
            time.sleep(0.1)
        assert connection.recv(1000).startswith(b"HTTP/1.1 422 ")


def test_a_kept_alive_connection_ends(strict):
    with strict.connect() as connection:
        connection.send(head(method="GET", path="/healthz"))
        answer = ended(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")


def ask_on(connection: socket.socket, asked: bytes) -> None:
    """Sends a request again and again."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):
            connection.send(asked)
        time.sleep(0.001)


def test_a_reader_that_never_reads_is_cut_off(strict):
    """Answers are asked for and never read, until the cloud cuts the connection."""
    before = strict.metric("triparty_connections_closed_total", reason="slow-reader")
    with strict.connect() as connection:
        connection.setblocking(False)
        asked = head(method="GET", path="/openapi.json")
        with pytest.raises(ConnectionError):
            ask_on(connection, asked)
    after = strict.metric("triparty_connections_closed_total", reason="slow-reader")
    assert after == before + 1
    assert strict.get("/healthz").status_code == 200


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Wire:
    """A transport that takes as much as a test lets it."""

    def __init__(self) -> None:
        self.left, self.is_aborted = 0, False

    def get_write_buffer_size(self) -> int:
        return self.left

    def abort(self) -> None:
        self.is_aborted = True


class Inner:
    """uvicorn's protocol as far as it is looked at."""

    cycle: Any = None

    def connection_made(self, transport: object) -> None: ...

    def data_received(self, data: bytes) -> None:
        if data == b"request":
            self.cycle = SimpleNamespace(response_complete=False)


LIMITS = ConnectionLimits(in_all=4, per_address=3, header_s=10, answer_s=60)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def connect(clock):
    def make(address: str = "a", *, busy: bool = False) -> Any:
        made = Connection(Inner(), address, clock_s=clock, on_lost=lambda _: None)
        made.wire = Wire()
        made.connection_made(made.wire)
        if busy:
            made.data_received(b"request")
        clock.now += 1
        return made

    return make


@pytest.fixture
def counted():
    return []


@pytest.fixture
def connections(counted):
    return Connections(LIMITS, count=counted.append)


def test_who_gives_way(connections, connect, counted):
    first, working, third = connect(), connect(busy=True), connect()
    for connection in (first, working, third):
        assert connections.admit(connection)
    assert connections.admit(connect())  # over the limit of its address
    assert [c.wire.is_aborted for c in (first, working, third)] == [True, False, False]
    other = connect("b")
    assert connections.admit(other)
    assert connections.admit(connect("c"))  # over the limit of all: the greediest gives way
    assert third.wire.is_aborted
    assert not other.wire.is_aborted
    assert len(connections) == LIMITS.in_all
    assert counted == ["replaced"] * 2


def test_work_is_never_cut_for_a_newcomer(connections, connect, counted):
    busy = [connect(busy=True) for _ in range(3)]
    assert all(connections.admit(connection) for connection in busy)
    assert not connections.admit(connect())
    assert connections.admit(connect("b", busy=True))
    assert not connections.admit(connect("c"))
    assert counted == ["refused"] * 2
    assert not any(connection.wire.is_aborted for connection in busy)
    connections.discard(busy[0])
    assert connections.admit(connect("c"))


def test_who_is_overdue(connect, clock):
    late, asked, answered, reader = (connect() for _ in range(4))
    asked.data_received(b"request")
    answered.data_received(b"request")
    answered._inner.cycle.response_complete = True
    reader.data_received(b"request")
    reader.wire.left = 100
    reader.overdue(LIMITS)
    clock.now += 9
    late.data_received(b"half a request")
    reader.wire.left = 99  # it took a byte
    assert [c.overdue(LIMITS) for c in (asked, answered, reader)] == [None] * 3
    clock.now += 2
    assert late.overdue(LIMITS) == "slow-headers"
    answered.data_received(b"half a request")
    clock.now += 11
    assert answered.overdue(LIMITS) == "slow-headers"
    clock.now += 40
    assert reader.overdue(LIMITS) is None  # it took that byte less than 60 s ago
    clock.now += 10
    assert reader.overdue(LIMITS) == "slow-reader"
    assert asked.overdue(LIMITS) is None  # the model may take its time


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "20010db800000000"),
        ("2001:db8::ffff:1", "20010db800000000"),
        ("2001:db8:0:1::1", "20010db800000001"),
        ("fe80::1%eth0", "fe80000000000000"),
        ("", ""),
    ],
)
def test_one_client_is_a_network_of_ipv6(address, network):
    assert network_of(address) == network


def test_more_connections_than_files_are_refused():
    allow_open_files(16)
    with pytest.raises(SettingsError, match="LimitNOFILE"):
        allow_open_files(1 << 40)
