import hashlib
import hmac
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.common.documents import canonical
from triparty.common.errors import InviteError, SealError
from triparty.common.invites import Invite, check_confirmation, confirmation
from triparty.common.signing import to_base64url

SECRET = bytes(range(32))
ROOT = "ed25519:" + "b" * 64
DEVICE = Invite("https://cloud.example:8443", "a" * 64, ROOT, "device", SECRET)
DEVELOPER = Invite("https://cloud.example", None, None, "developer", SECRET)


@pytest.mark.parametrize("invite", [DEVICE, DEVELOPER])
def test_code_round_trip(invite: Invite) -> None:
    code = invite.to_code()
    assert code.startswith("tpi1_")
    assert Invite.from_code(f"  {code}\n") == invite


def test_repr_hides_the_secret_and_what_follows_from_it() -> None:
    for shown in (repr(DEVICE), str(DEVICE)):
        assert "cloud.example" in shown
        for secret in (DEVICE.secret, DEVICE.login, DEVICE.confirm_key):
            for form in (secret.hex(), to_base64url(secret), repr(secret)):
                assert form not in shown
        assert DEVICE.to_code() not in shown


def _hkdf(secret: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 of 32 bytes, written from RFC 5869, sections 2.2 and 2.3."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def test_the_halves_are_hkdf_under_their_labels() -> None:
    assert DEVICE.login == _hkdf(SECRET, b"triparty invite login v1")
    assert DEVICE.confirm_key == _hkdf(SECRET, b"triparty invite confirm v1")
    assert DEVICE.login_hash == hashlib.sha256(DEVICE.login).hexdigest()


@given(st.binary(min_size=32, max_size=32))
def test_the_halves_differ_from_each_other_and_from_the_secret(secret: bytes) -> None:
    invite = Invite("https://c", None, None, "developer", secret)
    login, confirm = invite.login, invite.confirm_key
    assert len({secret, login, confirm, bytes.fromhex(invite.login_hash)}) == 4
    assert len(login) == len(confirm) == 32
    # What the cloud can compute from the login half with the known labels is not the other.
    assert confirm not in (
        _hkdf(login, b"triparty invite confirm v1"),
        hashlib.sha256(login).digest(),
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"url": "ftp://c"},
        {"url": "https://"},
        {"url": "c:80"},
        {"url": "https://u:p@c"},
        {"url": "https://c/?q"},
        {"url": "https://c/#f"},
        {"url": "https://c:99999"},
        {"url": "https://c c"},
        {"url": "https://c\n"},
        {"url": "https://[c"},
        {"pin": "A" * 64},
        {"pin": ""},
        {"root": "b" * 64},
        {"role": "operator"},
        {"role": "developer"},  # has a root
        {"root": None},  # a device without one
        {"secret": b"short"},
    ],
)
def test_unusable_invites_are_refused(changed: dict[str, object]) -> None:
    fields = {n: getattr(DEVICE, n) for n in ("url", "pin", "root", "role", "secret")}
    with pytest.raises(InviteError) as caught:
        Invite(**{**fields, **changed})
    assert str(SECRET) not in caught.value.message


def _code(value: object) -> str:
    return "tpi1_" + to_base64url(canonical(value))


@pytest.mark.parametrize(
    "code",
    [
        "",
        "tpi1_",
        "tpi2_" + DEVICE.to_code()[5:],
        DEVICE.to_code()[:-1],
        DEVICE.to_code() + "A",
        DEVICE.to_code().replace("_", "_ ", 1),
        "tpi1_" + "A" * 5000,
        _code([]),
        _code({"url": "https://c"}),
        _code({"url": 1, "pin": None, "root": None, "role": "developer", "secret": "AA"}),
    ],
)
def test_damaged_codes_are_refused(code: str) -> None:
    with pytest.raises(InviteError) as caught:
        Invite.from_code(code)
    assert not code or code not in caught.value.message


def test_codes_with_unknown_or_duplicate_members_are_refused() -> None:
    members = {"pin": None, "root": None, "role": "developer", "url": "https://c"}
    members["secret"] = to_base64url(SECRET)
    assert Invite.from_code(_code(members)).secret == SECRET  # negative control
    with pytest.raises(InviteError):
        Invite.from_code(_code({**members, "more": 1}))
    twice = canonical(members).replace(b'{"pin"', b'{"pin":null,"pin"')
    with pytest.raises(InviteError):
        Invite.from_code("tpi1_" + to_base64url(twice))


@given(st.data())
def test_a_changed_code_never_raises_anything_else(
    mutated: Callable[[bytes], st.SearchStrategy[bytes]], data: st.DataObject
) -> None:
    """A code is copied, not signed: a changed one is refused or is another whole invite."""
    changed = data.draw(mutated(DEVICE.to_code().encode())).decode("latin-1")
    try:
        invite = Invite.from_code(changed)
    except InviteError:
        return
    assert invite.to_code() == changed.strip()


def test_confirmation_accepts_exactly_the_tagged_keys() -> None:
    key, identity, sealing = DEVICE.confirm_key, b"i" * 32, b"s" * 32
    tag = confirmation(key, identity=identity, sealing=sealing)
    check_confirmation(key, identity=identity, sealing=sealing, tag=tag)
    for changed in (
        {"identity": b"x" * 32},
        {"sealing": b"x" * 32},
        {"identity": sealing, "sealing": identity},
        {"identity": identity + sealing[:1], "sealing": sealing[1:]},  # same bytes, moved
        {"tag": tag[:-1]},
        {"tag": b""},
        {"tag": confirmation(DEVICE.login, identity=identity, sealing=sealing)},
    ):
        fields = {"identity": identity, "sealing": sealing, "tag": tag, **changed}
        with pytest.raises(SealError, match="revoke the device"):
            check_confirmation(key, **fields)
    with pytest.raises(SealError):  # what the cloud knows makes no valid tag
        check_confirmation(DEVICE.login, identity=identity, sealing=sealing, tag=tag)
