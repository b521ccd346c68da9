from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.common.artifacts import Kind, Manifest
from triparty.common.documents import canonical, parse
from triparty.common.errors import (
    ArtifactError,
    ExpiredError,
    FormatVersionError,
    ManifestError,
    RevokedError,
    RollbackError,
    SignatureError,
    SignerError,
    StateError,
)
from triparty.common.signing import PrivateKey
from triparty.common.trust import (
    Delegation,
    Latest,
    PublishingKey,
    Seen,
    SignedDocument,
    sign_delegation,
    sign_latest,
    verify_delegation,
    verify_latest,
)

Mutated = Callable[[bytes], st.SearchStrategy[bytes]]
MakeManifest = Callable[..., Manifest]


def _resigned(
    payload: bytes, key: PrivateKey, purpose: str, **members: object
) -> SignedDocument:
    """A good signature over a document with members changed or added."""
    value = parse(payload)
    assert isinstance(value, dict)
    changed = canonical({**value, **members})
    return SignedDocument(changed, key.sign(purpose, changed))


# Delegation


def test_delegation_round_trip(delegation: Delegation, root: PrivateKey, now: datetime) -> None:
    assert Delegation.from_bytes(delegation.to_bytes()) == delegation
    signed = sign_delegation(delegation, root)
    for seen_version in (0, delegation.version):
        verified = verify_delegation(
            signed, root_fingerprint=root.public.key_id, seen_version=seen_version, now=now
        )
        assert verified == delegation


def test_delegation_by_another_root(
    delegation: Delegation, root: PrivateKey, stranger: PrivateKey, now: datetime
) -> None:
    other = sign_delegation(replace(delegation, root=stranger.public), stranger)
    with pytest.raises(SignerError, match=root.public.key_id):
        verify_delegation(other, root_fingerprint=root.public.key_id, now=now)
    # The pinned root's name with a stranger's signature.
    payload = delegation.to_bytes()
    forged = SignedDocument(payload, stranger.sign("delegation", payload))
    with pytest.raises(SignatureError):
        verify_delegation(forged, root_fingerprint=root.public.key_id, now=now)
    with pytest.raises(SignerError):
        sign_delegation(delegation, stranger)


def test_delegation_rollback(delegation: Delegation, root: PrivateKey, now: datetime) -> None:
    with pytest.raises(RollbackError, match="version 3, already seen 4"):
        verify_delegation(
            sign_delegation(delegation, root),
            root_fingerprint=root.public.key_id,
            seen_version=4,
            now=now,
        )


def test_delegation_without_a_valid_key(
    delegation: Delegation, root: PrivateKey, now: datetime
) -> None:
    signed = sign_delegation(delegation, root)
    end = delegation.keys[0].expires
    verify_delegation(
        signed, root_fingerprint=root.public.key_id, now=end - timedelta(seconds=1)
    )
    with pytest.raises(ExpiredError):
        verify_delegation(signed, root_fingerprint=root.public.key_id, now=end)


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"more": 1}, ManifestError),
        ({"format_version": 2}, FormatVersionError),
        ({"type": "triparty.latest"}, ManifestError),
        ({"keys": []}, ManifestError),
        ({"keys": [{"key": "AA", "expires": "2027-01-02T03:04:05Z"}]}, ManifestError),
        ({"keys": [7]}, ManifestError),
        ({"version": 0}, ManifestError),
        ({"version": "3"}, ManifestError),
        ({"created": "yesterday"}, ManifestError),
    ],
)
def test_well_signed_nonsense_is_no_delegation(
    delegation: Delegation,
    root: PrivateKey,
    now: datetime,
    members: dict[str, object],
    error: type[ArtifactError],
) -> None:
    signed = _resigned(delegation.to_bytes(), root, "delegation", **members)
    with pytest.raises(error):
        verify_delegation(signed, root_fingerprint=root.public.key_id, now=now)


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b'{"root":1}', b'{"root":"AA"}'])
def test_a_delegation_without_a_root_key(
    root: PrivateKey, now: datetime, payload: bytes
) -> None:
    signed = SignedDocument(payload, root.sign("delegation", payload))
    with pytest.raises(ManifestError):
        verify_delegation(signed, root_fingerprint=root.public.key_id, now=now)


def test_a_delegation_names_other_keys_once(delegation: Delegation, root: PrivateKey) -> None:
    (key,) = delegation.keys
    for keys in ((key, key), (), (PublishingKey(root.public, key.expires),)):
        with pytest.raises(ManifestError):
            replace(delegation, keys=keys)


