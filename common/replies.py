"""What the cloud's JSON answers say, as records whose members have been checked.

The cloud is not trusted: a member that is missing or of another type is a `CloudError`, never
a `KeyError`, and text that may reach a terminal has no control characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Self

from triparty.common.connection import printable
from triparty.common.documents import parse_time
from triparty.common.errors import ArtifactError, CloudError
from triparty.common.signing import from_base64url
from triparty.common.trust import SignedDocument
from triparty.common.wire import Frame

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Enrolled:
    """A new account; the token is not in `repr`."""

    principal: str
    role: str
    developer: str
    expires: str
    token: str = field(repr=False)
    job_key: str | None = None

    @classmethod
    def of(cls, document: Document) -> Self:
        """Reads the answer of `POST /v1/enroll`."""
        names = ("principal", "role", "developer", "token")
        texts = {name: text(document, name) for name in names}
        job_key = text(document, "job_key") if "job_key" in document else None
        return cls(expires=time(document, "expires"), job_key=job_key, **texts)


@dataclass(frozen=True)
class DeviceRecord:
    """A device as the cloud describes it: claims, until the confirmation was checked.

    Attributes:
        id: key id of its identity key.
        name: as the device calls itself.
        identity: raw Ed25519 public key.
        sealing: raw X25519 public key.
        confirmation: the device's tag over both keys.
        invite: login hash of the invite that it used.
        created: when it enrolled, RFC 3339.
        is_revoked: whether its access was taken back.
    """

    id: str
    name: str
    identity: bytes
    sealing: bytes
    confirmation: bytes
    invite: str
    created: str
    is_revoked: bool

    @classmethod
    def of(cls, document: Document) -> Self:
        """Reads one device of `GET /v1/devices`."""
        return cls(
            id=text(document, "id"),
            name=text(document, "name"),
            identity=binary(document, "identity"),
            sealing=binary(document, "sealing"),
            confirmation=binary(document, "confirmation"),
            invite=text(document, "invite"),
            created=text(document, "created"),
            is_revoked=document.get("revoked") is not False,
        )


@dataclass(frozen=True)
class Statements:
    """A developer's signed delegation and latest statement, unverified."""

    delegation: SignedDocument
    latest: SignedDocument

    @classmethod
    def of(cls, document: Document) -> Self:
        """Reads the answer of `GET /v1/latest`."""
        return cls(
            delegation=signed(document, "delegation", "delegation_signature"),
            latest=signed(document, "latest", "latest_signature"),
        )


@dataclass(frozen=True)
class JobRecord:
    """A training job, as the cloud tells it.

    Attributes:
        job: its id.
        state: `waiting`, `running`, `done`, `failed` or `cancelled`.
        epoch: passes made.
        epochs: most passes.
        loss: on samples that the cloud held out; None before the first pass.
        training_loss: on those learnt from.
        seconds_left: at most, as far as the cloud can tell.
        problem: why it failed.
        result: manifest and signature of the filter, once it is done.
    """

    job: str
    state: str
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    training_loss: float | None = None
    seconds_left: float | None = None
    problem: str | None = None
    result: SignedDocument | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state not in ("waiting", "running")

    @classmethod
    def of(cls, document: Document) -> Self:
        """Reads a job of `/v1/jobs`, or one of its events."""
        state = text(document, "state")
        if state == "cancelled":  # of a job that is gone, nothing else is known
            return cls(text(document, "job"), state)
        has_result = document.get("manifest") is not None
        return cls(
            job=text(document, "job"),
            state=state,
            epoch=count(document, "epoch"),
            epochs=count(document, "epochs"),
            loss=optional_number(document, "loss"),
            training_loss=optional_number(document, "training_loss"),
            seconds_left=optional_number(document, "seconds_left"),
            problem=None if document.get("problem") is None else text(document, "problem"),
            result=signed(document, "manifest", "signature") if has_result else None,
        )


@dataclass(frozen=True)
class SessionRecord:
    """An open session.

    Attributes:
        id: unguessable; not in `repr`.
        version: of the model that serves it.
        epoch: key generation of that model.
        position: rows that it holds.
        rows_per_step: most rows in one step.
        positions: most rows that it may hold.
        reply_rows: most rows of a step that a reply is about; 1 of a cloud that says nothing.
    """

    id: str = field(repr=False)
    version: int
    epoch: int
    position: int
    rows_per_step: int
    positions: int
    reply_rows: int = 1

    @classmethod
    def of(cls, document: Document) -> Self:
        """Reads the answer of opening or forking a session."""
        limits = document.get("limits")
        if not isinstance(limits, dict):
            raise CloudError("the cloud's answer has no 'limits'")
        return cls(
            id=text(document, "session"),
            version=count(document, "version"),
            epoch=count(document, "epoch"),
            position=count(document, "position"),
            rows_per_step=count(limits, "rows_per_step", minimum=1),
            positions=count(limits, "positions", minimum=1),
            reply_rows=count({"reply_rows": 1, **limits}, "reply_rows", minimum=1),
        )


@dataclass(frozen=True)
class StepReply:
    """The answer to one step: its frames, and the session's new position."""

    frames: tuple[Frame, ...]
    position: int


@dataclass(frozen=True)
class ForwardReply:
    """The answer to one forward request.

    Attributes:
        frame: (B, O), or (B, T, O) where every row has an answer; keyed.
        version: of the model that made it.
        epoch: key generation of that model.
    """

    frame: Frame
    version: int
    epoch: int


def text(document: Document, name: str) -> str:
    """A text member without control characters."""
    value = document.get(name)
    if not isinstance(value, str):
        raise CloudError(f"the cloud's answer has no text {name!r}")
    return printable(value)


def time(document: Document, name: str) -> str:
    """A time member, as text."""
    value = text(document, name)
    try:
        parse_time(value)
    except ArtifactError as error:
        raise CloudError(f"the cloud's answer has no time {name!r}") from error
    return value


def count(document: Document, name: str, *, minimum: int = 0) -> int:
    """An integer member, not below `minimum`."""
    value = document.get(name)
    if type(value) is not int or value < minimum:
        raise CloudError(f"the cloud's answer has no number {name!r}")
    return value


def optional_number(document: Document, name: str) -> float | None:
    """A finite number, or null."""
    value = document.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise CloudError(f"the cloud's answer has no number {name!r}")
    return float(value)


def binary(document: Document, name: str) -> bytes:
    """A base64url member."""
    value = document.get(name)
    if not isinstance(value, str):
        raise CloudError(f"the cloud's answer has no base64url {name!r}")
    try:
        return from_base64url(value)
    except ArtifactError as error:
        raise CloudError(f"the cloud's answer has no base64url {name!r}") from error


def signed(document: Document, payload: str, signature: str) -> SignedDocument:
    """Two base64url members as a signed document, unverified."""
    return SignedDocument(binary(document, payload), binary(document, signature))


def records(document: Document, name: str) -> list[Document]:
    """A list of objects."""
    value = document.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise CloudError(f"the cloud's answer has no list {name!r}")
    return value
