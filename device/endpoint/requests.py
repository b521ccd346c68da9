"""What may be asked, in the form of OpenAI's API.

What changes an answer is done or refused by name, never ignored; only what cannot change one
(labels and the like) is passed over. `top_k`, `min_p`, `repetition_penalty` and `ignore_eos`
are vLLM's extensions.
"""

from __future__ import annotations

import re
from base64 import b64decode
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from triparty.device.endpoint.failures import Failure
from triparty.device.inference.opened import Prompt
from triparty.device.inference.options import MAX_LOGPROBS, MAX_STOPS, GenerationOptions

DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's
MAX_SEED = 2**63 - 1
MAX_CHOICES = 16
MAX_PROMPTS = 256
MAX_TEXTS = 2048
MAX_MESSAGES = 10_000

_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)

NoPenalty = Annotated[float, Field(ge=0, le=0)] | None
Empty = Annotated[list[Any], Field(max_length=0)] | None
EmptyObject = Annotated[dict[str, Any], Field(max_length=0)] | None
Ids = Annotated[list[Annotated[int, Field(ge=0, strict=True)]], Field(min_length=1)]
_Body = TypeVar("_Body", bound=BaseModel)


@dataclass(frozen=True)
class Ask:
    """One answer that is wanted.

    Attributes:
        prompt: text, token ids or messages.
        options: how it is answered.
        image: bytes of the file that a message shows; None without one.
        is_chat: whether it is a chat told from its beginning, which goes on later.
    """

    prompt: Prompt
    options: GenerationOptions
    image: bytes | None = None
    is_chat: bool = False


class StreamOptions(BaseModel):
    """`stream_options`."""

    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False
    include_obfuscation: bool = False


class _Wanted(BaseModel):
    """What both forms have: what is done, what has only its neutral value, what is a label."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(max_length=200)
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False

    frequency_penalty: NoPenalty = None
    presence_penalty: NoPenalty = None
    logit_bias: EmptyObject = None

    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None

    @property
    def has_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def options(self, *, max_tokens: int | None, logprobs: int | None) -> GenerationOptions:
        """The options; what is left out is OpenAI's default."""
        return GenerationOptions(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=max(self.top_k or 0, 0),  # vLLM's -1 is all
            top_p=1.0 if self.top_p is None else self.top_p,
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            seed=self.seed,
            stop=self.stop or (),
            max_tokens=max_tokens,
            logprobs=logprobs,
            ignore_eos=self.ignore_eos,
        )

    def choices_of(self, prompts: list[Prompt], options: GenerationOptions) -> list[Ask]:
        """`n` answers to each prompt; those to one prompt have seeds of their own."""
        return [
            Ask(
                prompt,
                options if options.seed is None else replace(options, seed=options.seed + i),
            )
            for prompt in prompts
            for i in range(self.n or 1)
        ]


class TextPart(BaseModel):
    """A part of a message's content."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class ImageUrl(BaseModel):
    """Where an image is: in the request itself, and nowhere else."""

    model_config = ConfigDict(extra="forbid")
    url: str
    detail: Literal["auto"] | None = None

    def content(self) -> bytes:
        """The file.

        Raises:
            Failure: it would have to be fetched, which tells others what is asked, or it is
                not base64.
        """
        if not _DATA_URL.match(self.url):
            raise Failure(
                400,
                "an image is given as data:image/...;base64,...: this endpoint fetches nothing",
                param="messages",
            )
        try:
            return b64decode(self.url.partition(",")[2], validate=True)
        except ValueError:
            raise Failure(400, "the image is not base64", param="messages") from None


class ImagePart(BaseModel):
    """An image in a message's content."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["image_url"]
    image_url: ImageUrl


Part = TextPart | ImagePart


