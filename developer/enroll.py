"""Enrolment of a developer with a cloud, by an operator's invite."""

from __future__ import annotations

from datetime import datetime

from triparty.common.access import Access, check_invite, check_same_cloud, first_contact
from triparty.common.enrolment import Enrolment, prove_enrolment
from triparty.common.errors import StateError
from triparty.common.invites import Invite, confirmation
from triparty.common.signing import to_base64url
from triparty.developer.home import Home
from triparty.developer.statements import renew_latest


def enroll(
    home: Home,
    invite: Invite,
    *,
    cloud: str,
    name: str,
    latest_days: int,
    now: datetime,
    again: bool = False,
) -> Access:
    """Turns an operator's invite into this developer's account.

    Cut before the first latest statement, without which no device can enrol, it goes on from
    there when it is repeated.

    Args:
        home: with keys, the root key among them.
        invite: made by the cloud's operator.
        cloud: URL that the user named; must be the invite's.
        name: label that the operator sees.
        latest_days: how long the first latest statement counts.
        now: for the delegation's expiry.
        again: the home is enrolled, and its token expired or is lost: gets a new one for the
            same account.

    Returns:
        The access, as it was kept in the home.

    Raises:
        SettingsError: the invite is for another role, or another cloud than `cloud`.
        StateError: no keys yet, or enrolled already.
        InviteError: unknown, used or expired.
        CertificateError: whoever answers is not the invite's cloud.
    """
    check_invite(invite, role="developer", cloud=cloud)
    is_enrolled = (home.folder / "cloud.json").exists()
    if is_enrolled and again:
        check_same_cloud(home.access(), invite)
        access = _account(home, invite, name=name, now=now)
    elif is_enrolled:
        access = home.access()
        if home.latest_state().sequence or access.url != invite.url.rstrip("/"):
            raise StateError(
                f"{home.folder} is enrolled already: name another --home, or give --again if "
                "its token expired or is lost"
            )
    else:
        access = _account(home, invite, name=name, now=now)
    with access.client() as client:
        renew_latest(home, client, now=now, days=latest_days)
    return access


def _account(home: Home, invite: Invite, *, name: str, now: datetime) -> Access:
    """The account, kept in the home."""
    delegation = home.delegation(now)
    root = delegation.root.raw
    address = invite.url.rstrip("/")
    enrolment = Enrolment(address, "developer", invite.login_hash, delegation.root)
    proof = prove_enrolment(enrolment, home.root())
    with first_contact(invite) as (client, certificate):
        signed = home.signed_delegation()
        account = client.enroll(
            {
                "role": "developer",
                "login": to_base64url(invite.login),
                "name": name,
                "identity": to_base64url(root),
                "cloud": address,
                "proof": to_base64url(proof),
                "confirmation": to_base64url(
                    confirmation(invite.confirm_key, identity=root, sealing=b"")
                ),
                "delegation": to_base64url(signed.payload),
                "delegation_signature": to_base64url(signed.signature),
            }
        )
    access = Access(
        url=address,
        principal=account.principal,
        developer=delegation.developer,
        token=account.token,
        expires=account.expires,
        certificate_pem=certificate,
        allow_http=invite.url.startswith("http:"),
    )
    access.save(home.folder)
    return access
