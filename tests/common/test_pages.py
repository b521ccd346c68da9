"""Who may see a page, whatever the page is."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from visited_page import ORIGIN, Clock, Visitor

from triparty.common.errors import SettingsError, StateError
from triparty.common.hosts import OwnNames
from triparty.common.pages.build import build
from triparty.common.pages.headers import HEADERS
from triparty.common.pages.passwords import LEAST_CHARACTERS, PasswordHash, new_password
from triparty.common.pages.sessions import IDLE_S, LONGEST_S, MOST_SESSIONS, Session, Sessions
from triparty.common.pages.throttle import AT_ONCE, LoginThrottle
from triparty.common.pages.website import HERE, Link, Site, session_of

RIGHT = "right horse battery"
FAILURE = "/api/failure"


class Little:
    """A small page with something to see and something to change."""

    def __init__(self, *, is_secure: bool = False, names: OwnNames | None = None) -> None:
        self.clock = Clock()
        self.changes = 0
        self.alive = True
        site = Site(
            title="<b>Little & co</b>",
            cookie="little",
            names=names or OwnNames(),
            is_secure=is_secure,
            secret="password",
            check=self._check,
            folder=HERE,
            links=(Link("/", "First"), Link("/seen", "Second")),
            is_alive=self._is_alive,
            passive=frozenset({"/api/live"}),
        )
        self.sessions = Sessions(clock_s=self.clock)
        self.app = Starlette(
            routes=[
                Route("/", self._see),
                Route("/seen", self._see),
                Route("/api/live", self._live),
                Route(FAILURE, self._fail),
                Route("/api/change", self._change, methods=["POST", "DELETE"]),
            ]
        )
        self.drawer = build(
            self.app,
            site,
            sessions=self.sessions,
            throttle=LoginThrottle(clock_s=self.clock),
        )

    async def _check(self, secret: str) -> str | None:
        return "somebody" if secret == RIGHT else None

    async def _is_alive(self, session: Session) -> bool:
        return self.alive

    async def _see(self, request: Request) -> Response:
        return self.drawer.page(
            request, "error.html", name="seen", message=request.query_params.get("text", "")
        )

    async def _live(self, request: Request) -> Response:
        session = session_of(request)
        return PlainTextResponse(session.who if session else "nobody")

    async def _fail(self, request: Request) -> Response:
        raise RuntimeError("a secret of the inside")

    async def _change(self, request: Request) -> Response:
        self.changes += 1
        return PlainTextResponse(f"changed {len(await request.body())}")


@pytest.fixture
def little() -> Little:
    return Little()


@pytest.fixture
def visitor(little: Little) -> Visitor:
    known = Visitor(little.app)
    assert known.log_in(RIGHT).status_code == 303
    return known


@pytest.mark.parametrize(
    "path", ["/login", "/", "/nothing", "/api/live", FAILURE, "/static/common/page.css"]
)
def test_every_answer_has_the_headers(little: Little, visitor: Visitor, path: str) -> None:
    for who in (visitor, Visitor(little.app)):
        answer = who.get(path)
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
        assert "'unsafe" not in answer.headers["content-security-policy"]
        is_asset = path.startswith("/static/")
        assert answer.headers["cache-control"] == ("no-cache" if is_asset else "no-store")
    refused = visitor.get("/", Host="evil.example")
    assert {name: refused.headers.get(name) for name in HEADERS} == HEADERS


def test_a_failure_shows_nothing_of_the_inside(visitor: Visitor) -> None:
    answer = visitor.get(FAILURE)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Runtime" not in answer.text


def test_templates_have_nothing_inline() -> None:
    roots = [HERE, HERE.parents[1] / "device" / "page", HERE.parents[1] / "cloud" / "page"]
    for template in [path for root in roots for path in root.rglob("*.html")]:
        text = template.read_text("utf-8")
        assert " style=" not in text, template
        assert "<style" not in text, template
        assert "| safe" not in text, template
        for script in text.split("<script")[1:]:
            assert script.startswith(' src="{{ root }}/static/'), template
        assert not [
            word for word in text.split() if word.lower().startswith("on") and "=" in word
        ]
        assert "http:" not in text, template
        assert "https:" not in text, template


@pytest.mark.parametrize("path", ["/", "/seen", "/nothing", "/api/live", "/logout"])
def test_nobody_sees_nothing(little: Little, path: str) -> None:
    answer = Visitor(little.app).get(path)
    if path.startswith("/api/"):
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
    else:
        assert answer.status_code == 303
        assert answer.headers["location"] == f"/login?next=%2F{path[1:]}"


def test_nobody_changes_anything(little: Little) -> None:
    stranger = Visitor(little.app)
    assert stranger.post("/api/change", {"csrf": ""}).status_code == 401
    assert not little.changes


def test_the_cookie_is_for_this_page_alone(little: Little) -> None:
    set_cookie = Visitor(little.app).log_in(RIGHT).headers["set-cookie"]
    parts = {part.strip().lower() for part in set_cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= parts
    assert "secure" not in parts
    tls = Little(is_secure=True)
    answer = Visitor(tls.app, origin="https://127.0.0.1").log_in(RIGHT)
    parts = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/", "secure"} <= parts
    assert not [part for part in parts if part.startswith("domain")]
    assert answer.headers["set-cookie"].startswith("__Host-")
    assert "max-age" in answer.headers["strict-transport-security"]


def test_each_login_is_another_session_of_256_bits(little: Little) -> None:
    visitor = Visitor(little.app)
    tokens = []
    for _ in range(2):
        assert visitor.log_in(RIGHT).status_code == 303
        tokens.append(visitor.cookies["little"])
    assert tokens[0] != tokens[1]
    assert all(len(token) == 43 for token in tokens)  # base64 of 32 bytes
    assert little.sessions.find(tokens[0]) is None, "the session before ended"


def test_a_cookie_that_nobody_gave_opens_nothing(little: Little) -> None:
    stranger = Visitor(little.app)
    stranger.cookies.set("little", "A" * 43)
    assert stranger.get("/").status_code == 303
    assert stranger.log_in(RIGHT).status_code == 303
    assert stranger.cookies.get("little", domain="127.0.0.1") != "A" * 43


def test_logging_out_ends_the_session(visitor: Visitor) -> None:
    word, token = visitor.word(), visitor.cookies["little"]
    assert visitor.post("/logout", {"csrf": "x" * 43}).status_code == 403
    assert visitor.get("/").status_code == 200
    assert visitor.post("/logout", {"csrf": word}).status_code == 303
    visitor.cookies.set("little", token)
    assert visitor.get("/").status_code == 303


def test_a_session_ends_when_nobody_asks(little: Little, visitor: Visitor) -> None:
    for _ in range(3):
        little.clock.now += IDLE_S - 1
        assert visitor.get("/").status_code == 200
    for _ in range(3):  # what the page asks by itself is nobody
        little.clock.now += IDLE_S / 3
        last = visitor.get("/api/live").status_code
    assert last == 401


def test_a_session_ends_even_if_somebody_asks(little: Little, visitor: Visitor) -> None:
    began = little.clock.now
    while little.clock.now + IDLE_S / 2 < began + LONGEST_S:
        little.clock.now += IDLE_S / 2
        assert visitor.get("/").status_code == 200
    little.clock.now += IDLE_S / 2
    assert visitor.get("/").status_code == 303


def test_a_session_ends_with_what_it_rests_on(little: Little, visitor: Visitor) -> None:
    little.alive = False
    assert visitor.get("/").status_code == 303
    little.alive = True
    assert visitor.get("/").status_code == 303


def test_sessions_are_few() -> None:
    sessions = Sessions()
    tokens = [sessions.open("somebody") for _ in range(MOST_SESSIONS + 1)]
    assert sessions.find(tokens[0]) is None
    assert all(sessions.find(token) is not None for token in tokens[1:])


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80", "10.0.0.7", "", "[::"]
)
def test_a_name_that_is_rebound_is_refused(visitor: Visitor, host: str) -> None:
    for path in ("/", "/login", "/static/common/page.css"):
        assert visitor.get(path, Host=host).status_code == 403
    for path in ("/", "/login", "/static/common/page.css"):
        assert visitor.get(path, Host="localhost:8000").status_code in (200, 303)


def test_the_page_has_the_names_that_it_was_given() -> None:
    named = Little(names=OwnNames(frozenset({"cams.example"}), any_address=True))
    visitor = Visitor(named.app)
    for host in ("cams.example", "cams.example:8444", "10.0.0.7", "[fd00::7]:8444"):
        assert visitor.get("/login", Host=host).status_code == 200
    assert visitor.get("/login", Host="other.example").status_code == 403


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "https://evil.example",
        "http://127.0.0.1:81",
        "http://localhost",
        "http://127.0.0.1.evil.example",
        "file://127.0.0.1",
        "http://[",
    ],
)
def test_other_pages_change_nothing(
    little: Little, visitor: Visitor, origin: str | None
) -> None:
    sent = {"X-CSRF-Token": visitor.word()}
    if origin is not None:
        sent["Origin"] = origin
    for method in ("POST", "DELETE"):
        answer = visitor.request(method, "/api/change", headers=sent)
        assert answer.status_code == 403
    login = visitor.request("POST", "/login", data={"secret": RIGHT}, headers=sent)
    assert login.status_code == 403, "nobody is logged in by another page either"
    assert not little.changes
    sent["Origin"] = ORIGIN
    assert visitor.request("POST", "/api/change", headers=sent).status_code == 200


@pytest.mark.parametrize("word", ["", "x", "x" * 43, "ü" * 43])
def test_what_changes_something_brings_the_word(
    little: Little, visitor: Visitor, word: str
) -> None:
    assert visitor.post("/api/change", {"csrf": word}).status_code == 403
    headers = [(b"origin", ORIGIN.encode()), (b"x-csrf-token", word.encode())]
    assert visitor.request("POST", "/api/change", headers=headers).status_code == 403
    other = Visitor(little.app)
    other.log_in(RIGHT)
    assert visitor.post("/api/change", {"csrf": other.word()}).status_code == 403
    assert not little.changes
    assert visitor.post("/api/change", {"csrf": visitor.word()}).status_code == 200
    assert little.changes == 1


def test_the_route_reads_the_body_that_the_guard_read(visitor: Visitor) -> None:
    answer = visitor.send("POST", "/api/change", {"a": "b" * 1000})
    assert answer.text == "changed 1008"


def test_a_large_body_is_refused(little: Little, visitor: Visitor) -> None:
    sent = {"Origin": ORIGIN, "X-CSRF-Token": visitor.word()}
    answer = visitor.request("POST", "/api/change", content=b"x" * (65 << 10), headers=sent)
    assert answer.status_code == 413
    many = "&".join("a=1" for _ in range(5000)).encode()
    sent["Content-Type"] = "application/x-www-form-urlencoded"
    del sent["X-CSRF-Token"]
    assert visitor.request("POST", "/api/change", content=many, headers=sent).status_code == 400
    assert not little.changes


def test_wrong_secrets_are_few(little: Little) -> None:
    guesser = Visitor(little.app)
    statuses = [guesser.log_in(f"guess {n}").status_code for n in range(AT_ONCE + 2)]
    assert statuses == [401] * AT_ONCE + [429] * 2
    refused = guesser.log_in(RIGHT)
    assert refused.status_code == 429, "nor is a right one heard before its time"
    assert "little" not in guesser.cookies
    little.clock.now += int(refused.headers["retry-after"])
    assert guesser.log_in(RIGHT).status_code == 303


def test_right_secrets_cost_nothing(little: Little) -> None:
    visitor = Visitor(little.app)
    assert {visitor.log_in(RIGHT).status_code for _ in range(3 * AT_ONCE)} == {303}


@pytest.mark.parametrize(
    ("wanted", "goes"),
    [
        ("/seen?text=1", "/seen?text=1"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/\tevil", "/"),
        ("/a\r\nSet-Cookie: b=c", "/"),
        ("", "/"),
    ],
)
def test_the_login_leads_nowhere_else(little: Little, wanted: str, goes: str) -> None:
    answer = Visitor(little.app).post("/login", {"secret": RIGHT, "next": wanted})
    assert answer.headers["location"] == goes


def test_what_is_shown_is_text(visitor: Visitor) -> None:
    page = visitor.request("GET", "/", params={"text": "<script>alert(1)</script>\"'"}).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<b>Little" not in page


@pytest.mark.parametrize(
    "path", ["/static/common/../build.py", "/static/common/%2e%2e/build.py"]
)
def test_assets_are_assets(visitor: Visitor, path: str) -> None:
    assert visitor.get(path).status_code == 404
    assert visitor.get("/static/common/theme.js").status_code == 200


def test_a_mounted_page_stays_below_its_root() -> None:
    little = Little()
    outer = Starlette(routes=[Mount("/below", little.app)])
    visitor = Visitor(outer)
    assert visitor.get("/below/seen").headers["location"] == "/below/login?next=%2Fseen"
    answer = visitor.log_in(RIGHT, root="/below")
    assert answer.headers["location"] == "/below/"
    assert "Path=/below" in answer.headers["set-cookie"]
    page = visitor.get("/below/").text
    assert 'href="/below/static/common/page.css"' in page
    word = visitor.word()
    assert visitor.post("/below/api/change", {"csrf": word}).status_code == 200
    assert visitor.post("/below/logout", {"csrf": word}).headers["location"] == "/below/login"


def test_a_password_is_kept_as_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "page.password"
    PasswordHash.of(RIGHT, cost=16).write(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert RIGHT not in file.read_text()
    kept = PasswordHash.read(file)
    assert kept.fits(RIGHT)
    assert not kept.fits(RIGHT + " ")
    assert not kept.fits("")
    assert not kept.fits("x" * 100_000)
    assert PasswordHash.of(RIGHT, cost=16).digest != kept.digest, "another salt"


@pytest.mark.parametrize("text", ["", "x", "scrypt$1$2$3$4", "\xff"])
def test_a_file_that_is_no_hash_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "page.password"
    with pytest.raises(StateError, match=r"page\.password"):
        PasswordHash.read(file)
    file.write_text(text)
    with pytest.raises(StateError, match=r"page\.password"):
        PasswordHash.read(file)


def test_passwords_are_long() -> None:
    with pytest.raises(SettingsError, match="12 to 256"):
        PasswordHash.of("x" * (LEAST_CHARACTERS - 1))
    made = {new_password() for _ in range(50)}
    assert len(made) == 50
    assert all(len(one) == 27 for one in made)
