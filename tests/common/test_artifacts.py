import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.common.artifacts import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    FileEntry,
    Kind,
    Manifest,
    describe_folder,
    read_signed,
    sign_manifest,
    verify_folder,
    verify_manifest,
    write_artifact,
)
from triparty.common.documents import MAX_DOCUMENT_BYTES, canonical, parse
from triparty.common.entries import SUFFIXES
from triparty.common.errors import (
    ArtifactError,
    DigestError,
    ExpiredError,
    FileTypeError,
    FormatVersionError,
    ManifestError,
    PathError,
    RecipientError,
    RevokedError,
    RollbackError,
    SignatureError,
    SignerError,
    SizeError,
)
from triparty.common.signing import PrivateKey
from triparty.common.trust import Delegation, Latest, Seen, SignedDocument

Mutated = Callable[[bytes], st.SearchStrategy[bytes]]
MakeManifest = Callable[..., Manifest]


@pytest.fixture
def resigned(
    make_manifest: MakeManifest, publishing: PrivateKey
) -> Callable[..., SignedDocument]:
    """A good signature over a manifest with members changed behind the record's back."""

    def sign(**members: object) -> SignedDocument:
        value = parse(make_manifest().to_bytes())
        assert isinstance(value, dict)
        payload = canonical({**value, **members})
        return SignedDocument(payload, publishing.sign("manifest", payload))

    return sign


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 9000)  # over two chunks
    (folder / "tokenizer" / "merges.txt").write_text("")
    return folder


def _file(path: str, size: object = 1) -> dict[str, object]:
    return {"path": path, "sha256": "a" * 64, "size": size}


# The manifest


@pytest.mark.parametrize("kind", list(Kind))
def test_manifest_round_trip(make_manifest: MakeManifest, kind: Kind) -> None:
    path = "x" + min(SUFFIXES[kind])
    manifest = make_manifest(kind=kind, files=(FileEntry(path, "0" * 64, 0),))
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


_PATHS = st.from_regex(r"[a-z]{1,9}(/[a-z]{1,9})?\.json", fullmatch=True)


@given(
    st.lists(_PATHS, min_size=1, unique=True),
    st.integers(1, 2**53 - 1),
    st.integers(0, 2**40),
)
def test_manifest_round_trip_of_any_files(
    make_manifest: MakeManifest, paths: list[str], version: int, size: int
) -> None:
    files = tuple(FileEntry(path, "0" * 64, size) for path in sorted(paths))
    manifest = make_manifest(files=files, version=version)
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert manifest.size == size * len(paths)


def test_times_are_kept_as_the_document_keeps_them(
    make_manifest: MakeManifest, now: datetime
) -> None:
    manifest = make_manifest(created=now + timedelta(microseconds=5))
    assert manifest.created == now


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "Upper"},
        {"version": 0},
        {"epoch": -1},
        {"developer": "me"},
        {"signer": "me"},
        {"files": ()},
        {"recipient": "ed25519:" + "a" * 64},  # no bundle
        {"kind": Kind.BUNDLE, "recipient": None},
        {"kind": Kind.BUNDLE, "recipient": "me"},
    ],
)
def test_a_manifest_checks_itself(
    make_manifest: MakeManifest, changed: dict[str, object]
) -> None:
    with pytest.raises(ManifestError):
        make_manifest(**changed)


def test_a_manifest_expires_after_it_is_created(
    make_manifest: MakeManifest, now: datetime
) -> None:
    with pytest.raises(ManifestError, match="expires after"):
        make_manifest(expires=now)


# Verification, rule by rule


def test_a_good_manifest_is_accepted(
    make_manifest: MakeManifest,
    publishing: PrivateKey,
    delegation: Delegation,
    device: PrivateKey,
    latest: Latest,
    now: datetime,
) -> None:
    manifest = make_manifest(kind=Kind.BUNDLE)
    accepted = verify_manifest(
        sign_manifest(manifest, publishing),
        delegation=delegation,
        now=now,
        kind=Kind.BUNDLE,
        name="tiny",
        recipient=device.public.key_id,
        seen=Seen().raised(manifest),
        latest=latest,
        limit_bytes=17,
    )
    assert accepted == manifest


def test_signature_by_a_stranger_the_root_or_for_another_purpose(
    make_manifest: MakeManifest,
    publishing: PrivateKey,
    stranger: PrivateKey,
    root: PrivateKey,
    delegation: Delegation,
    now: datetime,
) -> None:
    for key in (stranger, root):
        signed = sign_manifest(make_manifest(signer=key.public.key_id), key)
        with pytest.raises(SignatureError):
            verify_manifest(signed, delegation=delegation, now=now)
    payload = make_manifest().to_bytes()
    signed = SignedDocument(payload, publishing.sign("latest", payload))
    with pytest.raises(SignatureError):
        verify_manifest(signed, delegation=delegation, now=now)


