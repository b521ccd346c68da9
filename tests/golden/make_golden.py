"""Golden bytes of everything that is signed or sent, from fixed keys and a fixed clock.

`python tests/golden/make_golden.py` renews the files; `tests/common/test_golden.py` compares
them. A change here is a change of format: artifacts and invites that are out there stop being
readable, so it needs a new format version.

All keys here are public.
"""

from __future__ import annotations

import io
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from triparty.common.artifacts import (
    FileEntry,
    Kind,
    Manifest,
    describe_folder,
    sign_manifest,
)
from triparty.common.enrolment import Enrolment, prove_enrolment
from triparty.common.entries import CHECKPOINT_SUFFIXES
from triparty.common.errors import TripartyError
from triparty.common.folders import describe_files
from triparty.common.invites import Invite, confirmation
from triparty.common.sealing import SealingKey, open_sealed, seal_folder, write_content
from triparty.common.signing import PrivateKey
from triparty.common.trust import (
    Delegation,
    Latest,
    PublishingKey,
    SignedDocument,
    sign_delegation,
    sign_latest,
)
from triparty.common.wire import DType, Frame, encode_frames, float32_to_bfloat16

FOLDER = Path(__file__).parent
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROOT = PrivateKey.from_seed(b"golden root key, public, 32 byte")
PUBLISHING = PrivateKey.from_seed(b"golden publishing key, 32 bytes.")
DEVICE = PrivateKey.from_seed(b"golden device identity, 32 bytes")
SEALING = SealingKey.from_raw(b"golden device sealing, 32 bytes.")
CONTENT_KEY = b"golden content key, with 32 byte"
SEALED = "bundle.sealed"
USE: dict[str, Any] = {
    "device": DEVICE.public.key_id,
    "model": "tiny",
    "version": 2,
    "epoch": 1,
}
FILES = {
    "device.json": b'{"epoch":1}',
    "embedding.safetensors": bytes(range(256)),
    "tokenizer/merges.txt": "é ß\n".encode(),
    "tokenizer/vocab.txt": b"",
}


def fill(folder: Path) -> Path:
    """Writes the files that the bundle holds."""
    for path, data in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def golden() -> dict[str, bytes]:
    """Every golden file that fixed inputs determine, by name."""
    return {**_documents(), **_invites(), "frames.tpf": _frames(), "content.chunks": _chunks()}


def _documents() -> dict[str, bytes]:
    key = PublishingKey(PUBLISHING.public, NOW + timedelta(days=365))
    delegation = Delegation(root=ROOT.public, keys=(key,), version=1, created=NOW)
    latest = Latest(
        developer=ROOT.public.key_id,
        sequence=7,
        created=NOW,
        expires=NOW + timedelta(days=7),
        versions={"model/tiny": 2, "bundle/tiny": 2, "model-edge/faces": 11},
        revoked=("bundle/tiny@1", "model/tiny@1"),
        signer=PUBLISHING.public.key_id,
    )
    return {
        **_pair("delegation", sign_delegation(delegation, ROOT)),
        **_pair("latest", sign_latest(latest, PUBLISHING)),
        **_pair("manifest-model", sign_manifest(_model(), PUBLISHING)),
        **_pair("manifest-bundle", sign_manifest(_bundle(), PUBLISHING)),
    }


def _pair(name: str, signed: SignedDocument) -> dict[str, bytes]:
    return {f"{name}.json": signed.payload, f"{name}.sig": signed.signature}


def _model() -> Manifest:
    with tempfile.TemporaryDirectory() as folder:
        files = describe_folder(fill(Path(folder)), kind=Kind.MODEL)
    return _manifest(Kind.MODEL, files, recipient=None)


def _bundle() -> Manifest:
    files = (FileEntry(SEALED, "0" * 64, 1234),)
    return _manifest(Kind.BUNDLE, files, recipient=DEVICE.public.key_id)


def _manifest(kind: Kind, files: tuple[FileEntry, ...], *, recipient: str | None) -> Manifest:
    return Manifest(
        kind=kind,
        name="tiny",
        version=2,
        epoch=1,
        developer=ROOT.public.key_id,
        signer=PUBLISHING.public.key_id,
        files=files,
        created=NOW,
        expires=NOW + timedelta(days=90),
        recipient=recipient,
    )


def _invites() -> dict[str, bytes]:
    device = Invite(
        "https://cloud.example:8443", "c" * 64, ROOT.public.key_id, "device", bytes(range(32))
    )
    developer = Invite("http://127.0.0.1:8000", None, None, "developer", bytes(32))
    enrolments = {
        "device": (
            Enrolment(device.url, "device", device.login_hash, DEVICE.public, SEALING.public),
            DEVICE,
        ),
        "developer": (
            Enrolment(developer.url, "developer", developer.login_hash, ROOT.public),
            ROOT,
        ),
    }
    tag = confirmation(device.confirm_key, identity=DEVICE.public.raw, sealing=SEALING.public)
    return {
        "invite-device.txt": device.to_code().encode(),
        "invite-device-login-hash.txt": device.login_hash.encode(),
        "invite-device-confirmation.txt": tag.hex().encode(),
        "invite-developer.txt": developer.to_code().encode(),
        **{
            f"enrolment-{role}.{suffix}": data
            for role, (enrolment, key) in enrolments.items()
            for suffix, data in (
                ("json", enrolment.to_bytes()),
                ("sig", prove_enrolment(enrolment, key)),
            )
        },
    }


def _frames() -> bytes:
    rows = np.array([[1.5, -0.0, np.inf], [2**-149, 3.25, -7.0]], np.float32)
    return encode_frames(
        Frame.of(rows),
        Frame.of(rows.astype(np.float16)),
        Frame(DType.BF16, float32_to_bfloat16(rows)),
        Frame.of(np.array([[[[-1]], [[2**31 - 1]]]], np.int32)),
        Frame.of(np.array(-(2**63), np.int64)),
        Frame.of(np.empty((0, 3), np.float32)),
    )


def _chunks() -> bytes:
    sink = io.BytesIO()
    with tempfile.TemporaryDirectory() as name:
        folder = fill(Path(name))
        write_content(folder, describe_files(folder, CHECKPOINT_SUFFIXES), CONTENT_KEY, sink)
    return sink.getvalue()


def renew_sealed(path: Path) -> None:
    """Seals the bundle anew, unless the one that is there still opens.

    HPKE draws a fresh key for every bundle, so these bytes cannot be compared, only opened.
    """
    with tempfile.TemporaryDirectory() as name:
        opened = Path(name, "opened")
        try:
            open_sealed(path, opened, SEALING, **USE)
        except TripartyError:
            folder = fill(Path(name, "plain"))
            seal_folder(folder, path, recipient=SEALING.public, **USE)


def main() -> None:
    """Renews the files."""
    for name, data in golden().items():
        (FOLDER / name).write_bytes(data)
    renew_sealed(FOLDER / SEALED)


if __name__ == "__main__":
    main()
