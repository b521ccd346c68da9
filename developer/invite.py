"""Device invites: made on the developer's machine, so that the cloud cannot take them over."""

from __future__ import annotations

import secrets
from datetime import datetime

from triparty.common.invites import SECRET_BYTES, Invite
from triparty.common.tls import certificate_pin
from triparty.developer.home import Home


def invite_device(home: Home, *, label: str, days: int, now: datetime) -> tuple[str, str]:
    """Makes an invite for one device and registers its login hash with the cloud.

    Args:
        home: of an enrolled developer.
        label: what the developer calls the device until it enrols.
        days: how long the invite can be used.
        now: for the delegation's expiry.

    Returns:
        The code, and when it expires, RFC 3339.
    """
    access = home.access()
    pem = access.certificate_pem
    invite = Invite(
        url=access.url,
        pin=certificate_pin(pem) if pem else None,
        root=home.delegation(now).developer,
        role="device",
        secret=secrets.token_bytes(SECRET_BYTES),
    )
    kept = home.keep_invite(invite, label=label)
    try:
        with access.client() as client:
            expires = client.create_invite(
                role="device",
                login_hash=invite.login_hash,
                expires_in_s=days * 24 * 3600,
                label=label,
            )
    except BaseException:
        kept.unlink(missing_ok=True)
        raise
    return invite.to_code(), expires
