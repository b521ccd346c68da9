"""Logging in and out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from triparty.common.errors import LimitError
from triparty.common.pages.forms import field, form_of
from triparty.common.pages.guard import LOGIN, session_token
from triparty.common.pages.sessions import LONGEST_S, Sessions
from triparty.common.pages.throttle import LoginThrottle
from triparty.common.pages.website import Drawer, Site, root_of

LOGOUT = "/logout"


class Login:
    """The routes of login and logout.

    Args:
        site: whose login it is.
        sessions: gain and lose somebody.
        drawer: draws the form.
        throttle: says how often it may be tried.
    """

    def __init__(
        self, site: Site, sessions: Sessions, drawer: Drawer, throttle: LoginThrottle
    ) -> None:
        """Nobody tries yet."""
        self._site, self._sessions = site, sessions
        self._drawer, self._throttle = drawer, throttle
        self._checking = asyncio.Semaphore(1)  # a check takes memory and a core

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """For the application."""
        return (
            Route(LOGIN, self.show, methods=["GET"]),
            Route(LOGIN, self.log_in, methods=["POST"]),
            Route(LOGOUT, self.log_out, methods=["POST"]),
        )

    async def show(self, request: Request) -> Response:
        """The form."""
        return self._form(request, request.query_params.get("next", "/"))

    async def log_in(self, request: Request) -> Response:
        """Begins a session, if the secret is right."""
        form = await form_of(request)
        wanted = field(form, "next")
        try:
            self._throttle.take(request.scope)
        except LimitError as error:
            answer = self._form(request, wanted, status=429, wrong=error.message)
            answer.headers["Retry-After"] = str(error.extra["retry_after_s"])
            return answer
        async with self._checking:
            who = await self._site.check(field(form, "secret"))
        if who is None:
            return self._form(
                request, wanted, status=401, wrong=f"This {self._site.secret} is wrong."
            )
        self._throttle.give_back(request.scope)
        if before := session_token(request, self._site):
            self._sessions.close(before)
        root = root_of(request)
        answer = RedirectResponse(root + _within(wanted), 303)
        answer.set_cookie(
            self._site.cookie_name,
            self._sessions.open(who),
            max_age=int(LONGEST_S),
            path=self._site.cookie_path(root),
            secure=self._site.is_secure,
            httponly=True,
            samesite="strict",
        )
        return answer

    async def log_out(self, request: Request) -> Response:
        """Ends the session."""
        if token := session_token(request, self._site):
            self._sessions.close(token)
        root = root_of(request)
        answer = RedirectResponse(f"{root}{LOGIN}", 303)
        answer.delete_cookie(
            self._site.cookie_name,
            path=self._site.cookie_path(root),
            secure=self._site.is_secure,
            httponly=True,
            samesite="strict",
        )
        return answer

    def _form(
        self, request: Request, wanted: str, *, status: int = 200, wrong: str = ""
    ) -> Response:
        return self._drawer.page(
            request, "login.html", status=status, wrong=wrong, wanted=_within(wanted)
        )


def _within(wanted: str) -> str:
    """Where to go after the login: a path of this page, whatever was asked for."""
    plain = wanted.isprintable() and not any(char in wanted for char in "\\ ")
    if not plain or not wanted.startswith("/") or wanted.startswith("//"):
        return "/"
    return wanted
