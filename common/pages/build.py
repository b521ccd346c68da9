"""Puts a page together: its own routes, the login, the assets, and what guards them."""

from __future__ import annotations

from typing import cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from triparty.common.errors import NotFoundError, RequestError, TripartyError
from triparty.common.pages.guard import Guard
from triparty.common.pages.headers import Hardened
from triparty.common.pages.login import Login
from triparty.common.pages.sessions import Sessions
from triparty.common.pages.throttle import LoginThrottle
from triparty.common.pages.website import HERE, Drawer, Site


class _Assets(StaticFiles):
    """Files that a browser keeps, and asks whether they changed."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers["Cache-Control"] = "no-cache"
        return answer


def build(
    app: Starlette,
    site: Site,
    *,
    sessions: Sessions | None = None,
    throttle: LoginThrottle | None = None,
) -> Drawer:
    """Makes an application that has the page's own routes a page of its site.

    Args:
        app: gains the login, the assets, error pages, and what guards all of it.
        site: what it is, and who may see it.
        sessions: others than those of its own; tests have their clock.
        throttle: the same.

    Returns:
        What draws its templates; also in `app.state.drawer`.
    """
    sessions, throttle = sessions or Sessions(), throttle or LoginThrottle()
    drawer = app.state.drawer = Drawer(site)
    app.router.routes.extend(Login(site, sessions, drawer, throttle).routes)
    app.router.routes.append(Mount("/static/common", _Assets(directory=HERE / "static")))
    if (own := site.folder / "static").is_dir():
        app.router.routes.append(Mount("/static/own", _Assets(directory=own)))

    async def ours(request: Request, error: Exception) -> Response:
        return drawer.refusal(request, cast(TripartyError, error))

    async def framework(request: Request, error: Exception) -> Response:
        status = cast(HTTPException, error).status_code
        told = (
            NotFoundError("there is nothing of this name")
            if status == NotFoundError.status
            else RequestError(str(cast(HTTPException, error).detail))
        )
        return drawer.refusal(request, told, status)

    app.add_exception_handler(TripartyError, ours)
    app.add_exception_handler(HTTPException, framework)
    app.add_middleware(Guard, site=site, sessions=sessions, drawer=drawer)
    app.add_middleware(Hardened, is_secure=site.is_secure)  # added last: outermost
    return drawer
