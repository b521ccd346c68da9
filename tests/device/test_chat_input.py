"""Messages of several lines, and what is said of a turn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_cloud import small_bundle

from triparty.device.chat.input import Message
from triparty.device.chat.privacy import account
from triparty.device.inference.shields import Shields
from triparty.device.inference.traffic import Traffic


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        (["hello", "you"], ["hello", "you"]),
        (["one \\", "two\\", "three", "four"], ["one \ntwo\nthree", "four"]),
        (['"""', "a", "", "b\\", '"""', "c"], ["a\n\nb\\", "c"]),
        (['"""a', 'b"""', "c"], ["a\nb", "c"]),
        (['"""a"""', "b"], ["a", "b"]),
        (['  """', 'a "quoted" word', '"""  '], ['a "quoted" word']),
        (["", "a"], ["", "a"]),
        (['"""', '"""'], [""]),
        (['say """', "b"], ['say """', "b"]),
    ],
)
def test_lines_make_messages(lines: list[str], messages: list[str]) -> None:
    message = Message()
    said = [whole for line in lines if (whole := message.add(line)) is not None]
    assert said == messages
    assert not message.is_begun


def test_what_is_begun_can_be_dropped() -> None:
    message = Message()
    assert message.add('"""a') is None
    assert message.is_begun
    assert message.whole() == "a"
    assert message.add("b") == "b"


def test_privacy_names_what_was_sent_and_what_that_gives_away(tmp_path: Path) -> None:
    info = small_bundle(tmp_path).info
    traffic = Traffic(
        sessions=1, requests=3, rows=12, positions=12, bytes_sent=1234, bytes_received=99
    )
    told = "\n".join(account(traffic, info, Shields()))
    for words in (
        "12 keyed rows of 8 numbers",
        "up to position 11",
        "1,234 bytes",
        "not encryption",
        "always the same row",
        "embedding table",
        "public model",
        "somebody else",
    ):
        assert words in told
    noisy = Shields(noise=0.3, block=8, decoys=2, decoy_texts=tmp_path)
    told = "\n".join(account(traffic, info, noisy))
    for words in ("30%", "averages out", "blocks of 8", "2 other texts"):
        assert words in told
    tokens = replace(info, interface="tokens", replies=())
    told = "\n".join(account(traffic, tokens, Shields()))
    assert "12 keyed token numbers" in told
    assert "keyed table" in told
    assert list(account(Traffic(), info, Shields())) == ["Nothing was sent."]


def test_privacy_names_what_guesses_give_away(tmp_path: Path) -> None:
    info = small_bundle(tmp_path).info
    traffic = Traffic(sessions=1, requests=3, rows=12, positions=9)
    assert "guessed" not in "\n".join(account(traffic, info, Shields()))
    guessed = replace(traffic, guesses=7, wrong_guesses=3)
    told = "\n".join(account(guessed, info, Shields()))
    assert "which of 7 guessed tokens were right (3 were not, and are in no text)" in told
