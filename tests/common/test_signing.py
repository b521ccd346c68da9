import hashlib
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.common.errors import ManifestError, SignatureError, StateError
from triparty.common.sealing import SealingKey
from triparty.common.signing import (
    PrivateKey,
    PublicKey,
    check_key_id,
    from_base64url,
    length_prefixed,
    signing_input,
    to_base64url,
)


def test_verify_accepts_what_sign_made(root: PrivateKey) -> None:
    root.public.verify("manifest", b"payload", root.sign("manifest", b"payload"))


def test_verify_refuses_another_purpose_payload_or_key(
    root: PrivateKey, stranger: PrivateKey
) -> None:
    signature = root.sign("manifest", b"payload")
    for key, purpose, payload in (
        (root, "latest", b"payload"),
        (root, "manifest", b"payloae"),
        (stranger, "manifest", b"payload"),
    ):
        with pytest.raises(SignatureError, match=purpose):
            key.public.verify(purpose, payload, signature)


def test_a_bare_signature_of_the_payload_means_nothing() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    bare = Ed25519PrivateKey.from_private_bytes(b"r" * 32).sign(b"payload")
    with pytest.raises(SignatureError):
        PrivateKey.from_seed(b"r" * 32).public.verify("manifest", b"payload", bare)


def test_signing_input_counts_bytes_not_characters() -> None:
    assert signing_input("é", b"xyz") == (
        b"\x0b\0\0\0\0\0\0\0triparty/v1\x02\0\0\0\0\0\0\0\xc3\xa9\x03\0\0\0\0\0\0\0xyz"
    )


@given(st.lists(st.binary(max_size=20)), st.lists(st.binary(max_size=20)))
def test_different_parts_have_different_encodings(a: list[bytes], b: list[bytes]) -> None:
    assert (length_prefixed(*a) == length_prefixed(*b)) == (a == b)


@given(st.binary(max_size=70))
def test_base64url_round_trip(data: bytes) -> None:
    text = to_base64url(data)
    assert "=" not in text
    assert from_base64url(text) == data


@given(st.text(alphabet="ABz09-_+/= \n", max_size=9))
def test_base64url_has_one_text_per_value(text: str) -> None:
    try:
        data = from_base64url(text)
    except ManifestError:
        return
    assert to_base64url(data) == text


@pytest.mark.parametrize("text", ["AA==", "AB", "A", "A+/A", "AA\n", " AAA", "äAAA", "AAA="])
def test_base64url_refuses_other_spellings(text: str) -> None:
    with pytest.raises(ManifestError):
        from_base64url(text)


def test_key_id_is_the_hash_of_the_raw_key(root: PrivateKey) -> None:
    assert root.public.key_id == "ed25519:" + hashlib.sha256(root.public.raw).hexdigest()
    assert check_key_id(root.public.key_id) == root.public.key_id
    assert PublicKey.from_text(root.public.to_text()) == root.public


@pytest.mark.parametrize("text", ["", "ed25519:", "ed25519:" + "A" * 64, "x" * 72])
def test_check_key_id_refuses(text: str) -> None:
    with pytest.raises(ManifestError):
        check_key_id(text)


def test_a_public_key_has_32_bytes() -> None:
    with pytest.raises(ManifestError, match="32 bytes, got 31"):
        PublicKey.from_text(to_base64url(b"x" * 31))


def test_repr_shows_no_private_bytes(root: PrivateKey) -> None:
    assert repr(root) == "PrivateKey()"


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_save_and_load(root: PrivateKey, tmp_path: Path, passphrase: str | None) -> None:
    path = tmp_path / "keys" / "root.key"
    root.save(path, passphrase=passphrase)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PrivateKey.load(path, passphrase=passphrase).public == root.public
    assert (b"BEGIN PRIVATE KEY" in path.read_bytes()) == (passphrase is None)


def test_wrong_missing_or_needless_passphrase(root: PrivateKey, tmp_path: Path) -> None:
    root.save(tmp_path / "locked", passphrase="right")
    root.save(tmp_path / "open")
    for name, passphrase, message in (
        ("locked", "wrong", "damaged or its passphrase is wrong"),
        ("locked", None, "needs its passphrase"),
        ("open", "right", "not encrypted"),
    ):
        with pytest.raises(StateError, match=message) as caught:
            PrivateKey.load(tmp_path / name, passphrase=passphrase)
        assert "right" not in caught.value.message


def test_empty_passphrase_is_refused(root: PrivateKey, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="empty passphrase"):
        root.save(tmp_path / "key", passphrase="")
    assert not list(tmp_path.iterdir())


def test_a_key_is_never_overwritten(
    root: PrivateKey, stranger: PrivateKey, tmp_path: Path
) -> None:
    root.save(tmp_path / "key")
    with pytest.raises(StateError, match="never overwritten"):
        stranger.save(tmp_path / "key")
    assert PrivateKey.load(tmp_path / "key").public == root.public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(
    root: PrivateKey, tmp_path: Path, mode: int
) -> None:
    root.save(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(StateError, match="chmod 600"):
        PrivateKey.load(tmp_path / "key")


def test_absent_damaged_or_other_keys_are_refused(root: PrivateKey, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="No such file"):
        PrivateKey.load(tmp_path / "absent")
    (tmp_path / "junk").write_bytes(b"junk")
    (tmp_path / "junk").chmod(0o600)
    with pytest.raises(StateError, match="damaged"):
        PrivateKey.load(tmp_path / "junk")
    SealingKey.generate().save(tmp_path / "sealing")
    with pytest.raises(StateError, match="no Ed25519"):
        PrivateKey.load(tmp_path / "sealing")
    root.save(tmp_path / "signing")
    with pytest.raises(StateError, match="no X25519"):
        SealingKey.load(tmp_path / "signing")
