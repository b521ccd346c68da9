"""Enrolment: an invite's login half and public keys become an account and its token.

Everybody proves possession of the identity key, so nobody enrols with a key that is not theirs,
and who is known already gets a new token for the same account: the way back after a token
expired or was lost.

An answer may be lost on its way. The same enrolment sent again within `REPEAT` gets another
token in place of the one that nobody has: of the same invite, by the same keys, and only while
that token was never used. Anything else finds the invite used up.

The cloud is not trusted with it: it passes the device's confirmation (an HMAC under the half
of the secret that the cloud never gets) on to the developer, who checks it before anything is
sealed to the keys.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from triparty.cloud.accounts import (
    NewToken,
    Repeat,
    hash_token,
    issue_token,
    lock_principal,
    revoke_tokens,
    use_invite,
)
from triparty.cloud.auth import TokenCache, Tokens
from triparty.cloud.bodies import EnrolReply, EnrolRequest
from triparty.cloud.settings import CloudSettings
from triparty.cloud.state import Clock, Sessions, Settings, Store
from triparty.cloud.tables import InviteRow, PrincipalRow, StatementRow
from triparty.common.documents import format_time
from triparty.common.enrolment import Enrolment, verify_enrolment
from triparty.common.errors import ConflictError, LimitError, RequestError
from triparty.common.signing import PublicKey, to_base64url
from triparty.common.trust import Delegation, SignedDocument, verify_delegation

router = APIRouter(tags=["accounts"])


@router.post("/v1/enroll", status_code=201)
def enroll(
    body: EnrolRequest,
    request: Request,
    settings: Settings,
    store: Store,
    clock: Clock,
    sessions: Sessions,
    tokens: Tokens,
) -> EnrolReply:
    """Uses an invite up for an account's token; a refused attempt leaves the invite usable."""
    now = clock()
    delegation = _checked_delegation(body, now=now)
    _check_proof(body, settings)  # everything is valid from here on
    try:
        with store.writing() as session:
            principal, token, is_known = _admit(
                session, body, delegation, tokens=tokens, settings=settings, now=now
            )
    except IntegrityError as error:
        raise _taken() from error
    tokens.introduce(hash_token(token.token), is_used=False)
    if is_known:
        sessions.close_sessions_of(principal.id)  # whoever had its earlier token
    return EnrolReply(
        principal=principal.id,
        role=principal.role,
        developer=principal.developer or "",
        token=token.token,
        expires=format_time(token.expires),
        scopes=sorted(token.scopes),
        job_key=request.app.state.jobs.key.public.to_text(),
    )


def _checked_delegation(body: EnrolRequest, *, now: datetime) -> Delegation | None:
    """The developer's verified delegation; None for a device, whose members are all there."""
    if body.role == "device":
        if body.sealing is None or body.confirmation is None:
            raise RequestError("a device enrols with 'sealing' and 'confirmation'")
        if body.delegation is not None or body.delegation_signature is not None:
            raise RequestError("a device has no delegation")
        return None
    if body.delegation is None or body.delegation_signature is None:
        raise RequestError("a developer enrols with 'delegation' and 'delegation_signature'")
    if body.sealing is not None:
        raise RequestError("a developer has no sealing key")
    signed = SignedDocument(body.delegation, body.delegation_signature)
    root = PublicKey(body.identity).key_id
    return verify_delegation(signed, root_fingerprint=root, now=now)


def _check_proof(body: EnrolRequest, settings: CloudSettings) -> None:
    """Returns only if the owner of the identity key wants this enrolment, at this cloud."""
    own = urlsplit(settings.url or "")
    given = urlsplit(body.cloud)
    is_here = given == own if settings.url else given.hostname == settings.host
    if not is_here:
        raise RequestError(
            f"the enrolment is for the cloud {body.cloud!r:.120}, which is not the address of "
            "this one: ask for an invite that names it (its operator sets 'url')"
        )
    login_hash = hashlib.sha256(body.login).hexdigest()
    identity = PublicKey(body.identity)
    enrolment = Enrolment(body.cloud, body.role, login_hash, identity, body.sealing)
    verify_enrolment(enrolment, body.proof)


def _admit(
    session: Session,
    body: EnrolRequest,
    delegation: Delegation | None,
    *,
    tokens: TokenCache,
    settings: CloudSettings,
    now: datetime,
) -> tuple[PrincipalRow, NewToken, bool]:
    """Invite, account, token and delegation: all of it in the caller's transaction.

    Returns:
        The account, its new token, and whether the account was there before.
    """
    principal_id = PublicKey(body.identity).key_id
    invite = use_invite(
        session,
        body.login,
        role=body.role,
        repeated_by=Repeat(principal_id, _text(body.sealing), _text(body.confirmation)),
        was_used=tokens.was_used,
        now=now,
    )
    developer = principal_id if delegation else invite.inviter
    principal = session.get(PrincipalRow, principal_id, with_for_update=True)
    is_known = principal is not None
    if principal is not None:
        _readmit(session, principal, body, developer, now=now)
    else:
        if delegation is None:
            lock_principal(session, developer)
            _check_room(session, developer, settings.max_devices)
        principal = PrincipalRow(
            id=principal_id,
            role=body.role,
            developer=developer,
            identity=to_base64url(body.identity),
            created=now,
        )
        session.add(principal)
    _describe(principal, body, invite)
    session.flush()
    if delegation is not None and session.get(StatementRow, principal_id) is None:
        session.add(
            StatementRow(
                developer=principal_id,
                delegation=body.delegation,
                delegation_signature=body.delegation_signature,
                delegation_version=delegation.version,
            )
        )
    life = timedelta(days=settings.token_days)
    return principal, issue_token(session, principal, life=life, now=now), is_known


def _readmit(
    session: Session,
    principal: PrincipalRow,
    body: EnrolRequest,
    developer: str,
    *,
    now: datetime,
) -> None:
    """Takes back the tokens of a known principal, who is about to get another.

    Raises:
        ConflictError: it was revoked, which lasts, or it is known as somebody else.
    """
    known = (principal.role, principal.developer, principal.revoked)
    if known != (body.role, developer, None):
        raise _taken()
    revoke_tokens(session, principal, now=now)


def _describe(principal: PrincipalRow, body: EnrolRequest, invite: InviteRow) -> None:
    """Keeps what an enrolment says of a principal: of a known one the newest counts."""
    principal.name = body.name
    principal.sealing = _text(body.sealing)
    principal.confirmation = _text(body.confirmation)
    principal.invite = invite.login_hash


def _text(data: bytes | None) -> str | None:
    return None if data is None else to_base64url(data)


def _taken() -> ConflictError:
    return ConflictError(
        "this identity key was revoked, or is enrolled with another developer or role; "
        "make a new one"
    )


def _check_room(session: Session, developer: str, limit: int) -> None:
    mine = (PrincipalRow.developer == developer) & PrincipalRow.revoked.is_(None)
    count = session.scalar(select(func.count()).where(mine, PrincipalRow.role == "device"))
    if (count or 0) >= limit:
        raise LimitError(f"this developer has {limit} devices already", retry_after_s=3600)
