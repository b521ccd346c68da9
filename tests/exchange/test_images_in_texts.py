"""Texts about images over HTTPS: token by token what stock LLaVA answers, from keyed inputs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from live_cloud import Developer, LiveCloud, running_cloud
from openai import AsyncOpenAI, BadRequestError
from safetensors.numpy import load_file
from tiny_llava import (
    IMAGE_ROWS,
    IMAGE_TOKEN,
    SIZE,
    stock_answer,
    stock_ids,
    stock_pixels,
    tiny_llava,
)

from triparty.common.errors import RequestError, RollbackError, SettingsError
from triparty.common.keying import Bundle
from triparty.common.wire import Frame
from triparty.developer.protect import Choices, protect
from triparty.device import AsyncDevice
from triparty.device.client import Device
from triparty.device.endpoint.app import create_app
from triparty.device.endpoint.guard import Admission
from triparty.device.inference.generation import Generation
from triparty.device.inference.shields import Shields

STEPS = 24
SCHEMES = ("permutation", "orthogonal")


@dataclass
class Stage:
    """A cloud over HTTPS, a developer, a device, and what the models were given to run."""

    cloud: LiveCloud
    developer: Developer
    device: Device
    source: Path
    pictures: list[Path]
    pixels: list[np.ndarray] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    made: list[np.ndarray] = field(default_factory=list)

    def publish(self, name: str, source: Path, **choices: Any) -> None:
        out = self.source.parent / name
        protect(str(source), out, choices=Choices.of(**choices))
        self.developer.publish(out, name)
        self.developer.grant("phone", name)

    def forget(self) -> None:
        for seen in (self.pixels, self.rows, self.made):
            seen.clear()

    def with_shields(self, **shields: Any) -> Device:
        return Device(self.device._home.folder, shields=Shields(**shields))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    from PIL import Image

    folder = tmp_path_factory.mktemp("llava")
    source = tiny_llava(folder / "source")
    plain = tiny_llava(folder / "without-template", with_template=False)
    rng, pictures = np.random.default_rng(5), []
    for number in range(2):
        pictures.append(folder / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, (31, 20, 3), np.uint8)).save(pictures[-1])
    with (
        pytest.MonkeyPatch.context() as patch,
        running_cloud(folder / "cloud", https=True, max_rows_per_step=16) as cloud,
    ):
        developer = Developer.new(cloud, folder / "acme")
        developer.enroll()
        device, _ = developer.device("phone")
        stage = Stage(cloud, developer, device, source, pictures)
        for scheme in SCHEMES:
            stage.publish(scheme, source, scheme=scheme)
        stage.publish("plain", plain)
        stage.publish("tokens", source, interface="tokens")
        device.pull()
        _watch(patch, stage)
        yield stage


def _watch(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    from triparty.cloud.serving.local import LocalEngine
    from triparty.cloud.serving.sight import LocalSight

    see, run = LocalSight.run, LocalEngine.run

    def watched_images(sight: LocalSight, batch: Any) -> Any:
        answers = see(sight, batch)
        if batch[0].pixels.any():  # zeros are the trial of a model that is loaded
            stage.pixels.extend(image.pixels for image in batch)
            stage.made.extend(rows for (rows,) in answers)
        return answers

    def watched_rows(engine: LocalEngine, batch: Any) -> Any:
        stage.rows.extend(work.rows for work in batch if work.rows.any())
        return run(engine, batch)

    patch.setattr(LocalSight, "run", watched_images)
    patch.setattr(LocalEngine, "run", watched_rows)


def expected(stage: Stage, text: str, *, picture: int = 0, special: bool = True) -> list[int]:
    """Stock `generate` on the original model, from the picture's file."""
    from PIL import Image

    with Image.open(stage.pictures[picture]) as image:
        pixels = stock_pixels(stage.source, image.convert("RGB"))
    return stock_answer(
        stage.source, stock_ids(stage.source, text, special=special), pixels, STEPS
    )


def ids_of(answer: Generation) -> list[int]:
    return list(answer.token_ids)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("picture", [0, 1])
