"""`POST /v1/completions`: text of a model of the interface `tokens`, in OpenAI's form.

Prompt and answer are opaque words (`common/opaque.py`). What the form has and this route does
not do is refused by its value, not ignored. Errors are problem documents, as everywhere; one
that happens when the events have begun is the last event, `{"error": PROBLEM}`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field
from starlette.types import Receive, Scope, Send

from triparty.cloud import bodies
from triparty.cloud.serving.generation import GenerationRequest, Token, generate
from triparty.cloud.serving.hosting import ServableModel
from triparty.cloud.serving.routes import (
    CLIENT_CLOSED_REQUEST,
    Inferrer,
    serving_of,
    unless_gone,
    wanted_version,
)
from triparty.cloud.serving.serving import Serving
from triparty.cloud.serving.upstream import Said, Upstream
from triparty.common import opaque
from triparty.common.errors import RequestError, TripartyError, to_problem
from triparty.common.events import MEDIA_TYPE, event
from triparty.common.sampling import SamplingOptions

router = APIRouter(prefix="/v1", tags=["completions"])

DEFAULT_MAX_TOKENS = 16  # OpenAI's
MAX_SEED = 2**63 - 1

MAX_LOGPROBS = 20

Penalty = Annotated[float | None, Field(ge=-2, le=2)]
One = Literal[1] | None


class StreamOptions(bodies.Request):
    """`stream_options` of a completion."""

    include_usage: bool = False


class CompletionRequest(bodies.Request):
    """`POST /v1/completions`: what is done, then what only has its neutral value."""

    model: str = Field(max_length=200)
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    frequency_penalty: Penalty = None
    presence_penalty: Penalty = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False

    n: One = None
    best_of: One = None
    echo: Literal[False] | None = None
    logit_bias: None = None
    stop: None = None
    suffix: None = None

    def generation(self) -> GenerationRequest:
        """The request without its form; what is left out is OpenAI's default."""
        return GenerationRequest(
            prompt=self.prompt if isinstance(self.prompt, str) else self.prompt[0],
            max_tokens=self.max_tokens or DEFAULT_MAX_TOKENS,
            options=SamplingOptions(
                temperature=1.0 if self.temperature is None else self.temperature,
                top_k=self.top_k or 0,
                top_p=self.top_p or 1.0,
                min_p=self.min_p or 0.0,
                repetition_penalty=self.repetition_penalty or 1.0,
                seed=self.seed,
            ),
            ignore_eos=self.ignore_eos,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logprobs=self.logprobs,
        )


@dataclass(frozen=True)
class _Form:
    """What all parts of one answer have in common."""

    id: str
    created: int
    model: str

    @classmethod
    def new(cls, model: ServableModel) -> _Form:
        return cls(f"cmpl-{secrets.token_hex(12)}", int(time.time()), model.name)

    def document(self, tokens: Sequence[Token], *, at: int = 0, **more: Any) -> dict[str, Any]:
        """The document of tokens that follow `at` others."""
        choice = {
            "index": 0,
            "text": opaque.words([token.id for token in tokens]),
            "finish_reason": tokens[-1].finish_reason,
            "logprobs": _logprobs(tokens, at=at),
        }
        return self.envelope(choices=[choice], **more)

    def envelope(self, **members: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            **members,
        }


@router.post("/completions", response_class=Response)
async def complete(body: CompletionRequest, request: Request, principal: Inferrer) -> Response:
    """Continues opaque words with a model of the interface `tokens`."""
    wanted = body.generation()
    catalog = request.app.state.catalog
    version = wanted_version(request)
    model = await asyncio.to_thread(catalog.model_for, principal, body.model, version=version)
    upstream: Upstream | None = getattr(request.app.state, "upstream", None)
    if upstream is not None:
        answer = _passed_on(upstream, serving_of(request), principal.id, model, body)
        return await _passed(request, body, model, answer)
    tokens = generate(serving_of(request), principal.id, model, wanted)
    form, headers = _Form.new(model), _version_headers(model)
    if not body.stream:
        whole = await unless_gone(request, _collected(tokens))
        if whole is None:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        document = form.document(whole, usage=_usage(wanted, len(whole)))
        return JSONResponse(document, headers=headers)
    # The first token before the first byte: what fails until then has a status of its own.
    first = await unless_gone(request, anext(tokens))
    if first is None:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    has_usage = body.stream_options is not None and body.stream_options.include_usage
    events = _events(first, tokens, form, wanted, has_usage=has_usage)
    return EventStream(events, tokens, headers)


