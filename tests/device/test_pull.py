"""Pulling: what must not be used is refused, and what the device had stays usable."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cloud_on_wire import Fault, Forward, altering, answering, cutting
from exchanges import NOW, Exchange, content_of, exchanging, write_protected

from triparty.common.artifacts import FileEntry, Kind, Manifest, sign_manifest
from triparty.common.delegation import (
    Delegation,
    PublishingKey,
    SignedDocument,
    sign_delegation,
)
from triparty.common.documents import canonical, format_time
from triparty.common.errors import (
    CheckpointError,
    CloudError,
    DigestError,
    ExpiredError,
    FormatVersionError,
    ManifestError,
    NotFoundError,
    RecipientError,
    RevokedError,
    RollbackError,
    SealError,
    SignatureError,
    SignerError,
    SizeError,
    StateError,
    TokenRevokedError,
    TripartyError,
    UnreachableError,
)
from triparty.common.keying import Bundle
from triparty.common.latest import Latest, sign_latest
from triparty.common.replies import Statements
from triparty.common.sealing import SealingKey, seal_folder
from triparty.common.signing import PrivateKey, to_base64url
from triparty.developer.home import Home as DeveloperHome
from triparty.device.home import HeldModel, Home

LATEST, ARTIFACTS, BLOBS = "/v1/latest", "/v1/artifacts", "/v1/blobs/"
STRANGER = PrivateKey.from_seed(b"s" * 32)
V1, V2 = HeldModel("tiny", 1, 1), HeldModel("tiny", 2, 1)


@dataclass
class Waiting:
    """A device that holds version 1 of a model, and a cloud that has version 2 for it.

    Attributes:
        first_said: delegation and statement of the time before version 1.
        before: the manifest of version 1.
        said: delegation and statement of now.
        current: the manifest of version 2.
    """

    exchange: Exchange
    developer: DeveloperHome
    home: Home
    first_said: Statements
    before: SignedDocument
    said: Statements
    current: SignedDocument

    @property
    def manifest(self) -> Manifest:
        return Manifest.from_bytes(self.current.payload)

    @property
    def latest(self) -> Latest:
        return Latest.from_bytes(self.said.latest.payload)

    def signed(self, **changes: Any) -> SignedDocument:
        """The manifest of version 2 with changes, signed by the developer."""
        return sign_manifest(replace(self.manifest, **changes), self.developer.publishing())

    def sealed(self, source: Path, **changes: Any) -> bytes:
        """What is in a folder, sealed to the device by the developer."""
        target = self.home.folder.parent / "sealed"
        uses = {
            "recipient": self.home.sealing_key().public,
            "device": self.home.access().principal,
            "model": "tiny",
            "version": 2,
            "epoch": 1,
        }
        seal_folder(source, target, **{**uses, **changes})
        return target.read_bytes()


def bring_about(exchange: Exchange) -> Waiting:
    developer = exchange.developer()
    with developer.access().client() as client:
        first_said = client.statements()
    exchange.publish(developer)
    home = exchange.device(developer)
    exchange.grant(developer, "phone")
    assert exchange.pull(home).taken == (V1,)
    with home.access().client() as client:
        (before,) = client.artifacts()
        exchange.publish(developer)
        current, _ = client.artifacts()
        said = client.statements()
    return Waiting(exchange, developer, home, first_said, before, said, current)


@pytest.fixture
def waiting(exchange: Exchange) -> Waiting:
    return bring_about(exchange)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Waiting]:
    with exchanging(tmp_path_factory.mktemp("shared")) as exchange:
        exchange.developer("other")
        yield bring_about(exchange)


@pytest.fixture
def faulted(shared: Waiting, tmp_path: Path) -> Waiting:
    """The shared one, with a copy of the device; for tests that leave the cloud as it is."""
    shutil.copytree(shared.home.folder, tmp_path / "phone")
    return replace(shared, home=Home(tmp_path / "phone"))


def check_refused(
    waiting: Waiting, error: type[TripartyError], fault: Fault, *, name: str | None = None
) -> None:
    """Nothing changed, what was held is usable, and when the fault ends all is well."""
    home, pull = waiting.home, waiting.exchange.pull
    developer = home.access().developer
    before, seen = content_of(home.folder), home.seen()
    with waiting.exchange.wire.fault(fault), pytest.raises(TripartyError) as raised:
        pull(home, name)
    assert type(raised.value) is error, repr(raised.value)
    assert content_of(home.folder) == before
    assert home.seen().versions == seen.versions
    assert home.seen().sequence(developer) >= seen.sequence(developer)
    assert home.held() == [V1]
    assert Bundle.open(home.bundle_folder("tiny")).info.epoch == 1
    assert pull(home, name).taken == (V2,)
    Bundle.open(home.bundle_folder("tiny"))


def says(member: str, signed: SignedDocument) -> Fault:
    """The cloud answers with another delegation or latest statement."""
    members = {
        member: to_base64url(signed.payload),
        f"{member}_signature": to_base64url(signed.signature),
    }
    return altering(LATEST, lambda document: document.update(members))


def lists(*manifests: SignedDocument) -> Fault:
    """The cloud lists other manifests."""
    listed = [
        {"manifest": to_base64url(s.payload), "signature": to_base64url(s.signature)}
        for s in manifests
    ]
    return altering(ARTIFACTS, lambda document: document.update(artifacts=listed))


def both(first: Fault, second: Fault) -> Fault:
    def fault(request: httpx.Request, forward: Forward) -> httpx.Response:
        return first(request, lambda inner: second(inner, forward))

    return fault


def newer(payload: bytes) -> bytes:
    """The same document in a format that is not known yet."""
    return canonical({**json.loads(payload), "format_version": 2, "shape": "new"})


def by(key: PrivateKey, purpose: str, payload: bytes) -> SignedDocument:
    return SignedDocument(payload, key.sign(purpose, payload))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


Make = Callable[[Waiting], Fault]


def resaid(waiting: Waiting, **changes: Any) -> Fault:
    changed = replace(waiting.latest, **changes)
    return says("latest", sign_latest(changed, waiting.developer.publishing()))


def foreign_statements(waiting: Waiting) -> Fault:
    """Everything good, everything by another developer of the same cloud."""
    other = DeveloperHome(waiting.exchange.folder / "other")
    with other.access().client() as client:
        said = client.statements()
    return both(says("delegation", said.delegation), says("latest", said.latest))


def foreign_latest(waiting: Waiting) -> Fault:
    other = DeveloperHome(waiting.exchange.folder / "other")
    with other.access().client() as client:
        return says("latest", client.statements().latest)


def delegated(waiting: Waiting, *, days: int, version: int) -> SignedDocument:
    root, key = waiting.developer.root(), waiting.developer.publishing()
    keys = (PublishingKey(key.public, NOW + timedelta(days=days)),)
    return sign_delegation(Delegation(root.public, keys, version, NOW), root)


def misnamed(waiting: Waiting) -> Fault:
    """Signed by our developer's key, in the name of another."""
    return lists(waiting.signed(developer=STRANGER.public.key_id))