def test_greedy_answers_equal_stock_generate(stage: Stage, scheme: str, picture: int) -> None:
    text = "river <image> what is this"
    said = stage.device.describe(scheme, stage.pictures[picture], text, max_tokens=STEPS)
    assert ids_of(said) == expected(stage, text, picture=picture)
    assert said.prompt_tokens == 1 + 5 - 1 + IMAGE_ROWS
    other = expected(stage, text, picture=1 - picture)
    assert ids_of(said) != other, "a model that does not see would pass"


def test_where_the_image_stands(stage: Stage) -> None:
    """In its own place, where the template puts it, and first where nobody says."""
    asked = "<s> USER : <image> what is this ASSISTANT :"
    templated = expected(stage, asked, special=False)
    parts = [{"type": "image"}, {"type": "text", "text": "what is this"}]
    messages = [{"role": "user", "content": parts}]
    in_places = stock_ids(stage.source, "what <image> is this")
    once = [one for at, one in enumerate(in_places) if one != in_places[at - 1] or at == 0]
    for prompt, wanted in (
        ("what is this", templated),
        (messages, templated),
        (in_places, expected(stage, "what <image> is this")),
        (once, expected(stage, "what <image> is this")),
    ):
        said = stage.device.describe("permutation", stage.pictures[0], prompt, max_tokens=STEPS)
        assert ids_of(said) == wanted
    said = stage.device.describe("plain", stage.pictures[0], "what is this", max_tokens=STEPS)
    assert ids_of(said) == expected(stage, "<image> what is this")
    assert templated != ids_of(said)


def test_pixels_and_pillow_images_are_taken(stage: Stage) -> None:
    from PIL import Image

    text = "<image> lamp"
    with Image.open(stage.pictures[0]) as opened:
        image = opened.convert("RGB")
    for given in (image, stock_pixels(stage.source, image), str(stage.pictures[0])):
        said = stage.device.describe("orthogonal", given, text, max_tokens=STEPS)
        assert ids_of(said) == expected(stage, text)


