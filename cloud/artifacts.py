"""Artifacts and the latest statement over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from triparty.cloud.accounts import Principal
from triparty.cloud.auth import require
from triparty.cloud.bodies import (
    ArtifactReply,
    ArtifactsReply,
    PublishReply,
    Signed,
    Statements,
    StatementsReply,
)
from triparty.cloud.publishing import publish, put_statements, visible_artifacts
from triparty.cloud.state import Blobs, Clock, Sessions, Settings, Store
from triparty.cloud.tables import StatementRow
from triparty.common.artifacts import Kind
from triparty.common.errors import NotFoundError
from triparty.common.signing import to_base64url
from triparty.common.trust import SignedDocument

router = APIRouter(tags=["artifacts"])
Publisher = Annotated[Principal, Depends(require("publish"))]
Reader = Annotated[Principal, Depends(require("pull"))]


@router.post("/v1/artifacts", status_code=201)
def post_artifact(
    body: Signed,
    developer: Publisher,
    settings: Settings,
    store: Store,
    blobs: Blobs,
    clock: Clock,
) -> PublishReply:
    """Makes an artifact visible whose blobs are uploaded."""
    signed = SignedDocument(body.manifest, body.signature)
    with store.writing() as session:
        artifact = publish(
            session,
            developer,
            signed,
            blobs=blobs,
            limit=settings.max_artifacts,
            now=clock(),
        )
    return PublishReply(artifact=artifact)


@router.get("/v1/artifacts")
def get_artifacts(
    reader: Reader,
    store: Store,
    kind: Annotated[Kind | None, Query()] = None,
    name: Annotated[str | None, Query(max_length=64)] = None,
) -> ArtifactsReply:
    """A developer's own artifacts; a device's bundles and its developer's edge artifacts."""
    with store.reading() as session:
        rows = visible_artifacts(session, reader, kind=kind and kind.value, name=name)
    return ArtifactsReply(
        artifacts=[
            ArtifactReply(
                artifact=row.artifact,
                manifest=to_base64url(row.manifest),
                signature=to_base64url(row.signature),
            )
            for row in rows
        ]
    )


@router.put("/v1/latest", status_code=204)
def put_latest(
    body: Statements, developer: Publisher, store: Store, clock: Clock, sessions: Sessions
) -> Response:
    """Replaces the developer's delegation and latest statement.

    Sessions on what it newly revokes go on for `drain_s` seconds.
    """
    delegation = SignedDocument(body.delegation, body.delegation_signature)
    latest = SignedDocument(body.latest, body.latest_signature)
    with store.writing() as session:
        revoked = put_statements(session, developer, delegation, latest, now=clock())
    sessions.retire(developer.id, revoked, drain_s=body.drain_s)
    return Response(status_code=204)


@router.get("/v1/latest")
def get_latest(reader: Reader, store: Store) -> StatementsReply:
    """The newest statements of the reader's developer, as signed."""
    with store.reading() as session:
        row = session.get(StatementRow, reader.developer)
    if row is None or row.latest is None or row.latest_signature is None:
        raise NotFoundError("there is no latest statement yet")
    return StatementsReply(
        delegation=to_base64url(row.delegation),
        delegation_signature=to_base64url(row.delegation_signature),
        latest=to_base64url(row.latest),
        latest_signature=to_base64url(row.latest_signature),
    )
