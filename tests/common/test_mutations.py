"""Changed bytes of every format give a typed error, or are read; memory stays bounded.

Signed documents are tried twice: as they are, where any change must be refused, and signed
anew after the change, as a hostile developer can, so that what is behind the signature is met.
"""

from __future__ import annotations

import random
import runpy
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutations import mutated, mutated_json
from safetensors.numpy import save

from triparty.common.artifacts import verify_manifest
from triparty.common.documents import canonical, parse
from triparty.common.entries import CHECKPOINT_SUFFIXES, FileEntry, check_files
from triparty.common.errors import (
    ArtifactError,
    FileTypeError,
    FrameError,
    InviteError,
    SealError,
    TooLargeError,
    TripartyError,
)
from triparty.common.invites import PREFIX, Invite
from triparty.common.sealing import open_sealed
from triparty.common.signing import from_base64url, to_base64url
from triparty.common.stream import CHUNK_BYTES, ChunkReader
from triparty.common.tensorfile import TensorFile
from triparty.common.trust import SignedDocument, verify_delegation, verify_latest
from triparty.common.wire import decode_frames

FOLDER = Path(__file__).parent.parent / "golden"
GOLDEN: dict[str, Any] = runpy.run_path(str(FOLDER / "make_golden.py"))
NOW, ROOT, PUBLISHING = GOLDEN["NOW"], GOLDEN["ROOT"], GOLDEN["PUBLISHING"]
LIMIT = 100_000
BYTES_PER_BYTE = 64  # Python's own form of JSON
CHUNKS = 2 * CHUNK_BYTES + 200_000  # one as it is read, one deciphered
FAST, SLOW = 6_000, 1_000_000


@dataclass(frozen=True)
class Format:
    """A kind of bytes that other parties send.

    Attributes:
        data: what is changed.
        read: takes the changed bytes.
        errors: what it may raise.
        share: how many of a hundred runs are about it.
        is_sealed: any change must be refused.
        change: makes changed bytes of `data`.
        buffer: bytes that it may take whatever the input.
    """

    data: bytes
    read: Callable[[bytes], object]
    errors: tuple[type[TripartyError], ...]
    share: int
    is_sealed: bool = False
    change: Callable[[random.Random, bytes, Sequence[bytes]], bytes] = mutated
    buffer: int = 200_000


