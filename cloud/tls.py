"""Certificates of the cloud: a self-signed one, and the pin by which clients know it."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from triparty.common.errors import SettingsError
from triparty.common.files import make_private_folder, write_atomic, write_private

LIFE = timedelta(days=3650)  # clients pin it: a shorter life would only lock them out sooner
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def make_self_signed(names: Iterable[str], *, now: datetime) -> tuple[bytes, bytes]:
    """A new P-256 key and its self-signed certificate.

    Args:
        names: host names and addresses for the certificate; the local ones are added.
        now: the time.

    Returns:
        Certificate and private key, both PEM.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "triparty cloud")])
    public = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    unique = list(dict.fromkeys([*names, *LOCAL_NAMES]))
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks of devices are not exact
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectAlternativeName([_name(n) for n in unique]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(public, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(public),
            critical=False,
        )
    )
    certificate = builder.sign(key, hashes.SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), private


def write_certificate(data: Path, names: Iterable[str], *, now: datetime) -> Path:
    """Makes DATA/tls/cert.pem and key.pem (mode 0600); returns the certificate's path."""
    certificate, key = make_self_signed(names, now=now)
    make_private_folder(data / "tls")
    write_private(data / "tls" / "key.pem", key)
    write_atomic(data / "tls" / "cert.pem", certificate)
    return data / "tls" / "cert.pem"


def read_pin(certificate_file: Path) -> str | None:
    """What invites say about a certificate.

    Returns:
        SHA-256 of the DER form in hex, for a self-signed one; None for one of an authority,
        which clients trust by the system's store and which changes every few months.

    Raises:
        SettingsError: no PEM certificate in the file.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError(f"no PEM certificate can be read in {certificate_file}") from error
    if certificate.issuer != certificate.subject:
        return None
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
