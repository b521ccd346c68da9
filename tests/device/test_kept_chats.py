"""Chats that are kept between requests: the answers of new sessions, for fewer rows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_cloud import SmallCloud
from small_device import URL, SmallDevice

from triparty.common.errors import CloudError, SettingsError
from triparty.device.client import Device
from triparty.device.endpoint.answering import Answering
from triparty.device.endpoint.app import create_app
from triparty.device.endpoint.chats import KeptChats, shared
from triparty.device.endpoint.guard import Admission
from triparty.device.inference.answer import Piece
from triparty.device.inference.generation import Generation
from triparty.device.inference.kept import Kept

Messages = list[dict[str, str]]


class Words:
    """A chat template that puts the words of all messages one after the other."""

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        return " ".join(str(one["content"]) for one in messages)


class Client:
    """What asks an endpoint over a small cloud, and how many rows went out for it."""

    def __init__(self, folder: Path, answering: Answering) -> None:
        folder.mkdir(exist_ok=True)
        self.device = SmallDevice(folder)
        self.device.opened = replace(self.device.opened, template=cast(Any, Words()))
        self.app = create_app(cast(Device, self.device), Admission(), answering)
        self.rows = 0
        step = self.device.cloud.step

        def counted(session: str, rows: Any, **given: Any) -> Any:
            self.rows += len(rows.array)
            return step(session, rows, **given)

        self.device.cloud.step = counted  # type: ignore[method-assign]

    @property
    def cloud(self) -> SmallCloud:
        return self.device.cloud

    def say(self, messages: Messages, *, key: str = "a", **given: Any) -> httpx.Response:
        body = {"model": "known", "messages": messages, "max_tokens": 4, "temperature": 0}

        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
                headers = {"Authorization": f"Bearer {key}"}
                return await client.post(
                    "/v1/chat/completions", json=body | given, headers=headers
                )

        return asyncio.run(asked())

    def text(self, messages: Messages, **given: Any) -> str:
        answer = self.say(messages, **given)
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["choices"][0]["message"]["content"]
        return text


def said(*words: str) -> Messages:
    roles = ("user", "assistant")
    return [{"role": roles[at % 2], "content": text} for at, text in enumerate(words)]


CHATS = st.lists(
    st.tuples(
        st.integers(0, 2),  # which chat goes on, or begins
        st.lists(st.integers(3, 20).map("w{}".format), min_size=1, max_size=4).map(" ".join),
        st.sampled_from("ab"),
    ),
    min_size=2,
    max_size=8,
)


@settings(max_examples=25)
@given(turns=CHATS, most=st.integers(1, 2), lost=st.integers(1, 30))
def test_answers_are_those_without(
    tmp_path_factory: pytest.TempPathFactory,
    turns: list[tuple[int, str, str]],
    most: int,
    lost: int,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "chats"
    keeping, plain = (Client(folder, Answering(kept_chats=count)) for count in (most, 0))
    keeping.cloud.lose_before = {lost}
    chats: dict[int, Messages] = {}
    for number, words, key in turns:
        messages = [*chats.get(number, []), {"role": "user", "content": words}][-5:]
        told = [client.text(messages, key=key) for client in (keeping, plain)]
        assert told[0] == told[1]
        assert len(keeping.cloud.sessions) <= most
        assert not plain.cloud.sessions
        chats[number] = [*messages, {"role": "assistant", "content": told[0]}]
    keeping.app.state.endpoint.close()
    assert not keeping.cloud.sessions


def test_a_chat_that_goes_on_sends_what_is_new_alone(tmp_path: Path) -> None:
    client = Client(tmp_path, Answering())
    first = client.text(said("w3 w4 w5 w6 w7 w8"))
    before = client.rows
    client.text(said("w3 w4 w5 w6 w7 w8", first, "w9"))
    # The answer's last token, which no step had sent yet, the new word, and three of four.
    assert client.rows - before == 1 + 1 + 3
    assert client.cloud.opened == 1
    plain = Client(tmp_path, Answering(kept_chats=0))
    plain.text(said("w3 w4 w5 w6 w7 w8", first, "w9"))
    assert plain.rows == 6 + 4 + 1 + 3


def test_another_client_gets_a_session_of_its_own(tmp_path: Path) -> None:
    client = Client(tmp_path, Answering())
    for key in "ab":
        client.text(said("w3 w4 w5"), key=key)
    assert client.cloud.opened == 2
    client.text(said("w3 w4 w5 w6"), key="a")
    assert client.cloud.opened == 2


def test_another_chat_with_the_same_beginning_ends_none(tmp_path: Path) -> None:
    client = Client(tmp_path, Answering())
    one, other = said("w3 w4 w5 w6 w7 w8 w9"), said("w3 w11 w12")
    client.text(one)
    client.text(other)
    assert (client.cloud.opened, len(client.cloud.sessions)) == (2, 2)
    rows = client.rows
    client.text([*one, {"role": "user", "content": "w13"}])
    assert client.rows - rows < 7
    assert client.cloud.opened == 2


def test_an_answer_that_failed_leaves_no_session(tmp_path: Path) -> None:
    client = Client(tmp_path, Answering())
    client.device.error, client.device.error_after = CloudError("no"), 2
    assert client.say(said("w3 w4")).status_code == 502
    assert client.cloud.opened == 1
    assert not client.cloud.sessions
    client.device.error = None
    assert client.text(said("w3 w4"))


def test_several_answers_and_other_prompts_keep_none(tmp_path: Path) -> None:
    client = Client(tmp_path, Answering())
    assert client.say(said("w3 w4"), n=2).status_code == 200
    assert not client.cloud.sessions


def test_a_chat_in_use_is_nobody_elses(tmp_path: Path) -> None:
    ended: list[Kept] = []
    chats = KeptChats(2, end=lambda _, kept: ended.append(kept))
    used: list[Kept] = []

    def parts(kept: Kept | None) -> Any:
        assert kept is not None
        kept.session, kept.sent = cast(Any, object()), [1, 2, 3]
        used.append(kept)
        yield Piece(4, "")
        yield Generation("", (), "stop", 0.0, 3)

    list(chats.answered("c", "m", [1, 2, 3], parts))
    running = chats.answered("c", "m", [1, 2, 3, 4], parts)
    next(running)
    list(chats.answered("c", "m", [1, 2, 3, 4], parts))
    running.close()
    first, again, other = used
    assert first is again is not other
    list(chats.answered("c", "elsewhere", [1, 2, 3], parts))
    assert ended == [other], "the one that was used longest ago"


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_what_two_texts_share(one: list[int], other: list[int]) -> None:
    count = shared(one, other)
    assert one[:count] == other[:count]
    assert one[: count + 1] != other[: count + 1] or count == min(len(one), len(other))


@pytest.mark.parametrize("wrong", [{"kept_chats": -1}, {"speculate": 99}, {"deadline_s": 0.0}])
def test_what_no_answer_could_have_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        Answering(**wrong)
