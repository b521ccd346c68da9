"""Enrolment of a device: an invite becomes an account that the cloud cannot take over.

1. The code names cloud, certificate pin and developer's root; nothing else is believed.
2. The device makes its keys; the private ones never leave it.
3. It sends the public ones with an HMAC under a half of the invite's secret that the cloud
   does not have, so that the developer notices swapped keys.
4. The developer's delegation must come from the root that the invite names.
"""

from __future__ import annotations

import shutil
from datetime import datetime

from triparty.common.access import Access, check_invite, first_contact
from triparty.common.delegation import verify_delegation
from triparty.common.errors import CloudError, InviteError, SignerError
from triparty.common.invites import Invite, confirmation
from triparty.common.latest import Seen
from triparty.common.signing import to_base64url
from triparty.device.home import Home


def enroll(home: Home, invite: Invite, *, cloud: str, name: str, now: datetime) -> Access:
    """Enrols this device; leaves no home behind if anything fails.

    Args:
        home: of this device, not enrolled.
        invite: made by the developer.
        cloud: URL that the user named; must be the invite's.
        name: label that the developer sees.
        now: for the delegation's expiry.

    Raises:
        StateError: enrolled already.
        InviteError: unknown, used or expired.
        CertificateError: whoever answers is not the invite's cloud.
        SignerError: the cloud shows another developer than the invite names.
    """
    check_invite(invite, role="device", cloud=cloud)
    root = invite.root
    if root is None:
        raise InviteError("this invite names no developer: ask for another")
    was_there = home.folder.exists()
    try:
        access, seen = _enroll(home, invite, root, name=name, now=now)
        home.save_seen(seen)
        access.save(home.folder)
    except BaseException:
        if not was_there:
            shutil.rmtree(home.folder, ignore_errors=True)
        raise
    return access


def _enroll(
    home: Home, invite: Invite, root: str, *, name: str, now: datetime
) -> tuple[Access, Seen]:
    with first_contact(invite) as (client, certificate):
        identity, sealing = home.make_keys()
        tag = confirmation(
            invite.confirm_key, identity=identity.public.raw, sealing=sealing.public
        )
        account = client.enroll(
            {
                "role": "device",
                "login": to_base64url(invite.login),
                "name": name,
                "identity": identity.public.to_text(),
                "sealing": sealing.public_text,
                "confirmation": to_base64url(tag),
            }
        )
    if account.developer != root:
        raise SignerError(
            f"the invite names developer {root}, the cloud says {account.developer}: "
            f"tell the developer"
        )
    if account.principal != identity.public.key_id:
        raise CloudError("the cloud enrolled another device than this one")
    access = Access(
        url=invite.url.rstrip("/"),
        principal=account.principal,
        developer=root,
        token=account.token,
        expires=account.expires,
        certificate_pem=certificate,
        allow_http=invite.url.startswith("http:"),
    )
    with access.client() as client:
        signed = client.statements().delegation
    delegation = verify_delegation(signed, root_fingerprint=root, now=now)
    return access, Seen().raised_delegation(delegation)
