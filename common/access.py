"""A party's access to its cloud: made at enrolment, kept in its home, used for every request.

`HOME/cloud.json` (mode 0600) holds URL, token and certificate pin; `HOME/cloud.pem` the one
certificate that is trusted. Both are written only after the cloud accepted the enrolment.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from triparty.common.clocks import naming_clocks
from triparty.common.connection import Connection
from triparty.common.deadline import Deadline
from triparty.common.delegation import verify_delegation
from triparty.common.documents import parse_time
from triparty.common.errors import SettingsError, StateError
from triparty.common.files import make_private_folder, write_private
from triparty.common.invites import Invite
from triparty.common.tls import fetch_pinned_certificate, is_loopback
from triparty.common.transport import CloudClient

_SHA256 = re.compile("[0-9a-f]{64}")
ACCESS_FILE = "cloud.json"
CERTIFICATE_FILE = "cloud.pem"
RENEWAL = timedelta(days=30)
"""A token is renewed when it ends within this time and is used to pull or to publish."""


@dataclass(frozen=True)
class Access:
    """How a party reaches its cloud.

    Attributes:
        url: base URL.
        principal: this party's id there.
        developer: root fingerprint of the developer to whom the account belongs.
        token: bearer token; hidden.
        expires: when the token ends, RFC 3339.
        certificate_pem: the one certificate to trust; None for the system's authorities.
        allow_http: the invite itself named plain http.
        job_key: public key, as text, with which the cloud signs results of this party's
            training jobs; None: it enrolled with a cloud that had none.
    """

    url: str
    principal: str
    developer: str
    token: str
    expires: str
    certificate_pem: str | None
    allow_http: bool
    job_key: str | None = None

    def __repr__(self) -> str:
        """Never shows the token."""
        return f"Access(url={self.url!r}, principal={self.principal!r})"

    def client(self, deadline: Deadline | None = None) -> CloudClient:
        """A client with the token; the caller closes it.

        Args:
            deadline: by which every request has to be answered.
        """
        connection = Connection(
            self.url,
            token=self.token,
            certificate_pem=self.certificate_pem,
            allow_http=self.allow_http,
            deadline=deadline,
        )
        return CloudClient(connection)

    def with_token(self, token: str, expires: str) -> Access:
        """The access after the token was rotated."""
        return replace(self, token=token, expires=expires)

    def save(self, home: Path) -> None:
        """Keeps the access in a home, readable by its owner alone."""
        make_private_folder(home)
        if self.certificate_pem is not None:
            write_private(home / CERTIFICATE_FILE, self.certificate_pem.encode())
        document = {
            "url": self.url,
            "principal": self.principal,
            "developer": self.developer,
            "token": self.token,
            "expires": self.expires,
            "is_pinned": self.certificate_pem is not None,
            "allow_http": self.allow_http,
            "job_key": self.job_key,
        }
        write_private(home / ACCESS_FILE, json.dumps(document, indent=2).encode())

    @classmethod
    def load(cls, home: Path, *, role: str) -> Access:
        """Reads the access of a home.

        Args:
            home: the party's folder.
            role: `developer` or `device`, for the remedy.

        Raises:
            StateError: this home is not enrolled, or its files are damaged.
        """
        path = home / ACCESS_FILE
        if not path.is_file():
            raise StateError(
                f"{home} is not enrolled with a cloud: run 'triparty {role} enroll --cloud URL "
                f"--invite CODE'"
            )
        try:
            document = json.loads(path.read_bytes())
            certificate = (
                (home / CERTIFICATE_FILE).read_text() if document["is_pinned"] else None
            )
            return cls(
                url=str(document["url"]),
                principal=str(document["principal"]),
                developer=str(document["developer"]),
                token=str(document["token"]),
                expires=str(document["expires"]),
                certificate_pem=certificate,
                allow_http=document["allow_http"] is True,
                job_key=None if document.get("job_key") is None else str(document["job_key"]),
            )
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise StateError(f"{path} is damaged ({error!r}): enrol again") from error


def renew_if_due(home: Path, access: Access, *, now: datetime) -> Access:
    """The access, with a new token if the one in use ends soon; keeps it in the home.

    Args:
        home: the party's folder.
        access: as loaded from it.
        now: compared with the token's expiry.

    Raises:
        TokenExpiredError: it ended already; enrol again with a new invite.
    """
    if parse_time(access.expires) - now > RENEWAL:
        return access
    with access.client() as client, naming_clocks(now, lambda: client.connection.cloud_time):
        token, expires = client.rotate_token()
    renewed = access.with_token(token, expires)
    renewed.save(home)
    return renewed


def trust_certificate(
    home: Path, access: Access, pin: str, *, seen_version: int = 0, now: datetime
) -> Access:
    """The access with the certificate that the cloud shows now; keeps it in the home.

    Args:
        home: the party's folder.
        access: as loaded from it.
        pin: SHA-256 of the new certificate in hex, from the operator, not from the cloud;
            colons between its bytes are taken.
        seen_version: of the developer's delegation that this party has taken.
        now: for the delegation's expiry.

    Raises:
        SettingsError: a pin that is none.
        CertificateError: the cloud shows another certificate.
        UnreachableError: nobody answers.
        AuthError, SignerError, SignatureError: whoever shows it is not this home's cloud.
    """
    digest = pin.replace(":", "").lower()
    if not _SHA256.fullmatch(digest):
        raise SettingsError(f"a pin is the 64 hex digits of a SHA-256, got {pin!r:.100}")
    certificate = fetch_pinned_certificate(access.url, digest)
    trusting = replace(access, certificate_pem=certificate)
    with trusting.client() as client, naming_clocks(now, lambda: client.connection.cloud_time):
        verify_delegation(
            client.statements().delegation,
            root_fingerprint=access.developer,
            seen_version=seen_version,
            now=now,
        )
    trusting.save(home)
    return trusting


def check_invite(invite: Invite, *, role: str, cloud: str) -> None:
    """Refuses an invite for another role or another cloud than the one named.

    Raises:
        SettingsError: with what the invite is for.
    """
    if invite.role != role:
        raise SettingsError(
            f"this invite is for a {invite.role}: use 'triparty {invite.role} enroll'"
        )
    if invite.url.rstrip("/") != cloud.rstrip("/"):
        raise SettingsError(f"this invite is for the cloud {invite.url}, not for {cloud}")


def check_same_cloud(access: Access, invite: Invite) -> None:
    """Refuses an invite with which a home would change its cloud.

    Raises:
        SettingsError: with the cloud that the home is enrolled with.
    """
    if access.url != invite.url.rstrip("/"):
        raise SettingsError(
            f"this home is enrolled with {access.url}, the invite is for {invite.url}: enrol "
            "there with another --home"
        )


@contextmanager
def first_contact(invite: Invite) -> Iterator[tuple[CloudClient, str | None]]:
    """A client without a token to an invite's cloud, and the certificate it trusts.

    Raises:
        CertificateError: whoever answers is not the invite's cloud.
        SettingsError: plain http to another machine without the invite saying so.
    """
    certificate = fetch_pinned_certificate(invite.url, invite.pin) if invite.pin else None
    is_plain = invite.url.startswith("http:") and not is_loopback(invite.url)
    connection = Connection(invite.url, certificate_pem=certificate, allow_http=is_plain)
    with CloudClient(connection) as client:
        yield client, certificate


def read_code(text: str) -> str:
    """The code of a command's `--invite`: itself, or for `-` one line of standard input.

    Raises:
        SettingsError: `-`, and nothing came.
    """
    if text != "-":
        return text
    code = sys.stdin.buffer.readline().decode("utf-8", "replace").strip()
    if not code:
        raise SettingsError("--invite - reads the code from standard input, which was empty")
    return code
