"""The folder of one federation on the developer's machine.

```
plan.json            how it trains
initial.safetensors  the weights that it begins with
last.safetensors     the weights after the last round, with its number
journal.jsonl        who was asked, who counted, who was left out and why
call.json            what sites need to know; send it to them
sites/NAME.pub       who may join
ca.pem, server.pem, server.key, signer.key     of this federation alone; keys have mode 0600
superlink.db, flower/, *.log                   of Flower
```
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_public_key,
)

from triparty.common.documents import check_name
from triparty.common.errors import FederationError
from triparty.common.federation import Call, Weights
from triparty.common.files import make_private_folder, write_atomic, write_private
from triparty.common.keyfiles import read_private
from triparty.developer.federation.certificates import make_authority
from triparty.developer.federation.checkpoint import Checkpoint, plan_digest
from triparty.developer.federation.journal import Journal
from triparty.developer.federation.plan import Plan

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")


@dataclass(frozen=True)
class Federation:
    """The folder of one federation.

    Attributes:
        folder: exists; `make` makes one.
    """

    folder: Path

    @classmethod
    def make(
        cls, folder: Path, *, plan: Plan, initial: Weights, address: str, now: datetime
    ) -> Self:
        """A new federation: keys, certificate, plan and first weights.

        Args:
            folder: does not exist, or is empty.
            plan: how it trains.
            initial: weights to begin with.
            address: host:port under which sites reach the SuperLink.
            now: the time.

        Raises:
            FederationError: the folder holds something, or the address is none.
            ManifestError: the folder's name, which the federation has too, is none.
        """
        found = _ADDRESS.fullmatch(address)
        if not found or not 0 < int(found[2]) < 1 << 16:
            raise FederationError(f"expected host:port, got {address!r:.120}")
        check_name(folder.resolve().name, what="name of the folder")
        if folder.exists() and any(folder.iterdir()):
            raise FederationError(f"{folder} is not empty: name a new folder")
        make_private_folder(folder)
        self = cls(folder)
        self.set_plan(plan)
        Checkpoint(0, initial, plan_digest(plan.to_json())).save(
            self.path("initial.safetensors")
        )
        authority = make_authority(found[1].strip("[]"), now=now)
        write_atomic(self.path("ca.pem"), authority.certificate)
        write_atomic(self.path("server.pem"), authority.server_certificate)
        write_private(self.path("server.key"), authority.server_key)
        signer = Ed25519PrivateKey.generate()
        pem = signer.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(self.path("signer.key"), pem)
        public = signer.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        call = Call(
            folder.resolve().name, address, authority.certificate.decode(), public.decode()
        )
        write_atomic(self.path("call.json"), call.to_bytes())
        self.path("sites").mkdir()
        return self

    def path(self, name: str) -> Path:
        """Of one of its files."""
        return self.folder / name

    def plan(self) -> Plan:
        """How it trains.

        Raises:
            FederationError: no plan, or one that contradicts itself.
        """
        return Plan.from_json(self._text("plan.json"))

    def set_plan(self, plan: Plan) -> None:
        """Writes how it trains."""
        write_atomic(self.path("plan.json"), plan.to_json().encode())

    def call(self) -> Call:
        """What sites need to know."""
        return Call.from_bytes(self._text("call.json").encode())

    def journal(self) -> Journal:
        """What happened."""
        return Journal(self.path("journal.jsonl"))

    def signer(self) -> Ed25519PrivateKey:
        """The key that signs apps.

        Raises:
            StateError: absent, or readable by others.
        """
        key = load_pem_private_key(read_private(self.path("signer.key")), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise FederationError(f"{self.path('signer.key')} is no Ed25519 key")
        return key

    def register(self, name: str, public_key: bytes) -> None:
        """Lets a site join.

        Args:
            name: by which the journal calls it.
            public_key: P-384, in OpenSSH form, as `triparty device federate` shows it.

        Raises:
            FederationError: no such key, or a name or key that is taken.
            ManifestError: no name.
        """
        check_name(name)
        try:
            key = load_ssh_public_key(public_key)
        except ValueError as error:
            raise FederationError("expected a public key in OpenSSH form") from error
        if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
            raise FederationError("expected an 'ecdsa-sha2-nistp384' public key")
        line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        taken = self.sites()
        if taken.get(name, line) != line:
            raise FederationError(f"another site is called {name!r}: choose another name")
        if line in (other for known, other in taken.items() if known != name):
            raise FederationError("this key is registered under another name")
        write_atomic(self.path("sites") / f"{name}.pub", line + b"\n")

    def forget(self, name: str) -> None:
        """Takes a site's leave to join, from the next run on.

        Raises:
            FederationError: no site of that name.
        """
        check_name(name)
        try:
            (self.path("sites") / f"{name}.pub").unlink()
        except FileNotFoundError as error:
            known = ", ".join(self.sites()) or "none"
            raise FederationError(f"no site is called {name!r}; there are: {known}") from error

    def sites(self) -> dict[str, bytes]:
        """The public keys of those who may join, by name."""
        files: Iterable[Path] = sorted(self.path("sites").glob("*.pub"))
        return {file.stem: file.read_bytes().strip() for file in files}

    def last(self) -> Checkpoint:
        """The weights after the last round of this plan; the first ones if there was none.

        Raises:
            FederationError: the weights there are were trained by another plan.
        """
        path = self.path("last.safetensors")
        if not path.exists():
            return Checkpoint.load(self.path("initial.safetensors"))
        found = Checkpoint.load(path)
        if found.plan != plan_digest(self._text("plan.json")):
            raise FederationError(
                f"{path} was trained by another plan: move it away, or put the plan back"
            )
        return found

    def keep(self, number: int, weights: Weights) -> None:
        """Writes the weights after a round."""
        digest = plan_digest(self._text("plan.json"))
        Checkpoint(number, weights, digest).save(self.path("last.safetensors"))

    def _text(self, name: str) -> str:
        try:
            return self.path(name).read_text(encoding="utf-8")
        except OSError as error:
            raise FederationError(
                f"{self.folder} is no federation: cannot read {name} ({error.strerror}); make "
                "one with 'triparty developer federate init'"
            ) from error