def test_unsigned_bytes_are_never_parsed(delegation: Delegation, now: datetime) -> None:
    """Nonsense under a bad signature is a bad signature, not nonsense."""
    for payload in (b"", b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(SignatureError):
            verify_manifest(SignedDocument(payload, bytes(64)), delegation=delegation, now=now)


def test_signer_and_developer_are_those_of_the_key(
    make_manifest: MakeManifest,
    publishing: PrivateKey,
    stranger: PrivateKey,
    delegation: Delegation,
    resigned: Callable[..., SignedDocument],
    now: datetime,
) -> None:
    other = stranger.public.key_id
    for member in ("signer", "developer"):
        with pytest.raises(SignerError, match=other):
            verify_manifest(resigned(**{member: other}), delegation=delegation, now=now)
    with pytest.raises(SignerError):
        sign_manifest(make_manifest(), stranger)


@pytest.mark.parametrize("kind", list(Kind))
def test_what_a_developer_may_sign(
    make_manifest: MakeManifest,
    publishing: PrivateKey,
    delegation: Delegation,
    now: datetime,
    kind: Kind,
) -> None:
    files = (FileEntry("x" + min(SUFFIXES[kind]), "0" * 64, 0),)
    signed = sign_manifest(make_manifest(kind=kind, files=files), publishing)
    if kind is Kind.DATASET:
        with pytest.raises(SignerError, match="signed by the device"):
            verify_manifest(signed, delegation=delegation, now=now)
    else:
        assert verify_manifest(signed, delegation=delegation, now=now).kind is kind


def test_expiry_of_manifest_and_key(
    make_manifest: MakeManifest,
    publishing: PrivateKey,
    delegation: Delegation,
    now: datetime,
) -> None:
    manifest = make_manifest()
    signed = sign_manifest(manifest, publishing)
    last = manifest.expires - timedelta(seconds=1)
    verify_manifest(signed, delegation=delegation, now=last)
    with pytest.raises(ExpiredError, match="publish it again"):
        verify_manifest(signed, delegation=delegation, now=manifest.expires)
    (key,) = delegation.keys
    short = replace(delegation, keys=(replace(key, expires=last),))
    with pytest.raises(ExpiredError, match="publishing key"):
        verify_manifest(signed, delegation=short, now=last)


def test_another_kind_or_name_than_asked_for(
    make_manifest: MakeManifest,
    publishing: PrivateKey,
    delegation: Delegation,
    now: datetime,
) -> None:
    signed = sign_manifest(make_manifest(), publishing)
    with pytest.raises(ManifestError, match="asked for a link, got a model"):
        verify_manifest(signed, delegation=delegation, now=now, kind=Kind.LINK)
    with pytest.raises(ManifestError, match="asked for model 'huge', got 'tiny'"):
        verify_manifest(signed, delegation=delegation, now=now, name="huge")


def test_recipient(
    make_manifest: MakeManifest,
    publishing: PrivateKey,
    stranger: PrivateKey,
    delegation: Delegation,
    now: datetime,
) -> None:
    signed = sign_manifest(make_manifest(kind=Kind.BUNDLE), publishing)
    with pytest.raises(RecipientError):
        verify_manifest(
            signed, delegation=delegation, now=now, recipient=stranger.public.key_id
        )
    verify_manifest(signed, delegation=delegation, now=now)  # the cloud takes any device's
    model = sign_manifest(make_manifest(), publishing)  # only bundles have a recipient
    verify_manifest(model, delegation=delegation, now=now, recipient=stranger.public.key_id)


def test_size_limit(
    make_manifest: MakeManifest,
    publishing: PrivateKey,
    delegation: Delegation,
    now: datetime,
) -> None:
    signed = sign_manifest(make_manifest(), publishing)
    verify_manifest(signed, delegation=delegation, now=now, limit_bytes=17)
    with pytest.raises(SizeError, match="17 bytes, limit 16"):
        verify_manifest(signed, delegation=delegation, now=now, limit_bytes=16)


def test_rollback_and_revocation(
    make_manifest: MakeManifest,
    publishing: PrivateKey,
    delegation: Delegation,
    latest: Latest,
    now: datetime,
) -> None:
    def verify(version: int, **known: object) -> None:
        signed = sign_manifest(make_manifest(version=version), publishing)
        verify_manifest(signed, delegation=delegation, now=now, **known)  # type: ignore[arg-type]

    seen = Seen().raised(make_manifest(version=9))
    verify(9, seen=seen)
    with pytest.raises(RollbackError):
        verify(8, seen=seen)
    with pytest.raises(RollbackError):
        verify(3, latest=latest)  # a first-time reader cannot be given yesterday's
    with pytest.raises(RevokedError):
        verify(7, latest=latest)


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"format_version": 2, "news": 1}, FormatVersionError),
        ({"news": 1}, ManifestError),
        ({"type": "triparty.latest"}, ManifestError),
        ({"kind": "virus"}, ManifestError),
        ({"kind": None}, ManifestError),
        ({"version": True}, ManifestError),
        ({"version": "4"}, ManifestError),
        ({"files": {}}, ManifestError),
        ({"files": []}, ManifestError),
        ({"files": ["config.json"]}, ManifestError),
        ({"files": [{**_file("a.json"), "mode": 7}]}, ManifestError),
        ({"files": [_file("a.json", -1)]}, ManifestError),
        ({"files": [_file("a.json", 2**53)]}, ManifestError),
        ({"files": [{**_file("a.json"), "sha256": "A" * 64}]}, ManifestError),
        ({"files": [_file("b.json"), _file("a.json")]}, ManifestError),
        ({"files": [_file("a.json"), _file("a.json")]}, ManifestError),
        ({"files": [_file(f"{n:05}.json") for n in range(10_001)]}, ManifestError),
        ({"files": [_file("../a.json")]}, PathError),
        ({"files": [_file("/etc/a.json")]}, PathError),
        ({"files": [_file("b/../../a.json")]}, PathError),
        ({"files": [_file("./a.json")]}, PathError),
        ({"files": [_file("b//a.json")]}, PathError),
        ({"files": [_file("b\\a.json")]}, PathError),
        ({"files": [_file("C:a.json")]}, PathError),
        ({"files": [_file("a\0.json")]}, PathError),
        ({"files": [_file("")]}, PathError),
        ({"files": [_file("A.json"), _file("a.json")]}, PathError),
        ({"files": [_file("a.json"), _file("a.json/b.json")]}, PathError),
        ({"files": [_file("a.py")]}, FileTypeError),
        ({"files": [_file("a.pt")]}, FileTypeError),
        ({"files": [_file("a")]}, FileTypeError),
        ({"recipient": "ed25519:" + "a" * 64}, ManifestError),
        ({"created": "2026-01-02T03:04:05+00:00"}, ManifestError),
        ({"expires": "2026-01-02T03:04:05Z"}, ManifestError),
    ],
)
def test_well_signed_nonsense_is_refused(
    resigned: Callable[..., SignedDocument],
    delegation: Delegation,
    now: datetime,
    members: dict[str, object],
    error: type[ArtifactError],
) -> None:
    verify_manifest(resigned(), delegation=delegation, now=now)  # negative control
    with pytest.raises(error):
        verify_manifest(resigned(**members), delegation=delegation, now=now)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"epoch":1', b'"epoch":1,"epoch":1'),
        (b"}", b"}\n"),
        (b"}", b"}{}"),
        (b'"epoch":1', b'"epoch": 1'),
        (b'"epoch":1', b'"epoch":1.0'),
        (b'"epoch":1', b'"epoch":01'),
        (b'"tiny"', b'"tin\\u0079"'),
        (b'"epoch":1,', b""),
    ],
)
def test_well_signed_bytes_that_are_not_canonical(
    make_manifest: MakeManifest,
    publishing: PrivateKey,
    delegation: Delegation,
    now: datetime,
    old: bytes,
    new: bytes,
) -> None:
    head, found, tail = make_manifest().to_bytes().rpartition(old)
    assert found
    payload = head + new + tail
    signed = SignedDocument(payload, publishing.sign("manifest", payload))
    with pytest.raises(ManifestError):
        verify_manifest(signed, delegation=delegation, now=now)


