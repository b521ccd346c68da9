"""Completions by a stock engine behind the cloud, in place of the cloud's own.

The cloud decides who may ask which model, counts and limits, and names the answer's key; the
engine (vLLM, `transformers serve`) gets opaque words and gives such back. What it answers is
passed on event by event, no faster than the client reads: its own name of the model is taken
out, and its errors become problems that tell nothing of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from triparty.cloud.serving.hosting import ServableModel
from triparty.common import opaque
from triparty.common.errors import (
    CloudError,
    LimitError,
    RequestError,
    TooLargeError,
    TripartyError,
    UnavailableError,
)
from triparty.common.events import events

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

PATH = "/v1/completions"
EVENT_LIMIT_BYTES = 1 << 20
ANSWER_LIMIT_BYTES = 64 << 20
CONNECT_S = 10.0
RETRY_S = 5
DONE = "[DONE]"


@dataclass(frozen=True)
class Said:
    """A document of an answer, as its client gets it.

    Attributes:
        document: of OpenAI's form.
        words: how many opaque words it has.
        is_end: whether it says why the answer ended; only its usage may follow.
    """

    document: Mapping[str, Any]
    words: int
    is_end: bool


class Upstream:
    """The engine behind the cloud.

    Args:
        url: its base URL, with or without `/v1`.
        model: what it calls a model: a text with {developer}, {name}, {version}, {folder}.
        key: sent to it as a bearer token; None sends none.
        silence_s: longest wait for the next bytes of an answer.
        transport: of tests.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        key: str | None,
        silence_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Connects to nothing yet."""
        self._model = model
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/").removesuffix("/v1"),
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(silence_s, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
            follow_redirects=False,
            transport=transport,
        )

    async def close(self) -> None:
        """Closes its connections."""
        await self._http.aclose()

    async def answered(
        self, model: ServableModel, body: Mapping[str, Any], *, ended: Future[Any]
    ) -> AsyncGenerator[Said]:
        """Yields an answer: its events, or the one document of an answer that is not streamed.

        Closing it, and `ended`, end the request upstream.

        Args:
            model: that is asked.
            body: what is asked, in OpenAI's form.
            ended: fails when the answer has to end.

        Raises:
            UnavailableError: the engine was not reached, or cannot answer now.
            LimitError: it has too much to do.
            RequestError: it refuses what is asked.
            CloudError: an answer that makes no sense, or breaks off.
        """
        stop = asyncio.wrap_future(ended)
        stop.add_done_callback(lambda done: done.cancelled() or done.exception())  # it was seen
        async with self._asked(model, body, stop) as answer:
            if not body.get("stream"):
                content = await _until(stop, _bounded(answer))
                yield _said(content, model)
                return
            documents = _events(answer)
            try:
                is_ended = False
                while (data := await _until(stop, anext(documents, None))) is not None:
                    if data == DONE and is_ended:
                        return
                    said = _said(data, model)
                    is_ended = is_ended or said.is_end
                    yield said
            finally:
                await documents.aclose()
            if is_ended:  # `transformers serve` says no more than that
                return
            raise CloudError("the engine behind the cloud broke its answer off: repeat it")

    @asynccontextmanager
    async def _asked(
        self, model: ServableModel, body: Mapping[str, Any], stop: Awaitable[Any]
    ) -> AsyncIterator[httpx.Response]:
        name = self._model.format(
            developer=model.developer,
            name=model.name,
            version=model.version,
            folder=model.folder,
        )
        request = self._http.build_request("POST", PATH, json={**body, "model": name})
        answer = None
        try:
            answer = await _until(stop, self._http.send(request, stream=True))
            _check(answer)
            yield answer
        except httpx.HTTPError as error:
            _log.warning(f"the engine behind the cloud: {type(error).__name__}")
            if answer is not None:
                raise CloudError("the engine behind the cloud broke its answer off") from error
            raise _away() from error
        finally:
            if answer is not None:
                await answer.aclose()


def _check(answer: httpx.Response) -> None:
    """Raises what a status means for the client; what the engine says stays here."""
    status = answer.status_code
    if status == httpx.codes.OK:
        return
    _log.warning("the engine behind the cloud refused", extra={"status": status})
    match status:
        case 400 | 415 | 422:
            raise RequestError(
                f"the engine behind the cloud refuses this request ({status}): it may lack an "
                "option of it, or its model room for the prompt"
            )
        case 413:
            raise TooLargeError("the prompt is too long for the engine behind the cloud")
        case 429:
            raise LimitError("the engine behind the cloud is busy", retry_after_s=RETRY_S)
    raise _away()


def _away() -> TripartyError:
    return UnavailableError(
        "the engine behind the cloud cannot answer now: repeat it later", retry_after_s=RETRY_S
    )


async def _until(stop: Awaitable[Any], work: Awaitable[_T]) -> _T:
    """The result of `work`; it is cancelled if `stop` fails first, whose error is raised."""
    task, end = asyncio.ensure_future(work), asyncio.ensure_future(stop)
    try:
        await asyncio.wait({task, end}, return_when=asyncio.FIRST_COMPLETED)
        if end.done():
            end.result()
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _bounded(answer: httpx.Response) -> str:
    held = b""
    async for chunk in answer.aiter_bytes():
        held += chunk
        if len(held) > ANSWER_LIMIT_BYTES:
            raise CloudError("the answer of the engine behind the cloud is too long")
    return held.decode(errors="replace")


async def _events(answer: httpx.Response) -> AsyncGenerator[str]:
    """The data of each event, as soon as it is complete."""
    held = b""
    async for chunk in answer.aiter_bytes():
        held = (held + chunk).replace(b"\r\n", b"\n")
        whole, end, rest = held.rpartition(b"\n\n")
        if end:
            held = rest
            for data in events([whole + end], limit_bytes=EVENT_LIMIT_BYTES):
                yield data
        if len(held) > EVENT_LIMIT_BYTES:
            raise CloudError("an event of the engine behind the cloud is too long")


def _said(data: str, model: ServableModel) -> Said:
    """A document under the model's own name.

    Raises:
        CloudError: no document of an answer; an error, for one.
    """
    try:
        document = json.loads(data)
        choices = document["choices"]
        texts = [choice["text"] for choice in choices]
        words = sum(map(len, texts)) // opaque.WORD_CHARACTERS
        is_end = any(choice.get("finish_reason") for choice in choices)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise CloudError("the engine behind the cloud gave no answer: repeat it") from error
    return Said({**document, "model": model.name}, words, is_end)
