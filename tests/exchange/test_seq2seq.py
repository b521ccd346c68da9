"""Answers to texts over HTTPS: token by token what stock T5 answers, from keyed rows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_cloud import Developer, LiveCloud, running_cloud
from tiny_seq2seq import stock_answer, tiny_seq2seq
from transformers import AutoTokenizer

from triparty.common.errors import PoolEmptyError, RequestError, SettingsError
from triparty.common.keying import Bundle
from triparty.developer.instances import Instances
from triparty.developer.protect import Choices, protect
from triparty.device.client import Device
from triparty.device.inference.generation import Generation
from triparty.device.inference.shields import Shields

STEPS = 16
TEXTS = (
    "Once upon a time, there was a little girl",
    "Tom and Lily like to play in the park. They see a big",
    "The",
)
SCHEMES = ("permutation", "orthogonal")


@dataclass
class Stage:
    """A cloud over HTTPS, a device with T5 models, and the texts that engines read."""

    cloud: LiveCloud
    developer: Developer
    device: Device
    source: Path
    folder: Path
    read: list[np.ndarray] = field(default_factory=list)

    def expected(self, text: str, **options: Any) -> list[int]:
        ids = AutoTokenizer.from_pretrained(self.source)(text)["input_ids"]
        return stock_answer(self.source, ids, STEPS, **options)

    def answer(self, model: str, text: str, **options: Any) -> Generation:
        return self.device.generate(model, text, max_tokens=STEPS, **options)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, stories_model: Path) -> Iterator[Stage]:
    from triparty.cloud.serving.seq2seq import Seq2SeqEngine

    folder = tmp_path_factory.mktemp("t5")
    source = tiny_seq2seq(folder / "source", "tied", vocabulary=512, tokenizer=stories_model)
    with (
        pytest.MonkeyPatch.context() as patch,
        running_cloud(folder / "cloud", https=True, max_rows_per_step=64) as cloud,
    ):
        developer = Developer.new(cloud, folder / "acme")
        developer.enroll()
        device, _ = developer.device("phone")
        for scheme in SCHEMES:
            out = folder / scheme
            protect(str(source), out, choices=Choices.of(scheme=scheme))
            developer.publish(out, scheme)
            developer.grant("phone", scheme)
        device.pull()
        stage, read = Stage(cloud, developer, device, source, folder), Seq2SeqEngine.read

        def watched(engine: Any, session: str, rows: np.ndarray) -> None:
            if session:  # the engine's own trial has no name
                stage.read.append(rows)
            read(engine, session, rows)

        patch.setattr(Seq2SeqEngine, "read", watched)
        yield stage


@pytest.mark.parametrize("scheme", SCHEMES)
def test_greedy_answers_equal_stock_generate(stage: Stage, scheme: str) -> None:
    answers = [stage.answer(scheme, text) for text in TEXTS]
    assert [list(each.token_ids) for each in answers] == [stage.expected(t) for t in TEXTS]
    assert len({each.token_ids for each in answers}) == len(TEXTS), "a deaf model would pass"
    tokenizer = AutoTokenizer.from_pretrained(stage.source)
    assert answers[0].prompt_tokens == len(tokenizer(TEXTS[0])["input_ids"])


def test_options_are_those_of_stock_generate(stage: Stage) -> None:
    said = stage.answer("orthogonal", TEXTS[0], repetition_penalty=1.7)
    expected = stage.expected(TEXTS[0], repetition_penalty=1.7)
    assert list(said.token_ids) == expected != stage.expected(TEXTS[0])


def test_answers_among_others_are_those_alone(stage: Stage) -> None:
    alone = {text: stage.answer("orthogonal", text).token_ids for text in TEXTS}
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda t: stage.answer("orthogonal", t), [*TEXTS] * 2))
    assert [each.token_ids for each in together] == [alone[text] for text in [*TEXTS] * 2]


@pytest.mark.parametrize("after", [1, 5])
def test_a_lost_session_is_read_and_replayed_to_the_same_answer(
    stage: Stage, after: int
) -> None:
    expected, stage.read[:] = stage.expected(TEXTS[1]), []
    serving, ids = stage.cloud.app.state.serving, []
    parts = stage.device.stream("permutation", TEXTS[1], max_tokens=STEPS)
    for number, part in enumerate(parts):
        if isinstance(part, Generation):
            ids = list(part.token_ids)
        elif number + 1 == after:
            assert serving._in_loop(serving._sessions.close_all) == 1
    assert ids == expected
    first, second = stage.read
    assert np.array_equal(first, second)


def test_one_time_instances_answer_one_text_each(stage: Stage) -> None:
    pool = Instances.of("one-time", pool=2)
    stage.developer.publish(stage.folder / "permutation", "once", instances=pool)
    stage.developer.account.grant("phone", model="once", sessions=2)
    stage.device.pull("once")
    stage.read.clear()
    for text in TEXTS[:2]:
        assert list(stage.answer("once", text).token_ids) == stage.expected(text)
    first, second = stage.read
    own = Bundle.open(stage.folder / "permutation" / "device")
    ids = AutoTokenizer.from_pretrained(stage.source)(TEXTS[0])["input_ids"]
    assert not np.array_equal(first, own.rows(np.array(ids), start=0).as_float32())
    assert len(first) != len(second)
    with pytest.raises(PoolEmptyError, match="developer grant"):
        stage.answer("once", TEXTS[2])


def test_guesses_change_nothing_and_are_rolled_back(stage: Stage) -> None:
    said = stage.answer("orthogonal", TEXTS[0], speculate=4)
    assert list(said.token_ids) == stage.expected(TEXTS[0])
    assert said.traffic.guesses > 0


def test_the_cloud_reads_keyed_rows_once_an_answer(stage: Stage) -> None:
    stage.read.clear()
    stage.answer("orthogonal", TEXTS[0])
    (read,) = stage.read
    ids = AutoTokenizer.from_pretrained(stage.source)(TEXTS[0])["input_ids"]
    bundle = Bundle.open(stage.folder / "orthogonal" / "device")
    assert np.array_equal(read, bundle.rows(np.array(ids), start=0).as_float32())
    from safetensors.numpy import load_file

    plain = load_file(stage.source / "model.safetensors")["shared.weight"][ids]
    assert np.abs(read - plain).max() > 0.1


def test_what_cannot_be_is_refused_before_anything_is_sent(stage: Stage) -> None:
    stage.read.clear()
    shielded = Device(stage.device._home.folder, shields=Shields(block=8))
    with pytest.raises(SettingsError, match="reads a whole text"):
        shielded.generate("permutation", TEXTS[0])
    with pytest.raises(RequestError, match=r"the cloud reads 64 at once: shorten"):
        stage.answer("permutation", "x " * 100)
    assert stage.read == []
    noisy = Device(stage.device._home.folder, shields=Shields(noise=0.2))
    noisy.generate("permutation", TEXTS[0], max_tokens=2)
    bundle = Bundle.open(stage.folder / "permutation" / "device")
    ids = AutoTokenizer.from_pretrained(stage.source)(TEXTS[0])["input_ids"]
    assert not np.array_equal(stage.read[0], bundle.rows(np.array(ids), start=0).as_float32())
