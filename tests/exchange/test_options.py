"""What an answer can be asked to be, on a trained model: stock generation says what is right.

Both interfaces from one cloud: `rows` (embeddings, the device draws) and `words` (tokens, the
cloud draws).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from live_cloud import Developer, LiveCloud, running_cloud
from local_endpoint import serving_locally

from triparty.common.errors import (
    DeadlineError,
    RequestError,
    SettingsError,
    StateError,
    UnreachableError,
)
from triparty.developer.protect import Choices, protect
from triparty.device import AsyncDevice, Device, Generation, GenerationOptions
from triparty.device.inference.answer import Piece

PROMPT = "Once upon a time, Zyxwolf met a quizzical brontosaurus"
TOKENS = 40
TEMPLATE = (
    "{% for m in messages %}{{ bos_token if loop.first }}{{ m.role }}: {{ m.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
INTERFACES = ("rows", "words")


@dataclass(frozen=True)
class Stage:
    """A cloud with one trained model behind both interfaces, and a device that has both."""

    cloud: LiveCloud
    device: Device
    source: Path


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, stories_model: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("options")
    source = folder / "source"
    source.mkdir()
    for file in stories_model.iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    (source / "chat_template.jinja").write_text(TEMPLATE)
    with running_cloud(folder / "cloud") as cloud:
        developer = Developer.new(cloud, folder / "acme")
        developer.enroll()
        device, _ = developer.device("phone")
        for name, interface in zip(INTERFACES, ("embeddings", "tokens"), strict=True):
            protect(str(source), folder / name, choices=Choices.of(interface=interface))
            developer.publish(folder / name, name)
            developer.grant("phone", name)
        device.pull()
        for name in INTERFACES:  # the cloud loads a model when it is first asked
            device.generate(name, PROMPT, max_tokens=1)
        yield Stage(cloud, device, source)


@pytest.fixture(scope="module")
def stock(stage: Stage) -> Any:
    """Greedy generation by `transformers`: ids, and the logits of each step."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stage.source)
    model = AutoModelForCausalLM.from_pretrained(stage.source)

    def generate(given: Any, **options: Any) -> tuple[list[int], np.ndarray]:
        if isinstance(given, list):
            given = tokenizer.apply_chat_template(
                given, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        else:
            given = tokenizer(given, return_tensors="pt")
        with torch.inference_mode():
            whole = model.generate(
                **given,
                do_sample=False,
                max_new_tokens=TOKENS,
                return_dict_in_generate=True,
                output_logits=True,
                **options,
            )
        ids = whole.sequences[0, given["input_ids"].shape[1] :].tolist()
        return ids, torch.stack(whole.logits)[:, 0].numpy()

    return generate


def test_a_repetition_penalty_is_that_of_transformers(stage: Stage, stock: Any) -> None:
    plain, _ = stock(PROMPT)
    ids, _ = stock(PROMPT, repetition_penalty=1.3)
    answer = stage.device.generate("rows", PROMPT, max_tokens=TOKENS, repetition_penalty=1.3)
    assert list(answer.token_ids) == ids != plain


def test_log_probabilities_are_the_models_own(stage: Stage, stock: Any) -> None:
    ids, logits = stock(PROMPT)
    *pieces, whole = stage.device.stream("rows", PROMPT, max_tokens=TOKENS, logprobs=3)
    assert isinstance(whole, Generation)
    assert list(whole.token_ids) == ids
    wide = logits.astype(np.float64)
    logs = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    np.testing.assert_allclose(whole.logprobs, logs[range(len(ids)), ids], atol=1e-4)
    for piece, row in zip(pieces, logs, strict=True):
        assert isinstance(piece, Piece)
        expected = np.argsort(-row)[:3].tolist()
        assert [one.token_id for one in piece.top] == expected
        np.testing.assert_allclose([one.logprob for one in piece.top], row[expected], atol=1e-4)
        assert piece.top[0].logprob == piece.logprob  # greedy


@pytest.mark.parametrize("model", INTERFACES)
def test_an_answer_ends_before_its_stop(stage: Stage, model: str) -> None:
    plain = stage.device.generate(model, PROMPT, max_tokens=TOKENS)
    stop = plain.text[25:33]  # over token borders
    at = plain.text.index(stop)
    *pieces, whole = stage.device.stream(model, PROMPT, max_tokens=TOKENS, stop=[stop, "\0"])
    assert isinstance(whole, Generation)
    assert whole.text == plain.text[:at]
    assert whole.finish_reason == "stop"
    assert len(whole.token_ids) < len(plain.token_ids)
    assert whole.token_ids == plain.token_ids[: len(whole.token_ids)]
    assert "".join(getattr(piece, "text", "") for piece in pieces) == whole.text
    free_of_sessions(stage)


@pytest.fixture(scope="module")
def endpoint(stage: Stage) -> Iterator[str]:
    with serving_locally(stage.device._home.folder) as url:
        yield url


def free_of_sessions(stage: Stage) -> None:
    serving = stage.cloud.app.state.serving
    while serving.session_count():  # bounded by the test's own limit
        time.sleep(0.01)


@pytest.mark.parametrize("model", INTERFACES)
def test_a_conversation_goes_through_the_models_template(
    stage: Stage, stock: Any, model: str
) -> None:
    messages = [
        {"role": "user", "content": "Tell a story"},
        {"role": "assistant", "content": "Once upon a time"},
        {"role": "user", "content": "Go on"},
    ]
    ids, _ = stock(messages)
    answer = stage.device.generate(model, messages, max_tokens=TOKENS)
    assert list(answer.token_ids) == ids


@pytest.mark.parametrize("model", INTERFACES)
def test_a_prompt_may_be_token_ids(stage: Stage, model: str) -> None:
    opened = stage.device.open(model)
    ids = opened.tokenizer.encode(PROMPT).ids
    answer = stage.device.generate(model, ids, max_tokens=9)
    assert answer.token_ids == stage.device.generate(model, PROMPT, max_tokens=9).token_ids
    assert answer.prompt_tokens == len(ids)
    with pytest.raises(RequestError, match="token ids from 0 to 511"):
        stage.device.generate(model, [512])


@pytest.mark.parametrize("model", INTERFACES)
def test_a_batch_is_its_answers_one_by_one(stage: Stage, model: str) -> None:
    prompts = [PROMPT, "The sun", "Lily", "A dog", "One day"]
    options = GenerationOptions(temperature=0.8, seed=5, max_tokens=15)
    alone = [stage.device.generate(model, one, options=options) for one in prompts]
    batch = stage.device.generate_batch(model, prompts, options=options, at_once=3)
    assert [one.token_ids for one in batch] == [one.token_ids for one in alone]
    assert len({one.text for one in batch}) == len(prompts)
    with pytest.raises(RequestError, match="no tokens"):
        stage.device.generate_batch(model, [*prompts, []], options=options, at_once=2)
    free_of_sessions(stage)


def test_logprobs_are_refused_where_the_cloud_draws(stage: Stage) -> None:
    with pytest.raises(SettingsError, match="interface 'tokens'"):
        stage.device.generate("words", PROMPT, logprobs=1)
    assert stage.device.generate("rows", PROMPT, max_tokens=2, logprobs=1).token_ids


def test_penalty_and_min_p_mean_the_same_wherever_is_drawn(stage: Stage) -> None:
    options: dict[str, Any] = {"repetition_penalty": 3.0, "max_tokens": 12}
    rows = stage.device.generate("rows", PROMPT, **options).token_ids
    assert stage.device.generate("words", PROMPT, **options).token_ids == rows
    assert rows != stage.device.generate("rows", PROMPT, max_tokens=12).token_ids
    greedy = stage.device.generate("words", PROMPT, max_tokens=6).token_ids
    alone: dict[str, Any] = {"temperature": 1.0, "min_p": 1.0, "max_tokens": 6}
    assert stage.device.generate("words", PROMPT, **alone).token_ids == greedy


def test_traffic_is_counted(stage: Stage) -> None:
    answer = stage.device.generate("rows", PROMPT, max_tokens=10)
    traffic = answer.traffic
    asked = answer.prompt_tokens
    assert (traffic.sessions, traffic.requests) == (1, 10)
    assert traffic.rows == traffic.positions == asked + 9
    assert traffic.bytes_sent == 10 * 24 + 64 * 4 * (asked + 9)
    assert traffic.bytes_received == 10 * (24 + 512 * 4)
    words = stage.device.generate("words", PROMPT, max_tokens=10).traffic
    assert (words.requests, words.rows) == (1, asked)
    assert words.bytes_sent > 4 * asked
    assert words.bytes_received > 40


def test_an_asynchronous_device_answers_the_same(stage: Stage) -> None:
    async def asked() -> None:
        device = AsyncDevice(stage.device)
        assert [model.name for model in await device.models()] == list(INTERFACES)
        one = await device.generate("rows", PROMPT, max_tokens=12)
        expected = stage.device.generate("rows", PROMPT, max_tokens=12)
        assert one.token_ids == expected.token_ids
        pieces = [part async for part in device.stream("words", PROMPT, max_tokens=12)]
        assert isinstance(pieces[-1], Generation)
        assert pieces[-1].token_ids == expected.token_ids
        batch = await device.generate_batch("rows", [PROMPT, "Lily"], max_tokens=12)
        assert batch[0].token_ids == expected.token_ids
        with pytest.raises(StateError, match="no bundle"):
            await device.generate_batch("absent", [PROMPT])

    asyncio.run(asked())


@pytest.mark.parametrize("model", INTERFACES)
def test_who_leaves_an_asynchronous_answer_frees_the_cloud(stage: Stage, model: str) -> None:
    async def left() -> None:
        device = AsyncDevice(stage.device)
        async with aclosing(
            device.stream(model, PROMPT, max_tokens=400, ignore_eos=True)
        ) as parts:
            await anext(parts)
        task = asyncio.create_task(
            device.generate(model, PROMPT, max_tokens=400, ignore_eos=True)
        )
        while not stage.cloud.app.state.serving.session_count():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(left())
    free_of_sessions(stage)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("model", INTERFACES)
def test_a_client_that_leaves_the_endpoint_frees_the_cloud(
    stage: Stage, endpoint: str, model: str, streamed: bool
) -> None:
    serving = stage.cloud.app.state.serving
    before = serving.totals().works
    body = {"model": model, "prompt": "One", "max_tokens": 490, "ignore_eos": True}
    url = f"{endpoint}/completions"
    with httpx.Client() as client:
        if streamed:
            wanted: dict[str, Any] = {"json": body | {"stream": True}, "timeout": 60}
            with client.stream("POST", url, **wanted) as answer:
                assert next(answer.iter_lines()).startswith("data: {")
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(url, json=body, timeout=0.3)
    free_of_sessions(stage)
    assert serving.totals().works - before < 400, "the answer went on to its end"


@pytest.mark.parametrize("model", INTERFACES)
def test_a_deadline_ends_an_answer(stage: Stage, model: str) -> None:
    parts = stage.device.stream(model, PROMPT, max_tokens=450, ignore_eos=True, deadline_s=3)
    next(parts)
    time.sleep(3)
    with pytest.raises(DeadlineError, match="within 3 seconds"):
        list(parts)
    free_of_sessions(stage)


def test_a_cloud_that_is_away_is_a_typed_error(stage: Stage) -> None:
    away = Device(stage.device._home.folder)
    access = away._home.access()
    document = (away._home.folder / "cloud.json").read_text()
    try:
        (away._home.folder / "cloud.json").write_text(
            document.replace(access.url, "http://127.0.0.1:9")
        )
        with pytest.raises(UnreachableError, match="cannot reach"):
            away.generate("rows", PROMPT)
    finally:
        (away._home.folder / "cloud.json").write_text(document)