def test_the_async_device_and_the_command_say_the_same(stage: Stage) -> None:
    text = "stone <image>"
    wanted = expected(stage, text)
    said = asyncio.run(
        AsyncDevice(stage.device).describe(
            "permutation", stage.pictures[0], text, max_tokens=STEPS
        )
    )
    assert ids_of(said) == wanted
    home = stage.device._home.folder
    words = ["describe", "permutation", stage.pictures[0], "-", "--max-tokens", str(STEPS)]
    done = subprocess.run(
        [sys.executable, "-m", "triparty.common", "device", *words, "--home", home, "--json"],
        input=text + "\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["token_ids"] == wanted


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_cloud_sees_neither_the_image_nor_the_text(stage: Stage, scheme: str) -> None:
    stage.forget()
    text = "river <image> what is this"
    said = stage.device.describe(scheme, stage.pictures[0], text, max_tokens=3)
    from PIL import Image

    with Image.open(stage.pictures[0]) as image:
        pixels = stock_pixels(stage.source, image.convert("RGB"))
    (sent,) = stage.pixels
    assert np.isclose(sent, pixels, atol=1e-4).mean() < 0.1
    bundle = Bundle.open(stage.device._home.bundle_folder(scheme))
    assert np.allclose(sent, bundle.pixels(pixels), atol=1e-6)  # with the key, it is the image
    # What went through the session: keyed rows of the text, and what the cloud itself made.
    rows = np.concatenate(stage.rows)
    ids = stock_ids(stage.source, text)
    assert len(rows) == len(ids) + len(said.token_ids) - 1
    places = [at for at, one in enumerate(ids) if one == IMAGE_TOKEN]
    assert np.array_equal(rows[places], stage.made[0])
    table = load_file(stage.source / "model.safetensors")[
        "language_model.model.embed_tokens.weight"
    ]
    apart = np.abs(rows[:, None] - table[None]).max(axis=2).min(axis=1)
    assert apart.min() > 1e-2
    keyed = bundle.values(np.array(ids), start=0)  # control: these are the text's, keyed
    words = [at for at in range(len(ids)) if at not in places]
    assert np.abs(rows[words] - keyed[words]).max() < 1e-6


def test_what_the_image_costs_is_told(stage: Stage) -> None:
    """Keyed pixels up, rows of the image down and up again."""
    said = stage.device.describe("permutation", stage.pictures[0], "<image> lamp", max_tokens=1)
    width = 32
    pixels, rows = 4 * 3 * SIZE**2, 4 * IMAGE_ROWS * width
    traffic = said.traffic
    assert traffic.rows == said.prompt_tokens
    assert 0 <= traffic.bytes_sent - (pixels + rows + 2 * 4 * width) < 200
    assert traffic.bytes_received > rows
    alone = stage.device.generate("permutation", "lamp", max_tokens=1).traffic
    assert traffic.requests > alone.requests


def test_both_parts_of_the_model_are_counted(stage: Stage) -> None:
    serving = stage.cloud.app.state.serving
    before = serving.totals()
    stage.device.describe("plain", stage.pictures[0], "lamp", max_tokens=1)
    after = serving.totals()
    assert after.passages == before.passages + 1
    assert after.steps == before.steps + 1 + 1
    (counts,) = (one for key, one in serving.counts().items() if key.name == "plain")
    assert counts.batches >= 2


def test_a_lost_session_goes_on_with_the_image(stage: Stage) -> None:
    text = "river <image> what is this"
    said: list[int] = []
    for part in stage.device.stream(
        "orthogonal", text, image=stage.pictures[0], max_tokens=STEPS, ignore_eos=True
    ):
        if isinstance(part, Generation):
            assert part.traffic.sessions == 3
        else:
            said.append(part.token_id)
            if len(said) in (1, 4):
                principal = stage.device._home.access().principal
                assert stage.cloud.app.state.serving.close_sessions_of(principal) == 1
    wanted = expected(stage, text)
    assert said[: len(wanted)] == wanted


def test_text_alone_is_answered_too(stage: Stage) -> None:
    said = stage.device.generate("permutation", "what is this", max_tokens=STEPS)
    keyed = stage.device.generate("orthogonal", "what is this", max_tokens=STEPS)
    assert ids_of(said) == ids_of(keyed)
    words = stage.device.generate("tokens", "what is this", max_tokens=STEPS)
    assert ids_of(words) == ids_of(said)
    with pytest.raises(RequestError, match="use 'describe'"):
        stage.device.generate("permutation", "what is <image>")


def test_what_cannot_be_asked_is_refused(stage: Stage) -> None:
    device, picture = stage.device, stage.pictures[0]
    with pytest.raises(RequestError, match="--interface embeddings"):
        device.describe("tokens", picture, "what is this")
    with pytest.raises(RequestError, match="more than one image"):
        device.describe("plain", picture, "<image> is <image>")
    with pytest.raises(RequestError, match="no message has a place"):
        device.describe("permutation", picture, [{"role": "user", "content": "what is this"}])
    with pytest.raises(RequestError, match="no image that can be read"):
        device.describe("permutation", "absent.png", "what is this")
    lines = stage.source.parent / "lines"
    lines.write_text("river stone\nlamp\n" * 8)
    for shields in ({"noise": 0.1}, {"decoys": 1, "decoy_texts": lines}):
        with pytest.raises(SettingsError, match="without an image"):
            stage.with_shields(**shields).describe("permutation", picture, "lamp")
    with device._home.access().client() as client:
        words = {"rows": Frame.of(np.zeros((1, 1, 32), np.float32))}
        with pytest.raises(RequestError, match="takes the inputs pixels"):
            client.forward("permutation", words)
        shape = (1, 3, SIZE, SIZE - 1)
        with pytest.raises(RequestError, match="expected pixels"):
            client.forward("permutation", {"pixels": Frame.of(np.zeros(shape, np.float32))})


def test_shields_of_lengths_and_rounding_leave_an_answer(stage: Stage) -> None:
    text = "river <image> what is this"
    blocks = stage.with_shields(block=8).describe(
        "permutation", stage.pictures[0], text, max_tokens=STEPS
    )
    assert ids_of(blocks) == expected(stage, text)
    rounded = stage.with_shields(to_bfloat16=True).describe(
        "permutation", stage.pictures[0], text, max_tokens=2
    )
    assert rounded.traffic.bytes_sent < blocks.traffic.bytes_sent


def test_rows_of_another_key_are_not_used(stage: Stage) -> None:
    record = stage.device._home.folder / "held" / "plain.json"
    held = json.loads(record.read_text())
    record.write_text(json.dumps(held | {"version": held["version"] + 1}))
    try:
        stage.forget()
        with pytest.raises(RollbackError, match="triparty device pull"):
            stage.device.describe("plain", stage.pictures[0], "lamp")
        assert not stage.rows
    finally:
        record.write_text(json.dumps(held))


def data_url(file: Path) -> str:
    return "data:image/png;base64," + b64encode(file.read_bytes()).decode()


def asked_with_openai(stage: Stage, messages: list[Any], **given: Any) -> Any:
    """What OpenAI's own client gets of the device's endpoint."""

    async def asked() -> Any:
        transport = httpx.ASGITransport(create_app(stage.device, Admission()))
        async with (
            httpx.AsyncClient(transport=transport) as http,
            AsyncOpenAI(
                base_url="http://127.0.0.1/v1", api_key="none", http_client=http, max_retries=0
            ) as client,
        ):
            return await client.chat.completions.create(
                model="permutation", messages=messages, max_tokens=STEPS, temperature=0, **given
            )

    return asyncio.run(asked())


def showing(*urls: str) -> list[Any]:
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*images, {"type": "text", "text": "what is this"}]}]


