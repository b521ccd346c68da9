"""Guessing ahead, on trained models over HTTPS: the answers are those without guesses.

Two families, and a head on the device, whose cloud replies hidden states.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from live_cloud import Developer, LiveCloud, running_cloud
from typer.testing import CliRunner

from triparty.common.errors import SettingsError
from triparty.developer.protect import Choices, protect
from triparty.device import Device, Generation, GenerationOptions
from triparty.device.cli import app
from triparty.device.inference.draft_model import DraftModel
from triparty.device.inference.drafts import Draft
from triparty.device.inference.traffic import Traffic

PROMPTS = {
    "stories": "Once upon a time, Zyxwolf met a quizzical brontosaurus",
    "capp": "<SOS> geometry_prismatic batch_size_mass",
    "head": "Once upon a time, Zyxwolf met a quizzical brontosaurus",
}
TOKENS = 60


@dataclass(frozen=True)
class Stage:
    """A cloud with three protected models, and a device that has them."""

    cloud: LiveCloud
    device: Device
    plain: dict[str, Generation]


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, stories_model: Path, capp_model: Path
) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("speculation")
    with running_cloud(folder / "cloud", https=True) as cloud:
        developer = Developer.new(cloud, folder / "acme")
        developer.enroll()
        device, _ = developer.device("phone")
        for name, source, choices in (
            ("stories", stories_model, Choices.of()),
            ("capp", capp_model, Choices.of(scheme="orthogonal")),
            ("head", stories_model, Choices.of(head="device")),
            ("words", stories_model, Choices.of(interface="tokens")),
        ):
            protect(str(source), folder / name, choices=choices)
            developer.publish(folder / name, name)
            developer.grant("phone", name)
        device.pull()
        plain = {
            name: device.generate(name, prompt, max_tokens=TOKENS, ignore_eos=True)
            for name, prompt in PROMPTS.items()
        }
        yield Stage(cloud, device, plain)


@dataclass(frozen=True)
class Knowing:
    """Guesses more than it is asked for, from a known answer; `change` makes some wrong."""

    question: int
    answer: Sequence[int]
    change: Callable[[int, int], int] = lambda _, token: token

    def propose(self, ids: Sequence[int], count: int) -> list[int]:
        at = len(ids) - self.question
        following = [*self.answer[at:], *range(3, 400)]
        return [self.change(at + i, token) for i, token in enumerate(following)]


CHANGES: dict[str, Callable[[int, int], int]] = {
    "right": lambda _, token: token,
    "wrong": lambda _, token: token + 1,
    "some": lambda at, token: token + (at % 3 == 0),
}


def draft_of(stage: Stage, model: str, kind: str, stories: Path) -> Draft | None:
    if kind == "lookup":
        return None
    if kind == "model":
        return DraftModel.load(stories, tokenizer=stage.device.open(model).tokenizer)
    plain = stage.plain[model]
    return Knowing(plain.prompt_tokens, plain.token_ids, CHANGES[kind])


def ask(stage: Stage, model: str, **options: Any) -> tuple[Generation, Traffic]:
    traffic = Traffic()
    wanted = GenerationOptions.of(None, {"max_tokens": TOKENS, "ignore_eos": True, **options})
    *_, whole = stage.device.stream(model, PROMPTS[model], options=wanted, traffic=traffic)
    assert isinstance(whole, Generation)
    return whole, traffic


@pytest.mark.parametrize("kind", ["lookup", "right", "wrong", "some"])
@pytest.mark.parametrize("model", list(PROMPTS))
def test_greedy_answers_are_the_same_token_by_token(
    stage: Stage, stories_model: Path, model: str, kind: str
) -> None:
    draft = draft_of(stage, model, kind, stories_model)
    whole, traffic = ask(stage, model, speculate=9, draft=draft)
    assert whole.token_ids == stage.plain[model].token_ids
    assert whole.text == stage.plain[model].text
    assert (
        traffic.requests
        == {
            "lookup": traffic.requests,
            "right": 8,  # 1 token, then 4 + 1, 8 + 1, 9 + 1 ...
            "wrong": TOKENS,
            "some": traffic.requests,
        }[kind]
    )
    assert traffic.guesses, "something was guessed"
    assert traffic.requests <= TOKENS


def test_a_draft_model_saves_most_round_trips(stage: Stage, stories_model: Path) -> None:
    """The model itself as its draft: as good as one can be."""
    draft = draft_of(stage, "stories", "model", stories_model)
    whole, traffic = ask(stage, "stories", speculate=9, draft=draft)
    assert whole.token_ids == stage.plain["stories"].token_ids
    assert (traffic.requests, traffic.wrong_guesses) == (8, 0)


@pytest.mark.parametrize("kind", ["lookup", "some", "model"])
def test_drawn_answers_are_the_same_for_a_seed(
    stage: Stage, stories_model: Path, kind: str
) -> None:
    options = {"temperature": 0.8, "top_p": 0.9, "seed": 11, "repetition_penalty": 1.1}
    plain, _ = ask(stage, "stories", **options, logprobs=1)
    draft = draft_of(stage, "stories", kind, stories_model)
    whole, traffic = ask(stage, "stories", **options, logprobs=1, speculate=6, draft=draft)
    assert whole.token_ids == plain.token_ids != stage.plain["stories"].token_ids
    assert whole.logprobs == pytest.approx(plain.logprobs, abs=1e-4)
    assert traffic.guesses


@pytest.mark.parametrize("model", ["stories", "capp"])
def test_sessions_that_are_lost_among_guesses_are_replayed(stage: Stage, model: str) -> None:
    serving = stage.cloud.app.state.serving
    plain = stage.plain[model]
    draft = Knowing(plain.prompt_tokens, plain.token_ids, CHANGES["some"])
    traffic = Traffic()
    options = GenerationOptions(max_tokens=TOKENS, ignore_eos=True, speculate=5, draft=draft)
    parts = stage.device.stream(model, PROMPTS[model], options=options, traffic=traffic)
    for at, part in enumerate(parts):
        if at in (7, 20, 40):
            assert serving._in_loop(serving._sessions.close_all) == 1
        last = part
    assert isinstance(last, Generation)
    assert last.token_ids == plain.token_ids
    assert traffic.sessions == 4


def test_an_answer_to_the_last_position_guesses_none_behind_it(stage: Stage) -> None:
    opened = stage.device.open("stories")
    positions = opened.bundle.info.max_positions
    text = opened.tokenizer.encode(PROMPTS["stories"]).ids
    prompt = (text * positions)[: positions - 25]
    whole = stage.device.generate("stories", prompt, max_tokens=None, ignore_eos=True)
    draft = Knowing(whole.prompt_tokens, whole.token_ids)
    again = stage.device.generate(
        "stories", prompt, max_tokens=None, ignore_eos=True, speculate=63, draft=draft
    )
    assert again.token_ids == whole.token_ids
    assert len(whole.token_ids) == 25


def test_a_draft_of_other_tokens_is_refused(stage: Stage, capp_model: Path) -> None:
    tokenizer = stage.device.open("stories").tokenizer
    with pytest.raises(SettingsError, match="other tokens"):
        DraftModel.load(capp_model, tokenizer=tokenizer)
    with pytest.raises(SettingsError, match="no draft model"):
        DraftModel.load(capp_model / "absent", tokenizer=tokenizer)


def test_a_draft_model_follows_any_text(stories_model: Path, stage: Stage) -> None:
    """Its cache is cut to what a text has in common with the last one."""
    tokenizer = stage.device.open("stories").tokenizer
    draft = DraftModel.load(stories_model, tokenizer=tokenizer)
    text = tokenizer.encode(PROMPTS["stories"]).ids
    for ids in (text, text[:5], [*text[:5], 9, 9], [7], text, text):
        fresh = DraftModel.load(stories_model, tokenizer=tokenizer)
        assert draft.propose(ids, 4) == fresh.propose(ids, 4)
    assert len(draft.propose(text * 40, 4)) == 0, "it has no positions left"


def test_answers_side_by_side_share_a_draft_model(stage: Stage, stories_model: Path) -> None:
    draft = draft_of(stage, "stories", "model", stories_model)
    prompts = [PROMPTS["stories"], "The sun", "Lily", "A dog"]
    options = GenerationOptions(temperature=0.7, seed=3, max_tokens=15)
    plain = stage.device.generate_batch("stories", prompts, options=options)
    guessed = stage.device.generate_batch(
        "stories", prompts, options=options, speculate=4, draft=draft
    )
    assert [one.token_ids for one in guessed] == [one.token_ids for one in plain]


def test_an_answer_in_one_round_trip_needs_no_guesses(stage: Stage) -> None:
    with pytest.raises(SettingsError, match="one round trip"):
        stage.device.generate("words", "Once", speculate=4)


def test_the_command_guesses(stage: Stage, stories_model: Path) -> None:
    words = ["generate", "stories", PROMPTS["stories"], "--max-tokens", str(TOKENS), "--json"]
    home = ["--ignore-eos", "--home", str(stage.device._home.folder)]
    plain = stage.plain["stories"]
    for more in (["--speculate", "8"], ["--speculate", "8", "--draft", str(stories_model)]):
        done = CliRunner().invoke(app, [*words, *home, *more])
        assert done.exit_code == 0, done.output
        said = json.loads(done.stdout)
        assert tuple(said["token_ids"]) == plain.token_ids
        assert said["traffic"]["guesses"] > said["traffic"]["wrong_guesses"] >= 0
        assert said["traffic"]["requests"] < TOKENS