STATEMENTS: dict[str, tuple[Make, type[TripartyError]]] = {
    "rolled-back": (lambda w: says("latest", w.first_said.latest), RollbackError),
    "expired": (
        lambda w: resaid(w, created=NOW - timedelta(9), expires=NOW, sequence=99),
        ExpiredError,
    ),
    "of-another-developer": (foreign_latest, SignatureError),
    "signed-by-a-stranger": (
        lambda w: says("latest", by(STRANGER, "latest", w.latest.to_bytes())),
        SignatureError,
    ),
    "signed-by-the-root": (
        lambda w: says("latest", by(w.developer.root(), "latest", w.latest.to_bytes())),
        SignatureError,
    ),
    "signed-for-something-else": (
        lambda w: says("latest", by(w.developer.publishing(), "manifest", w.latest.to_bytes())),
        SignatureError,
    ),
    "tampered": (
        lambda w: says("latest", replace(w.said.latest, payload=w.said.latest.payload + b" ")),
        SignatureError,
    ),
    "newer-format": (
        lambda w: says(
            "latest", by(w.developer.publishing(), "latest", newer(w.latest.to_bytes()))
        ),
        FormatVersionError,
    ),
    "revoked": (lambda w: resaid(w, revoked=("bundle/tiny@2",)), RevokedError),
    "superseded": (
        lambda w: resaid(w, versions={"model/tiny": 3, "bundle/tiny": 3}),
        RollbackError,
    ),
    "foreign-delegation": (foreign_statements, SignerError),
    "tampered-delegation": (
        lambda w: says(
            "delegation",
            replace(w.said.delegation, signature=flipped(w.said.delegation.signature, 5)),
        ),
        SignatureError,
    ),
    "expired-delegation": (
        lambda w: says("delegation", delegated(w, days=-1, version=2)),
        ExpiredError,
    ),
    "newer-delegation": (
        lambda w: says(
            "delegation",
            by(w.developer.root(), "delegation", newer(w.said.delegation.payload)),
        ),
        FormatVersionError,
    ),
    "no-json": (
        lambda w: answering(LATEST, lambda: httpx.Response(200, text="<html>")),
        CloudError,
    ),
    "failing": (lambda w: answering(LATEST, lambda: httpx.Response(500)), CloudError),
    "cut": (lambda w: cutting(LATEST), UnreachableError),
}


