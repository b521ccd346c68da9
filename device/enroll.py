"""Enrolment of a device: an invite becomes an account that the cloud cannot take over.

1. The code names cloud, certificate pin and developer's root; nothing else is believed.
2. The device makes its keys; the private ones never leave it.
3. It sends the public ones with an HMAC under a half of the invite's secret that the cloud
   does not have, so that the developer notices swapped keys.
4. The developer's delegation must come from the root that the invite names.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from triparty.common.access import Access, check_invite, check_same_cloud, first_contact
from triparty.common.clocks import judged_at, naming_clocks
from triparty.common.delegation import verify_delegation
from triparty.common.enrolment import Enrolment, prove_enrolment
from triparty.common.errors import CloudError, InviteError, ManifestError, SignerError
from triparty.common.invites import Invite, confirmation
from triparty.common.latest import Seen
from triparty.common.signing import PublicKey, to_base64url
from triparty.device.home import Home
from triparty.device.keystore import RECORD


def enroll(
    home: Home,
    invite: Invite,
    *,
    cloud: str,
    name: str,
    now: datetime,
    again: bool = False,
) -> Access:
    """Enrols this device; leaves no home behind, or the one that was, if anything fails.

    Args:
        home: of this device.
        invite: made by the developer.
        cloud: URL that the user named; must be the invite's.
        name: label that the developer sees.
        now: for the delegation's expiry.
        again: the home is enrolled, and its token expired or is lost: gets a new one for the
            same account. What it has seen goes on counting.

    Raises:
        StateError: enrolled already, or with `again` not yet.
        InviteError: unknown, used or expired.
        CertificateError: whoever answers is not the invite's cloud.
        SignerError: the cloud shows another developer than the invite names.
    """
    check_invite(invite, role="device", cloud=cloud)
    root = invite.root
    if root is None:
        raise InviteError("this invite names no developer: ask for another")
    if again:
        _check_same_account(home.access(), invite, root)
    with _all_or_nothing(home):
        access, seen = _enroll(home, invite, root, name=name, now=now, again=again)
        home.save_seen(seen)
        access.save(home.folder)
    return access


def _check_same_account(access: Access, invite: Invite, root: str) -> None:
    check_same_cloud(access, invite)
    if access.developer != root:
        raise SignerError(
            f"this device belongs to developer {access.developer}, the invite is by {root}"
        )


@contextmanager
def _all_or_nothing(home: Home) -> Iterator[None]:
    """Takes away what was put into a home, and a new home itself, if the block fails."""
    folder = home.folder
    was_there = folder.is_dir()
    before = set(folder.iterdir()) if was_there else set()
    try:
        yield
    except BaseException:
        if folder.is_dir() and folder / RECORD in set(folder.iterdir()) - before:
            home.forget_keys()
        if not was_there:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            for file in set(folder.iterdir()) - before:
                file.unlink()
        raise


def _enroll(
    home: Home, invite: Invite, root: str, *, name: str, now: datetime, again: bool
) -> tuple[Access, Seen]:
    address = invite.url.rstrip("/")
    with first_contact(invite) as (client, certificate):
        if again:
            identity, sealing = home.identity_key(), home.sealing_key()
        else:
            identity, sealing = home.make_keys()
        enrolment = Enrolment(
            address, "device", invite.login_hash, identity.public, sealing.public
        )
        tag = confirmation(
            invite.confirm_key, identity=identity.public.raw, sealing=sealing.public
        )
        account = client.enroll(
            {
                "role": "device",
                "login": to_base64url(invite.login),
                "name": name,
                "identity": identity.public.to_text(),
                "cloud": address,
                "proof": to_base64url(prove_enrolment(enrolment, identity)),
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
        url=address,
        principal=account.principal,
        developer=root,
        token=account.token,
        expires=account.expires,
        certificate_pem=certificate,
        allow_http=invite.url.startswith("http:"),
        job_key=_checked_job_key(account.job_key),
    )
    with access.client() as client, naming_clocks(now, lambda: client.connection.cloud_time):
        signed = client.statements().delegation
        judged = judged_at(now, client.connection.cloud_time)
        delegation = verify_delegation(signed, root_fingerprint=root, now=judged)
    seen = home.seen()
    return access, seen.raised_delegation(delegation)


def _checked_job_key(text: str | None) -> str | None:
    """The cloud's job key as text, if it is one; None of a cloud that trains nothing."""
    if text is None:
        return None
    try:
        return PublicKey.from_text(text).to_text()
    except ManifestError as error:
        raise CloudError("the cloud's job key is no Ed25519 key") from error
