"""Invites, developers, devices and tokens over HTTP, and the operator's status."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy.exc import IntegrityError

from triparty.cloud import accounts
from triparty.cloud.accounts import Principal
from triparty.cloud.auth import Bearer, Tokens, authenticated, require
from triparty.cloud.bodies import (
    CleanReply,
    DeveloperReply,
    DevelopersReply,
    DeviceReply,
    DevicesReply,
    InviteReply,
    InviteRequest,
    StatusReply,
    TokenReply,
)
from triparty.cloud.jobs.routes import Work
from triparty.cloud.standing import standing
from triparty.cloud.state import Care, Clock, Sessions, Settings, Store
from triparty.cloud.tables import PrincipalRow
from triparty.common.documents import format_time
from triparty.common.errors import UnauthenticatedError

router = APIRouter(tags=["accounts"])
Inviter = Annotated[Principal, Depends(require("invite"))]
Developer = Annotated[Principal, Depends(require("publish"))]
Operator = Annotated[Principal, Depends(require("operate"))]


@router.post("/v1/invites", status_code=201)
def post_invite(
    body: InviteRequest, inviter: Inviter, settings: Settings, store: Store, clock: Clock
) -> InviteReply:
    """Registers the login hash of an invite made on the inviter's machine."""
    now = clock()
    expires = now + timedelta(seconds=body.expires_in_s)

    def register() -> None:
        with store.writing() as session:
            accounts.add_invite(
                session,
                inviter,
                role=body.role,
                login_hash=body.login_hash,
                label=body.label,
                expires=expires,
                now=now,
                limit=settings.max_invites,
            )

    try:
        register()
    except IntegrityError:  # somebody registered it at this moment: now it is seen
        register()
    return InviteReply(invite=body.login_hash, expires=format_time(expires))


@router.get("/v1/developers")
def get_developers(_: Operator, store: Store) -> DevelopersReply:
    """All developers of this cloud."""
    with store.reading() as session:
        return DevelopersReply(
            developers=[
                DeveloperReply(
                    id=row.id,
                    name=row.name,
                    devices=devices,
                    created=format_time(row.created),
                    revoked=row.revoked is not None,
                )
                for row, devices in accounts.developers(session)
            ]
        )


@router.delete("/v1/developers/{developer}", status_code=204)
def delete_developer(
    developer: str, _: Operator, store: Store, clock: Clock, sessions: Sessions, jobs: Work
) -> Response:
    """Revokes a developer: before this answers its tokens and its devices' stop.

    All sessions on its models end, and its devices' jobs.
    """
    with store.writing() as session:
        row = accounts.find_developer(session, developer)
        accounts.revoke(session, row, now=clock())
    sessions.close_sessions_of_developer(developer)
    jobs.end_of_developer(developer)
    return Response(status_code=204)


@router.get("/v1/devices")
def get_devices(developer: Developer, store: Store) -> DevicesReply:
    """All devices of the developer, with their keys and confirmations."""
    with store.reading() as session:
        rows = accounts.devices_of(session, developer.id)
        return DevicesReply(devices=[_device(row) for row in rows])


@router.get("/v1/devices/{device}")
def get_device(device: str, developer: Developer, store: Store) -> DeviceReply:
    """One device of the developer."""
    with store.reading() as session:
        return _device(accounts.device_of(session, developer.id, device))


@router.delete("/v1/devices/{device}", status_code=204)
def delete_device(
    device: str,
    developer: Developer,
    store: Store,
    clock: Clock,
    sessions: Sessions,
    jobs: Work,
) -> Response:
    """Revokes a device: its token stops, its sessions and jobs end before this answers."""
    with store.writing() as session:
        row = accounts.device_of(session, developer.id, device)
        accounts.revoke(session, row, now=clock())
    sessions.close_sessions_of(device)
    jobs.end_of_principal(device)
    return Response(status_code=204)


@router.post("/v1/tokens/rotate")
def rotate(
    principal: Annotated[Principal, Depends(authenticated)],
    credentials: Bearer,
    settings: Settings,
    store: Store,
    clock: Clock,
    tokens: Tokens,
) -> TokenReply:
    """A new token; the one that asked stops at once."""
    if credentials is None:
        raise UnauthenticatedError("the request has no token")
    life = timedelta(days=settings.token_days)
    with store.writing() as session:
        new = accounts.rotate_token(
            session, principal, credentials.credentials, life=life, now=clock()
        )
    tokens.introduce(accounts.hash_token(new.token), is_used=True)
    return TokenReply(token=new.token, expires=format_time(new.expires))


@router.get("/v1/status")
def get_status(_: Operator, request: Request) -> StatusReply:
    """What this cloud holds and does, in numbers."""
    return standing(request.app.state)


@router.post("/v1/clean")
def post_clean(_: Operator, upkeep: Care) -> CleanReply:
    """Removes uploads and blobs that belong to no artifact; a running cloud does so hourly."""
    cleaned = upkeep.clean()
    return CleanReply(uploads=cleaned.uploads, blobs=cleaned.blobs, bytes=cleaned.bytes)


def _device(row: PrincipalRow) -> DeviceReply:
    return DeviceReply(
        id=row.id,
        name=row.name,
        identity=row.identity or "",
        sealing=row.sealing or "",
        confirmation=row.confirmation or "",
        invite=row.invite or "",
        created=format_time(row.created),
        revoked=row.revoked is not None,
    )