@given(st.data())
def test_no_changed_manifest_is_accepted(
    make_manifest: MakeManifest,
    publishing: PrivateKey,
    delegation: Delegation,
    now: datetime,
    mutated: Mutated,
    data: st.DataObject,
) -> None:
    signed = sign_manifest(make_manifest(), publishing)
    payload = data.draw(mutated(signed.payload))
    with pytest.raises(SignatureError):
        verify_manifest(
            SignedDocument(payload, signed.signature), delegation=delegation, now=now
        )
    signature = data.draw(mutated(signed.signature))
    with pytest.raises(SignatureError):
        verify_manifest(
            SignedDocument(signed.payload, signature), delegation=delegation, now=now
        )


# Folders


def test_describe_sign_write_read_and_verify(
    checkpoint: Path, make_manifest: MakeManifest, publishing: PrivateKey
) -> None:
    files = describe_folder(checkpoint, kind=Kind.MODEL)
    assert [entry.path for entry in files] == [
        "config.json",
        "model.safetensors",
        "tokenizer/merges.txt",
    ]
    manifest = make_manifest(files=files)
    signed = sign_manifest(manifest, publishing)
    verify_folder(manifest, checkpoint)
    write_artifact(signed, checkpoint)
    assert read_signed(checkpoint) == signed
    verify_folder(manifest, checkpoint)
    assert describe_folder(checkpoint, kind=Kind.MODEL) == files


