"""Whom a client trusts to be its cloud: one pinned certificate, or the system's authorities.

An invite carries the SHA-256 of the cloud's certificate. At enrolment the client reads the
certificate of whoever answers, compares it with that pin, and keeps it; from then on a
handshake succeeds with exactly that certificate and no other, whatever name it bears.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
import ssl
from urllib.parse import SplitResult, urlsplit

from triparty.common.errors import CertificateError, SettingsError, UnreachableError

_PORTS = {"http": 80, "https": 443}


def check_url(url: str, *, allow_http: bool = False) -> str:
    """The base URL of a cloud without a trailing slash, if it may be used.

    Args:
        url: `https://host[:port][/path]`; `http` for loopback addresses.
        allow_http: also take `http` for other hosts; only an invite may say so.

    Raises:
        SettingsError: no such URL, or one over which tokens and rows would be readable.
    """
    parts = _split(url)
    if parts.scheme == "http" and not (allow_http or is_loopback(url)):
        raise SettingsError(
            f"{url} would send tokens and rows readable by the network: use https, "
            "or an invite whose own URL says http"
        )
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine and therefore needs no encryption."""
    host = _split(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def fetch_pinned_certificate(url: str, pin: str, *, timeout_s: float = 10.0) -> str:
    """The certificate of the server behind a URL in PEM form, if it is the pinned one.

    Args:
        url: an https URL.
        pin: SHA-256 of the certificate's DER form, in hex.
        timeout_s: longest wait for the connection and the handshake.

    Raises:
        CertificateError: another certificate, or no TLS at all.
        UnreachableError: nobody answers.
    """
    parts = _split(url)
    if parts.scheme != "https":
        raise CertificateError(f"a certificate is pinned, but {url} is not https")
    # Unverified on purpose: nothing is sent, and what comes back is compared with the pin.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = (parts.hostname or "", parts.port or _PORTS["https"])
    try:
        with (
            socket.create_connection(address, timeout=timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as secure,
        ):
            certificate = secure.getpeercert(binary_form=True) or b""
    except ssl.SSLError as error:
        raise CertificateError(f"{url} does not speak TLS: {ssl_reason(error)}") from error
    except OSError as error:
        raise UnreachableError(f"cannot reach {url}: {error.strerror or error}") from error
    got = hashlib.sha256(certificate).hexdigest()
    if not hmac.compare_digest(got, pin.lower()):
        raise CertificateError(
            f"the certificate of {url} is not the one that was told: expected SHA-256 {pin}, "
            f"got {got}; do not use this connection, ask whoever told you"
        )
    return ssl.DER_cert_to_PEM_cert(certificate)


def certificate_pin(pem: str) -> str:
    """The pin of a certificate: SHA-256 of its DER form, in hex."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def client_context(certificate_pem: str | None) -> ssl.SSLContext:
    """The TLS settings of a client: the pinned certificate alone, or the system's store.

    Args:
        certificate_pem: the certificate that the server must present; None for the system's.

    Raises:
        CertificateError: not a certificate.
    """
    if certificate_pem is None:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # whatever the system's default is
        return context
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # the pin says more than the name does
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # trust it without its issuer
    try:
        context.load_verify_locations(cadata=certificate_pem)
    except (ssl.SSLError, ValueError, TypeError) as error:
        raise CertificateError("the stored certificate cannot be read: enrol again") from error
    return context


def ssl_reason(error: ssl.SSLError) -> str:
    """What OpenSSL says went wrong; Python's own errors do not have its `reason`."""
    return str(getattr(error, "reason", None) or error)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")  # UnicodeError for labels no resolver takes
        is_plain = all(32 < ord(char) < 127 for char in url) and parts.port != 0
    except ValueError:
        is_plain = False
        parts = SplitResult("", "", "", "", "")
    clean = not (parts.username or parts.password or parts.query or parts.fragment)
    if parts.scheme not in _PORTS or not parts.hostname or not clean or not is_plain:
        raise SettingsError(f"expected a URL like https://cloud.example:8443, got {url!r}")
    return parts
