"""`POST /v1/models/{name}/forward`: encoders and classifiers, whole texts or images at once.

Authorisation comes first, then the model (one that is another tenant's and an unknown one are
the same 404), its limits and its kind, then the headers, and only then the body, which is
bounded while it is read.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request, Response

from triparty.cloud.serving.engine import Arrays, EncoderInfo
from triparty.cloud.serving.passages import (
    Batch,
    InputName,
    answer_frame,
    check_names,
    input_names,
    most_bytes,
    named,
    read_batch,
)
from triparty.cloud.serving.records import ForwardTurn
from triparty.cloud.serving.routes import (
    CLIENT_CLOSED_REQUEST,
    HEADER_BYTES,
    REQUEST_ID_HEADER,
    VERSION_HEADER,
    Inferrer,
    ReadAhead,
    read_body,
    request_id_in,
    serving_of,
    unless_gone,
    wanted_version,
)
from triparty.cloud.serving.serving import Serving
from triparty.common.errors import RequestError
from triparty.common.wire import MEDIA_TYPE, decode_frames, encode_frames

router = APIRouter(prefix="/v1", tags=["forward"])

INPUTS_HEADER, REPLY_HEADER = "Triparty-Inputs", "Triparty-Reply"
SESSION_HEADER = "Triparty-Session"
MAX_FRAMES = 4

_FRAME: dict[str, Any] = {
    "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}
}
_HEADERS = [
    {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}
    | {"description": text}
    for name, text in (
        (INPUTS_HEADER, f"the frames in order, of: {', '.join(InputName)}; else rows, mask"),
        (REPLY_HEADER, "logits or hidden: refused unless the model replies that"),
        (SESSION_HEADER, "of a one-time instance: the session that has it"),
        (REQUEST_ID_HEADER, "with a session: client's name for its one request"),
    )
]


@router.post(
    "/models/{name}/forward",
    response_class=Response,
    responses={200: _FRAME},
    openapi_extra={"requestBody": {"required": True, **_FRAME}, "parameters": _HEADERS},
)
async def forward(name: str, request: Request, principal: Inferrer) -> Response:
    """Answers about whole texts or images; of a one-time instance, in its session."""
    serving = serving_of(request)
    async with AsyncExitStack() as stack:
        session = request.headers.get(SESSION_HEADER)
        if session is not None:
            request_id = request_id_in(request.headers)
            entering = serving.forwarding_in(principal.id, name, session, request_id)
            turn: ForwardTurn | None = await stack.enter_async_context(entering)
        else:
            catalog, version = request.app.state.catalog, wanted_version(request)
            model = await asyncio.to_thread(catalog.model_for, principal, name, version=version)
            ahead = ReadAhead(request, limit_bytes=serving.body_bytes)
            opening = stack.enter_async_context(serving.forwarding(principal.id, model))
            # Its client may have left when a model is loaded at last.
            turn = await (opening if serving.has(model) else ahead.unless_gone(opening))
            request = ahead.request
        content = None if turn is None else await _content(request, turn, serving)
        if turn is None or content is None:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
    return Response(content, media_type=MEDIA_TYPE, headers=_reply_headers(turn))


async def _content(request: Request, turn: ForwardTurn, serving: Serving) -> bytes | None:
    """The body of the answer; None when the client left first."""
    if turn.answered is not None:
        return turn.answered.body
    names = input_names(request.headers.get(INPUTS_HEADER))
    check_names(names, turn.info)
    _check_reply(request.headers.get(REPLY_HEADER), turn.info)
    limit_bytes = min(
        most_bytes(turn.info, most_rows=serving.rows_per_step), serving.body_bytes
    )
    body = await read_body(request, limit_bytes=limit_bytes + MAX_FRAMES * HEADER_BYTES)
    batch = await asyncio.to_thread(_batch, body, names, limit_bytes, turn, serving)
    arrays = await unless_gone(request, serving.forward(turn, batch.passages))
    if arrays is None:
        return None
    content = await asyncio.to_thread(_encoded, batch, arrays, turn.info)
    turn.keep(content)
    return content


def _batch(
    body: bytes,
    names: tuple[InputName, ...],
    limit_bytes: int,
    turn: ForwardTurn,
    serving: Serving,
) -> Batch:
    frames = decode_frames(body, limit_bytes=limit_bytes, max_frames=MAX_FRAMES)
    return read_batch(
        named(names, frames),
        turn.info,
        most_rows=serving.rows_per_step,
        most_answer=serving.body_bytes,
    )


def _encoded(batch: Batch, arrays: list[Arrays], info: EncoderInfo) -> bytes:
    return encode_frames(answer_frame(batch, arrays, info))


def _check_reply(wanted: str | None, info: EncoderInfo) -> None:
    if wanted not in (None, info.reply):
        raise RequestError(f"this model replies {info.reply}, got {wanted[:40]!r}")


def _reply_headers(turn: ForwardTurn) -> dict[str, str]:
    """What the answer is, and with which key it is keyed; a device compares both."""
    key = turn.hosted.key
    return {
        REPLY_HEADER: turn.info.reply.value,
        VERSION_HEADER: str(key.version),
        "Triparty-Epoch": str(key.epoch),
    }
