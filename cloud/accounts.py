"""Principals, tokens and invites: who may ask, and for what.

Every function works inside the caller's transaction and takes the time as `now`. A token and
an invite's login half are 256-bit random numbers, kept only as SHA-256: looking one up by its
hash compares nothing secret.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, func, insert, literal, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from triparty.cloud.tables import InviteRow, PrincipalRow, TokenRow, UtcTime
from triparty.common.errors import (
    ConflictError,
    ForbiddenError,
    InviteError,
    LimitError,
    NotFoundError,
    TokenExpiredError,
    TokenRevokedError,
    UnauthenticatedError,
)

OPERATOR = "operator"
SCOPES = {
    "operator": frozenset({"operate", "invite"}),
    "developer": frozenset({"publish", "invite", "pull"}),
    "device": frozenset({"pull", "infer", "train"}),
}
INVITES = {"operator": "developer", "developer": "device"}
"""Which role may invite which."""
KEEP_DEAD_TOKENS = timedelta(days=30)
REPEAT = timedelta(minutes=10)
"""How long an enrolment whose answer was lost can be repeated."""
_TOKEN = re.compile(r"tpt_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class Principal:
    """Who asks.

    Attributes:
        id: `operator`, or the key id of the principal's identity key.
        role: operator, developer or device.
        developer: id of the developer whose things this principal sees; "" for the operator.
        scopes: what its token allows: operate, publish, invite, pull, infer, train.
    """

    id: str
    role: str
    developer: str
    scopes: frozenset[str]


@dataclass(frozen=True)
class NewToken:
    """A token just made; it is shown once and never stored."""

    token: str
    expires: datetime
    scopes: frozenset[str]

    def __repr__(self) -> str:
        """Hides the token."""
        return f"NewToken(expires={self.expires.isoformat()})"


@dataclass(frozen=True)
class KnownToken:
    """A token that was found good: whose it is, and until when."""

    principal: Principal
    expires: datetime


def hash_token(token: str) -> str:
    """What the database keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def issue_token(
    session: Session, principal: PrincipalRow, *, life: timedelta, now: datetime
) -> NewToken:
    """A new token with all scopes of the principal's role, for `life` from now.

    A principal gets one at enrolment and another only in place of it (`rotate_token`), so it
    never has two; the operator's commands make theirs in the database and remove them.
    """
    mine = TokenRow.principal == principal.id
    dead = (TokenRow.expires < now - KEEP_DEAD_TOKENS) | (
        TokenRow.revoked < now - KEEP_DEAD_TOKENS
    )
    session.execute(delete(TokenRow).where(mine, dead))
    new = NewToken("tpt_" + secrets.token_urlsafe(32), now + life, SCOPES[principal.role])
    session.add(
        TokenRow(
            hash=hash_token(new.token),
            principal=principal.id,
            scopes=" ".join(sorted(new.scopes)),
            created=now,
            expires=new.expires,
        )
    )
    return new


_owner = aliased(PrincipalRow)
_TOKEN_QUERY = (
    select(
        PrincipalRow.id,
        PrincipalRow.role,
        PrincipalRow.developer,
        TokenRow.scopes,
        TokenRow.expires,
        func.coalesce(TokenRow.revoked, PrincipalRow.revoked, _owner.revoked).label("revoked"),
    )
    .join(PrincipalRow, PrincipalRow.id == TokenRow.principal)
    .outerjoin(_owner, _owner.id == PrincipalRow.developer)
)


def authenticate(session: Session, token: str, *, now: datetime) -> KnownToken:
    """Whose a token is.

    Raises:
        UnauthenticatedError: nobody issued it.
        TokenRevokedError: it, its principal or the principal's developer was revoked.
        TokenExpiredError: it is past its time.
    """
    if not _TOKEN.fullmatch(token):
        raise UnauthenticatedError("the token is not one of this cloud's")
    return authenticate_hash(session, hash_token(token), now=now)


def authenticate_hash(session: Session, token_hash: str, *, now: datetime) -> KnownToken:
    """Whose the token of a hash is, for who saw the token before; see `authenticate`."""
    row = session.execute(_TOKEN_QUERY.where(TokenRow.hash == token_hash)).one_or_none()
    if row is None:
        raise UnauthenticatedError("the token is not one of this cloud's")
    if row.revoked is not None:
        raise TokenRevokedError("the token was revoked; enrol again with a new invite")
    if row.expires <= now:
        raise TokenExpiredError("the token has expired; enrol again with a new invite")
    scopes = frozenset(row.scopes.split())
    return KnownToken(Principal(row.id, row.role, row.developer or "", scopes), row.expires)


