"""Text of a model of the interface `tokens`, from the triparty cloud or from any stock engine.

One request a generation: keyed ids go out as opaque words, words come back, and nothing else
is believed. The engine may be anything that has OpenAI's `POST /v1/completions`: it sees the
same words, and needs no part of triparty.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from triparty.common import opaque
from triparty.common.connection import Answer, Connection, printable
from triparty.common.deadline import Deadline
from triparty.common.errors import (
    CloudError,
    RequestError,
    RetiredError,
    RollbackError,
    SettingsError,
    SpentError,
    TripartyError,
    from_problem,
)
from triparty.common.events import events
from triparty.common.keying import Bundle
from triparty.device.inference.answer import Answer as GrowingAnswer
from triparty.device.inference.answer import FinishReason, Piece, Pieces
from triparty.device.inference.generation import Question
from triparty.device.inference.options import GenerationOptions
from triparty.device.inference.traffic import Traffic

PATH = "/v1/completions"
EVENT_LIMIT_BYTES = 1 << 20
MOST_KEYS = 3
_DONE = "[DONE]"


@dataclass(frozen=True)
class StockEngine:
    """An engine that serves the hosted folder without a triparty cloud in between.

    Attributes:
        url: base URL, with or without `/v1`; `http` only to this machine.
        model: what the engine calls the model; None leaves the choice to it.
        api_key: sent as a bearer token.
    """

    url: str
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)

    def connection(self, deadline: Deadline | None = None) -> Connection:
        """A connection to it.

        Args:
            deadline: by which every request has to be answered.

        Raises:
            SettingsError: a URL that must not be used.
        """
        base = self.url.rstrip("/").removesuffix("/v1")
        return Connection(base, token=self.api_key, deadline=deadline)


@dataclass(frozen=True)
class Part:
    """One event of an answer.

    Attributes:
        text: opaque words, perhaps cut in the middle of one.
        finish_reason: in the last event that has text or after it.
    """

    text: str
    finish_reason: FinishReason | None


@dataclass(frozen=True)
class Completions:
    """The completions of one model on one engine.

    Attributes:
        connection: the way to the engine.
        model: its name there; None leaves the choice to the engine.
        key: version and epoch of the bundle, which the answer must name; None for a stock
            engine, which knows neither.
        traffic: where requests and answers are counted.
        once: whether the bundle is for one completion.
        begin: called before anything is sent.
    """

    connection: Connection
    model: str | None
    key: tuple[int, int] | None = None
    traffic: Traffic = field(default_factory=Traffic)
    once: bool = False
    begin: Callable[[], None] = lambda: None

    def parts(
        self,
        words: str,
        *,
        max_tokens: int,
        options: GenerationOptions,
    ) -> Generator[Part]:
        """Sends a prompt of opaque words; yields the answer as it comes.

        Raises:
            SettingsError: an option that needs the logits.
            RollbackError: the cloud hosts another version than the bundle's.
            CloudError: an answer that makes no sense, or one that breaks off.
            TransportError: the engine was not reached.
            TripartyError: what it answered.
        """
        self._refuse(options)
        body: dict[str, Any] = {
            "prompt": words,
            "max_tokens": max_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "stream": True,
        }
        # Not every engine has these; one that lacks what is asked for refuses it.
        optional = {
            "model": self.model,
            "seed": options.seed,
            "top_k": options.top_k or None,
            "min_p": options.min_p or None,
            "repetition_penalty": _unless(options.repetition_penalty, 1),
            "ignore_eos": options.ignore_eos or None,
        }
        body |= {name: value for name, value in optional.items() if value is not None}
        self.traffic.requests += 1
        self.traffic.bytes_sent += len(json.dumps(body))
        headers = {"Triparty-Version": str(self.key[0])} if self.key and self.once else {}
        self.begin()
        with self.connection.stream(
            PATH, method="POST", body=body, headers=headers, accept=(200,)
        ) as (answer, chunks):
            self._check_key(answer)
            yield from _parts(self._counted(chunks))

    def _refuse(self, options: GenerationOptions) -> None:
        if options.logprobs is not None:
            raise SettingsError(
                "a model of the interface 'tokens' answers without logits: leave out logprobs, "
                "or ask a model of the interface 'embeddings'"
            )

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.traffic.bytes_received += len(chunk)
            yield chunk

    def _check_key(self, answer: Answer) -> None:
        if self.key is None:
            return
        names = ("Triparty-Version", "Triparty-Epoch")
        version, epoch = (printable(answer.headers.get(name, ""), limit=20) for name in names)
        if (version, epoch) != tuple(map(str, self.key)):
            raise RollbackError(
                f"the cloud hosts version {version or '?'}, epoch {epoch or '?'} of "
                f"'{self.model}', this device's bundle is of version {self.key[0]}, epoch "
                f"{self.key[1]}: run 'triparty device pull'"
            )


def _unless(value: float, neutral: float) -> float | None:
    return None if value == neutral else value


def text_pieces(
    question: Question,
    *,
    bundle: Bundle,
    tokenizer: Tokenizer,
    completions: Completions,
    options: GenerationOptions,
    renew: Callable[[], tuple[Completions, Bundle]] | None = None,
) -> Pieces:
    """Yields the answer to a question token by token, as `generation.pieces` does.

    Where the key epoch ends inside of the answer, the rest is asked for under the next key:
    of greedy answers the same tokens, of others further draws.

    An engine that leaves the end token out of its text (vLLM does) leaves it out here too.

    Args:
        question: what is answered.
        bundle: opened bundle of the model, interface `tokens`.
        tokenizer: of the bundle.
        completions: where the model is.
        options: how the engine chooses tokens, and where the answer ends.
        renew: the completions and the bundle of the next key; None: there is none.

    Raises:
        SettingsError: an option that this interface does not have.
        CloudError: words that are not the model's, or more than were asked for.
    """
    most, eos_ids = question.most, bundle.info.eos_ids
    answer = GrowingAnswer(tokenizer, question.ids, options=options, most=most, eos_ids=eos_ids)
    waiting: Piece | None = None  # its text may be the beginning of a stop
    said: FinishReason | None = None
    completions.traffic.rows += len(question.ids)
    with closing(_said(question, completions, bundle, options, renew)) as parts:
        for tokens, reason in parts:
            said = reason or said
            for token in tokens:
                if answer.count == most:
                    raise CloudError(f"the answer has more than the {most} words asked for")
                if waiting is not None:
                    yield waiting
                waiting = answer.add(token)
                if not answer.holds_text:
                    yield waiting
                    waiting = None
                if answer.is_stopped:
                    return "stop"
    if waiting is not None:
        yield replace(waiting, text=waiting.text + answer.rest())
    if not answer.count and said != "stop":
        raise CloudError("the answer has no words")
    return "stop" if "stop" in (said, answer.reason) else "length"


_Said = Generator[tuple[list[int], FinishReason | None]]


def _said(
    question: Question,
    completions: Completions,
    bundle: Bundle,
    options: GenerationOptions,
    renew: Callable[[], tuple[Completions, Bundle]] | None,
) -> _Said:
    """The plain ids of each part, under one key after another."""
    ids, renewed = list(question.ids), 0
    while True:
        words = opaque.words(bundle.keyed_ids(np.asarray(ids, np.int64)))
        left = question.most + len(question.ids) - len(ids)
        try:
            with closing(completions.parts(words, max_tokens=left, options=options)) as parts:
                for tokens, reason in _tokens(parts, bundle):
                    ids += tokens
                    left -= len(tokens)
                    yield tokens, reason
            return
        except (RetiredError, RollbackError, SpentError):
            renewed += 1
            if renew is None or renewed > MOST_KEYS or not left:
                raise
            completions, bundle = renew()


def _tokens(
    parts: Iterator[Part], bundle: Bundle
) -> Iterator[tuple[list[int], FinishReason | None]]:
    """The plain ids of each part; a word that is cut waits for its rest."""
    held = ""
    for part in parts:
        held += part.text
        whole = len(held) - len(held) % opaque.WORD_CHARACTERS
        yield _plain_ids(held[:whole], bundle), part.finish_reason
        held = held[whole:]
    if held:
        raise CloudError("the answer breaks off inside a word")


def _plain_ids(words: str, bundle: Bundle) -> list[int]:
    try:
        keyed = opaque.ids(words, bundle.info.vocabulary)
    except RequestError as error:
        raise CloudError(
            f"the answer is not made of this model's words ({error.message}): is it the model "
            "that the bundle belongs to?"
        ) from error
    return [int(n) for n in bundle.plain_ids(keyed)]


def _parts(chunks: Iterator[bytes]) -> Iterator[Part]:
    """The parts of an answer's events; it ends with a reason, or with `[DONE]`."""
    has_ended = False
    for data in events(chunks, limit_bytes=EVENT_LIMIT_BYTES):
        if data == _DONE:
            return
        part = _part(data)
        has_ended = has_ended or part.finish_reason is not None
        yield part
    if not has_ended:
        raise CloudError("the answer broke off before its end: ask again")


def _part(data: str) -> Part:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CloudError("an event of the answer is not JSON") from error
    if not isinstance(document, dict):
        raise CloudError("an event of the answer is not a JSON object")
    if document.get("error") is not None:
        raise _error(document["error"])
    choices = document.get("choices")
    if choices == []:  # the event with the usage
        return Part("", None)
    choice = choices[0] if isinstance(choices, list) else None
    if not isinstance(choice, dict) or not isinstance(choice.get("text"), str):
        raise CloudError("an event of the answer has no text")
    reason = choice.get("finish_reason")
    if reason not in (None, "stop", "length"):
        raise CloudError(
            f"the answer ended for the reason {printable(str(reason), limit=40)!r}"
        )
    return Part(choice["text"], reason)


def _error(said: object) -> TripartyError:
    """The typed error of an error event: a problem document, or what a stock engine says."""
    if isinstance(said, dict) and isinstance(said.get("type"), str) and "detail" in said:
        status = said.get("status")
        detail = printable(str(said["detail"]))
        return from_problem(
            status if type(status) is int else 500, {"type": said["type"], "detail": detail}
        )
    text = said.get("message") if isinstance(said, dict) else said
    return CloudError(f"the engine failed: {printable(str(text))}")