class ChatMessage(BaseModel):
    """A message; what an answer of OpenAI's library has in addition may stay in it, empty."""

    model_config = ConfigDict(extra="forbid")

    role: Annotated[str, Field(min_length=1, max_length=64)]
    content: str | list[Annotated[Part, Field(discriminator="type")]] | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_call_id: None = None
    tool_calls: Empty = None
    function_call: None = None
    audio: None = None
    annotations: Empty = None

    @property
    def images(self) -> list[ImageUrl]:
        """The images that it shows."""
        parts = self.content if isinstance(self.content, list) else []
        return [part.image_url for part in parts if isinstance(part, ImagePart)]

    def plain(self) -> dict[str, Any]:
        """The message as chat templates read it; in parts where it shows an image."""
        said = self.content if self.content is not None else self.refusal or ""
        text: Any = said if isinstance(said, str) else _told(said)
        # The newer name of the same role, which no template knows.
        role = "system" if self.role == "developer" else self.role
        more = {"name": self.name, "reasoning_content": self.reasoning_content}
        given = {name: value for name, value in more.items() if value is not None}
        return {"role": role, "content": text, **given}


def _told(parts: list[Part]) -> str | list[dict[str, str]]:
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    if len(texts) == len(parts):
        return "".join(texts)
    return [
        {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image"}
        for part in parts
    ]


class PlainText(BaseModel):
    """The one `response_format` there is."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]


class ChatRequest(_Wanted):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None

    tools: Empty = None
    tool_choice: Literal["none", "auto"] | None = None
    functions: Empty = None
    parallel_tool_calls: Any = None
    response_format: PlainText | None = None
    modalities: list[Literal["text"]] | None = None

    def asks(self) -> list[Ask]:
        """The answers that are wanted."""
        options = self.options(
            max_tokens=self.max_completion_tokens or self.max_tokens,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )
        images = [image for message in self.messages for image in message.images]
        if len(images) > 1:
            raise Failure(400, f"a chat shows one image, got {len(images)}", param="messages")
        image = images[0].content() if images else None
        prompt = [message.plain() for message in self.messages]
        asks = self.choices_of([prompt], options)
        # Answers to one prompt are made at once, and a session is in one of them.
        return [replace(ask, image=image, is_chat=len(asks) == 1) for ask in asks]


class CompletionRequest(_Wanted):
    """`POST /v1/completions`."""

    prompt: str | Ids | Annotated[list[str | Ids], Field(min_length=1, max_length=MAX_PROMPTS)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None

    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    suffix: None = None

    def asks(self) -> list[Ask]:
        """The answers that are wanted."""
        options = self.options(
            max_tokens=self.max_tokens or DEFAULT_COMPLETION_TOKENS, logprobs=self.logprobs
        )
        if isinstance(self.prompt, str):
            return self.choices_of([self.prompt], options)
        ids = [one for one in self.prompt if isinstance(one, int)]
        if ids:
            return self.choices_of([ids], options)
        return self.choices_of(
            [one for one in self.prompt if not isinstance(one, int)], options
        )


class EmbeddingRequest(BaseModel):
    """`POST /v1/embeddings`."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(max_length=200)
    input: str | Annotated[list[str], Field(min_length=1, max_length=MAX_TEXTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: Any = None

    @property
    def texts(self) -> list[str]:
        """The texts."""
        return [self.input] if isinstance(self.input, str) else self.input


def read(body: bytes, form: type[_Body]) -> _Body:
    """A request's body as a form.

    Raises:
        Failure: it is not JSON, or has members that are unknown, wrong or not supported.
    """
    try:
        return form.model_validate_json(body)
    except ValidationError as wrong:
        first = wrong.errors(include_url=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        if first["type"] == "json_invalid":
            raise Failure(400, f"the body is not JSON: {first['msg']}") from None
        what = f"'{param}': {first['msg']}" if param else first["msg"]
        known = first["loc"][0] in form.model_fields if first["loc"] else True
        hint = "" if known else "; this endpoint does not have it"
        raise Failure(400, f"{what}{hint}", param=param) from None
    except RecursionError:
        raise Failure(400, "the body is nested too deeply") from None
