"""The session routes of HTTP: open, source, step, rollback, fork, close.

Authorisation comes first, then the session (a foreign one and an unknown one are the same
404), then the headers, and only then the body, which is bounded while it is read.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import Message

from triparty.cloud.accounts import Principal
from triparty.cloud.auth import require
from triparty.cloud.direct import direct_route
from triparty.cloud.serving.engine import Reply, Rows
from triparty.cloud.serving.hosting import ServableModel
from triparty.cloud.serving.openings import Asked
from triparty.cloud.serving.records import SessionInfo, StepRequest
from triparty.cloud.serving.serving import Serving
from triparty.common.errors import RequestError, TooLargeError
from triparty.common.wire import MEDIA_TYPE, decode_frames

router = APIRouter(prefix="/v1", tags=["sessions"])

may_infer = require("infer")
Inferrer = Annotated[Principal, Depends(may_infer)]

HEADER_BYTES = 64  # more than the header of a frame with four dims
JSON_LIMIT_BYTES = 4096
CLIENT_CLOSED_REQUEST = 499  # nginx's name for an answer that nobody waits for any more

VERSION_HEADER = "Triparty-Version"
REQUEST_ID_HEADER = "Triparty-Request-Id"
ROLLBACK_HEADER = "Triparty-Rollback-Of"

_VERSION = re.compile(r"[1-9][0-9]{0,15}")
_COUNT = re.compile(r"[1-9][0-9]{0,8}")
_POSITION = re.compile(r"[0-9]{1,10}")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,64}")
_T = TypeVar("_T")

_FRAME = {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
_STEP_HEADERS = [
    {"name": name, "in": "header", "required": must, "schema": {"type": kind}, "description": d}
    for name, must, kind, d in (
        ("Triparty-Position", True, "integer", "position of the first row"),
        (REQUEST_ID_HEADER, True, "string", "client's name for the step"),
        ("Triparty-Reply", True, "string", "hidden, logits, topk=K or id, about the last rows"),
        ("Triparty-Reply-Rows", False, "integer", "how many last rows; 1 if left out"),
        (ROLLBACK_HEADER, False, "string", "request id of the step that it cuts short"),
    )
]
_OPEN_HEADERS = [
    {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}
    | {"description": text}
    for name, text in (
        (VERSION_HEADER, "version of the bundle; the newest if left out"),
        (REQUEST_ID_HEADER, "client's name for the request; repeated, it is the same session"),
    )
]


async def step(session_id: str, request: Request, principal: Inferrer) -> Response:
    """Appends rows to a session, in place of the end of the last step's if it says so.

    Answers about the last of them.
    """
    serving = serving_of(request)
    with serving.step_turn(principal.id, session_id) as limit_bytes:
        headers = StepHeaders.of(request.headers)
        body = await read_body(request, limit_bytes=limit_bytes + HEADER_BYTES)
        rows = _rows(body, limit_bytes=limit_bytes)
        wanted = StepRequest(**vars(headers), rows=rows)
        answer = await unless_gone(request, serving.step(principal.id, session_id, wanted))
    if answer is None:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    return Response(
        content=answer.body,
        media_type=MEDIA_TYPE,
        headers={"Triparty-Position": str(answer.position)},
    )


# First, because routes are tried in this order and this one is asked once a token.
router.add_api_route(
    "/sessions/{session_id}/step",
    step,
    methods=["POST"],
    response_class=Response,
    responses={200: _FRAME},
    openapi_extra={"requestBody": {"required": True, **_FRAME}, "parameters": _STEP_HEADERS},
    route_class_override=direct_route(may_infer),
)


@router.post(
    "/models/{name}/sessions",
    status_code=201,
    openapi_extra={"parameters": _OPEN_HEADERS},
)
async def open_session(name: str, request: Request, principal: Inferrer) -> Response:
    """Opens a session on a model: the version of a device's bundle, the newest or the named.

    A request with an id goes on when its client leaves, and is answered alike when repeated.
    """
    catalog = request.app.state.catalog
    version = wanted_version(request)

    async def model() -> ServableModel:
        found: ServableModel = await asyncio.to_thread(
            catalog.model_for, principal, name, version=version
        )
        return found

    serving = serving_of(request)
    if REQUEST_ID_HEADER in request.headers:
        request_id = request_id_in(request.headers)
        asked = Asked(principal.id, name, version, request_id)
        opening = serving.open_session_once(asked, model)
    else:
        opening = serving.open_session(principal.id, await model())
    info = await unless_gone(request, opening)
    if info is None:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    return JSONResponse(_session_body(info, serving), status_code=201)


@router.post(
    "/sessions/{session_id}/source",
    openapi_extra={"requestBody": {"required": True, **_FRAME}},
)
async def read_source(session_id: str, request: Request, principal: Inferrer) -> Response:
    """Has the encoder of a session's model read the text that the session answers."""
    serving = serving_of(request)
    with serving.step_turn(principal.id, session_id) as limit_bytes:
        body = await read_body(request, limit_bytes=limit_bytes + HEADER_BYTES)
        rows = _rows(body, limit_bytes=limit_bytes)
        read = await unless_gone(request, serving.read_source(principal.id, session_id, rows))
    if read is None:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    return JSONResponse({"rows": read})


