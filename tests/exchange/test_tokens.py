"""The interface `tokens` on a trained model, through a cloud and through a stock engine.

The claim: what the device reads is what `transformers` generates from the original checkpoint,
and neither the cloud nor the engine sees a word of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from live_cloud import Developer, LiveCloud, running_cloud
from permuted import Permuted, permute
from stock_engine import transformers_serve

from triparty.cloud.serving.upstream import Upstream
from triparty.common.errors import (
    CloudError,
    NotFoundError,
    SettingsError,
)
from triparty.common.sampling import SamplingOptions
from triparty.device.client import Device
from triparty.device.inference.completions import StockEngine
from triparty.device.inference.generation import Generation, Piece

PROMPT = "Once upon a time, Zyxwolf met a quizzical brontosaurus"
TOKENS = 120


@dataclass(frozen=True)
class Stage:
    """A developer with a published model `tiny`, a device that may use it, and the model."""

    cloud: LiveCloud
    developer: Developer
    device: Device
    model: Permuted


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, stories_model: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("tokens")
    model = permute(stories_model, folder / "out")
    with running_cloud(folder / "cloud") as cloud:
        developer = Developer.new(cloud, folder / "acme")
        developer.enroll()
        developer.publish(model.out)
        device, _ = developer.device("phone")
        developer.grant("phone")
        device.pull()
        yield Stage(cloud, developer, device, model)


@pytest.fixture(scope="module")
def expected(stories_model: Path) -> tuple[str, list[int]]:
    """Text and ids that stock `transformers` generates from the original."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stories_model)
    model = AutoModelForCausalLM.from_pretrained(stories_model)
    given = tokenizer(PROMPT, return_tensors="pt")
    with torch.inference_mode():
        whole = model.generate(**given, do_sample=False, max_new_tokens=TOKENS)
    ids: list[int] = whole[0, given["input_ids"].shape[1] :].tolist()
    return tokenizer.decode(ids, skip_special_tokens=True), ids


def test_the_cloud_generates_the_originals_text(
    stage: Stage, expected: tuple[str, list[int]]
) -> None:
    text, ids = expected
    *pieces, whole = stage.device.stream("tiny", PROMPT, max_tokens=TOKENS)
    assert isinstance(whole, Generation)
    assert list(whole.token_ids) == ids
    assert whole.text.strip() == text.strip()
    assert len(ids) > 50
    assert [piece.token_id for piece in pieces if isinstance(piece, Piece)] == ids
    assert stage.device.generate("tiny", PROMPT, max_tokens=TOKENS).token_ids == whole.token_ids
    assert stage.cloud.app.state.serving.session_count() == 0


def test_the_bundle_has_no_rows_and_the_engine_no_words(stage: Stage) -> None:
    folder = stage.device._home.bundle_folder("tiny")
    assert not (folder / "embedding.safetensors").exists()
    plain = (folder / "tokenizer.json").read_text(encoding="utf-8")
    hosted = b"".join(path.read_bytes() for path in stage.model.model.glob("*.json"))
    for word in ("time", "Once", "the"):
        assert word in plain
    assert b"Once" not in hosted
    assert b"\xe2\x96\x81" not in hosted  # the mark of a SentencePiece word


def test_drawing_happens_on_the_cloud_under_the_devices_options(stage: Stage) -> None:
    def drawn(**options: Any) -> tuple[int, ...]:
        wanted = SamplingOptions(**options)
        return stage.device.generate("tiny", PROMPT, max_tokens=40, options=wanted).token_ids

    greedy = drawn()
    assert drawn(temperature=1.0, seed=1) == drawn(temperature=1.0, seed=1) != greedy
    assert drawn(temperature=1.0, seed=1) != drawn(temperature=1.0, seed=2)
    assert drawn(temperature=2.0, top_k=1) == greedy


def test_a_device_that_stops_listening_frees_the_clouds_slot(stage: Stage) -> None:
    serving = stage.cloud.app.state.serving
    listening = stage.device.stream("tiny", PROMPT, max_tokens=400, ignore_eos=True)
    next(listening)
    assert serving.session_count() == 1
    listening.close()
    while serving.session_count():  # bounded by the test's own limit
        time.sleep(0.01)


def test_a_device_with_a_bundle_of_an_earlier_version_pulls_before_it_reads(
    stage: Stage,
) -> None:
    """The cloud serves the newest granted version; an answer under it is never read as is."""
    expected = stage.device.generate("tiny", PROMPT, max_tokens=3).token_ids
    stage.developer.publish(stage.model.out)
    assert [held.version for held in stage.device.models()] == [1]
    assert stage.device.generate("tiny", PROMPT, max_tokens=3).token_ids == expected
    assert [held.version for held in stage.device.models()] == [2]