@pytest.mark.parametrize("suffix", ["bin", "pt", "pkl", "pth", "PT"])
def test_pickles_are_refused_with_the_remedy(checkpoint: Path, suffix: str) -> None:
    (checkpoint / f"pytorch_model.{suffix}").write_bytes(b"")
    with pytest.raises(FileTypeError, match="convert it to safetensors") as caught:
        describe_folder(checkpoint, kind=Kind.MODEL)
    assert f"pytorch_model.{suffix}" in caught.value.message


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Kind.MODEL, "modeling.py"),
        (Kind.MODEL, ".DS_Store"),
        (Kind.MODEL, "model.onnx"),
        (Kind.BUNDLE, "device.json"),
        (Kind.PLAN, "plan.safetensors"),
        (Kind.LINK, "link.onnx"),
        (Kind.GATE, "gate.onnx.data"),
        (Kind.DATASET, "rows.csv"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, kind: Kind, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(FileTypeError, match="never holds"):
        describe_folder(tmp_path, kind=kind)


def test_links_are_refused_wherever_they_point(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.json").write_text("secret")
    for name, target in (
        ("link.json", tmp_path / "outside.json"),
        ("inside.json", checkpoint / "config.json"),
        ("folder", tmp_path),
        ("broken.json", tmp_path / "absent"),
    ):
        (checkpoint / name).symlink_to(target)
        with pytest.raises(PathError, match="symbolic link"):
            describe_folder(checkpoint, kind=Kind.MODEL)
        (checkpoint / name).unlink()
    describe_folder(checkpoint, kind=Kind.MODEL)


def test_no_pipes(checkpoint: Path) -> None:
    os.mkfifo(checkpoint / "pipe.json")
    with pytest.raises(FileTypeError, match="no ordinary file"):
        describe_folder(checkpoint, kind=Kind.MODEL)


def test_describe_limits(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SizeError, match="limit 9"):
        describe_folder(checkpoint, kind=Kind.MODEL, limit_bytes=9)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="1 to 10000 files, got 0"):
        describe_folder(tmp_path / "empty", kind=Kind.MODEL)
    with pytest.raises(ManifestError, match="no folder"):
        describe_folder(tmp_path / "absent", kind=Kind.MODEL)


def test_verify_folder_compares_everything(
    checkpoint: Path, make_manifest: MakeManifest, tmp_path: Path
) -> None:
    manifest = make_manifest(files=describe_folder(checkpoint, kind=Kind.MODEL))
    model, config = checkpoint / "model.safetensors", checkpoint / "config.json"
    data = model.read_bytes()

    model.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DigestError, match="has SHA-256"):
        verify_folder(manifest, checkpoint)
    model.write_bytes(data + b"x")
    with pytest.raises(DigestError, match=f"{len(data) + 1} bytes, expected {len(data)}"):
        verify_folder(manifest, checkpoint)
    model.write_bytes(data)
    verify_folder(manifest, checkpoint)

    (checkpoint / "extra.json").write_text("")
    with pytest.raises(DigestError, match="not in the manifest"):
        verify_folder(manifest, checkpoint)
    (checkpoint / "extra.json").unlink()

    config.unlink()
    with pytest.raises(DigestError, match="is missing"):
        verify_folder(manifest, checkpoint)
    (tmp_path / "same.json").write_text("{}")
    config.symlink_to(tmp_path / "same.json")  # the right content by the wrong way
    with pytest.raises(PathError):
        verify_folder(manifest, checkpoint)


def test_read_signed_is_bounded(
    tmp_path: Path, make_manifest: MakeManifest, publishing: PrivateKey
) -> None:
    with pytest.raises(ManifestError, match=MANIFEST_FILE):
        read_signed(tmp_path)
    write_artifact(sign_manifest(make_manifest(), publishing), tmp_path)
    (tmp_path / SIGNATURE_FILE).write_bytes(b"x" * 65)
    with pytest.raises(SignatureError):
        read_signed(tmp_path)
    (tmp_path / MANIFEST_FILE).write_bytes(b" " * (MAX_DOCUMENT_BYTES + 1))
    with pytest.raises(SizeError):
        read_signed(tmp_path)
