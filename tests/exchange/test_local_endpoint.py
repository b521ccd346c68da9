"""Unmodified clients of OpenAI's API, answered through a cloud over HTTPS."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from local_endpoint import serving_locally
from openai import (
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OpenAI,
    PermissionDeniedError,
)
from three_parties import Parties

from triparty.device import Device

PROMPT = "Once upon a time, Zyxwolf met a quizzical brontosaurus"
TOKENS = 40
TEMPLATE = (
    "{% for m in messages %}{{ bos_token if loop.first }}{{ m.role }}: {{ m.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
MESSAGES: list[Any] = [
    {"role": "system", "content": "Tell stories"},
    {"role": "user", "content": [{"type": "text", "text": "Once upon"}]},
    {"role": "assistant", "content": " a time"},
    {"role": "user", "content": "Go on"},
]
PLAIN_MESSAGES = [
    {"role": one["role"], "content": "Once upon" if at == 1 else one["content"]}
    for at, one in enumerate(MESSAGES)
]


@dataclass(frozen=True)
class Local:
    """An endpoint of a device, OpenAI's own client of it, and the device itself."""

    url: str
    client: OpenAI
    device: Device


@pytest.fixture(scope="module")
def home(
    parties: Parties, stories_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A device with a model that knows conversations, beside those that do not."""
    source = tmp_path_factory.mktemp("talk") / "source"
    source.mkdir()
    for file in stories_model.iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    (source / "chat_template.jinja").write_text(TEMPLATE)
    parties.publish(parties.protect(source, "talk"), "talk")
    parties.enroll_device("desk")
    parties.grant("desk")
    parties.pull("desk")
    return parties.device("desk")


@pytest.fixture(scope="module")
def local(home: Path) -> Iterator[Local]:
    with (
        serving_locally(home) as url,
        OpenAI(base_url=url, api_key="unused", max_retries=0) as client,
    ):
        yield Local(url, client, Device(home))


def test_models_are_listed(local: Local) -> None:
    names = [model.id for model in local.client.models.list()]
    assert {"talk", "stories"} <= set(names)
    assert local.client.models.retrieve("talk").object == "model"
    with pytest.raises(NotFoundError, match="absent"):
        local.client.models.retrieve("absent")


def test_a_chat_is_the_devices_answer(local: Local) -> None:
    expected = local.device.generate("talk", PLAIN_MESSAGES, max_tokens=TOKENS)
    wanted: dict[str, Any] = {
        "model": "talk",
        "messages": MESSAGES,
        "max_tokens": TOKENS,
        "temperature": 0,
    }
    whole = local.client.chat.completions.create(**wanted)
    (choice,) = whole.choices
    assert choice.message.content == expected.text
    assert len(expected.text) > 20
    assert (choice.message.role, choice.finish_reason) == ("assistant", "length")
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == expected.prompt_tokens
    assert whole.usage.completion_tokens == len(expected.token_ids) == TOKENS
    assert whole.usage.total_tokens == expected.prompt_tokens + TOKENS

    stream = local.client.chat.completions.create(
        **wanted, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = list(stream)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == expected.text
    assert len([delta for delta in deltas if delta.content]) > TOKENS // 2, "piece by piece"
    assert [c.choices[0].finish_reason for c in chunks][-1] == "length"
    assert last.usage == whole.usage
    assert last.choices == []


def test_a_chat_that_goes_on_is_answered_as_from_its_beginning(
    home: Path, local: Local
) -> None:
    """By an endpoint that guesses and keeps sessions, and by one that does neither."""
    messages: list[Any] = [{"role": "user", "content": "Lily had a red ball"}]
    with (
        serving_locally(home, "--speculate", "4", "--keep-chats", "1") as url,
        OpenAI(base_url=url, api_key="unused", max_retries=0) as client,
    ):
        for text in ("She went to", "Then"):
            said = client.chat.completions.create(
                model="talk", messages=messages, max_tokens=TOKENS, temperature=0
            )
            expected = local.device.generate("talk", messages, max_tokens=TOKENS)
            answer = said.choices[0].message.content
            assert answer == expected.text
            messages += [
                {"role": "assistant", "content": answer},
                {"role": "user", "content": text},
            ]


def test_a_chat_without_a_limit_goes_to_the_models_end(local: Local) -> None:
    whole = local.client.chat.completions.create(
        model="talk", messages=MESSAGES, temperature=0, extra_body={"ignore_eos": True}
    )
    assert whole.usage is not None
    assert whole.usage.total_tokens == 512


def test_completions_are_the_devices_answers(local: Local) -> None:
    prompts: list[str] = [PROMPT, "Lily", "The sun"]
    expected = local.device.generate_batch("stories", prompts, max_tokens=20)
    whole = local.client.completions.create(
        model="stories", prompt=prompts, max_tokens=20, temperature=0
    )
    assert [choice.text for choice in whole.choices] == [one.text for one in expected]
    ids = local.device.open("stories").tokenizer.encode(PROMPT).ids
    parts = local.client.completions.create(
        model="stories", prompt=ids, max_tokens=20, temperature=0, stream=True
    )
    assert "".join(part.choices[0].text for part in parts) == expected[0].text


def test_drawing_is_the_devices(local: Local) -> None:
    wanted: dict[str, Any] = {"max_tokens": 20, "temperature": 0.9, "top_p": 0.8, "seed": 7}
    further = {"top_k": 20, "min_p": 0.05, "repetition_penalty": 1.2}
    expected = local.device.generate("stories", PROMPT, **wanted, **further)
    whole = local.client.completions.create(
        model="stories", prompt=PROMPT, n=2, extra_body=further, **wanted
    )
    assert whole.choices[0].text == expected.text != whole.choices[1].text
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == expected.prompt_tokens


@pytest.mark.parametrize("streamed", [False, True])
def test_stops_and_log_probabilities(local: Local, streamed: bool) -> None:
    plain = local.device.generate("talk", PLAIN_MESSAGES, max_tokens=TOKENS, logprobs=2)
    stop = plain.text[20:26]
    text = plain.text[: plain.text.index(stop)]
    answer: Any = local.client.chat.completions.create(
        model="talk",
        messages=MESSAGES,
        max_tokens=TOKENS,
        temperature=0,
        stop=stop,
        logprobs=True,
        top_logprobs=2,
        stream=streamed,
    )
    if streamed:
        chunks = [chunk.choices[0] for chunk in answer]
        said = "".join(chunk.delta.content or "" for chunk in chunks)
        told = [one for c in chunks if c.logprobs for one in c.logprobs.content]
        reason = chunks[-1].finish_reason
    else:
        said = answer.choices[0].message.content
        told = answer.choices[0].logprobs.content
        reason = answer.choices[0].finish_reason
    assert (said, reason) == (text, "stop")
    assert [one.logprob for one in told] == pytest.approx(plain.logprobs[: len(told)], abs=1e-4)
    assert "".join(one.token for one in told).startswith(text)
    assert all(len(one.top_logprobs) == 2 for one in told)


def test_what_is_wrong_is_told_in_the_apis_own_errors(local: Local) -> None:
    chat = local.client.chat.completions.create
    wanted: dict[str, Any] = {"model": "talk", "messages": MESSAGES}
    with pytest.raises(NotFoundError) as absent:
        chat(**wanted | {"model": "absent"})
    assert (absent.value.code, absent.value.param) == ("model_not_found", "model")
    tools: list[Any] = [{"type": "function", "function": {"name": "f"}}]
    for change, named in (
        ({"messages": []}, "messages"),
        ({"temperature": -1}, "temperature"),
        ({"presence_penalty": 1.0}, "presence_penalty"),
        ({"tools": tools}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"extra_body": {"typical_p": 0.5}}, "typical_p"),
    ):
        with pytest.raises(BadRequestError, match=named) as refused:
            chat(**wanted | change)
        assert refused.value.type == "invalid_request_error"
    with pytest.raises(BadRequestError, match="no chat template"):
        chat(**wanted | {"model": "stories"})
    with pytest.raises(BadRequestError, match="512 positions"):
        local.client.completions.create(model="stories", prompt="a " * 600)


def curl(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["curl", "--silent", "--show-error", "--no-buffer", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def test_plain_curl_is_answered(local: Local) -> None:
    body = {"model": "talk", "messages": MESSAGES, "max_tokens": 12, "temperature": 0}
    json_type = ("-H", "Content-Type: application/json")
    url = f"{local.url}/chat/completions"
    whole = json.loads(curl(*json_type, "-d", json.dumps(body), url).stdout)
    text = whole["choices"][0]["message"]["content"]
    assert text == local.device.generate("talk", PLAIN_MESSAGES, max_tokens=12).text
    told = curl("-i", *json_type, "-d", json.dumps(body | {"stream": True}), url).stdout
    head, _, events = told.partition("\n\n")
    assert "content-type: text/event-stream" in head.lower()
    *data, done = [line.removeprefix("data: ") for line in events.splitlines() if line]
    assert done == "[DONE]"
    deltas = [json.loads(one)["choices"][0]["delta"] for one in data]
    assert "".join(delta.get("content", "") for delta in deltas) == text
    plain = curl("-w", "%{http_code}", "-d", json.dumps(body), url).stdout  # a form
    assert plain.endswith("415")


def test_a_key_is_asked_for_where_one_is_set(home: Path) -> None:
    with serving_locally(home, TRIPARTY_DEVICE_API_KEY="sesame") as url:
        with (
            OpenAI(base_url=url, api_key="wrong", max_retries=0) as stranger,
            pytest.raises(AuthenticationError, match="API key"),
        ):
            stranger.models.list()
        with OpenAI(base_url=url, api_key="sesame", max_retries=0) as friend:
            assert friend.models.list().data
            rebound = friend.with_options(default_headers={"Host": "evil.example"})
            with pytest.raises(PermissionDeniedError, match=r"evil\.example"):
                rebound.models.list()


def test_another_version_on_the_cloud_is_pulled_by_itself(
    local: Local, parties: Parties, stories_model: Path
) -> None:
    held = parties.device("desk") / "held" / "talk.json"
    before = json.loads(held.read_text())["version"]
    parties.publish(parties.folder / "protected" / "talk", "talk")
    # Another chat: one that goes on does so on the session that was kept.
    messages: list[Any] = [{"role": "user", "content": "The sun"}]
    answer = local.client.chat.completions.create(model="talk", messages=messages, max_tokens=2)
    assert answer.choices[0].message.content
    assert json.loads(held.read_text())["version"] > before
