"""Who may ask a page for something: decided before any route runs.

* A page whose name is rebound to this machine sends its own name as `Host`: refused.
* A page of another site that has a form sent here sends its `Origin`: refused. A browser
  names the origin of every request that changes something; without one it is refused, too.
* Whatever changes something also brings the session's random word, which no other page can
  read: as a field of the form, or in a header.
* Without a session there are the login and what draws it, and nothing else.
"""

from __future__ import annotations

import hmac
from typing import Final
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from triparty.common.errors import ForbiddenError, TripartyError, UnauthenticatedError
from triparty.common.hosts import host_of
from triparty.common.pages import forms
from triparty.common.pages.sessions import Session, Sessions
from triparty.common.pages.website import API, Drawer, Site, path_of, root_of

CSRF_HEADER: Final = "x-csrf-token"
CSRF_FIELD: Final = "csrf"
LOGIN: Final = "/login"
STATIC: Final = "/static/"
_READS: Final = frozenset({"GET", "HEAD"})
_LONGEST_NAME: Final = 100


class Guard:
    """Passes on what may be asked, with the session in the request's state.

    Args:
        app: the page.
        site: whose page it is.
        sessions: who is logged in.
        drawer: draws refusals.
    """

    def __init__(self, app: ASGIApp, site: Site, sessions: Sessions, drawer: Drawer) -> None:
        """Guards an application."""
        self._app, self._site = app, site
        self._sessions, self._drawer = sessions, drawer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no page here speaks over a WebSocket
            return
        request = Request(scope)
        try:
            receive = await self._admitted(request, receive)
        except TripartyError as error:
            await self._refusal(request, error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _admitted(self, request: Request, receive: Receive) -> Receive:
        """What the route reads the body from, of a request that may be answered.

        Raises:
            ForbiddenError: it comes from another page, or by another name.
            UnauthenticatedError: it needs somebody who is logged in.
        """
        self._check_host(request.headers)
        session = await self._session(request)
        request.scope.setdefault("state", {})["session"] = session
        if session is None and not _is_open(path_of(request)):
            raise UnauthenticatedError("log in first")
        if request.method in _READS:
            return receive
        _check_origin(request.headers)
        body = await forms.read_body(receive)
        if path_of(request) != LOGIN:  # where nobody is known there is no word to bring
            _check_csrf(request.headers, body, session)
        return forms.replayed(body, receive)

    async def _session(self, request: Request) -> Session | None:
        token = request.cookies.get(self._site.cookie_name)
        if token is None:
            return None
        by_person = path_of(request) not in self._site.passive
        session = self._sessions.find(token, by_person=by_person)
        if session is None or await self._site.is_alive(session):
            return session
        self._sessions.close(token)
        return None

    def _check_host(self, headers: Headers) -> None:
        host = host_of(headers.getlist("host"))
        if host is None or not self._site.names.include(host):
            given = repr((host or "")[:_LONGEST_NAME])
            raise ForbiddenError(
                f"this page is not called {given}: its settings say what it is called"
            )

    def _refusal(self, request: Request, error: TripartyError) -> Response:
        is_page = request.method in _READS and not path_of(request).startswith(API)
        if isinstance(error, UnauthenticatedError) and is_page:
            wanted = path_of(request)
            if request.url.query:
                wanted += f"?{request.url.query}"
            url = f"{root_of(request)}{LOGIN}?next={quote(wanted, safe='')}"
            return RedirectResponse(url, 303)
        return self._drawer.refusal(request, error)


def _is_open(path: str) -> bool:
    return path == LOGIN or path.startswith(STATIC)


def _check_origin(headers: Headers) -> None:
    """Raises `ForbiddenError` unless a request comes from a page of this host and port."""
    origins, host = headers.getlist("origin"), headers["host"]
    try:
        parts = urlsplit(origins[0]) if len(origins) == 1 else urlsplit("")
    except ValueError:
        parts = urlsplit("")
    is_ours = parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()
    if not is_ours:
        raise ForbiddenError("a request that changes something must come from this page")


def _check_csrf(headers: Headers, body: bytes, session: Session | None) -> None:
    """Raises `ForbiddenError` unless a request brings the session's word."""
    given = headers.get(CSRF_HEADER, "")
    if not given and forms.is_form(headers):
        given = forms.field(forms.parse(body), CSRF_FIELD)
    expected = session.csrf if session is not None else ""
    if not expected or not hmac.compare_digest(given.encode(), expected.encode()):
        raise ForbiddenError("the page is older than your login: open it again, and repeat")


def session_token(request: HTTPConnection, site: Site) -> str | None:
    """What the cookie of a request holds."""
    return request.cookies.get(site.cookie_name)
