"""What a device and a cloud sign for a training: the data set one way, the filter the other.

Both are manifests (`artifacts`), signed for a purpose of their own, so that neither passes for
something that a developer published. Their name is the job's id, which the device drew: a
signature is of no use for another job.
"""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from typing import Final

from triparty.common.artifacts import Manifest
from triparty.common.datasets import DATASET_FILE
from triparty.common.documents import format_time
from triparty.common.entries import Kind
from triparty.common.errors import ExpiredError, ManifestError, SignerError, SizeError
from triparty.common.filters import FILTER_FILE, NETWORK_FILE
from triparty.common.signing import PrivateKey, PublicKey
from triparty.common.trust import SignedDocument

JOB_ID: Final = r"^[0-9a-f]{32}$"
_DATASET: Final = "dataset"
_RESULT: Final = "job-result"


def new_job_id() -> str:
    """The id of a job, which nobody else guesses."""
    return secrets.token_hex(16)


def check_job_id(text: str) -> str:
    """The text, if it is the id of a job.

    Raises:
        ManifestError: it is not.
    """
    if not re.fullmatch(JOB_ID, text):
        raise ManifestError(f"a job's id is 32 lower-case hex digits, got {text!r:.80}")
    return text


def sign_dataset(manifest: Manifest, key: PrivateKey) -> SignedDocument:
    """The manifest of a job's data set, signed by the identity key of its device.

    Raises:
        SignerError: `key` is not the manifest's signer.
    """
    return _signed(manifest, key, _DATASET)


def verify_dataset(
    signed: SignedDocument,
    *,
    key: PublicKey,
    job: str,
    developer: str,
    limit_bytes: int,
    now: datetime,
) -> Manifest:
    """The manifest of a data set, if a device signed it for this job.

    Args:
        signed: as received.
        key: identity key of the device.
        job: id of the job.
        developer: root key id of the device's developer.
        limit_bytes: most bytes of its file.
        now: time of the check.

    Raises:
        SignatureError: the device did not sign these bytes.
        ManifestError, SignerError, ExpiredError, SizeError: it signed something else.
    """
    return _verified(
        signed,
        _DATASET,
        key=key,
        kind=Kind.DATASET,
        job=job,
        developer=developer,
        files=(DATASET_FILE,),
        limit_bytes=limit_bytes,
        now=now,
    )


def sign_result(manifest: Manifest, key: PrivateKey) -> SignedDocument:
    """The manifest of a job's filter, signed by the job key of a cloud.

    Raises:
        SignerError: `key` is not the manifest's signer.
    """
    return _signed(manifest, key, _RESULT)


def verify_result(
    signed: SignedDocument,
    *,
    key: PublicKey,
    job: str,
    developer: str,
    limit_bytes: int,
    now: datetime,
) -> Manifest:
    """The manifest of a filter, if the cloud signed it as the result of this job.

    Args:
        signed: as received.
        key: job key of the cloud, pinned at enrolment.
        job: id of a job that this device asked for itself.
        developer: root key id of the device's developer.
        limit_bytes: most bytes of its files.
        now: time of the check.

    Raises:
        SignatureError: the pinned key did not sign these bytes.
        ManifestError, SignerError, ExpiredError, SizeError: it signed something else.
    """
    return _verified(
        signed,
        _RESULT,
        key=key,
        kind=Kind.FILTER,
        job=job,
        developer=developer,
        files=(FILTER_FILE, NETWORK_FILE),
        limit_bytes=limit_bytes,
        now=now,
    )


def _signed(manifest: Manifest, key: PrivateKey, purpose: str) -> SignedDocument:
    if key.public.key_id != manifest.signer:
        raise SignerError("a manifest is signed by the key that it names as signer")
    payload = manifest.to_bytes()
    return SignedDocument(payload, key.sign(purpose, payload))


def _verified(
    signed: SignedDocument,
    purpose: str,
    *,
    key: PublicKey,
    kind: Kind,
    job: str,
    developer: str,
    files: tuple[str, ...],
    limit_bytes: int,
    now: datetime,
) -> Manifest:
    key.verify(purpose, signed.payload, signed.signature)
    manifest = Manifest.from_bytes(signed.payload)
    if (manifest.kind, manifest.name) != (kind, job):
        raise ManifestError(
            f"expected the {kind} of job {job}, got the {manifest.kind} of {manifest.name}"
        )
    if (manifest.developer, manifest.signer) != (developer, key.key_id):
        raise SignerError(f"the {kind} of job {job} names another developer or signer")
    if manifest.expires <= now:
        raise ExpiredError(f"the {kind} expired at {format_time(manifest.expires)}: ask again")
    if tuple(file.path for file in manifest.files) != files:
        raise ManifestError(f"the {kind} of a job holds {' and '.join(files)} alone")
    if manifest.size > limit_bytes:
        raise SizeError(f"the {kind} has {manifest.size} bytes: at most {limit_bytes}")
    return manifest