@router.post("/sessions/{session_id}/rollback")
async def rollback(session_id: str, request: Request, principal: Inferrer) -> dict[str, int]:
    """Takes back the rows from a position on; the body is `{"position": N}`."""
    serving = serving_of(request)
    serving.step_limit_bytes(principal.id, session_id)
    position = _position_in(await read_body(request, limit_bytes=JSON_LIMIT_BYTES))
    return {"position": await serving.rollback(principal.id, session_id, position)}


@router.post("/sessions/{session_id}/fork", status_code=201)
async def fork(session_id: str, request: Request, principal: Inferrer) -> dict[str, Any]:
    """Opens a second session with the same rows."""
    serving = serving_of(request)
    return _session_body(await serving.fork(principal.id, session_id), serving)


@router.delete("/sessions/{session_id}", status_code=204)
async def close(session_id: str, request: Request, principal: Inferrer) -> Response:
    """Closes a session."""
    serving_of(request).close(principal.id, session_id)
    return Response(status_code=204)


def wanted_version(request: Request) -> int | None:
    """The version of the bundle that a device uses, if it says so."""
    given = request.headers.get(VERSION_HEADER)
    if given is None:
        return None
    if not _VERSION.fullmatch(given):
        raise RequestError(f"{VERSION_HEADER} is the version of a bundle, got {given[:40]!r}")
    return int(given)


def serving_of(request: Request) -> Serving:
    """The application's serving."""
    serving: Serving = request.app.state.serving
    return serving


def _session_body(info: SessionInfo, serving: Serving) -> dict[str, Any]:
    return {
        "session": info.session,
        "model": info.model,
        "version": info.version,
        "epoch": info.epoch,
        "position": info.position,
        "replies": [kind.value for kind in info.replies],
        "limits": {
            "rows_per_step": serving.rows_per_step,
            "reply_rows": info.reply_rows,
            "positions": info.positions,
            "idle_s": serving.idle_s,
        },
    }


@dataclass(frozen=True)
class StepHeaders:
    """What the headers of a step say; `StepRequest` has the same members."""

    position: int
    request_id: str
    reply: Reply
    rollback_of: str | None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """Reads them.

        Raises:
            RequestError: one that is needed is missing, or one makes no sense.
        """
        position = headers.get("Triparty-Position", "")
        if not _POSITION.fullmatch(position):
            raise RequestError(
                f"Triparty-Position is the position of the first row, got {position[:40]!r}"
            )
        rows = headers.get("Triparty-Reply-Rows", "1")
        if not _COUNT.fullmatch(rows):
            raise RequestError(
                f"Triparty-Reply-Rows is how many rows the reply is about, got {rows[:40]!r}"
            )
        takes_back = ROLLBACK_HEADER in headers
        return cls(
            position=int(position),
            request_id=request_id_in(headers),
            reply=replace(Reply.parse(headers.get("Triparty-Reply", "")), rows=int(rows)),
            rollback_of=request_id_in(headers, ROLLBACK_HEADER) if takes_back else None,
        )


