"""A certificate authority of one federation, which signs one certificate: the SuperLink's."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

LIFE: Final = timedelta(days=3650)
_EARLIER: Final = timedelta(days=1)  # clocks of sites are not exact
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Authority:
    """What a SuperLink needs for TLS; all PEM.

    Attributes:
        certificate: of the authority, whose private key is thrown away.
        server_certificate: of the SuperLink.
        server_key: its private key.
    """

    certificate: bytes
    server_certificate: bytes
    server_key: bytes


def make_authority(host: str, *, now: datetime) -> Authority:
    """An authority and the one certificate that it signs.

    Args:
        host: name or address of the SuperLink; the local ones are added.
        now: the time.
    """
    root, server = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    issuer = _name("triparty federation")
    authority = _certificate(issuer, root.public_key(), issuer, root, now=now).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    authority = authority.add_extension(
        x509.KeyUsage(False, False, False, False, False, True, False, False, False),
        critical=True,
    )
    names = [_host(name) for name in dict.fromkeys([host, *_LOCAL])]
    signed = (
        _certificate(_name("triparty superlink"), server.public_key(), issuer, root, now=now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return Authority(
        authority.sign(root, hashes.SHA256()).public_bytes(Encoding.PEM),
        signed.sign(root, hashes.SHA256()).public_bytes(Encoding.PEM),
        server.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    now: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
