"""Blobs over HTTP: resumable uploads, ranges on download.

An upload says with `Content-Range: bytes FIRST-LAST/TOTAL` where it goes on; the answer while
bytes are missing is 308 with `Range: bytes=0-N`, what is held. If that is everything (the
cloud died before it verified it), an empty body with `bytes TOTAL-(TOTAL-1)/TOTAL` has it
verified. Without `Content-Range` the body is the whole blob, and what was held is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import ClientDisconnect

from triparty.cloud.accounts import Principal
from triparty.cloud.auth import require
from triparty.cloud.blobs import Held, Upload
from triparty.cloud.bodies import BlobReply
from triparty.cloud.database import Database
from triparty.cloud.disk_blobs import read_range
from triparty.cloud.jobs.keeper import Jobs
from triparty.cloud.jobs.register import jobs_of
from triparty.cloud.jobs.routes import Work
from triparty.cloud.problems import problem_response
from triparty.cloud.publishing import check_blob_visible
from triparty.cloud.state import Blobs, Store
from triparty.common.errors import ConflictError, NotFoundError, RequestError
from triparty.common.files import CHUNK_BYTES

router = APIRouter(tags=["blobs"])
Uploader = Annotated[Principal, Depends(require("publish", "train"))]
Reader = Annotated[Principal, Depends(require("pull"))]
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)
_EMPTY = re.compile(r"bytes \*/0")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_HELD: dict[int | str, dict[str, Any]] = {
    308: {"description": "not all of it is here; `Range` says what is"}
}


def _header(name: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}


class _Piece(NamedTuple):
    """Which bytes of a blob a request carries."""

    start: int | None  # None: the whole blob, from the beginning
    length: int
    total: int


@router.head("/v1/blobs/{sha256}", responses=_HELD)
def head_blob(sha256: str, reader: Reader, store: Store, blobs: Blobs, jobs: Work) -> Response:
    """Whether a blob is here, and how much of it."""
    held = None
    if reader.role != "device" or _is_shared(store, reader, sha256):
        held = blobs.held(reader.developer, sha256)
    elif (file := _result(store, jobs, reader, sha256)) is not None:
        held = Held(file.stat().st_size, is_complete=True)
    else:
        held = jobs.uploads.held(reader.id, sha256)
    if held is None:
        raise NotFoundError("no such blob")
    if not held.is_complete:
        return Response(status_code=308, headers=_range_held(held.size))
    return Response(headers={"Content-Length": str(held.size), "Accept-Ranges": "bytes"})


@router.get(
    "/v1/blobs/{sha256}",
    response_class=StreamingResponse,
    responses={
        200: {"description": "all of it", "content": _BYTES},
        206: {"description": "a range of it", "content": _BYTES},
    },
    openapi_extra={"parameters": [_header("Range")]},
)
def get_blob(
    sha256: str, request: Request, reader: Reader, store: Store, blobs: Blobs, jobs: Work
) -> StreamingResponse:
    """The bytes of a blob, or a range of them."""
    read: Callable[[int, int], Iterator[bytes]]
    if reader.role != "device" or _is_shared(store, reader, sha256):
        size = blobs.size(reader.developer, sha256)
        read = partial(blobs.read, reader.developer, sha256)
    elif (file := _result(store, jobs, reader, sha256)) is not None:
        size, read = file.stat().st_size, partial(read_range, file)
    else:  # what it uploaded stays with its job
        raise NotFoundError("no such blob")
    start, end = _wanted(request.headers.get("range"), size)
    headers = {"Content-Length": str(end - start), "Accept-Ranges": "bytes"}
    is_part = (start, end) != (0, size)
    if is_part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return StreamingResponse(
        read(start, end - start),
        status_code=206 if is_part else 200,
        headers=headers,
        media_type="application/octet-stream",
    )


@router.put(
    "/v1/blobs/{sha256}",
    response_model=BlobReply,
    status_code=201,
    responses=_HELD,
    openapi_extra={
        "requestBody": {"content": _BYTES},
        "parameters": [_header("Content-Range")],
    },
)
async def put_blob(
    sha256: str, request: Request, uploader: Uploader, blobs: Blobs, jobs: Work
) -> Response:
    """Takes a piece of a blob, or all of it; 201 once all of it is verified.

    What a device sends is for a job of its own, and goes to a room of its own.
    """
    piece = _announced(request)
    room = jobs.uploads if uploader.role == "device" else blobs
    try:
        upload = await run_in_threadpool(
            room.begin, uploader.id, sha256, start=piece.start, total=piece.total
        )
    except ConflictError as error:
        return problem_response(error, headers=_range_held(error.extra.get("held", 0)))
    if upload is None:
        async for _ in request.stream():  # or the sender sees a broken connection
            pass
        return _done(sha256, piece.total)
    try:
        await _receive(request, upload, piece.length)
        held = await run_in_threadpool(upload.finish)
    finally:
        upload.close()
    if held.is_complete:
        return _done(sha256, held.size)
    return Response(status_code=308, headers=_range_held(held.size))


def _is_shared(store: Database, device: Principal, sha256: str) -> bool:
    """Whether a blob is of an artifact that the device sees.

    It is asked first: looking for a blob would take longer if it is here.
    """
    try:
        with store.reading() as session:
            check_blob_visible(session, device, sha256)
    except NotFoundError:
        return False
    return True


def _result(store: Database, jobs: Jobs, device: Principal, sha256: str) -> Path | None:
    """The file of a filter that was trained for the device; None if it is none."""
    with store.reading() as session:
        rows = jobs_of(session, device)
    file = jobs.result_file(rows, sha256)
    return file if file is not None and file.is_file() else None


async def _receive(request: Request, upload: Upload, length: int) -> None:
    """Writes the body as it arrives; what arrived before a cut is kept."""
    received = 0
    waiting = bytearray()
    try:
        async for chunk in request.stream():
            received += len(chunk)
            if received > length:
                raise RequestError(f"the body is longer than the announced {length} bytes")
            waiting += chunk
            if len(waiting) >= CHUNK_BYTES:
                await run_in_threadpool(upload.write, bytes(waiting))
                waiting.clear()
    except ClientDisconnect:
        await run_in_threadpool(upload.write, bytes(waiting))
        raise
    await run_in_threadpool(upload.write, bytes(waiting))


def _announced(request: Request) -> _Piece:
    length = request.headers.get("content-length", "")
    content_range = request.headers.get("content-range")
    if content_range is None or _EMPTY.fullmatch(content_range):
        if not (length.isascii() and length.isdigit()):
            raise RequestError("an upload needs Content-Range or Content-Length")
        return _Piece(None, int(length), int(length))
    matched = _CONTENT_RANGE.fullmatch(content_range)
    if matched is None:
        raise RequestError("expected 'Content-Range: bytes FIRST-LAST/TOTAL'")
    first, last, total = (int(number) for number in matched.groups())
    is_end = first == total == last + 1  # all bytes are held: verify them
    if not (first <= last < total or is_end):
        raise RequestError(f"Content-Range: {first}-{last} is no range of {total} bytes")
    if length and length != str(last - first + 1):
        raise RequestError(f"Content-Length {length:.20} is not that of Content-Range")
    return _Piece(first, last - first + 1, total)


def _wanted(header: str | None, size: int) -> tuple[int, int]:
    """The first byte wanted and the one after the last; anything unusual is the whole blob."""
    matched = _RANGE.fullmatch(header) if header else None
    if matched is None or matched.groups() == ("", ""):
        return 0, size  # RFC 9110, section 14.2: a server may ignore Range
    first, last = matched.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= end:
        raise HTTPException(
            416,
            f"the blob has {size} bytes; the range asked for is outside",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end


def _range_held(held: int) -> dict[str, str]:
    return {"Range": f"bytes=0-{held - 1}"} if held else {}


def _done(sha256: str, size: int) -> Response:
    return JSONResponse({"sha256": sha256, "size": size}, status_code=201)
