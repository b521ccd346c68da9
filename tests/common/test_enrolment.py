"""The proof of possession: one key, one invite, one cloud, these keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from triparty.common.enrolment import Enrolment, prove_enrolment, verify_enrolment
from triparty.common.errors import ManifestError, SignatureError, SignerError
from triparty.common.signing import PrivateKey

KEY, OTHER = PrivateKey.from_seed(b"k" * 32), PrivateKey.from_seed(b"o" * 32)
ENROLMENT = Enrolment("https://cloud.test", "device", "0" * 64, KEY.public, b"s" * 32)
GOLDEN = Path(__file__).parent.parent / "golden"


def test_the_owner_proves_it() -> None:
    verify_enrolment(ENROLMENT, prove_enrolment(ENROLMENT, KEY))


@pytest.mark.parametrize(
    "change",
    [
        {"cloud": "https://evil.test"},
        {"role": "developer"},
        {"login_hash": "1" * 64},
        {"identity": OTHER.public},
        {"sealing": b"t" * 32},
        {"sealing": None},
    ],
    ids=str,
)
def test_a_proof_counts_for_nothing_else(change: dict[str, Any]) -> None:
    proof = prove_enrolment(ENROLMENT, KEY)
    with pytest.raises(SignatureError):
        verify_enrolment(replace(ENROLMENT, **change), proof)


def test_a_signature_for_another_purpose_is_no_proof() -> None:
    for purpose in ("manifest", "delegation", "latest"):
        with pytest.raises(SignatureError):
            verify_enrolment(ENROLMENT, KEY.sign(purpose, ENROLMENT.to_bytes()))


def test_only_the_owner_can_sign() -> None:
    with pytest.raises(SignerError):
        prove_enrolment(ENROLMENT, OTHER)
    with pytest.raises(ManifestError):
        replace(ENROLMENT, login_hash="A" * 64)


@pytest.mark.parametrize("role", ["developer", "device"])
def test_golden_proofs_verify(role: str) -> None:
    payload = (GOLDEN / f"enrolment-{role}.json").read_bytes()
    seed = (
        b"golden device identity, 32 bytes"
        if role == "device"
        else b"golden root key, public, 32 byte"
    )
    key = PrivateKey.from_seed(seed).public
    key.verify("enrolment", payload, (GOLDEN / f"enrolment-{role}.sig").read_bytes())