def golden(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def signed(name: str) -> SignedDocument:
    return SignedDocument(golden(f"{name}.json"), golden(f"{name}.sig"))


DELEGATION = verify_delegation(
    signed("delegation"), root_fingerprint=ROOT.public.key_id, now=NOW
)


def read_frames(data: bytes) -> None:
    for frame in decode_frames(data, limit_bytes=LIMIT):
        assert frame.array.nbytes <= min(len(data), LIMIT)


def read_manifest(document: SignedDocument) -> None:
    manifest = verify_manifest(document, delegation=DELEGATION, now=NOW)
    assert manifest.to_bytes() == document.payload


def read_latest(document: SignedDocument) -> None:
    verify_latest(document, DELEGATION, now=NOW)


def read_delegation(document: SignedDocument) -> None:
    verify_delegation(document, root_fingerprint=ROOT.public.key_id, now=NOW)


def read_index(data: bytes) -> None:
    items = parse(data)
    if isinstance(items, list):
        check_files(tuple(FileEntry.from_json(item) for item in items), CHECKPOINT_SUFFIXES)


def read_chunks(data: bytes) -> None:
    reader = ChunkReader(GOLDEN["CONTENT_KEY"], BytesIO(data))
    while reader.read(1 << 16):
        pass


def documents(name: str, read: Callable[[SignedDocument], None], key: Any) -> Iterator[Format]:
    """A signed document: its bytes, its signature, and its bytes signed anew."""
    purpose = name.partition("-")[0]
    payload, signature = golden(f"{name}.json"), golden(f"{name}.sig")
    yield Format(
        payload, lambda d: read(SignedDocument(d, signature)), (ArtifactError,), 4, True
    )
    yield Format(
        signature, lambda d: read(SignedDocument(payload, d)), (ArtifactError,), 1, True
    )

    def anew(data: bytes) -> None:
        read(SignedDocument(data, key.sign(purpose, data)))

    yield Format(payload, anew, (ArtifactError,), 2)
    yield Format(payload, anew, (ArtifactError,), 6, change=mutated_json)


def formats(folder: Path) -> list[Format]:
    sealed, opened, tensors = (folder / name for name in ("sealed", "opened", "tensors"))

    def read_sealed(data: bytes) -> None:
        sealed.write_bytes(data)
        open_sealed(sealed, opened, GOLDEN["SEALING"], **GOLDEN["USE"])

    def read_tensors(data: bytes) -> None:
        tensors.write_bytes(data)
        file = TensorFile.open(tensors)
        total = sum(file.bits(name).nbytes for name in file.entries)
        assert total <= len(data)

    def read_header(text: bytes) -> None:
        read_tensors(len(text).to_bytes(8, "little") + text + header[len(text) + 8 :])

    def read_invite(data: bytes) -> None:
        Invite.from_code(data.decode("utf-8", "surrogateescape"))

    def read_inner(data: bytes) -> None:
        Invite.from_code(PREFIX + to_base64url(data))

    rng = np.random.default_rng(1)
    header = save(
        {
            "rows": rng.normal(size=(3, 4)).astype(np.float32),
            "order": np.arange(7, dtype=np.int32),
            "empty": np.empty((0, 2), np.float16),
        }
    )
    text = header[8 : 8 + int.from_bytes(header[:8], "little")]
    inner = from_base64url(golden("invite-device.txt").decode().removeprefix(PREFIX))
    index = [
        {"path": path, "sha256": "0" * 64, "size": len(data)}
        for path, data in GOLDEN["FILES"].items()
    ]
    return [
        Format(golden("frames.tpf"), read_frames, (FrameError, TooLargeError), 20),
        *documents("manifest-model", read_manifest, PUBLISHING),
        *documents("manifest-bundle", read_manifest, PUBLISHING),
        *documents("latest", read_latest, PUBLISHING),
        *documents("delegation", read_delegation, ROOT),
        Format(canonical(index), read_index, (ArtifactError,), 2),
        Format(canonical(index), read_index, (ArtifactError,), 6, change=mutated_json),
        Format(golden("content.chunks"), read_chunks, (SealError,), 6, True, buffer=CHUNKS),
        Format(golden("bundle.sealed"), read_sealed, (SealError,), 2, True, buffer=CHUNKS),
        Format(header, read_tensors, (FileTypeError,), 4),
        Format(text, read_header, (FileTypeError,), 4, change=mutated_json),
        Format(inner, read_inner, (InviteError,), 6, change=mutated_json),
        Format(golden("invite-device.txt"), read_invite, (InviteError,), 3),
        Format(golden("invite-developer.txt"), read_invite, (InviteError,), 2),
    ]


@contextmanager
def traced() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def check_one(kind: Format, data: bytes) -> bool:
    """Reads changed bytes; whether they were refused."""
    most = BYTES_PER_BYTE * len(data) + kind.buffer
    refused, peak = measured(kind, data)
    if peak > most:  # unless it was the first of its sort: something was loaded or cached
        refused, peak = measured(kind, data)
    assert peak <= most, (peak, data)
    assert refused or not kind.is_sealed or data == kind.data, data
    return refused


def measured(kind: Format, data: bytes) -> tuple[bool, int]:
    """Whether the bytes were refused, and how many bytes reading them took."""
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    raised: TripartyError | None = None
    try:
        kind.read(data)
    except kind.errors as error:
        raised = error.with_traceback(None)
    assert raised is None or (raised.message and raised.status < 500)
    return raised is not None, tracemalloc.get_traced_memory()[1] - before


def run(folder: Path, count: int, seed: int) -> None:
    rng = random.Random(seed)
    kinds = formats(folder)
    others = [kind.data for kind in kinds]
    for kind in kinds:
        kind.read(kind.data)
    refused = dict.fromkeys(range(len(kinds)), 0)
    with traced():
        for _ in range(count):
            (number,) = rng.choices(range(len(kinds)), [kind.share for kind in kinds])
            data = kinds[number].change(rng, kinds[number].data, others)
            refused[number] += check_one(kinds[number], data)
    assert all(refused.values())


def test_mutated_bytes(tmp_path: Path) -> None:
    run(tmp_path, FAST, seed=20260102)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_million_mutated_bytes(tmp_path: Path) -> None:
    run(tmp_path, SLOW, seed=1)


def test_the_check_sees_a_crash_a_wrong_error_and_memory() -> None:
    def crash(_: bytes) -> None:
        raise IndexError

    def hoard(_: bytes) -> None:
        bytearray(2_000_000)

    with traced():
        with pytest.raises(IndexError):
            check_one(Format(b"", crash, (FrameError,), 1), b"")
        with pytest.raises(AssertionError):
            check_one(Format(b"", hoard, (FrameError,), 1), b"")
        with pytest.raises(AssertionError):
            check_one(Format(b"a", len, (FrameError,), 1, True), b"b")
