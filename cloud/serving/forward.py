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
from triparty.cloud.serving.hosting import ServableModel
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
from triparty.cloud.serving.routes import (
    CLIENT_CLOSED_REQUEST,
    HEADER_BYTES,
    Inferrer,
    ReadAhead,
    read_body,
    serving_of,
    unless_gone,
    wanted_version,
)
from triparty.cloud.serving.serving import ForwardTurn, Serving
from triparty.common.errors import RequestError
from triparty.common.wire import MEDIA_TYPE, decode_frames, encode_frames

router = APIRouter(prefix="/v1", tags=["forward"])

INPUTS_HEADER, REPLY_HEADER = "Triparty-Inputs", "Triparty-Reply"
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
    )
]


@router.post(
    "/models/{name}/forward",
    response_class=Response,
    responses={200: _FRAME},
    openapi_extra={"requestBody": {"required": True, **_FRAME}, "parameters": _HEADERS},
)
async def forward(name: str, request: Request, principal: Inferrer) -> Response:
    """Answers about whole texts or images."""
    catalog = request.app.state.catalog
    version = wanted_version(request)
    model = await asyncio.to_thread(catalog.model_for, principal, name, version=version)
    serving = serving_of(request)
    ahead = ReadAhead(request, limit_bytes=serving.body_bytes)
    async with AsyncExitStack() as stack:
        entering = stack.enter_async_context(serving.forwarding(principal.id, model))
        # Its client may have left when a model is loaded at last.
        turn = await (entering if serving.has(model) else ahead.unless_gone(entering))
        if turn is None:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        request = ahead.request
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
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        content = await asyncio.to_thread(_encoded, batch, arrays, turn.info)
    return Response(content, media_type=MEDIA_TYPE, headers=_reply_headers(model, turn.info))


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


def _reply_headers(model: ServableModel, info: EncoderInfo) -> dict[str, str]:
    """What the answer is, and with which key it is keyed; a device compares both."""
    return {
        REPLY_HEADER: info.reply.value,
        "Triparty-Version": str(model.version),
        "Triparty-Epoch": str(model.epoch),
    }
