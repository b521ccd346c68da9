"""Certificates: at enrolment the pinned one, from then on that one and no other."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tls_server import TlsServer, tls_server

from triparty.cloud.tls import make_self_signed, read_pin
from triparty.common.connection import Connection
from triparty.common.errors import CertificateError, SettingsError, UnreachableError
from triparty.common.tls import (
    certificate_pin,
    check_url,
    client_context,
    fetch_pinned_certificate,
    is_loopback,
    ssl_reason,
)

NOW = datetime.now(UTC)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TlsServer]:
    with tls_server(tmp_path) as running:
        yield running


def ask(server: TlsServer, certificate_pem: str | None) -> int:
    with Connection(server.url, token="t", certificate_pem=certificate_pem) as connection:
        return connection.request("GET", "/v1/status").status


def test_the_pinned_certificate_is_taken_and_used(server: TlsServer) -> None:
    pin = certificate_pin(server.certificate_pem)
    for shape in (pin, pin.upper()):
        fetched = fetch_pinned_certificate(server.url, shape)
        assert ssl.PEM_cert_to_DER_cert(fetched) == ssl.PEM_cert_to_DER_cert(
            server.certificate_pem
        )
    assert server.asked == []  # nothing is sent to somebody unknown
    assert ask(server, fetched) == 200
    assert server.asked == ["GET /v1/status"]


def test_both_sides_make_the_same_pin(server: TlsServer, tmp_path: Path) -> None:
    assert read_pin(tmp_path / "tls" / "cert.pem") == certificate_pin(server.certificate_pem)


def test_another_pin_is_refused_before_anything_is_sent(server: TlsServer) -> None:
    pin = certificate_pin(server.certificate_pem)
    for wrong in ("0" * 64, pin[:-1] + ("0" if pin[-1] != "0" else "1"), pin[:32], ""):
        with pytest.raises(CertificateError, match="not the one that was told"):
            fetch_pinned_certificate(server.url, wrong)
    assert server.asked == []


def test_another_certificate_is_refused_after_enrolment(
    server: TlsServer, tmp_path: Path
) -> None:
    """The same address, the same name, a younger certificate: somebody in between."""
    kept = server.certificate_pem
    with (
        tls_server(tmp_path / "other") as other,
        pytest.raises(CertificateError, match="not trusted"),
    ):
        ask(other, kept)
    assert other.asked == []
    assert ask(server, kept) == 200


def test_without_a_pin_a_self_signed_certificate_is_refused(server: TlsServer) -> None:
    with pytest.raises(CertificateError, match="not trusted"):
        ask(server, None)
    assert server.asked == []


def test_the_pinned_certificate_needs_no_name_but_its_time(tmp_path: Path) -> None:
    with tls_server(tmp_path, now=NOW - timedelta(days=4000)) as server:
        with pytest.raises(CertificateError, match="expired"):
            ask(server, server.certificate_pem)
        named = server.url.replace("127.0.0.1", "127.0.0.2")  # not in the certificate
    with tls_server(tmp_path / "valid") as server:
        named = server.url.replace("127.0.0.1", "localhost")
        with Connection(named, certificate_pem=server.certificate_pem) as connection:
            assert connection.request("GET", "/").status == 200


@contextmanager
def plain_server() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.RequestHandlerClass.log_message = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_whoever_speaks_no_tls() -> None:
    with plain_server() as url:
        with pytest.raises(CertificateError, match="TLS"):
            fetch_pinned_certificate(url, "0" * 64)
        with Connection(url) as connection, pytest.raises(CertificateError, match="no TLS"):
            connection.request("GET", "/")
    with pytest.raises(CertificateError, match="not https"):
        fetch_pinned_certificate("http://127.0.0.1:1", "0" * 64)


def test_whoever_is_not_there_or_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UnreachableError):
            fetch_pinned_certificate(url, "0" * 64, timeout_s=0.1)
        plain = url.replace("https:", "http:")
        with (
            Connection(plain, timeout_s=0.1) as connection,
            pytest.raises(UnreachableError, match="in time"),
        ):
            connection.request("POST", "/")
    with pytest.raises(UnreachableError):
        fetch_pinned_certificate(url, "0" * 64, timeout_s=5)
    with Connection(url) as connection, pytest.raises(UnreachableError):
        connection.request("GET", "/")


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "nothing",
        "\u2603",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ],
)
def test_a_stored_certificate_that_cannot_be_read(pem: str) -> None:
    with pytest.raises(CertificateError, match="enrol again"):
        client_context(pem)


def test_a_context_trusts_one_certificate() -> None:
    pem = make_self_signed([], now=NOW)[0].decode()
    context = client_context(pem)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert [ssl.DER_cert_to_PEM_cert(der) for der in context.get_ca_certs(True)] in ([], [pem])
    assert context.cert_store_stats()["x509"] == 1
    system = client_context(None)
    assert system.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert system.check_hostname
    assert system.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("https://127.0.0.1:8443", True),
        ("https://127.1.2.3", True),
        ("https://[::1]:1", True),
        ("https://LOCALHOST", True),
        ("https://localhost.example", False),
        ("https://127.0.0.1.example", False),
        ("https://192.0.2.1", False),
        ("https://0.0.0.0", False),
        ("https://example", False),
    ],
)
def test_is_loopback(url: str, here: bool) -> None:
    assert is_loopback(url) is here


def test_check_url() -> None:
    assert check_url("https://cloud.example:8443/") == "https://cloud.example:8443"
    assert check_url("http://[::1]:80/a/") == "http://[::1]:80/a"
    with pytest.raises(SettingsError):
        check_url("http://cloud.example")
    assert check_url("http://cloud.example", allow_http=True) == "http://cloud.example"
    with pytest.raises(SettingsError):
        check_url("ftp://127.0.0.1", allow_http=True)


def test_an_error_of_python_has_no_reason() -> None:
    assert ssl_reason(ssl.SSLError(1, "told")) != ""
    refused = ssl.SSLError()
    refused.reason = "WRONG_VERSION_NUMBER"
    assert ssl_reason(refused) == "WRONG_VERSION_NUMBER"
