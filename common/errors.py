"""Every exception of triparty, and its form on the wire.

```
TripartyError
├── SettingsError            a configuration key or a command's argument is wrong
├── StateError               this home or data folder is not ready for the command
│   └── PoolEmptyError       no one-time instance is left to grant
├── ArtifactError
│   ├── ManifestError        a manifest, delegation or latest statement that cannot be read
│   ├── FormatVersionError   made by a newer triparty
│   ├── SignatureError       the bytes are not what the key signed
│   ├── SignerError          a good signature by a key that may not sign this kind
│   ├── DigestError          a file's hash or size differs from the manifest's
│   ├── RollbackError        older than what this party has already seen
│   ├── ExpiredError         past its expiry time
│   ├── RevokedError         named as revoked by its developer
│   ├── RetiredError         a session's key epoch has ended: pull and replay
│   ├── SpentError           a one-time instance that was used: the next one is needed
│   ├── RecipientError       a bundle for somebody else
│   ├── PathError            a path that leaves the folder
│   ├── SizeError            larger than the limit
│   └── FileTypeError        a kind of file that artifacts never hold
├── TraceError               a trace of packets and results that cannot be read
├── DatasetError             data that nothing can be learnt from; names the row
├── FederationError          training across sites that cannot go on
├── AttestationError         no proof that the cloud runs what it should
├── SealError                a sealed bundle that does not open, or a confirmation that fails
├── FrameError               bytes that are not a frame
├── PacketError              video headers that cannot be read
│   └── DecodeError          a video packet that cannot be decoded
├── CheckpointError          a checkpoint that cannot be compiled or loaded
│   ├── UnknownTensorError   a tensor that no rule of the plan names
│   └── UnsupportedModelError  a model family or option without a plan
├── AuthError
│   ├── UnauthenticatedError no token, or one nobody issued
│   ├── TokenExpiredError    a token past its time
│   ├── TokenRevokedError    a token taken back
│   ├── ForbiddenError       a good token without the scope
│   └── InviteError          an invite that is unknown, used or expired
├── NotFoundError            no such thing, or not for this principal
├── ConflictError
│   ├── PositionError        a step that does not continue its session
│   └── BlobMissingError     an artifact whose blobs are not all uploaded
├── RequestError             a request the cloud cannot read
│   ├── TimeError            a question's time that was not understood, or is still to come
│   └── UnclearError         a question that names no known place, or could mean several
├── LimitError               too much at once: wait and repeat
│   └── TooLargeError        more than the cloud ever takes in one request
├── UnavailableError         the cloud is draining, or the model is not loaded
│   └── StorageFullError     the cloud has no room left on its disks
├── CloudError               the cloud failed
└── TransportError
    ├── UnreachableError     no connection, or it broke
    ├── DeadlineError        it did not answer by the time that was set
    └── CertificateError     a certificate that is not the pinned one
```

On the wire an error is an RFC 9457 problem document whose `type` is
`urn:triparty:problem:` + the class's `slug`; each `type` has exactly one class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

PROBLEM_PREFIX = "urn:triparty:problem:"


class TripartyError(Exception):
    """Base of all errors that triparty raises on purpose.

    The message is one line that says what is wrong, what was expected, what was found and,
    where the user can do something, what to do. It never holds a secret.

    Attributes:
        slug: last part of the problem `type`; stable, part of the HTTP contract.
        status: HTTP status with which the cloud answers.
        extra: further members of the problem document, JSON values only.
    """

    slug: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, /, **extra: Any) -> None:
        """Keeps the message and the problem document's extension members."""
        super().__init__(message)
        self.message = message
        self.extra: dict[str, Any] = extra


class SettingsError(TripartyError):
    """A configuration key or a command's argument is wrong."""

    slug = "settings"
    status = 500


class StateError(TripartyError):
    """This party's folder is not ready for the command."""

    slug = "state"
    status = 500


class PoolEmptyError(StateError):
    """No one-time instance is left to grant."""

    slug = "pool-empty"


class ArtifactError(TripartyError):
    """An artifact that must not be used."""

    slug = "artifact"
    status = 422


class ManifestError(ArtifactError):
    """A manifest, delegation or latest statement that cannot be read."""

    slug = "manifest"


class FormatVersionError(ArtifactError):
    """An artifact made by a newer triparty."""

    slug = "format-version"


class SignatureError(ArtifactError):
    """The bytes are not what the key signed."""

    slug = "signature"


class SignerError(ArtifactError):
    """A good signature by a key that may not sign this."""

    slug = "signer"


class DigestError(ArtifactError):
    """A file whose hash or size differs from its manifest's."""

    slug = "digest"


class RollbackError(ArtifactError):
    """Something older than what this party has already seen."""

    slug = "rollback"
    status = 409


class ExpiredError(ArtifactError):
    """Something past its expiry time."""

    slug = "expired"


class RevokedError(ArtifactError):
    """An artifact that its developer has revoked."""

    slug = "revoked"


class RetiredError(ArtifactError):
    """The version that a session runs on was taken out of use: pull, and replay it."""

    slug = "retired"
    status = 410


class SpentError(ArtifactError):
    """A one-time instance that was used."""

    slug = "spent"
    status = 410


class RecipientError(ArtifactError):
    """A bundle for somebody else."""

    slug = "recipient"


class PathError(ArtifactError):
    """A path that leaves its folder."""

    slug = "path"


class SizeError(ArtifactError):
    """A file or artifact larger than the limit."""

    slug = "size"
    status = 413


class FileTypeError(ArtifactError):
    """A kind of file that artifacts never hold."""

    slug = "file-type"


