"""Text on the cloud: keyed ids in, keyed ids out, one session from the first to the last.

The generation takes its steps through the same worker as everybody's session steps, so that
both share one continuous batch; between two steps it holds nothing but its session.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from triparty.cloud.serving.engine import Ids, Reply, ReplyKind
from triparty.cloud.serving.hosting import AnyHosted, Hosted, ServableModel
from triparty.cloud.serving.serving import Serving, decoder_of
from triparty.cloud.serving.sessions import Session
from triparty.cloud.serving.text import TextRules
from triparty.common import opaque
from triparty.common.errors import NotFoundError, RequestError, TooLargeError
from triparty.common.sampling import SamplingOptions, next_token

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class GenerationRequest:
    """What to continue, and how.

    Attributes:
        prompt: opaque words.
        max_tokens: most ids to generate, at least 1; fewer where the model's positions end.
        options: how ids are chosen.
        ignore_eos: go on after an end id, for measurements.
    """

    prompt: str
    max_tokens: int
    options: SamplingOptions
    ignore_eos: bool = False


@dataclass(frozen=True)
class Token:
    """One generated id.

    Attributes:
        id: keyed.
        finish_reason: why it is the last one; None for those before.
    """

    id: int
    finish_reason: FinishReason | None


async def generate(
    serving: Serving, principal_id: str, model: ServableModel, request: GenerationRequest
) -> AsyncGenerator[Token, None]:
    """Yields the continuation of a prompt id by id; closing it frees the session at once.

    Raises:
        RequestError: the prompt is no words of this model, or the model takes rows.
        TooLargeError: the prompt leaves no position for an answer.
        LimitError: too many sessions, or no memory.
        NotFoundError: the session was closed meanwhile.
        UnavailableError: the cloud is shutting down.
        CloudError: the model failed.
    """
    async with serving.text_session(principal_id, model) as session:
        hosted = decoder_of(session)
        info = hosted.engine.info
        ids = _prompt_ids(request.prompt, hosted)
        most = min(request.max_tokens, hosted.positions - len(ids))
        rules, rng = info.text or TextRules(frozenset()), request.options.generator()
        for count in range(1, most + 1):
            suppressed = rules.suppressed_first if count == 1 else rules.suppressed
            token = await _next(serving, session, ids, request.options, rng, suppressed)
            is_end = token in rules.end_ids and not request.ignore_eos
            reason: FinishReason | None = (
                "stop" if is_end else "length" if count == most else None
            )
            yield Token(token, reason)
            if reason:
                return
            ids = np.array([token])


def _prompt_ids(prompt: str, hosted: Hosted) -> Ids:
    ids = opaque.ids(prompt, hosted.engine.info.vocabulary)
    if not len(ids):
        raise RequestError("the prompt has no words: give at least one")
    if len(ids) >= hosted.positions:
        raise TooLargeError(
            f"the prompt has {len(ids)} words and the model {hosted.positions} positions, "
            f"which leaves none for an answer: shorten the prompt"
        )
    return ids


async def _next(
    serving: Serving,
    session: Session[AnyHosted],
    ids: Ids,
    options: SamplingOptions,
    rng: np.random.Generator,
    suppressed: tuple[int, ...],
) -> int:
    is_argmax = options.is_greedy and not suppressed
    reply = Reply(ReplyKind.ID if is_argmax else ReplyKind.LOGITS)
    try:
        (array,) = await serving.advance(session, ids, reply)
    except NotFoundError as error:
        raise NotFoundError(
            "the cloud ended this completion: access was revoked, or nobody read it"
        ) from error
    if is_argmax:
        return int(array[0])
    logits = array[0]
    logits[list(suppressed)] = -np.inf
    if options.is_greedy:
        return next_token(logits, options, rng)
    return await asyncio.to_thread(next_token, logits, options, rng)