@given(st.data())
def test_no_changed_delegation_is_accepted(
    delegation: Delegation,
    root: PrivateKey,
    now: datetime,
    mutated: Mutated,
    data: st.DataObject,
) -> None:
    signed = sign_delegation(delegation, root)
    fingerprint = root.public.key_id
    payload = data.draw(mutated(signed.payload))
    with pytest.raises(ArtifactError):
        verify_delegation(
            SignedDocument(payload, signed.signature), root_fingerprint=fingerprint, now=now
        )
    signature = data.draw(mutated(signed.signature))
    with pytest.raises(SignatureError):
        verify_delegation(
            SignedDocument(signed.payload, signature), root_fingerprint=fingerprint, now=now
        )


# Latest


def test_latest_round_trip(
    latest: Latest, publishing: PrivateKey, delegation: Delegation, now: datetime
) -> None:
    assert Latest.from_bytes(latest.to_bytes()) == latest
    assert hash(latest) == hash(Latest.from_bytes(latest.to_bytes()))
    signed = sign_latest(latest, publishing)
    for seen_sequence in (0, latest.sequence):
        assert verify_latest(signed, delegation, seen_sequence=seen_sequence, now=now) == latest


def test_latest_is_signed_by_a_delegated_key_for_itself(
    latest: Latest,
    publishing: PrivateKey,
    stranger: PrivateKey,
    root: PrivateKey,
    delegation: Delegation,
    now: datetime,
) -> None:
    with pytest.raises(SignerError):
        sign_latest(latest, stranger)
    for key in (stranger, root):  # not even the root publishes
        signed = sign_latest(replace(latest, signer=key.public.key_id), key)
        with pytest.raises(SignatureError, match="publishing key"):
            verify_latest(signed, delegation, now=now)
    other = stranger.public.key_id
    for members in ({"signer": other}, {"developer": other}):
        signed = _resigned(latest.to_bytes(), publishing, "latest", **members)
        with pytest.raises(SignerError):
            verify_latest(signed, delegation, now=now)


def test_latest_expires_and_never_goes_back(
    latest: Latest, publishing: PrivateKey, delegation: Delegation, now: datetime
) -> None:
    signed = sign_latest(latest, publishing)
    verify_latest(signed, delegation, now=latest.expires - timedelta(seconds=1))
    with pytest.raises(ExpiredError, match="sign a new one"):
        verify_latest(signed, delegation, now=latest.expires)
    with pytest.raises(RollbackError, match="number 5, already seen 6"):
        verify_latest(signed, delegation, seen_sequence=6, now=now)


def test_successor_keys_both_count_until_they_expire(
    latest: Latest,
    publishing: PrivateKey,
    stranger: PrivateKey,
    delegation: Delegation,
    now: datetime,
) -> None:
    old = PublishingKey(publishing.public, now + timedelta(days=1))
    new = PublishingKey(stranger.public, now + timedelta(days=9))
    both = replace(delegation, keys=(old, new))
    later = now + timedelta(days=2)
    signed_old = sign_latest(latest, publishing)
    signed_new = sign_latest(replace(latest, signer=stranger.public.key_id), stranger)
    verify_latest(signed_old, both, now=now)
    verify_latest(signed_new, both, now=later)
    with pytest.raises(ExpiredError, match="publish with a new one"):
        verify_latest(signed_old, both, now=later)


@pytest.mark.parametrize(
    "members",
    [
        {"versions": {"model": 1}},
        {"versions": {"model/": 1}},
        {"versions": {"model/a/b": 1}},
        {"versions": {"model/tiny": 0}},
        {"versions": {"model/tiny": "1"}},
        {"versions": []},
        {"revoked": ["model/tiny"]},
        {"revoked": ["model/tiny@"]},
        {"revoked": ["model/tiny@0"]},
        {"revoked": ["model/tiny@01"]},
        {"revoked": ["model/tiny@\uff11"]},
        {"revoked": ["model@1"]},
        {"revoked": [1]},
        {"revoked": ["model/tiny@1", "model/tiny@1"]},
        {"revoked": ["model/tiny@2", "model/tiny@1"]},
        {"expires": "2026-01-02T03:04:05Z"},
        {"sequence": 0},
        {"developer": "somebody"},
        {"signer": "somebody"},
        {"more": 1},
    ],
)
def test_well_signed_nonsense_is_no_latest(
    latest: Latest,
    publishing: PrivateKey,
    delegation: Delegation,
    now: datetime,
    members: dict[str, object],
) -> None:
    signed = _resigned(latest.to_bytes(), publishing, "latest", **members)
    with pytest.raises(ManifestError):
        verify_latest(signed, delegation, now=now)


