"""A cloud that answers by a script: one answer a request, and a record of what was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from triparty.common.connection import PROBLEM_TYPE, Connection
from triparty.common.errors import PROBLEM_PREFIX

URL = "https://cloud.test"
TOKEN = "tpt_the-secret-token"
Answering = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class Script(httpx.BaseTransport):
    """Answers in the given order; a request beyond the script is an error of the test."""

    def __init__(self, *answers: Answering) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        assert self.answers, f"unexpected {request.method} {request.url}"
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else answer(request)

    def connection(self, url: str = URL) -> Connection:
        return Connection(url, token=TOKEN, transport=self, sleep=self.slept.append)


class Cut(httpx.SyncByteStream):
    """A body that breaks off after its pieces."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self.pieces = pieces
        self.error = error or httpx.ReadError("cut")

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        raise self.error


class Endless(httpx.SyncByteStream):
    """A body that never ends; counts what was taken of it."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self.taken += 1 << 16
            yield bytes(1 << 16)


def document(status: int = 200, **members: Any) -> httpx.Response:
    return httpx.Response(status, json=members)


def problem(
    status: int, slug: str, detail: str = "no", *, retry_after: str | None = None, **extra: Any
) -> httpx.Response:
    headers = {"Content-Type": PROBLEM_TYPE}
    if retry_after is not None:
        headers["Retry-After"] = retry_after
    members = {**extra, "type": PROBLEM_PREFIX + slug, "detail": detail, "status": status}
    return httpx.Response(status, headers=headers, content=json.dumps(members))