class TraceError(TripartyError):
    """A trace of packets and results that cannot be read."""

    slug = "trace"
    status = 422


class DatasetError(TripartyError):
    """Data that nothing can be learnt from: wrong shapes, no numbers, one class alone.

    The message names the first row that is wrong, where there is one.
    """

    slug = "dataset"
    status = 422


class FederationError(TripartyError):
    """Training across sites that cannot go on."""

    slug = "federation"
    status = 422


class AttestationError(TripartyError):
    """No proof that the cloud runs what it should."""

    slug = "attestation"
    status = 422


class SealError(TripartyError):
    """A sealed bundle that does not open, or an enrolment confirmation that fails."""

    slug = "seal"
    status = 422


class FrameError(TripartyError):
    """Bytes that are not a frame."""

    slug = "frame"
    status = 400


class PacketError(TripartyError):
    """Headers of a video packet that cannot be read; its stream resumes at the next entry."""

    slug = "packet"
    status = 422


class DecodeError(PacketError):
    """A video packet that cannot be decoded; its stream resumes at the next entry."""

    slug = "decode"


class CheckpointError(TripartyError):
    """A checkpoint that cannot be compiled or loaded."""

    slug = "checkpoint"
    status = 422


class UnknownTensorError(CheckpointError):
    """A tensor that no rule of the plan names, or one that is missing."""

    slug = "unknown-tensor"


class UnsupportedModelError(CheckpointError):
    """A model family, or an option of one, that has no plan."""

    slug = "unsupported-model"


class AuthError(TripartyError):
    """A request without the right to be answered."""

    slug = "auth"
    status = 401


class UnauthenticatedError(AuthError):
    """No token, or one that nobody issued."""

    slug = "unauthenticated"


class TokenExpiredError(AuthError):
    """A token past its time."""

    slug = "token-expired"


class TokenRevokedError(AuthError):
    """A token that was taken back."""

    slug = "token-revoked"


class ForbiddenError(AuthError):
    """A good token without the scope."""

    slug = "forbidden"
    status = 403


class InviteError(AuthError):
    """An invite that is unknown, used or expired."""

    slug = "invite"
    status = 403


class NotFoundError(TripartyError):
    """No such thing, or not for this principal: the two look alike on purpose."""

    slug = "not-found"
    status = 404


class ConflictError(TripartyError):
    """A request that contradicts what is there."""

    slug = "conflict"
    status = 409


class PositionError(ConflictError):
    """A step that does not continue its session; `extra["position"]` is the right one."""

    slug = "position"


class BlobMissingError(ConflictError):
    """An artifact whose blobs are not all uploaded; `extra["missing"]` lists them."""

    slug = "blob-missing"


class RequestError(TripartyError):
    """A request that the cloud cannot read."""

    slug = "request"
    status = 400


class TimeError(RequestError):
    """A question's time that was not understood, or is still to come."""

    slug = "time"
    status = 422


class UnclearError(RequestError):
    """A question that names no known place, or could mean several.

    Attributes:
        candidates: names of places that may be meant; `extra` has them, too.
    """

    slug = "unclear"
    status = 422

    @property
    def candidates(self) -> tuple[str, ...]:
        """Names of places that may be meant."""
        return tuple(self.extra.get("candidates", ()))


class LimitError(TripartyError):
    """Too much at once; `extra["retry_after_s"]` says how long to wait."""

    slug = "limit"
    status = 429


class TooLargeError(LimitError):
    """More than the cloud ever takes in one request; waiting does not help."""

    slug = "too-large"
    status = 413


class UnavailableError(TripartyError):
    """The cloud is draining, or cannot load the model now."""

    slug = "unavailable"
    status = 503


class StorageFullError(UnavailableError):
    """The cloud has no room left on its disks; what it acknowledged is safe."""

    slug = "storage-full"
    status = 507


class CloudError(TripartyError):
    """The cloud failed, or answered something that is no problem document."""

    slug = "cloud"
    status = 500


class TransportError(TripartyError):
    """The cloud was not reached."""

    slug = "transport"
    status = 502


class UnreachableError(TransportError):
    """No connection, or it broke."""

    slug = "unreachable"


class DeadlineError(TransportError):
    """The cloud did not answer by the time that was set."""

    slug = "deadline"
    status = 504


class CertificateError(TransportError):
    """The cloud's certificate is not the pinned one, or not trusted."""

    slug = "certificate"


def _tree(root: type[TripartyError]) -> Iterator[type[TripartyError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def by_slug() -> dict[str, type[TripartyError]]:
    """Every error class by the last part of its problem `type`."""
    return {kind.slug: kind for kind in _tree(TripartyError)}


def to_problem(error: TripartyError) -> dict[str, Any]:
    """The RFC 9457 problem document of an error (media type `application/problem+json`)."""
    summary = (type(error).__doc__ or "").partition("\n")[0].partition(";")[0].rstrip(".")
    return {
        **error.extra,
        "type": PROBLEM_PREFIX + error.slug,
        "title": summary,
        "status": error.status,
        "detail": error.message,
    }


def from_problem(status: int, problem: Mapping[str, Any]) -> TripartyError:
    """The typed error of a problem document; `CloudError` for a type nobody knows.

    Args:
        status: HTTP status of the answer.
        problem: the parsed document.
    """
    slug = str(problem.get("type", "")).removeprefix(PROBLEM_PREFIX)
    kind = by_slug().get(slug)
    detail = str(problem.get("detail") or f"the cloud answered with status {status}")
    if kind is None:
        return CloudError(detail, status=status)
    known = ("type", "title", "status", "detail", "instance")
    return kind(detail, **{str(k): v for k, v in problem.items() if k not in known})
