"""A page as its role describes it, and how its answers are drawn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.templating import Jinja2Templates

from triparty.common.errors import TripartyError, to_problem
from triparty.common.hosts import OwnNames
from triparty.common.pages.sessions import Session

HERE: Final = Path(__file__).parent
API: Final = "/api/"
SECURE_PREFIX: Final = "__Host-"


@dataclass(frozen=True)
class Link:
    """A part of the page, in the bar at its top.

    Attributes:
        path: from the root of the page on.
        text: that is shown.
    """

    path: str
    text: str


async def _lives(session: Session) -> bool:
    return True


@dataclass(frozen=True)
class Site:
    """What a page is, and who may see it.

    Attributes:
        title: in the bar at its top.
        cookie: name of its cookie; another one for each page, since ports share cookies.
        names: under which it is asked for.
        is_secure: whether it is reached by TLS alone.
        secret: what the login asks for, in words.
        check: who a secret belongs to; None for a wrong one.
        folder: with the page's own `templates` and `static`.
        links: its parts.
        is_alive: whether a session is still good, beside its times.
        passive: paths that the page asks for by itself, which keep nobody logged in.
        formats: filters for its templates.
    """

    title: str
    cookie: str
    names: OwnNames
    is_secure: bool
    secret: str
    check: Callable[[str], Awaitable[str | None]] = field(repr=False)
    folder: Path
    links: Sequence[Link] = ()
    is_alive: Callable[[Session], Awaitable[bool]] = field(default=_lives, repr=False)
    passive: frozenset[str] = frozenset()
    formats: dict[str, Callable[..., Any]] = field(default_factory=dict, repr=False)

    @property
    def cookie_name(self) -> str:
        """As browsers know it; the prefix has them insist on TLS, one host and one path."""
        return f"{SECURE_PREFIX}{self.cookie}" if self.is_secure else self.cookie

    def cookie_path(self, root: str) -> str:
        """The path that the cookie is for, of a page below `root`."""
        return "/" if self.is_secure else root or "/"


class Drawer:
    """Draws the templates of a site; every value in them is text, never markup.

    Args:
        site: to draw.
    """

    def __init__(self, site: Site) -> None:
        """Reads no template yet."""
        self._site = site
        environment = Environment(
            loader=FileSystemLoader([site.folder / "templates", HERE / "templates"]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= site.formats
        self._templates = Jinja2Templates(env=environment)

    def page(
        self, request: Request, template: str, *, status: int = 200, **context: Any
    ) -> Response:
        """A template as an answer."""
        session = session_of(request)
        shared = {
            "site": self._site,
            "root": root_of(request),
            "here": path_of(request),
            "csrf": session.csrf if session else "",
            "is_known": session is not None,
        }
        return self._templates.TemplateResponse(
            request, template, {**shared, **context}, status_code=status
        )

    def refusal(self, request: Request, error: TripartyError, status: int = 0) -> Response:
        """An error: a problem document under `/api/`, else a page."""
        status = status or error.status
        headers = {}
        if wait_s := error.extra.get("retry_after_s"):
            headers["Retry-After"] = str(wait_s)
        if path_of(request).startswith(API):
            problem = to_problem(error) | {"status": status}
            return JSONResponse(
                problem, status, headers=headers, media_type="application/problem+json"
            )
        title = str(to_problem(error)["title"])
        answer = self.page(
            request, "error.html", status=status, name=title, message=error.message
        )
        answer.headers.update(headers)
        return answer


def root_of(request: HTTPConnection) -> str:
    """What stands before the paths of a page that is mounted somewhere."""
    return str(request.scope.get("root_path", ""))


def path_of(request: HTTPConnection) -> str:
    """The path of a request, from the root of the page on."""
    path = str(request.scope["path"])
    return path.removeprefix(root_of(request)) or "/"


def session_of(request: HTTPConnection) -> Session | None:
    """Who asks; None where nobody need be known."""
    found = request.scope.get("state", {}).get("session")
    return found if isinstance(found, Session) else None
