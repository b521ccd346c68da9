"""Text on the cloud: keyed ids in, keyed ids out, one session from the first to the last.

The generation takes its steps through the same worker as everybody's session steps, so that
both share one continuous batch; between two steps it holds nothing but its session.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from triparty.cloud.serving.engine import Ids, Reply, ReplyKind
from triparty.cloud.serving.hosting import AnyHosted, Hosted, ServableModel
from triparty.cloud.serving.kinds import decoder_of
from triparty.cloud.serving.serving import Serving
from triparty.cloud.serving.sessions import Session
from triparty.cloud.serving.text import TextRules
from triparty.common import opaque
from triparty.common.errors import NotFoundError, RequestError, TooLargeError
from triparty.common.sampling import (
    Logits,
    SamplingOptions,
    less_of_the_said,
    log_probabilities,
    next_token,
)

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class GenerationRequest:
    """What to continue, and how.

    Attributes:
        prompt: opaque words.
        max_tokens: most ids to generate, at least 1; fewer where the model's positions end.
        options: how ids are chosen.
        ignore_eos: go on after an end id, for measurements.
        presence_penalty: subtracted from the logits of ids that were said.
        frequency_penalty: subtracted for each time that they were said.
        logprobs: how many of the likeliest ids are told beside the chosen one; None: none,
            and no log-probability at all.
    """

    prompt: str
    max_tokens: int
    options: SamplingOptions
    ignore_eos: bool = False
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: int | None = None

    @property
    def is_argmax(self) -> bool:
        """Whether each id is the likeliest one, and nothing else is told."""
        return (
            self.options.is_greedy
            and self.options.repetition_penalty == 1
            and self.presence_penalty == self.frequency_penalty == 0
            and self.logprobs is None
        )


@dataclass(frozen=True)
class Token:
    """One generated id.

    Attributes:
        id: keyed.
        finish_reason: why it is the last one; None for those before.
        logprob: the model's own log-probability of it, before any option changes it; None
            if it was not asked for.
        top: the likeliest ids with theirs, likeliest first.
    """

    id: int
    finish_reason: FinishReason | None
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


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
        question, said = [int(n) for n in ids], list[int]()
        for count in range(1, most + 1):
            suppressed = rules.suppressed_first if count == 1 else rules.suppressed
            choice = _Choice(request, rng, question, said, suppressed)
            token = await _next(serving, session, ids, choice)
            is_end = token.id in rules.end_ids and not request.ignore_eos
            reason: FinishReason | None = (
                "stop" if is_end else "length" if count == most else None
            )
            yield replace(token, finish_reason=reason)
            if reason:
                return
            said.append(token.id)
            ids = np.array([token.id])


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


@dataclass(frozen=True)
class _Choice:
    """How one id is chosen.

    Attributes:
        request: what was asked for.
        rng: of the answer's draws.
        question: ids of the prompt.
        said: ids of the answer so far.
        suppressed: ids that are not chosen.
    """

    request: GenerationRequest
    rng: np.random.Generator
    question: Sequence[int]
    said: Sequence[int]
    suppressed: tuple[int, ...]

    @property
    def is_argmax(self) -> bool:
        """Whether the cloud's own argmax is the choice."""
        return self.request.is_argmax and not self.suppressed

    def of(self, logits: Logits) -> Token:
        """The id chosen from logits (V,), with what was asked for about it."""
        request = self.request
        allowed = logits.copy()
        allowed[list(self.suppressed)] = -np.inf
        penalised = less_of_the_said(
            allowed,
            self.said,
            presence=request.presence_penalty,
            frequency=request.frequency_penalty,
        )
        seen = [*self.question, *self.said]
        token = next_token(penalised, request.options, self.rng, seen)
        if request.logprobs is None:
            return Token(token, None)
        logs = log_probabilities(logits)
        likeliest = np.argsort(-logs, kind="stable")[: request.logprobs]
        top = tuple((int(n), float(logs[n])) for n in likeliest)
        return Token(token, None, float(logs[token]), top)


async def _next(
    serving: Serving, session: Session[AnyHosted], ids: Ids, choice: _Choice
) -> Token:
    reply = Reply(ReplyKind.ID if choice.is_argmax else ReplyKind.LOGITS)
    try:
        (array,) = await serving.advance(session, ids, reply)
    except NotFoundError as error:
        raise NotFoundError(
            "the cloud ended this completion: access was revoked, or nobody read it"
        ) from error
    if choice.is_argmax:
        return Token(int(array[0]), None)
    if choice.request.options.is_greedy:
        return choice.of(array[0])
    return await asyncio.to_thread(choice.of, array[0])
