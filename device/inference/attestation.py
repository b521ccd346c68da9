"""A hook for trusted execution: a device asks what runs in the cloud before it sends anything.

Hardware that runs models in enclaves (confidential virtual machines and GPUs) signs
*evidence*: a measurement of what was started, bound to a nonce that the asker chose. What the
evidence looks like is the vendor's, so it is bytes here, and who can read it is a `Verifier` of
that vendor. triparty brings none: the one below is software, signs itself, and proves nothing.

Law: no row leaves the device before evidence about a fresh nonce was verified, if verifying
was asked for.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol

from triparty.common.errors import AttestationError

NONCE_BYTES = 32


class TrustedExecution(Protocol):
    """The side that is asked: what runs the model."""

    def attest(self, nonce: bytes) -> bytes:
        """Evidence of what runs, bound to the nonce.

        Args:
            nonce: 32 bytes that nobody could know before.
        """


class Verifier(Protocol):
    """The side that asks: reads the evidence of one kind of hardware."""

    def verify(self, evidence: bytes, *, nonce: bytes, expected: bytes) -> None:
        """Returns if the evidence is genuine, about this nonce, and measures `expected`.

        Raises:
            AttestationError: it is not.
        """


@dataclass(frozen=True)
class Attestation:
    """What a device insists on.

    Attributes:
        execution: the way to what runs the model.
        verifier: of its evidence.
        expected: the measurement of what may run, from the developer.
    """

    execution: TrustedExecution
    verifier: Verifier
    expected: bytes

    def require(self) -> None:
        """Asks about a fresh nonce.

        Raises:
            AttestationError: the evidence is no proof of what is expected.
        """
        nonce = secrets.token_bytes(NONCE_BYTES)
        evidence = self.execution.attest(nonce)
        self.verifier.verify(evidence, nonce=nonce, expected=self.expected)


@dataclass(frozen=True)
class SoftwareExecution:
    """Evidence and verifier without hardware, to test what surrounds them. PROVES NOTHING.

    Whoever holds `secret` says whatever is wanted; a real vendor's key never leaves its chip.

    Attributes:
        measurement: what it says that it runs.
        secret: of its tags.
    """

    measurement: bytes
    secret: bytes = field(repr=False)

    def attest(self, nonce: bytes) -> bytes:
        """A tag over nonce and measurement, and the measurement."""
        return self._tag(nonce, self.measurement) + self.measurement

    def verify(self, evidence: bytes, *, nonce: bytes, expected: bytes) -> None:
        """Checks the tag, then the measurement."""
        tag, measurement = evidence[: sha256().digest_size], evidence[sha256().digest_size :]
        if not hmac.compare_digest(tag, self._tag(nonce, measurement)):
            raise AttestationError("the evidence is not genuine, or not about this request")
        if not hmac.compare_digest(measurement, expected):
            raise AttestationError(
                f"the cloud runs {measurement.hex()[:16] or 'nothing'}, expected "
                f"{expected.hex()[:16]}: ask the developer which measurement is right"
            )

    def _tag(self, nonce: bytes, measurement: bytes) -> bytes:
        return hmac.digest(self.secret, nonce + measurement, "sha256")