def request_id_in(headers: Mapping[str, str], name: str = REQUEST_ID_HEADER) -> str:
    """The id of a request in one of its headers.

    Raises:
        RequestError: there is none, or one that makes no sense.
    """
    given = headers.get(name, "")
    if not _REQUEST_ID.fullmatch(given):
        raise RequestError(
            f"{name} is 1 to 64 visible ASCII characters, got {len(given)} characters"
        )
    return given


async def read_body(request: Request, *, limit_bytes: int) -> bytes:
    """The body, never holding more than `limit_bytes` of it.

    Raises:
        TooLargeError: the body is longer.
    """
    declared = request.headers.get("Content-Length", "")
    if declared.isdigit() and int(declared[:20]) > limit_bytes:
        raise TooLargeError(f"the body has {declared[:20]} bytes, limit {limit_bytes}")
    chunks, held = [], 0
    async for chunk in request.stream():
        held += len(chunk)
        if held > limit_bytes:
            raise TooLargeError(f"the body has more than {limit_bytes} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _rows(body: bytes, *, limit_bytes: int) -> Rows:
    """The rows (T, D) of a step's one frame, float32."""
    (frame,) = decode_frames(body, limit_bytes=limit_bytes, max_frames=1)
    rows = frame.as_float32()
    if not np.isfinite(rows).all():
        raise RequestError("the rows of a step are finite numbers, got NaN or infinity")
    return rows


def _position_in(body: bytes) -> int:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError('the body of a rollback is JSON: {"position": N}') from error
    position = document.get("position") if isinstance(document, dict) else None
    if not isinstance(position, int) or isinstance(position, bool) or position < 0:
        raise RequestError('the body of a rollback is {"position": N}, N at least 0')
    return position


async def unless_gone(request: Request, work: Awaitable[_T]) -> _T | None:
    """The result of `work`, or None when the client left first; the work is then cancelled."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        gone.cancel()


class ReadAhead:
    """A request that is listened to before its body is wanted, so that leaving is noticed.

    What arrives meanwhile is kept, and read later as if it had just come.
    """

    def __init__(self, request: Request, *, limit_bytes: int) -> None:
        """Listens to nothing yet.

        Args:
            request: of which nothing was read.
            limit_bytes: most of the body to keep; a client that sends more is not listened to
                any further.
        """
        self._receive, self._limit_bytes = request.receive, limit_bytes
        self._early: deque[Message] = deque()
        self._error: Exception | None = None
        self.request = Request(request.scope, self._next)

    async def unless_gone(self, work: Awaitable[_T]) -> _T | None:
        """As `unless_gone`, for a request whose body is to be read afterwards."""
        task, gone = asyncio.ensure_future(work), asyncio.ensure_future(self._left())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for future in (task, gone):
                future.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)

    async def _left(self) -> None:
        """Returns when the client has left."""
        held, announced = 0, self.request.headers.get("Content-Length", "")
        if announced.isdigit() and int(announced[:20]) > self._limit_bytes:
            held = self._limit_bytes + 1  # it will be refused: none of it is read
        while held <= self._limit_bytes:
            try:
                message = await self._receive()
            except Exception as error:  # noqa: BLE001 - raised where the body is read
                self._error = error
                break
            if message["type"] == "http.disconnect":
                return
            self._early.append(message)
            held += len(message.get("body", b""))
        await asyncio.Event().wait()

    async def _next(self) -> Message:
        if self._early:
            return self._early.popleft()
        if self._error is not None:
            raise self._error
        return await self._receive()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