def live_tokens(session: Session, *, now: datetime, most: int) -> list[str]:
    """Hashes of the newest `most` tokens that are good now, the oldest of them first."""
    live = TokenRow.revoked.is_(None) & (TokenRow.expires > now)
    newest = select(TokenRow.hash).where(live).order_by(TokenRow.created.desc()).limit(most)
    return list(session.scalars(newest))[::-1]


def rotate_token(
    session: Session, principal: Principal, token: str, *, life: timedelta, now: datetime
) -> NewToken:
    """A new token in place of `token`, which stops at once."""
    revoke = update(TokenRow).where(
        TokenRow.hash == hash_token(token), TokenRow.revoked.is_(None)
    )
    if not session.execute(revoke.values(revoked=now).returning(TokenRow.hash)).all():
        raise TokenRevokedError("the token was revoked a moment ago")
    row = session.get_one(PrincipalRow, principal.id)
    return issue_token(session, row, life=life, now=now)


def lock_principal(session: Session, principal: str) -> None:
    """Lets one transaction at a time count what a principal has and add to it.

    SQLite has one writer anyway; PostgreSQL locks the row until the transaction ends.
    """
    mine = select(PrincipalRow.id).where(PrincipalRow.id == principal)
    session.execute(mine.with_for_update(key_share=True)).all()


def add_operator(session: Session, *, now: datetime) -> PrincipalRow:
    """The operator's account.

    Raises:
        ConflictError: this database has one.
    """
    if session.get(PrincipalRow, OPERATOR):
        raise ConflictError("this database already has an operator")
    operator = PrincipalRow(id=OPERATOR, role="operator", name="operator", created=now)
    session.add(operator)
    try:
        session.flush()
    except IntegrityError as error:
        raise ConflictError("this database got an operator a moment ago") from error
    return operator


def add_invite(
    session: Session,
    inviter: Principal,
    *,
    role: str,
    login_hash: str,
    label: str,
    expires: datetime,
    now: datetime,
    limit: int,
) -> None:
    """Registers an invite that was made on the inviter's machine.

    Raises:
        ForbiddenError: the inviter may not invite that role.
        LimitError: it has `limit` open invites.
        ConflictError: the inviter registered the invite already.
    """
    if INVITES.get(inviter.role) != role:
        raise ForbiddenError(f"a {inviter.role} cannot invite a {role}")
    lock_principal(session, inviter.id)
    mine = InviteRow.inviter == inviter.id
    session.execute(delete(InviteRow).where(mine, InviteRow.expires < now - KEEP_DEAD_TOKENS))
    still_open = select(func.count()).where(
        mine, InviteRow.used.is_(None), InviteRow.expires > now
    )
    if (session.scalar(still_open) or 0) >= limit:
        raise LimitError(f"you have {limit} open invites; wait until some are used or expire")
    registered = InviteRow.login_hash == login_hash
    if session.scalar(select(InviteRow.login_hash).where(registered, mine)):
        raise ConflictError("this invite is registered already; make a new one")
    # Somebody else's stays theirs, and this inviter does not learn of it. By chance two secrets
    # never have one hash: whoever sends another's has seen it, and gets an invite of no use.
    values: dict[str, ColumnElement[Any]] = {
        "login_hash": literal(login_hash),
        "role": literal(role),
        "inviter": literal(inviter.id),
        "label": literal(label),
        "created": literal(now, UtcTime),
        "expires": literal(expires, UtcTime),
    }
    unless_there = select(*values.values()).where(~exists().where(registered))
    session.execute(insert(InviteRow).from_select(list(values), unless_there))


@dataclass(frozen=True)
class Repeat:
    """Whose enrolment may be one that was done before, and what it said then.

    Attributes:
        principal: key id of the identity key.
        sealing: its sealing key as text; None for a developer.
        confirmation: the HMAC that its developer checks, as text, if it sent one.
    """

    principal: str
    sealing: str | None
    confirmation: str | None

    @property
    def is_done(self) -> ColumnElement[bool]:
        """Whether the joined principal is this one, as it enrolled with the joined invite."""
        enrolled = aliased(PrincipalRow)
        return exists().where(
            enrolled.id == self.principal,
            enrolled.invite == InviteRow.login_hash,
            enrolled.sealing.is_not_distinct_from(self.sealing),
            enrolled.confirmation.is_not_distinct_from(self.confirmation),
        )