@pytest.mark.parametrize("revoked", [("model/tiny",), ("b/a@1", "a/a@1"), ("Model/x@1",)])
def test_a_latest_statement_checks_itself(latest: Latest, revoked: tuple[str, ...]) -> None:
    with pytest.raises(ManifestError):
        replace(latest, revoked=revoked)


def test_latest_of_a_newer_format(
    latest: Latest, publishing: PrivateKey, delegation: Delegation, now: datetime
) -> None:
    signed = _resigned(latest.to_bytes(), publishing, "latest", format_version=2, more=1)
    with pytest.raises(FormatVersionError):
        verify_latest(signed, delegation, now=now)


def test_a_signature_for_one_purpose_is_none_for_another(
    latest: Latest, publishing: PrivateKey, delegation: Delegation, now: datetime
) -> None:
    payload = latest.to_bytes()
    for purpose in ("manifest", "delegation", ""):
        with pytest.raises(SignatureError):
            verify_latest(
                SignedDocument(payload, publishing.sign(purpose, payload)), delegation, now=now
            )


@given(st.data())
def test_no_changed_latest_is_accepted(
    latest: Latest,
    publishing: PrivateKey,
    delegation: Delegation,
    now: datetime,
    mutated: Mutated,
    data: st.DataObject,
) -> None:
    signed = sign_latest(latest, publishing)
    payload = data.draw(mutated(signed.payload))
    with pytest.raises(SignatureError):
        verify_latest(SignedDocument(payload, signed.signature), delegation, now=now)
    signature = data.draw(mutated(signed.signature))
    with pytest.raises(SignatureError):
        verify_latest(SignedDocument(signed.payload, signature), delegation, now=now)


def test_latest_judges_releases(
    latest: Latest, make_manifest: MakeManifest, stranger: PrivateKey
) -> None:
    latest.check(make_manifest(version=4))
    latest.check(make_manifest(version=5))  # newer than the statement: not yet superseded
    latest.check(make_manifest(kind=Kind.BUNDLE, version=2))  # judged by kind and name
    latest.check(make_manifest(name="other", version=1))
    with pytest.raises(RollbackError, match="version 3, current is 4"):
        latest.check(make_manifest(version=3))
    with pytest.raises(RevokedError):
        latest.check(make_manifest(version=7))
    with pytest.raises(SignerError):
        latest.check(make_manifest(developer=stranger.public.key_id))


# Seen


def test_seen_refuses_what_is_older(make_manifest: MakeManifest) -> None:
    seen = Seen()
    seen.check(make_manifest(version=1))
    seen = seen.raised(make_manifest(version=5))
    seen.check(make_manifest(version=5))
    with pytest.raises(RollbackError, match="version 4; version 5 was already accepted"):
        seen.check(make_manifest(version=4))
    assert seen.raised(make_manifest(version=2)) == seen  # never lowered


def test_seen_judges_per_developer_kind_and_name(
    make_manifest: MakeManifest, stranger: PrivateKey
) -> None:
    seen = Seen().raised(make_manifest(version=5))
    seen.check(make_manifest(version=1, name="other"))
    seen.check(make_manifest(version=1, kind=Kind.BUNDLE))
    seen.check(make_manifest(version=1, developer=stranger.public.key_id))


def test_seen_is_a_value(
    make_manifest: MakeManifest, latest: Latest, delegation: Delegation
) -> None:
    empty = Seen()
    full = empty.raised(make_manifest()).raised_latest(latest).raised_delegation(delegation)
    assert empty == Seen()
    assert full.sequence(latest.developer) == 5
    assert full.delegation_version(latest.developer) == 3
    assert empty.sequence(latest.developer) == empty.delegation_version("x") == 0
    assert Seen.from_json(full.to_json()) == full
    assert full.raised_latest(replace(latest, sequence=2)) == full


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"versions":{}}', "\ud800"])
def test_a_damaged_record_is_not_taken_for_an_empty_one(text: str) -> None:
    with pytest.raises(StateError, match="enrol anew"):
        Seen.from_json(text)


def test_a_damaged_key_in_the_record(make_manifest: MakeManifest) -> None:
    text = Seen().raised(make_manifest()).to_json()
    with pytest.raises(StateError):
        Seen.from_json(text.replace(" model ", "  "))
    with pytest.raises(StateError):
        Seen.from_json(text.replace(":4}", ":-4}"))


def test_a_signature_has_64_bytes() -> None:
    with pytest.raises(SignatureError, match="64 bytes, got 63"):
        SignedDocument(b"", b"x" * 63)
