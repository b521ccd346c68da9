"""Evidence has to be genuine, about this nonce, and of what is expected."""

from __future__ import annotations

import pytest

from triparty.common.errors import AttestationError
from triparty.device.inference.attestation import Attestation, SoftwareExecution

GOOD = SoftwareExecution(b"m" * 32, b"k" * 32)


class Replaying:
    """A cloud that answers with evidence that it got for another nonce."""

    def attest(self, nonce: bytes) -> bytes:
        return GOOD.attest(bytes(32))


def test_what_is_expected_is_accepted() -> None:
    Attestation(GOOD, GOOD, b"m" * 32).require()


@pytest.mark.parametrize(
    ("execution", "message"),
    [
        (Replaying(), "not genuine"),
        (SoftwareExecution(b"m" * 32, b"x" * 32), "not genuine"),
        (SoftwareExecution(b"o" * 32, b"k" * 32), "runs 6f6f"),
    ],
)
def test_everything_else_is_refused(execution: SoftwareExecution, message: str) -> None:
    with pytest.raises(AttestationError, match=message):
        Attestation(execution, GOOD, b"m" * 32).require()


@pytest.mark.parametrize("evidence", [b"", b"short", bytes(32), bytes(100)])
def test_bytes_that_are_no_evidence_are_refused(evidence: bytes) -> None:
    with pytest.raises(AttestationError):
        GOOD.verify(evidence, nonce=bytes(32), expected=b"m" * 32)


def test_each_question_has_a_nonce_of_its_own_and_secrets_are_not_shown() -> None:
    seen: list[bytes] = []

    class Noting:
        def attest(self, nonce: bytes) -> bytes:
            seen.append(nonce)
            return GOOD.attest(nonce)

    for _ in range(3):
        Attestation(Noting(), GOOD, b"m" * 32).require()
    assert len(set(seen)) == 3
    assert all(len(nonce) == 32 for nonce in seen)
    assert "kkk" not in repr(GOOD)