@pytest.mark.parametrize(("fault", "error"), STATEMENTS.values(), ids=STATEMENTS)
def test_a_bad_statement(faulted: Waiting, fault: Make, error: type[TripartyError]) -> None:
    check_refused(faulted, error, fault(faulted))


def two_files(waiting: Waiting) -> tuple[FileEntry, ...]:
    (file,) = waiting.manifest.files
    return (file, replace(file, path="other.sealed"))


MANIFESTS: dict[str, tuple[Make, type[TripartyError]]] = {
    "rolled-back": (lambda w: lists(w.before), RollbackError),
    "expired": (
        lambda w: lists(w.signed(created=NOW - timedelta(9), expires=NOW)),
        ExpiredError,
    ),
    "tampered-version": (
        lambda w: lists(
            replace(
                w.current,
                payload=w.current.payload.replace(b'"version":2', b'"version":9'),
            )
        ),
        SignatureError,
    ),
    "tampered-beyond-json": (
        lambda w: lists(replace(w.current, payload=flipped(w.current.payload, 0))),
        SignatureError,
    ),
    "tampered-signature": (
        lambda w: lists(replace(w.current, signature=flipped(w.current.signature, 63))),
        SignatureError,
    ),
    "signature-of-another": (
        lambda w: lists(replace(w.current, signature=w.before.signature)),
        SignatureError,
    ),
    "signed-by-a-stranger": (
        lambda w: lists(by(STRANGER, "manifest", w.current.payload)),
        SignatureError,
    ),
    "in-a-stranger's-name": (misnamed, SignerError),
    "in-another-key's-name": (
        lambda w: lists(
            by(
                w.developer.publishing(),
                "manifest",
                replace(w.manifest, signer=STRANGER.public.key_id).to_bytes(),
            )
        ),
        SignerError,
    ),
    "of-another-kind": (
        lambda w: lists(
            w.signed(
                kind=Kind.MODEL, recipient=None, files=(FileEntry("config.json", "0" * 64, 2),)
            )
        ),
        ManifestError,
    ),
    "of-another-name": (lambda w: lists(w.signed(name="other")), ManifestError),
    "for-another-device": (
        lambda w: lists(w.signed(recipient=STRANGER.public.key_id)),
        RecipientError,
    ),
    "newer-format": (
        lambda w: lists(by(w.developer.publishing(), "manifest", newer(w.current.payload))),
        FormatVersionError,
    ),
    "newer-format-of-nobody": (
        lambda w: lists(by(STRANGER, "manifest", newer(w.current.payload))),
        SignatureError,
    ),
    "too-large": (
        lambda w: lists(w.signed(files=(FileEntry("bundle.sealed", "0" * 64, 1 << 40),))),
        SizeError,
    ),
    "other-file": (
        lambda w: lists(w.signed(files=(FileEntry("other.sealed", "0" * 64, 9),))),
        ManifestError,
    ),
    "two-files": (lambda w: lists(w.signed(files=two_files(w))), ManifestError),
    "short-signature": (
        lambda w: altering(ARTIFACTS, lambda d: d["artifacts"][0].update(signature="AAAA")),
        SignatureError,
    ),
    "none": (lambda w: lists(), NotFoundError),
    "no-list": (
        lambda w: altering(ARTIFACTS, lambda d: d.update(artifacts={})),
        CloudError,
    ),
    "cut": (lambda w: cutting(ARTIFACTS), UnreachableError),
}


