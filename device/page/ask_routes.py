"""A question in plain words, its answer with evidence, and what was sent for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from triparty.common.errors import NotFoundError, RequestError, TripartyError
from triparty.common.pages.forms import field, form_of
from triparty.device.ask.ask import LONGEST, Answer
from triparty.device.page.watched import drawer_of, watched_of

MOST_AT_ONCE = 2
"""Questions that are answered at a time: each takes a core, or the cloud."""

router = APIRouter()
_turns = asyncio.Semaphore(MOST_AT_ONCE)


@router.get("/ask", include_in_schema=False)
def get_page(request: Request) -> Response:
    """The box for a question."""
    return _page(request, "")


@router.post("/ask", include_in_schema=False)
async def post_page(request: Request) -> Response:
    """The answer to a question, as a page."""
    question = field(await form_of(request), "question")
    try:
        answer = await _answer(request, question)
    except TripartyError as error:
        if error.status >= 500:
            raise
        return _page(request, question, error=error, status=error.status)
    return _page(request, question, answer=answer)


@router.post("/api/ask")
async def post_question(request: Request) -> Response:
    """`{"question": ...}`: the answer, the events that it rests on, and what was sent."""
    try:
        document = await request.json()
    except ValueError as error:
        raise RequestError("the body is no JSON") from error
    question = document.get("question") if isinstance(document, Mapping) else None
    if not isinstance(question, str):
        raise RequestError('expected {"question": "..."}')
    answer = await _answer(request, question)
    return JSONResponse(
        {
            "question": answer.question,
            "text": answer.text,
            "value": answer.value,
            "confidence": answer.confidence,
            "evidence": [asdict(event) for event in answer.evidence],
            "gaps": [asdict(gap) for gap in answer.finding.gaps],
            "sent": asdict(answer.sent),
        }
    )


async def _answer(request: Request, question: str) -> Answer:
    """Answers in a thread of its own, few at a time.

    Raises:
        NotFoundError: nothing is recorded that could be asked about.
        RequestError: a question that is not understood.
    """
    ask = watched_of(request).ask
    if ask is None:
        raise NotFoundError("no events are kept: give [results] a database in the settings")
    async with _turns:
        return await run_in_threadpool(ask, question)


def _page(
    request: Request,
    question: str,
    *,
    answer: Answer | None = None,
    error: TripartyError | None = None,
    status: int = 200,
) -> Response:
    shown: dict[str, Any] = {
        "question": question,
        "answer": answer,
        "error": error,
        "candidates": error.extra.get("candidates", ()) if error is not None else (),
        "longest": LONGEST,
        "can_ask": watched_of(request).ask is not None,
    }
    return drawer_of(request).page(request, "ask.html", status=status, **shown)
