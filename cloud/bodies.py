"""The JSON bodies of the routes: exact members, exact types, base64url for bytes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from triparty.common.errors import ManifestError
from triparty.common.signing import SIGNATURE_BYTES, from_base64url

MAX_DRAIN_S = 7 * 86400


def _bytes(value: object) -> bytes:
    try:
        return from_base64url(value if isinstance(value, str) else "=")
    except ManifestError as error:
        raise ValueError(error.message) from error


def _key(value: object) -> bytes:
    raw = _bytes(value)
    if len(raw) != 32:
        raise ValueError(f"expected 32 bytes, got {len(raw)}")
    return raw


def _signature(value: object) -> bytes:
    raw = _bytes(value)
    if len(raw) != SIGNATURE_BYTES:
        raise ValueError(f"expected {SIGNATURE_BYTES} bytes, got {len(raw)}")
    return raw


def _label(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= 64:
        raise ValueError("expected 1 to 64 printable characters")
    return value


_TEXT = {"type": "string", "format": "base64url"}
Bytes = Annotated[bytes, PlainValidator(_bytes), WithJsonSchema(_TEXT)]
Key = Annotated[bytes, PlainValidator(_key), WithJsonSchema(_TEXT)]
Signature = Annotated[bytes, PlainValidator(_signature), WithJsonSchema(_TEXT)]
Label = Annotated[str, PlainValidator(_label), WithJsonSchema({"type": "string"})]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Request(BaseModel):
    """A request's body: unknown members are refused, nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class EnrolRequest(Request):
    """`POST /v1/enroll`."""

    role: Literal["developer", "device"]
    login: Key = Field(repr=False)
    name: Label
    identity: Key
    cloud: str = Field(max_length=2048)
    proof: Signature
    sealing: Key | None = None
    confirmation: Key | None = None
    delegation: Bytes | None = None
    delegation_signature: Bytes | None = None


class EnrolReply(BaseModel):
    """The new principal and its token, shown once; what signs results of its jobs."""

    principal: str
    role: str
    developer: str
    token: str
    expires: str
    scopes: list[str]
    job_key: str


class InviteRequest(Request):
    """`POST /v1/invites`."""

    role: Literal["developer", "device"]
    login_hash: Digest
    expires_in_s: int = Field(ge=60, le=365 * 86400)
    label: Label


class InviteReply(BaseModel):
    """A registered invite."""

    invite: str
    expires: str


class TokenReply(BaseModel):
    """A token in place of the old one."""

    token: str
    expires: str


class DeviceReply(BaseModel):
    """One device, with what its developer needs to check its keys."""

    id: str
    name: str
    identity: str
    sealing: str
    confirmation: str
    invite: str
    created: str
    revoked: bool


class DevicesReply(BaseModel):
    """All devices of a developer."""

    devices: list[DeviceReply]


class DeveloperReply(BaseModel):
    """One developer, as the operator sees it."""

    id: str
    name: str
    devices: int
    created: str
    revoked: bool


class DevelopersReply(BaseModel):
    """All developers of a cloud."""

    developers: list[DeveloperReply]


class Signed(Request):
    """A manifest and its signature."""

    manifest: Bytes
    signature: Bytes


class PublishReply(BaseModel):
    """The id of an artifact: the SHA-256 of its manifest."""

    artifact: str


class ArtifactReply(BaseModel):
    """A visible artifact."""

    artifact: str
    manifest: str
    signature: str


class ArtifactsReply(BaseModel):
    """Visible artifacts, newest version first."""

    artifacts: list[ArtifactReply]


class Statements(Request):
    """`PUT /v1/latest`: the delegation, and a latest statement that one of its keys signed."""

    delegation: Bytes
    delegation_signature: Bytes
    latest: Bytes
    latest_signature: Bytes
    drain_s: int = Field(0, ge=0, le=MAX_DRAIN_S)


class StatementsReply(BaseModel):
    """`GET /v1/latest`."""

    delegation: str
    delegation_signature: str
    latest: str
    latest_signature: str


class BlobReply(BaseModel):
    """A verified blob."""

    sha256: str
    size: int


class CleanReply(BaseModel):
    """What was removed: unfinished uploads, blobs of no artifact, and those blobs' bytes."""

    uploads: int
    blobs: int
    bytes: int


class StatusReply(BaseModel):
    """`GET /v1/status`: counts, sizes in bytes; steps and tokens since the start."""

    version: str
    state: Literal["ready", "draining"]
    started: str
    models: int
    models_loaded: int
    sessions: int
    jobs: int
    developers: int
    devices: int
    invites: int
    artifacts: int
    blob_bytes: int
    uploads: int
    cache_bytes: int
    steps_waiting: int
    steps: int
    tokens: int
    rows: int
    batch_rows: float
    queue_ms: float
    pass_ms: float
    sessions_opened: int
    sessions_ended: dict[str, int]
    models_evicted: int
    memory_bytes: int
    memory_limit_bytes: int