def test_who_may_use_a_model_is_the_rule_of_sessions(stage: Stage) -> None:
    stranger, _ = stage.developer.device("stranger")
    with stranger._home.access().client() as client, pytest.raises(NotFoundError):
        client.connection.request(
            "POST", "/v1/completions", body={"model": "tiny", "prompt": "aaaa"}
        )


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--continuous-batching",)])
def test_a_stock_engine_generates_the_originals_text(
    options: tuple[str, ...], stage: Stage, expected: tuple[str, list[int]], tmp_path: Path
) -> None:
    _, ids = expected
    log = tmp_path / "serve.log"
    with transformers_serve(stage.model.model, log, *options) as url:
        engine = StockEngine(f"{url}/v1", api_key="unused")
        whole = stage.device.generate("tiny", PROMPT, max_tokens=TOKENS, engine=engine)
        assert list(whole.token_ids) == ids
        refused = SamplingOptions(temperature=1.0, top_k=5)  # which this engine does not have
        with pytest.raises(CloudError, match="top_k"):
            stage.device.generate("tiny", PROMPT, engine=engine, options=refused)
        wrong = StockEngine(url, model="other")
        with pytest.raises(CloudError, match="pinned"):
            stage.device.generate("tiny", PROMPT, engine=wrong)
        with behind(stage.cloud, url, stage.model.model):
            before = stage.cloud.app.state.serving.totals()
            through = stage.device.generate("tiny", PROMPT, max_tokens=TOKENS)
            after = stage.cloud.app.state.serving.totals()
        assert list(through.token_ids) == ids
        assert (after.steps, after.tokens) == (before.steps, before.tokens + len(ids))
    heard = log.read_text(errors="replace")
    assert "POST /v1/completions" in heard
    assert "Zyxwolf" not in heard


@contextmanager
def behind(cloud: LiveCloud, url: str, model: Path) -> Iterator[None]:
    """Has the cloud's completions answered by a stock engine while the block runs."""
    upstream = Upstream(url, model=str(model), key="unused", silence_s=60)
    cloud.app.state.upstream = upstream
    try:
        yield
    finally:
        cloud.app.state.upstream = None
        loop = cloud.app.state.serving._loop
        asyncio.run_coroutine_threadsafe(upstream.close(), loop).result(10)


@pytest.mark.slow
def test_openais_own_client_talks_to_a_stock_engine_in_words(
    stage: Stage, expected: tuple[str, list[int]], tmp_path: Path
) -> None:
    """Completions and chats, streamed and whole: the words pass unchanged."""
    from openai import OpenAI
    from tokenizers import Tokenizer

    _, ids = expected
    folder = stage.device._home.bundle_folder("tiny")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    words = stage.model.words(tokenizer.encode(PROMPT).ids)
    with transformers_serve(stage.model.model, tmp_path / "serve.log") as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="unused")
        model = str(stage.model.model)
        wanted: dict[str, Any] = {"model": model, "max_tokens": TOKENS, "temperature": 0}
        whole = client.completions.create(prompt=words, **wanted)
        assert stage.model.plain(whole.choices[0].text) == ids
        messages: list[Any] = [{"role": "user", "content": words}]
        chat = client.chat.completions.create(messages=messages, **wanted)
        assert stage.model.plain(chat.choices[0].message.content or "") == ids
        parts = client.chat.completions.create(messages=messages, stream=True, **wanted)
        text = "".join(part.choices[0].delta.content or "" for part in parts)
        assert stage.model.plain(text) == ids
        client.close()


def test_openais_own_client_talks_to_the_cloud_in_words(stage: Stage) -> None:
    from openai import BadRequestError, OpenAI, UnprocessableEntityError

    access = stage.device._home.access()
    with OpenAI(base_url=f"{access.url}/v1", api_key=access.token, max_retries=0) as client:
        words = stage.model.words([1, 403, 407])
        whole = client.completions.create(
            model="tiny", prompt=words, max_tokens=9, temperature=0
        )
        parts = client.completions.create(
            model="tiny",
            prompt=words,
            max_tokens=9,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        *chunks, usage = list(parts)
        assert "".join(part.choices[0].text for part in chunks) == whole.choices[0].text
        assert usage.usage is not None
        assert usage.usage.completion_tokens == 9
        with pytest.raises(BadRequestError) as refused:
            client.completions.create(model="tiny", prompt="Once upon a time")
        assert "opaque words" in refused.value.response.text
        told = client.completions.create(
            model="tiny", prompt=words, max_tokens=3, logprobs=2, temperature=0
        ).choices[0]
        assert told.logprobs is not None
        assert "".join(told.logprobs.tokens or []) == told.text
        for word, top in zip(
            told.logprobs.tokens or [], told.logprobs.top_logprobs or [], strict=True
        ):
            assert next(iter(top)) == word  # greedy says the likeliest
            assert len(top) == 2
        with pytest.raises(UnprocessableEntityError) as refused_too:
            client.completions.create(model="tiny", prompt=words, logprobs=21)
        assert "logprobs" in refused_too.value.response.text


def test_an_engine_for_a_model_of_rows_is_refused(parties: Any) -> None:
    device = Device(parties.device("phone"))
    engine = StockEngine("http://127.0.0.1:1")
    with pytest.raises(SettingsError, match="leave out the engine"):
        device.generate("stories", PROMPT, engine=engine)
