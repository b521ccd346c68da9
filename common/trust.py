"""Who may speak for a developer, what is current, and what has been seen before.

The one door to `delegation` (root key, publishing keys) and `latest` (current versions,
revocations, rollback). Everything here takes values and returns values: no file, no socket,
no clock.
"""

from __future__ import annotations

from triparty.common.delegation import (
    Delegation,
    PublishingKey,
    SignedDocument,
    sign_delegation,
    verify_delegation,
    verify_signed,
)
from triparty.common.latest import Latest, Release, Seen, sign_latest, verify_latest

__all__ = [
    "Delegation",
    "Latest",
    "PublishingKey",
    "Release",
    "Seen",
    "SignedDocument",
    "sign_delegation",
    "sign_latest",
    "verify_delegation",
    "verify_latest",
    "verify_signed",
]