async def _passed(
    request: Request,
    body: CompletionRequest,
    model: ServableModel,
    answer: AsyncGenerator[Said, None],
) -> Response:
    """What an engine behind the cloud answers, as this route's own answers are given."""
    first, headers = await unless_gone(request, anext(answer)), _version_headers(model)
    if first is None:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    if body.stream:
        return EventStream(_passed_events(first, answer), answer, headers)
    await answer.aclose()
    return JSONResponse(dict(first.document), headers=headers)


async def _passed_on(
    upstream: Upstream,
    serving: Serving,
    principal_id: str,
    model: ServableModel,
    body: CompletionRequest,
) -> AsyncGenerator[Said, None]:
    """The parts of an answer that is made elsewhere, counted as they come."""
    if not (model.folder / opaque.TOKENIZER_FILE).is_file():
        raise RequestError(f"model '{model.name}' takes rows, not words: open a session on it")
    asked = body.model_dump(exclude_unset=True, exclude_none=True)
    async with serving.elsewhere(principal_id, model) as ended:
        parts = upstream.answered(model, asked, ended=ended)
        async with aclosing(parts):
            async for said in parts:
                serving.count_words(principal_id, model, said.words)
                yield said


async def _passed_events(
    first: Said, rest: AsyncGenerator[Said, None]
) -> AsyncGenerator[bytes, None]:
    yield event(json.dumps(first.document))
    try:
        async for said in rest:
            yield event(json.dumps(said.document))
    except TripartyError as error:
        yield event(json.dumps({"error": to_problem(error)}))
        return
    yield event("[DONE]")


class EventStream(StreamingResponse):
    """Server-sent events; their source is closed when the client leaves, not later."""

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        source: AsyncGenerator[Any, None],
        headers: dict[str, str],
    ) -> None:
        """Sends `events`, which are made of `source`."""
        unbuffered = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type=MEDIA_TYPE, headers=headers | unbuffered)
        self._events, self._source = events, source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
            await self._source.aclose()  # the events may not even have begun


async def _collected(tokens: AsyncGenerator[Token, None]) -> list[Token]:
    async with aclosing(tokens):
        return [token async for token in tokens]


async def _events(
    first: Token,
    rest: AsyncGenerator[Token, None],
    form: _Form,
    wanted: GenerationRequest,
    *,
    has_usage: bool,
) -> AsyncGenerator[bytes, None]:
    count = 1
    yield _chunk(form, first, at=0)
    try:
        async for token in rest:
            yield _chunk(form, token, at=count)
            count += 1
    except TripartyError as error:
        yield event(json.dumps({"error": to_problem(error)}))
        return
    if has_usage:
        yield event(json.dumps(form.envelope(choices=[], usage=_usage(wanted, count))))
    yield event("[DONE]")


def _chunk(form: _Form, token: Token, *, at: int) -> bytes:
    return event(json.dumps(form.document([token], at=at)))


def _logprobs(tokens: Sequence[Token], *, at: int) -> dict[str, Any] | None:
    """The log-probabilities of tokens in OpenAI's form; offsets are within the answer."""
    if tokens[0].logprob is None:
        return None
    first = at * opaque.WORD_CHARACTERS
    tops = [{opaque.words([each]): log for each, log in token.top} for token in tokens]
    return {
        "tokens": [opaque.words([token.id]) for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": tops if tokens[0].top else None,
        "text_offset": [first + n * opaque.WORD_CHARACTERS for n in range(len(tokens))],
    }


def _usage(wanted: GenerationRequest, count: int) -> dict[str, int]:
    prompt = len(wanted.prompt) // opaque.WORD_CHARACTERS
    return {
        "prompt_tokens": prompt,
        "completion_tokens": count,
        "total_tokens": prompt + count,
    }


def _version_headers(model: ServableModel) -> dict[str, str]:
    """With which key the answer is keyed; a device compares it with its bundle's."""
    return {"Triparty-Version": str(model.version), "Triparty-Epoch": str(model.epoch)}
