"""Server-sent events: the same data however the bytes are cut."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.common.errors import CloudError
from triparty.common.events import event, events

LIMIT = 1 << 16
lines = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1)


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    for size in sizes:
        yield data[:size]
        data = data[size:]
    yield data


@given(st.lists(lines, max_size=6), st.lists(st.integers(0, 9), max_size=30))
def test_events_survive_however_they_are_cut(data: list[str], sizes: list[int]) -> None:
    """`events([event(data)]) == [data]`."""
    sent = b"".join(event(each) for each in data)
    assert list(events(cut(sent, sizes), limit_bytes=LIMIT)) == data


@given(st.lists(st.integers(0, 3), max_size=60))
def test_all_line_ends_comments_and_fields_are_read(sizes: list[int]) -> None:
    sent = (
        b": hello\r\ndata: a\r\n\r\n\n\nevent: x\rdata:b\rdata:  c\rid: 3\r\r"
        b"retry: 5\n\ndata\n\ndata: d: e\n\ndata: never ended\n"
    )
    assert list(events(cut(sent, sizes), limit_bytes=LIMIT)) == ["a", "b\n c", "", "d: e"]


def test_an_event_is_given_when_it_is_complete() -> None:
    given_ = []

    def chunks() -> Iterator[bytes]:
        yield b"data: a\n\ndata: b"
        assert given_ == ["a"]
        yield b"\n\n"

    for data in events(chunks(), limit_bytes=LIMIT):
        given_.append(data)
    assert given_ == ["a", "b"]


@pytest.mark.parametrize(
    ("chunks", "named"),
    [
        ([b"data: "] + [b"x" * 10] * 20, "line"),
        ([b"x" * 101], "line"),
        ([b"data: " + b"x" * 60 + b"\n"] * 3, "event"),
        ([b"data: \xff\n\n"], "UTF-8"),
    ],
)
def test_what_has_no_end_is_refused(chunks: list[bytes], named: str) -> None:
    with pytest.raises(CloudError, match=named):
        list(events(chunks, limit_bytes=100))
