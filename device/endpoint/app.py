"""The endpoint's routes: OpenAI's API, answered by protected models.

A client's text arrives here in the clear and leaves this machine as keyed rows alone. Nothing
of it is logged or kept.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Sequence,
)
from contextlib import aclosing, contextmanager
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from triparty.common.errors import TripartyError
from triparty.common.events import MEDIA_TYPE, event
from triparty.device.accounts import asked_names
from triparty.device.asynchronous import AsyncDevice, awaited
from triparty.device.client import Device
from triparty.device.endpoint.answering import Answering
from triparty.device.endpoint.answers import (
    ChatForm,
    Form,
    TextForm,
    WholeAnswer,
    embeddings,
    envelope,
)
from triparty.device.endpoint.chats import KeptChats
from triparty.device.endpoint.failures import SERVER, Failure
from triparty.device.endpoint.guard import Admission, Guard
from triparty.device.endpoint.requests import (
    Ask,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    read,
)
from triparty.device.inference.answer import Piece
from triparty.device.inference.generation import Generation
from triparty.device.inference.opened import OpenedModel

BODY_LIMIT_BYTES = 8 << 20
BODY_LIMIT_S = 30.0
ANSWERS_AT_ONCE = 16
CLIENT_CLOSED_REQUEST = 499  # nginx's name for an answer that nobody waits for any more
_T = TypeVar("_T")
AsyncParts = AsyncGenerator[Piece | Generation]
_PREFLIGHT_S = 600


def create_app(
    device: Device, admission: Admission, answering: Answering | None = None
) -> Starlette:
    """The endpoint's application; `state.endpoint` is to be closed behind it.

    Args:
        device: answers.
        admission: who may ask.
        answering: how; None: as the defaults say.
    """
    endpoint = Endpoint(device, answering or Answering())
    routes = [
        Route("/v1/models", endpoint.models, methods=["GET"]),
        Route("/v1/models/{name}", endpoint.model, methods=["GET"]),
        Route("/v1/chat/completions", endpoint.chat, methods=["POST"]),
        Route("/v1/completions", endpoint.complete, methods=["POST"]),
        Route("/v1/embeddings", endpoint.embed, methods=["POST"]),
    ]
    middleware = [
        Middleware(Guard, admission=admission),
        Middleware(
            CORSMiddleware,
            allow_origins=sorted(admission.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            max_age=_PREFLIGHT_S,
        ),
    ]
    handlers: dict[Any, Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
        Failure: _failed,
        TripartyError: _triparty_failed,
        HTTPException: _http_failed,
        ClientDisconnect: _gone,
        Exception: _broken,
    }
    app = Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)
    app.state.endpoint = endpoint
    return app


class Endpoint:
    """The handlers of the routes.

    Args:
        device: answers.
        answering: how.
    """

    def __init__(self, device: Device, answering: Answering) -> None:
        """Offers what the device holds."""
        self._device, self._answering_as = AsyncDevice(device), answering
        self._chats = KeptChats(answering.kept_chats, end=device.end)
        self._since = int(time.time())
        self._answering = 0

    def close(self) -> None:
        """Ends the sessions of chats that were kept."""
        self._chats.close()

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`."""
        held = await self._device.models()
        listed = [self._model(name) for name in asked_names(held)]
        return JSONResponse({"object": "list", "data": listed})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/{name}`."""
        name = request.path_params["name"]
        await self._check_model(name)
        return JSONResponse(self._model(name))

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`."""
        body = read(await _body(request), ChatRequest)
        return await self._answered(request, body, body.asks(), "chatcmpl", ChatForm)

    async def complete(self, request: Request) -> Response:
        """`POST /v1/completions`."""
        body = read(await _body(request), CompletionRequest)
        return await self._answered(request, body, body.asks(), "cmpl", TextForm)

    async def embed(self, request: Request) -> Response:
        """`POST /v1/embeddings`; a text longer than the model takes is refused, not cut."""
        body = read(await _body(request), EmbeddingRequest)
        await self._check_model(body.model)

        def refuse(line: str) -> None:
            raise Failure(400, line, param="input")

        with self._place(1):
            vectors = await self._device.embed(body.model, body.texts, on_shortened=refuse)
            tokens = await asyncio.to_thread(
                self._device.device.count_tokens, body.model, body.texts
            )
        width = vectors.shape[1]
        if body.dimensions not in (None, width):
            raise Failure(400, f"'{body.model}' has {width} dimensions", param="dimensions")
        in_base64 = body.encoding_format == "base64"
        return JSONResponse(embeddings(body.model, vectors, tokens, in_base64=in_base64))

    async def _answered(
        self,
        request: Request,
        body: ChatRequest | CompletionRequest,
        asks: list[Ask],
        prefix: str,
        form_of: Callable[[Any], Form],
    ) -> Response:
        await self._check_model(body.model)
        opened = await asyncio.to_thread(self._device.device.open, body.model)
        form = form_of(
            envelope(
                prefix,
                body.model,
                choices=body.n or 1,
                has_usage=body.has_usage,
                token_text=opened.token_text,
            )
        )
        client = client_of(request)
        if not body.stream:
            with self._place(len(asks)):
                work = asyncio.gather(
                    *(self._whole(client, body.model, opened, ask) for ask in asks)
                )
                answers = await _unless_gone(request, work)
            if answers is None:
                return Response(status_code=CLIENT_CLOSED_REQUEST)
            return JSONResponse(form.whole(answers))
        asked = [partial(self._parts, client, body.model, opened, ask) for ask in asks]
        documents = self._documents(body, asked, form)
        # The first token before the first byte: what fails until then has a status of its own.
        first = await _unless_gone(request, anext(documents))
        if first is None:
            await documents.aclose()
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return EventStream(first, documents)

    async def _documents(
        self,
        body: ChatRequest | CompletionRequest,
        asked: Sequence[Callable[[], AsyncParts]],
        form: Form,
    ) -> AsyncGenerator[dict[str, Any]]:
        """The parts of a streamed answer; several choices come one after the other."""
        answers: list[Generation] = []
        with self._place(1):
            for index, begin in enumerate(asked):
                is_open = False
                async with aclosing(begin()) as parts:
                    async for part in parts:
                        if not is_open and (opening := form.opening(index)) is not None:
                            yield opening
                        is_open = True
                        if isinstance(part, Piece):
                            document = form.piece(index, part)
                            if document is not None:
                                yield document
                        else:
                            answers.append(part)
                            yield form.closing(index, part.finish_reason)
        if body.has_usage:
            yield form.usage(answers)

    async def _parts(
        self, client: str, model: str, opened: OpenedModel, ask: Ask
    ) -> AsyncParts:
        """The answer that a client gets, on a session that was kept of the same chat."""
        device = self._device.device
        options = self._answering_as.options(opened, ask.options)
        stream = partial(device.stream, options=options)
        if ask.image is not None:
            parts = stream(model, ask.prompt, image=ask.image)
        elif not ask.is_chat:
            parts = stream(model, ask.prompt)
        else:
            # The template runs once: what it made is asked, and says which session goes on.
            question = await asyncio.to_thread(opened.question, ask.prompt, options)
            ids = question.ids if question.source is None else question.source
            parts = self._chats.answered(
                client, model, ids, lambda kept: stream(model, ids, kept=kept)
            )
        async with aclosing(awaited(parts)) as answer:
            async for part in answer:
                yield part

    async def _whole(
        self, client: str, model: str, opened: OpenedModel, ask: Ask
    ) -> WholeAnswer:
        pieces: list[Piece] = []
        async with aclosing(self._parts(client, model, opened, ask)) as parts:
            async for part in parts:
                if isinstance(part, Generation):
                    return WholeAnswer(part, pieces)
                pieces.append(part)
        raise Failure(500, "the answer ended without an end", SERVER)

    @contextmanager
    def _place(self, count: int) -> Iterator[None]:
        """Holds places among the answers in the making."""
        if self._answering and self._answering + count > ANSWERS_AT_ONCE:
            raise Failure(
                429,
                f"{self._answering} answers are in the making, the most are {ANSWERS_AT_ONCE}",
                "rate_limit_error",
                "too_many_answers",
                retry_after_s=1,
            )
        self._answering += count
        try:
            yield
        finally:
            self._answering -= count

    async def _check_model(self, name: str) -> None:
        held = asked_names(await self._device.models())
        if name not in held:
            raise Failure(
                404,
                f"this device has no model {name[:200]!r}, but: {', '.join(held) or 'none'}",
                code="model_not_found",
                param="model",
            )

    def _model(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._since,
            "owned_by": "triparty",
        }


def client_of(request: Request) -> str:
    """Who asks, as far as it can be told: sessions are not shared between two."""
    host = request.client.host if request.client else ""
    told = (host, *(request.headers.get(name, "") for name in ("authorization", "origin")))
    return sha256(json.dumps(told).encode()).hexdigest()


class EventStream(StreamingResponse):
    """Server-sent events; their source is closed when the client leaves, not later."""

    def __init__(self, first: dict[str, Any], rest: AsyncGenerator[dict[str, Any]]) -> None:
        """Sends documents as events."""
        unbuffered = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        self._events, self._source = _events(first, rest), rest
        super().__init__(self._events, media_type=MEDIA_TYPE, headers=unbuffered)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
            await self._source.aclose()  # the events may not even have begun


async def _events(
    first: dict[str, Any], rest: AsyncGenerator[dict[str, Any]]
) -> AsyncGenerator[bytes]:
    yield event(json.dumps(first))
    try:
        async for document in rest:
            yield event(json.dumps(document))
    except TripartyError as error:
        yield event(json.dumps(Failure.of(error).document()))
        return
    except Failure as failure:
        yield event(json.dumps(failure.document()))
        return
    yield event("[DONE]")


async def _body(request: Request) -> bytes:
    """The body, never holding more than the limit.

    Raises:
        Failure: it is longer, or does not come.
    """
    declared = request.headers.get("Content-Length", "")
    too_long = Failure(
        413, f"the body has more than {BODY_LIMIT_BYTES} bytes", code="body_too_large"
    )
    if declared.isdigit() and int(declared[:20]) > BODY_LIMIT_BYTES:
        raise too_long
    chunks, held = [], 0
    try:
        async with asyncio.timeout(BODY_LIMIT_S):
            async for chunk in request.stream():
                held += len(chunk)
                if held > BODY_LIMIT_BYTES:
                    raise too_long
                chunks.append(chunk)
    except TimeoutError:
        raise Failure(408, f"the body did not come within {BODY_LIMIT_S:g} s") from None
    return b"".join(chunks)


async def _unless_gone(request: Request, work: Awaitable[_T]) -> _T | None:
    """The result of `work`, or None when the client left first; the work is then cancelled."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for future in (task, gone):
            future.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _failed(request: Request, failure: Failure) -> Response:
    return failure.response()


async def _triparty_failed(request: Request, error: TripartyError) -> Response:
    return Failure.of(error).response()


async def _http_failed(request: Request, error: HTTPException) -> Response:
    what = f"{request.method} {request.url.path}"
    return Failure(error.status_code, f"{what[:200]}: {error.detail}").response()


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _broken(request: Request, error: Exception) -> Response:
    return Failure(500, "the endpoint failed: see its log", SERVER).response()
