"""Server-sent events: how an answer arrives piece by piece over HTTP.

The form is that of the HTML standard, section 9.2 (`text/event-stream`); of its fields only
`data` is used here, and the others are passed over.

Law: `events([event(data)]) == [data]` for text without line breaks, however the bytes are cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from triparty.common.errors import CloudError

MEDIA_TYPE = "text/event-stream"


def event(data: str) -> bytes:
    """One event with one line of data."""
    return f"data: {data}\n\n".encode()


def events(chunks: Iterable[bytes], *, limit_bytes: int) -> Iterator[str]:
    """The data of each event of a stream, as soon as the event is complete.

    Args:
        chunks: the stream's bytes, cut anywhere.
        limit_bytes: longest line, and longest data of one event.

    Raises:
        CloudError: a line or an event is longer, or is not UTF-8.
    """
    data: list[str] = []
    for line in _lines(chunks, limit_bytes=limit_bytes):
        if not line and data:
            yield "\n".join(data)
            data = []
        name, _, value = line.partition(":")
        if name == "data":
            data.append(value.removeprefix(" "))
            if sum(map(len, data)) > limit_bytes:
                raise CloudError(f"an event of the answer is longer than {limit_bytes} bytes")


def _lines(chunks: Iterable[bytes], *, limit_bytes: int) -> Iterator[str]:
    """Complete lines, without their ends: LF, CR LF or CR."""
    held = b""
    for chunk in chunks:
        held += chunk
        *complete, held = _split(held)
        if max(map(len, [*complete, held])) > limit_bytes:
            raise CloudError(f"a line of the answer is longer than {limit_bytes} bytes")
        for line in complete:
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                raise CloudError("the answer's events are not UTF-8") from error


def _split(data: bytes) -> list[bytes]:
    """Splits at line ends; a CR at the end waits for what follows it."""
    waits = data.endswith(b"\r")
    whole = data[:-1] if waits else data
    lines = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    if waits:
        lines[-1] += b"\r"
    return lines
