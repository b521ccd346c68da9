"""A small HTTPS server on loopback, with a certificate of its own."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from triparty.cloud.tls import write_certificate


@dataclass
class TlsServer:
    """Where it listens, what it presents, and what was asked of it."""

    url: str
    certificate_pem: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def tls_server(
    folder: Path, *, port: int = 0, now: datetime | None = None
) -> Iterator[TlsServer]:
    """Serves `{}` for everything with a new self-signed certificate of the cloud.

    Args:
        folder: for certificate and key.
        port: of loopback; 0 for any.
        now: when the certificate is made.
    """
    certificate = write_certificate(folder, [], now=now or datetime.now(UTC))

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            running.asked.append(f"{self.command} {self.path}")
            length = int(self.headers.get("Content-Length", 0))
            self.rfile.read(length)
            body = json.dumps({}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  named by http.server

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that refuses the certificate

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, folder / "tls" / "key.pem")
    server = Server(("127.0.0.1", port), Handler)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    url = f"https://127.0.0.1:{server.server_address[1]}"
    running = TlsServer(url, certificate.read_text(encoding="ascii"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
