"""Bodies of forms: read once, bounded, and handed on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Message, Receive

from triparty.common.errors import RequestError, TooLargeError

MOST_BYTES: Final = 64 << 10
MOST_FIELDS: Final = 2000
FORM: Final = "application/x-www-form-urlencoded"
Form = Mapping[str, list[str]]


async def read_body(receive: Receive) -> bytes:
    """The whole body of a request.

    Raises:
        TooLargeError: more than pages send.
    """
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MOST_BYTES:
            raise TooLargeError(f"the body is larger than {MOST_BYTES} bytes")
    return bytes(body)


def replayed(body: bytes, receive: Receive) -> Receive:
    """What hands on a body that was read, and then goes on with `receive`."""
    was_given = False

    async def again() -> Message:
        nonlocal was_given
        if was_given:
            return await receive()
        was_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def parse(body: bytes) -> Form:
    """The fields of a form, each with all its values.

    Raises:
        RequestError: no form, or one of too many fields.
    """
    try:
        return parse_qs(
            body.decode("utf-8"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MOST_FIELDS,
        )
    except ValueError as error:
        raise RequestError("the form cannot be read") from error


def is_form(headers: Headers) -> bool:
    """Whether a body is that of a form."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() == FORM


async def form_of(request: Request) -> Form:
    """The form of a request that passed the guard.

    Raises:
        RequestError: it is no form.
    """
    if not is_form(request.headers):
        raise RequestError(f"expected Content-Type {FORM}")
    return parse(await request.body())


def field(form: Form, name: str) -> str:
    """The first value of a field; empty if it is not there."""
    return form.get(name, [""])[0]