def use_invite(
    session: Session,
    login: bytes,
    *,
    role: str,
    repeated_by: Repeat,
    was_used: Callable[[str], bool],
    now: datetime,
) -> InviteRow:
    """The invite of a login half, used up by this call, or by the one that it repeats.

    Args:
        session: of the caller's transaction.
        login: the half.
        role: device or developer.
        repeated_by: who may have used it up a moment ago.
        was_used: whether a token, by its hash, came with a request already.
        now: the time.

    Raises:
        InviteError: unknown, for another role, used, expired, or its inviter was revoked; one
            answer for all of them, so that whoever found a code learns nothing by trying it.
    """
    live = (TokenRow.principal == repeated_by.principal) & TokenRow.revoked.is_(None)
    is_repeat = (InviteRow.used > now - REPEAT) & repeated_by.is_done
    alive = (
        (InviteRow.login_hash == hashlib.sha256(login).hexdigest())
        & (InviteRow.role == role)
        & (InviteRow.used.is_(None) | is_repeat)
        & (InviteRow.expires > now)
        & PrincipalRow.revoked.is_(None)
    )
    use = (
        select(InviteRow, TokenRow.hash)
        .join(PrincipalRow, PrincipalRow.id == InviteRow.inviter)
        .outerjoin(TokenRow, live)
        .where(alive)
        .with_for_update(of=InviteRow)
    )
    found = session.execute(use).all()
    tokens = [token for _, token in found if token]
    if not found or (
        found[0][0].used is not None and (not tokens or any(map(was_used, tokens)))
    ):
        raise InviteError(
            f"the cloud knows no such {role} invite: it was used before, expired, or never "
            "made; ask whoever invited you for a new one"
        )
    invite: InviteRow = found[0][0]
    if invite.used is None:
        invite.used = now
    return invite


def developers(session: Session) -> list[tuple[PrincipalRow, int]]:
    """All developers, oldest first, each with its number of devices that are not revoked."""
    device = aliased(PrincipalRow)
    alive = (
        (device.developer == PrincipalRow.id)
        & (device.role == "device")
        & device.revoked.is_(None)
    )
    query = (
        select(PrincipalRow, func.count(device.id))
        .outerjoin(device, alive)
        .where(PrincipalRow.role == "developer")
        .group_by(PrincipalRow.id)
        .order_by(PrincipalRow.created, PrincipalRow.id)
    )
    return [(row, count) for row, count in session.execute(query)]


def find_developer(session: Session, developer: str) -> PrincipalRow:
    """A developer, for the operator.

    Raises:
        NotFoundError: no such developer.
    """
    row = session.get(PrincipalRow, developer)
    if row is None or row.role != "developer":
        raise NotFoundError("no such developer: 'triparty cloud developers' lists them")
    return row


def check_alive(session: Session, principal: str) -> None:
    """Returns only if neither the principal nor its developer was revoked.

    Raises:
        TokenRevokedError: one of them was.
    """
    revoked = func.coalesce(PrincipalRow.revoked, _owner.revoked)
    query = (
        select(PrincipalRow.id)
        .outerjoin(_owner, _owner.id == PrincipalRow.developer)
        .where(PrincipalRow.id == principal, revoked.is_(None))
    )
    if session.scalar(query) is None:
        raise TokenRevokedError("the token was revoked a moment ago")


def devices_of(session: Session, developer: str) -> list[PrincipalRow]:
    """A developer's devices, oldest first."""
    mine = (PrincipalRow.role == "device") & (PrincipalRow.developer == developer)
    oldest_first = select(PrincipalRow).where(mine).order_by(PrincipalRow.created)
    return list(session.scalars(oldest_first))


def device_of(session: Session, developer: str, device: str) -> PrincipalRow:
    """One device of a developer.

    Raises:
        NotFoundError: no such device, or another developer's.
    """
    row = session.get(PrincipalRow, device)
    if row is None or row.role != "device" or row.developer != developer:
        raise NotFoundError("no such device")
    return row


def revoke(session: Session, principal: PrincipalRow, *, now: datetime) -> None:
    """Takes back a principal and all its tokens, of a developer its devices' too."""
    if principal.revoked is None:
        principal.revoked = now
    revoke_tokens(session, principal, now=now)


def revoke_tokens(session: Session, principal: PrincipalRow, *, now: datetime) -> None:
    """Takes back all tokens of a principal; those of a developer's devices stop with it."""
    live = update(TokenRow).where(
        TokenRow.principal == principal.id, TokenRow.revoked.is_(None)
    )
    session.execute(live.values(revoked=now))
