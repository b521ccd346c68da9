"""Enrolment: an invite's login half and public keys become an account and its token.

The cloud is not trusted with it: it passes the device's confirmation (an HMAC under the half
of the secret that the cloud never gets) on to the developer, who checks it before anything is
sealed to the keys.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from datetime import datetime, timedelta

from fastapi import APIRouter, Request
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from triparty.cloud.accounts import NewToken, issue_token, lock_principal, use_invite
from triparty.cloud.bodies import EnrolReply, EnrolRequest
from triparty.cloud.settings import CloudSettings
from triparty.cloud.state import Clock, Settings, Store
from triparty.cloud.tables import PrincipalRow, StatementRow
from triparty.common.documents import format_time
from triparty.common.errors import ConflictError, LimitError, RequestError
from triparty.common.signing import PublicKey, to_base64url
from triparty.common.trust import Delegation, SignedDocument, verify_delegation

router = APIRouter(tags=["accounts"])
WINDOW_S = 60.0
_MOST_ADDRESSES = 10_000


class Attempts:
    """How often each address tried within the last minute."""

    def __init__(self, limit: int) -> None:
        """Allows `limit` attempts a minute."""
        self._limit = limit
        self._lock = threading.Lock()
        self._times: OrderedDict[str, deque[datetime]] = OrderedDict()

    def check(self, address: str, *, now: datetime) -> None:
        """Counts an attempt.

        Raises:
            LimitError: there were too many; `retry_after_s` says how long to wait.
        """
        window = timedelta(seconds=WINDOW_S)
        with self._lock:
            times = self._times.setdefault(address, deque())
            self._times.move_to_end(address)
            while len(self._times) > _MOST_ADDRESSES:
                self._times.popitem(last=False)
            while times and times[0] <= now - window:
                times.popleft()
            if len(times) >= self._limit:
                wait_s = int((times[0] + window - now).total_seconds()) + 1
                raise LimitError("too many enrolment attempts", retry_after_s=wait_s)
            times.append(now)


@router.post("/v1/enroll", status_code=201)
def enroll(
    body: EnrolRequest, request: Request, settings: Settings, store: Store, clock: Clock
) -> EnrolReply:
    """Uses an invite up and makes an account; a refused attempt leaves the invite usable."""
    now = clock()
    attempts: Attempts = request.app.state.attempts
    attempts.check(request.client.host if request.client else "", now=now)
    delegation = _checked_delegation(body, now=now)  # everything is valid from here on
    try:
        with store.writing() as session:
            principal, token = _admit(session, body, delegation, settings=settings, now=now)
    except IntegrityError as error:
        raise ConflictError("this identity key is enrolled already; make a new one") from error
    return EnrolReply(
        principal=principal.id,
        role=principal.role,
        developer=principal.developer or "",
        token=token.token,
        expires=format_time(token.expires),
        scopes=sorted(token.scopes),
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


def _admit(
    session: Session,
    body: EnrolRequest,
    delegation: Delegation | None,
    *,
    settings: CloudSettings,
    now: datetime,
) -> tuple[PrincipalRow, NewToken]:
    """Invite, account, token and delegation: all of it in the caller's transaction."""
    invite = use_invite(session, body.login, role=body.role, now=now)
    principal_id = PublicKey(body.identity).key_id
    developer = principal_id if delegation else invite.inviter
    if delegation is None:
        lock_principal(session, developer)
        _check_room(session, developer, settings.max_devices)
    principal = PrincipalRow(
        id=principal_id,
        role=body.role,
        developer=developer,
        name=body.name,
        identity=to_base64url(body.identity),
        sealing=body.sealing and to_base64url(body.sealing),
        confirmation=body.confirmation and to_base64url(body.confirmation),
        invite=invite.login_hash,
        created=now,
    )
    session.add(principal)
    session.flush()
    if delegation is not None:
        session.add(
            StatementRow(
                developer=principal_id,
                delegation=body.delegation,
                delegation_signature=body.delegation_signature,
                delegation_version=delegation.version,
            )
        )
    life = timedelta(days=settings.token_days)
    return principal, issue_token(session, principal, life=life, now=now)


def _check_room(session: Session, developer: str, limit: int) -> None:
    mine = (PrincipalRow.developer == developer) & PrincipalRow.revoked.is_(None)
    count = session.scalar(select(func.count()).where(mine, PrincipalRow.role == "device"))
    if (count or 0) >= limit:
        raise LimitError(f"this developer has {limit} devices already", retry_after_s=3600)