@pytest.mark.parametrize(("fault", "error"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_bad_manifest(faulted: Waiting, fault: Make, error: type[TripartyError]) -> None:
    check_refused(faulted, error, fault(faulted), name="tiny")


def test_another_kind_is_refused_for_its_kind(faulted: Waiting) -> None:
    config = (FileEntry("config.json", "0" * 64, 2),)
    model = faulted.signed(kind=Kind.MODEL, recipient=None, files=config)
    with (
        faulted.exchange.wire.fault(lists(model)),
        pytest.raises(ManifestError, match="asked for a bundle, got a model"),
    ):
        faulted.exchange.pull(faulted.home)


def served(change: Callable[[bytes], bytes]) -> Make:
    """The cloud serves other bytes under the blob's name."""

    def make(waiting: Waiting) -> Fault:
        def fault(request: httpx.Request, forward: Forward) -> httpx.Response:
            if not request.url.path.startswith(BLOBS):
                return forward(request)
            request.headers.pop("Range", None)
            return httpx.Response(200, content=change(forward(request).content))

        return fault

    return make


def bundled(make: Callable[[Waiting], bytes]) -> Make:
    """A bundle that the developer's tools made wrongly, properly signed."""

    def fault(waiting: Waiting) -> Fault:
        data = make(waiting)
        file = FileEntry("bundle.sealed", hashlib.sha256(data).hexdigest(), len(data))
        return both(
            lists(waiting.signed(files=(file,))),
            answering(BLOBS, lambda: httpx.Response(200, content=data)),
        )

    return fault


def protected(waiting: Waiting, *, epoch: int = 1, without: str | None = None) -> Path:
    folder = write_protected(waiting.home.folder.parent / "made", epoch=epoch) / "device"
    if without is not None:
        (folder / without).unlink()
    return folder


BUNDLES: dict[str, tuple[Make, type[TripartyError]]] = {
    "truncated": (served(lambda data: data[:-1]), DigestError),
    "empty": (served(lambda data: b""), DigestError),
    "oversized": (served(lambda data: data + b"x"), SizeError),
    "other-bytes": (served(lambda data: flipped(data, 99)), DigestError),
    "not-there": (
        lambda w: answering(BLOBS, lambda: httpx.Response(500)),
        CloudError,
    ),
    "cut": (lambda w: cutting(BLOBS), UnreachableError),
    "sealed-with-another-version": (
        bundled(lambda w: w.sealed(protected(w), version=1)),
        SealError,
    ),
    "sealed-with-another-epoch": (
        bundled(lambda w: w.sealed(protected(w), epoch=2)),
        SealError,
    ),
    "sealed-for-another-model": (
        bundled(lambda w: w.sealed(protected(w), model="other")),
        SealError,
    ),
    "sealed-in-another-device's-name": (
        bundled(lambda w: w.sealed(protected(w), device=STRANGER.public.key_id)),
        SealError,
    ),
    "sealed-to-another-key": (
        bundled(lambda w: w.sealed(protected(w), recipient=SealingKey.generate().public)),
        SealError,
    ),
    "sealed-and-cut": (bundled(lambda w: w.sealed(protected(w))[:-9]), SealError),
    "sealed-and-longer": (bundled(lambda w: w.sealed(protected(w)) + b"x"), SealError),
    "not-sealed": (bundled(lambda w: b"no bundle"), SealError),
    "of-another-epoch": (
        bundled(lambda w: w.sealed(protected(w, epoch=2))),
        CheckpointError,
    ),
    "without-a-head": (
        bundled(lambda w: w.sealed(protected(w, without="head.safetensors"))),
        CheckpointError,
    ),
    "without-a-description": (
        bundled(lambda w: w.sealed(protected(w, without="device.json"))),
        CheckpointError,
    ),
}


@pytest.mark.parametrize(("fault", "error"), BUNDLES.values(), ids=BUNDLES)
def test_a_bad_bundle(faulted: Waiting, fault: Make, error: type[TripartyError]) -> None:
    check_refused(faulted, error, fault(faulted))


def test_a_cut_download_goes_on(faulted: Waiting) -> None:
    """Not every fault is an error: a wire that gives a little at a time is put up with."""
    wire = faulted.exchange.wire
    ranges: list[str] = []

    def stuttering(request: httpx.Request, forward: Forward) -> httpx.Response:
        answer = forward(request)
        if not request.url.path.startswith(BLOBS) or len(ranges) == 3:
            return answer
        ranges.append(request.headers.get("Range", ""))
        headers = {k: v for k, v in answer.headers.items() if k == "content-range"}
        return httpx.Response(answer.status_code, headers=headers, content=answer.content[:100])

    with wire.fault(stuttering):
        assert faulted.exchange.pull(faulted.home).taken == (V2,)
    assert ranges == ["", "bytes=100-", "bytes=200-"]


# What is not a fault


def test_what_is_current_is_kept(faulted: Waiting) -> None:
    exchange, home = faulted.exchange, faulted.home
    assert exchange.pull(home).taken == (V2,)
    before = content_of(home.folder)
    asked = len(exchange.wire.requests)
    again = exchange.pull(home)
    assert (again.taken, again.kept) == ((), (V2,))
    assert not any(BLOBS in request for request in exchange.wire.requests[asked:])
    assert content_of(home.folder) == before


def test_what_a_pull_leaves(faulted: Waiting) -> None:
    faulted.exchange.pull(faulted.home)
    folder = faulted.home.folder
    assert sorted(path.name for path in (folder / "models").iterdir()) == ["tiny"]
    bundle = faulted.home.bundle_folder("tiny")
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o700
    for path in folder.rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.parametrize("damage", ["folder", "file", "content"])
def test_a_damaged_bundle_is_taken_again(faulted: Waiting, damage: str) -> None:
    exchange, home = faulted.exchange, faulted.home
    exchange.pull(home)
    bundle = home.bundle_folder("tiny")
    before = content_of(home.folder)
    if damage == "folder":
        shutil.rmtree(bundle)
    elif damage == "file":
        (bundle / "head.safetensors").unlink()
    else:
        (bundle / "embedding.safetensors").write_bytes(b"nothing")
    assert exchange.pull(home).taken == (V2,)
    assert content_of(home.folder) == before


def test_names_that_look_like_files(exchange: Exchange) -> None:
    """A model may be called like another one's record."""
    developer = exchange.developer()
    for name in ("a", "a.json", "a.json.json"):
        exchange.publish(developer, name)
    home = exchange.device(developer)
    for name in ("a", "a.json", "a.json.json"):
        exchange.grant(developer, "phone", name)
    taken = exchange.pull(home).taken
    assert sorted(model.name for model in taken) == ["a", "a.json", "a.json.json"]
    assert home.held() == sorted(taken, key=lambda model: f"{model.name}.json")
    for model in home.held():
        Bundle.open(home.bundle_folder(model.name))


def test_one_bad_bundle_of_several(exchange: Exchange) -> None:
    """The good ones before it are taken, it is reported, and the next pull goes on."""
    developer = exchange.developer()
    home = exchange.device(developer)
    for name in ("one", "two"):
        exchange.publish(developer, name)
        exchange.grant(developer, "phone", name)
    served_blobs: list[str] = []

    def second_is_bad(request: httpx.Request, forward: Forward) -> httpx.Response:
        answer = forward(request)
        if request.url.path.startswith(BLOBS):
            served_blobs.append(request.url.path)
            if request.url.path != served_blobs[0]:
                return httpx.Response(200, content=bytes(len(answer.content)))
        return answer

    with exchange.wire.fault(second_is_bad), pytest.raises(DigestError):
        exchange.pull(home)
    assert len(home.held()) == 1
    Bundle.open(home.bundle_folder(home.held()[0].name))
    done = exchange.pull(home)
    assert (len(done.taken), len(done.kept)) == (1, 1)


# Time passes


def test_a_device_that_enrols_today_is_not_given_yesterdays_model(
    waiting: Waiting,
) -> None:
    """It has seen nothing of version 1 or 2; the latest statement says what is current."""
    exchange = waiting.exchange
    fresh = exchange.device(waiting.developer, "fresh")
    exchange.grant(waiting.developer, "fresh")
    with fresh.access().client() as client:
        (yesterday,) = client.artifacts()
    exchange.publish(waiting.developer)
    with exchange.wire.fault(lists(yesterday)), pytest.raises(RollbackError):
        exchange.pull(fresh)
    assert fresh.held() == []
    assert exchange.pull(fresh).taken == (HeldModel("tiny", 3, 1),)


def test_what_was_seen_counts_when_the_statement_is_silent(faulted: Waiting) -> None:
    exchange, home = faulted.exchange, faulted.home
    exchange.pull(home)
    silent = both(resaid(faulted, versions={}), lists(faulted.before))
    before = content_of(home.folder)
    with exchange.wire.fault(silent), pytest.raises(RollbackError, match="already accepted"):
        exchange.pull(home)
    assert content_of(home.folder) == before


def test_a_delegation_that_was_replaced_stays_replaced(faulted: Waiting) -> None:
    exchange, home = faulted.exchange, faulted.home
    replaced = says("delegation", delegated(faulted, days=9, version=2))
    with exchange.wire.fault(replaced):
        assert exchange.pull(home).taken == (V2,)
    with pytest.raises(RollbackError, match="delegation"):
        exchange.pull(home)
    with exchange.wire.fault(replaced):
        assert exchange.pull(home).kept == (V2,)


def test_news_that_do_not_come_any_more(waiting: Waiting) -> None:
    """A cloud that hides what is new can do so until the statement expires."""
    exchange, home = waiting.exchange, waiting.home
    exchange.pull(home)
    exchange.wire.now += timedelta(days=30)
    with pytest.raises(ExpiredError, match="latest"):
        exchange.pull(home)
    Bundle.open(home.bundle_folder("tiny"))
    exchange.publish(waiting.developer)
    assert exchange.pull(home).taken == (HeldModel("tiny", 3, 1),)


def test_a_revoked_version_and_its_successor(waiting: Waiting) -> None:
    exchange, home = waiting.exchange, waiting.home
    exchange.pull(home)
    revoking = resaid(waiting, revoked=("bundle/tiny@2",))
    with exchange.wire.fault(revoking), pytest.raises(RevokedError):
        exchange.pull(home)
    exchange.publish(waiting.developer)
    assert exchange.pull(home).taken == (HeldModel("tiny", 3, 1),)


def test_a_revoked_device(waiting: Waiting) -> None:
    exchange, home = waiting.exchange, waiting.home
    with waiting.developer.access().client() as client:
        client.revoke_device(home.access().principal)
    before = content_of(home.folder)
    with pytest.raises(TokenRevokedError):
        exchange.pull(home)
    assert content_of(home.folder) == before


def test_nothing_was_granted(exchange: Exchange) -> None:
    developer = exchange.developer()
    exchange.publish(developer)
    home = exchange.device(developer)
    for name in (None, "tiny"):
        with pytest.raises(NotFoundError, match=home.access().principal):
            exchange.pull(home, name)
    assert home.held() == []
    exchange.grant(developer, "phone")
    assert exchange.pull(home, "tiny").taken == (V1,)


# A home that is damaged


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[]", b'{"name":"tiny"}'])
@pytest.mark.parametrize("file", ["seen.json", "held/tiny.json", "cloud.json"])
def test_a_damaged_record(faulted: Waiting, file: str, content: bytes) -> None:
    path = faulted.home.folder / file
    before = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(StateError, match="damaged"):
        faulted.exchange.pull(faulted.home)
    path.write_bytes(before)
    assert faulted.exchange.pull(faulted.home).taken == (V2,)


def test_one_bad_bundle_does_not_keep_the_others(exchange: Exchange) -> None:
    developer = exchange.developer()
    home = exchange.device(developer)
    for name in ("first", "second"):
        exchange.publish(developer, name)
        exchange.grant(developer, "phone", name)
    with home.access().client() as client:
        bad = next(
            manifest
            for manifest in (Manifest.from_bytes(one.payload) for one in client.artifacts())
            if manifest.name == "first"
        )
    size = bad.files[0].size
    wrong = answering(
        f"{BLOBS}{bad.files[0].sha256}", lambda: httpx.Response(200, content=b"x" * size)
    )
    with exchange.wire.fault(wrong), pytest.raises(DigestError):
        exchange.pull(home)
    assert [model.name for model in home.held()] == ["second"]
    assert [model.name for model in exchange.pull(home).taken] == ["first"]


def test_a_token_that_ends_soon_is_renewed_by_a_pull(exchange: Exchange) -> None:
    developer = exchange.developer()
    exchange.publish(developer)
    home = exchange.device(developer)
    exchange.grant(developer, "phone")
    before = home.access()
    exchange.pull(home)
    assert home.access() == before, "a token with time left stays"

    soon = replace(before, expires=format_time(exchange.wire.now + timedelta(days=29)))
    soon.save(home.folder)
    exchange.pull(home)
    assert home.access().token != before.token
    with before.client() as client, pytest.raises(TokenRevokedError):
        client.artifacts()
    assert exchange.pull(home).kept
