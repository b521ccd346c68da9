"""The operator's page as an ASGI application, mounted beside the cloud's own routes.

The operator's token is exchanged for a session; the session ends with the token. All that is
shown is read; the one thing that can be done is to revoke a developer, by the same function
that the commands reach.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Request
from rich.filesize import decimal
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import State
from starlette.responses import RedirectResponse, Response

from triparty.cloud.account_routes import delete_developer
from triparty.cloud.accounts import Principal, authenticate, authenticate_hash, hash_token
from triparty.cloud.page import records
from triparty.cloud.settings import CloudSettings
from triparty.cloud.standing import standing
from triparty.common.errors import AuthError
from triparty.common.hosts import OwnNames
from triparty.common.pages.build import build
from triparty.common.pages.sessions import Session
from triparty.common.pages.website import Drawer, Link, Site, root_of, session_of

OPERATOR_PATH: Final = "/operator"
SCOPE: Final = "operate"
FRAGMENT: Final = "/fragments/now"
LINKS: Final = (
    Link("/", "Now"),
    Link("/models", "Models"),
    Link("/accounts", "Accounts"),
    Link("/jobs", "Jobs"),
)

router = APIRouter()


def create_page(state: State) -> FastAPI:
    """The page of one cloud.

    Args:
        state: of the cloud's application.
    """
    app = FastAPI(title="triparty operator", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.cloud = state
    app.include_router(router)
    settings: CloudSettings = state.settings
    build(
        app,
        Site(
            title="Operator",
            cookie="triparty-operator",
            names=own_names(settings),
            is_secure=is_secure(settings),
            secret="operator token",  # noqa: S106  what it is called
            check=_check(state),
            folder=Path(__file__).parent,
            links=LINKS,
            is_alive=_is_alive(state),
            passive=frozenset({FRAGMENT}),
            formats={"size": _size, "day": _day},
        ),
    )
    return app


def own_names(settings: CloudSettings) -> OwnNames:
    """What the cloud is called by those who ask."""
    told = urlsplit(settings.url).hostname if settings.url else None
    names = {settings.host.lower(), *([told] if told else [])}
    return OwnNames(frozenset(names), any_address=not settings.is_loopback)


def is_secure(settings: CloudSettings) -> bool:
    """Whether browsers reach it by TLS alone, its own or a proxy's."""
    is_proxied = (settings.url or "").startswith("https://") and settings.is_loopback
    return settings.certificate_files is not None or is_proxied


@router.get("/")
def get_now(request: Request) -> Response:
    """What the cloud does now."""
    return _drawer(request).page(request, "now.html", now=standing(_cloud(request)))


@router.get(FRAGMENT)
def get_fragment(request: Request) -> Response:
    """The part of the first page that changes."""
    return _drawer(request).page(request, "_now.html", now=standing(_cloud(request)))


@router.get("/models")
def get_models(request: Request) -> Response:
    """Versions and epochs of models."""
    with _cloud(request).database.reading() as session:
        found = records.models(session)
    return _drawer(request).page(request, "models.html", models=found, most=records.MOST)


@router.get("/accounts")
def get_accounts(request: Request) -> Response:
    """Developers and devices, and which are revoked."""
    with _cloud(request).database.reading() as session:
        developers, devices = records.developers(session), records.devices(session)
    return _drawer(request).page(
        request, "accounts.html", developers=developers, devices=devices, most=records.MOST
    )


@router.get("/jobs")
def get_jobs(request: Request) -> Response:
    """Trainings, without what they are about."""
    cloud = _cloud(request)
    with cloud.database.reading() as session:
        found = records.jobs(session)
    return _drawer(request).page(
        request, "jobs.html", jobs=found, totals=cloud.jobs.totals(), most=records.MOST
    )


@router.post("/developers/{developer}/revoke")
def revoke(request: Request, developer: str) -> Response:
    """Revokes a developer, as `DELETE /v1/developers/{developer}` does."""
    cloud = _cloud(request)
    with cloud.database.reading() as session:
        known = authenticate_hash(session, _who(request), now=cloud.clock())
    delete_developer(
        developer, known.principal, cloud.database, cloud.clock, cloud.serving, cloud.jobs
    )
    return RedirectResponse(f"{root_of(request)}/accounts", 303)


def _check(state: State) -> Callable[[str], Awaitable[str | None]]:
    """Whose a token is, as its hash; None unless it is the operator's."""

    def check(token: str) -> str | None:
        try:
            with state.database.reading() as session:
                known = authenticate(session, token.strip(), now=state.clock())
        except AuthError:
            return None
        return hash_token(token.strip()) if _is_operator(known.principal) else None

    async def checked(token: str) -> str | None:
        return await run_in_threadpool(check, token)

    return checked


def _is_alive(state: State) -> Callable[[Session], Awaitable[bool]]:
    """Whether the token that a session was begun with is still good."""

    def is_good(session: Session) -> bool:
        try:
            with state.database.reading() as reading:
                known = authenticate_hash(reading, session.who, now=state.clock())
        except AuthError:
            return False
        return _is_operator(known.principal)

    async def lives(session: Session) -> bool:
        return await run_in_threadpool(is_good, session)

    return lives


def _is_operator(principal: Principal) -> bool:
    return SCOPE in principal.scopes


def _who(request: Request) -> str:
    session = session_of(request)
    return session.who if session is not None else ""


def _cloud(request: Request) -> Any:
    return request.app.state.cloud


def _drawer(request: Request) -> Drawer:
    return cast(Drawer, request.app.state.drawer)


def _size(value: int) -> str:
    return decimal(value)


def _day(value: Any) -> str:
    """A time of the database, in UTC."""
    return f"{value:%Y-%m-%d %H:%M}"
