"""What a command prints: nothing that steers a terminal, nothing beside its JSON document."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.common.console import Console, progress

Capture = pytest.CaptureFixture[str]


def test_people_get_text_and_no_document(capsys: Capture) -> None:
    console = Console(as_json=False)
    console.say("a line")
    console.write("streamed")
    console.report({"a": 1})
    assert capsys.readouterr() == ("a line\nstreamed", "")


def test_scripts_get_one_document_and_no_text(capsys: Capture) -> None:
    console = Console(as_json=True)
    console.say("a line")
    console.write("streamed")
    console.report({"text": "Zürich \x1b[2J\x9b1m\u202e", "n": None})
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    assert json.loads(out) == {"text": "Zürich \x1b[2J\x9b1m\u202e", "n": None}


@given(text=st.text(st.characters(codec=None)))
def test_any_text_makes_a_document_that_a_terminal_survives(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        patch.setattr(sys, "stdout", stream)
        Console(as_json=True).report({"text": text})
        stream.flush()
        written = stream.buffer.getvalue()  # type: ignore[attr-defined]
    assert json.loads(written) == {"text": text}
    assert all(32 <= byte < 127 for byte in written.rstrip(b"\n"))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("Hello, Zürich! 你好 🦊\n\tdone", "Hello, Zürich! 你好 🦊\n\tdone"),
        ("\x1b[31mred\x1b[0m", "[31mred[0m"),
        ("\x1b]0;title\x07", "]0;title"),
        ("\x9b2J", "2J"),
        ("over\rwritten", "overwritten"),
        ("back\b\b\x7f", "back"),
        ("\u202egnp.exe", "gnp.exe"),
        ("\x00\x0b\x0c\x85\u2028", ""),
    ],
)
def test_streamed_text_cannot_steer_a_terminal(given: str, shown: str, capsys: Capture) -> None:
    Console(as_json=False).write(given)
    assert capsys.readouterr().out == shown


@given(pieces=st.lists(st.text()))
def test_no_control_character_passes_in_pieces(pieces: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stream = io.StringIO()
        patch.setattr(sys, "stdout", stream)
        for piece in pieces:
            Console(as_json=False).write(piece)
    written = stream.getvalue()
    assert all(char.isprintable() or char in "\n\t" for char in written)
    kept = [c for c in "".join(pieces) if c.isprintable() or c in "\n\t"]
    assert list(written) == kept


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def work(*, in_bytes: bool = False) -> Iterator[float]:
    with progress("working", 3, in_bytes=in_bytes) as advance:
        for _ in range(3):
            advance()
            advance(0.5, note="half a step")
            yield 1


def test_progress_is_silent_off_a_terminal(capsys: Capture) -> None:
    assert sum(work()) == 3
    assert capsys.readouterr() == ("", "")


def test_progress_goes_to_a_terminals_stderr(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal: Any = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert sum(work()) == 3
    assert "half a step" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_progress_in_bytes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for in_bytes in (True, False):
        terminal: Any = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        assert sum(work(in_bytes=in_bytes)) == 3
        assert ("bytes" in terminal.getvalue()) == in_bytes
        assert "0:00" in terminal.getvalue()