@pytest.mark.parametrize("picture", [0, 1])
def test_openais_client_shows_images(stage: Stage, picture: int) -> None:
    stage.forget()
    file = stage.pictures[picture]
    content = [{"type": "image"}, {"type": "text", "text": "what is this"}]
    expected = stage.device.describe(
        "permutation", file, [{"role": "user", "content": content}], max_tokens=STEPS
    )
    said = asked_with_openai(stage, showing(data_url(file)))
    assert said.choices[0].message.content == expected.text
    assert said.usage.prompt_tokens == expected.prompt_tokens
    first, second = stage.pixels
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("urls", "reason"),
    [
        (["https://example.com/a.png"], "fetches nothing"),
        (["http://127.0.0.1:1/a.png"], "fetches nothing"),
        (["file:///etc/passwd"], "fetches nothing"),
        (["/etc/passwd"], "fetches nothing"),
        (["data:text/plain;base64,AAAA"], "fetches nothing"),
        (["data:image/png,plain"], "fetches nothing"),
        (["data:image/png;base64,no!"], "not base64"),
        (["data:image/png;base64,AAAA"], "no image that can be read"),
        (["data:image/png;base64,AAAA"] * 2, "shows one image"),
    ],
)
def test_nothing_is_fetched_and_no_other_bytes_are_an_image(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, urls: list[str], reason: str
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr("socket.socket.connect", lambda *a: opened.append(a))
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **_: opened.append(a))
    stage.forget()
    with pytest.raises(BadRequestError, match=reason):
        asked_with_openai(stage, showing(*urls))
    assert (opened, stage.pixels) == ([], [])


def test_guesses_about_an_image_change_nothing(stage: Stage) -> None:
    text = "river <image> river <image>".rpartition(" ")[0]
    said = stage.device.describe(
        "permutation", stage.pictures[0], text, max_tokens=STEPS, speculate=4
    )
    assert ids_of(said) == expected(stage, text)
    assert said.traffic.guesses > 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--noise", "0.1"], "the pixels that 'permutation' takes get no noise"),
        (["--decoys", "1", "--decoy-texts", "{texts}"], "a decoy has no image"),
        (["--length-block", "8", "--speculate", "2"], "leave out speculate"),
        (["--length-block", "8"], None),
        (["--bfloat16-rows", "--speculate", "2"], None),
    ],
)
def test_describe_takes_the_shields_that_an_image_allows(
    stage: Stage, tmp_path: Path, words: list[str], reason: str | None
) -> None:
    from typer.testing import CliRunner

    from triparty.device.cli import app

    texts = tmp_path / "texts.txt"
    texts.write_text("river stone lamp\n")
    given = [word.format(texts=texts) for word in words]
    command = ["describe", "permutation", str(stage.pictures[0]), "lamp", "--max-tokens", "2"]
    home = ["--home", str(stage.device._home.folder)]
    done = CliRunner().invoke(app, [*command, *given, *home])
    if reason is None:
        assert done.exit_code == 0, done.output
        return
    assert isinstance(done.exception, SettingsError)
    assert reason in done.exception.message
