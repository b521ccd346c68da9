"""A key epoch ends while conversations go on: drained, cut, revoked; over HTTPS."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from headless import until
from live_cloud import Developer, LiveCloud, running_cloud
from permuted import permute

from triparty.common.errors import (
    AuthError,
    NotFoundError,
    RetiredError,
)
from triparty.developer.protect import protect
from triparty.device.client import Device
from triparty.device.inference.generation import Generation

PROMPT = "Once upon a time"
TOKENS = 30
DRAW: dict[str, Any] = {"temperature": 1.0, "seed": 7}


@dataclass(frozen=True)
class Stage:
    """A cloud over HTTPS, and a developer with a device."""

    cloud: LiveCloud
    developer: Developer
    device: Device

    def publish(self, out: Path, name: str) -> None:
        self.developer.publish(out, name)
        self.developer.grant("phone", name)
        self.device.pull(name)

    def version(self, name: str) -> int:
        return self.device._accounts.holding(name)[1].version


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("epochs")
    with running_cloud(folder / "cloud", https=True) as cloud:
        developer = Developer.new(cloud, folder / "acme")
        developer.enroll()
        device, _ = developer.device("phone")
        yield Stage(cloud, developer, device)


@pytest.fixture(scope="module")
def protected_stories(tmp_path_factory: pytest.TempPathFactory, stories_model: Path) -> Path:
    out = tmp_path_factory.mktemp("stories") / "out"
    protect(str(stories_model), out)
    return out


def whole(parts: Any) -> Generation:
    *_, last = parts
    assert isinstance(last, Generation)
    return last


@pytest.mark.parametrize("options", [{}, DRAW], ids=["greedy", "drawn"])
def test_a_conversation_goes_on_over_the_end_of_its_epoch_with_the_same_tokens(
    stage: Stage, protected_stories: Path, options: dict[str, Any]
) -> None:
    name = "drawn" if options else "greedy"
    stage.publish(protected_stories, name)
    expected = stage.device.generate(name, PROMPT, max_tokens=TOKENS, **options).token_ids
    talk = stage.device.stream(name, PROMPT, max_tokens=TOKENS, **options)
    said = [next(talk).token_id for _ in range(10)]
    done = stage.developer.account.rotate(name)  # no drain: the open session ends at once
    assert (done.model.epoch, done.model.version) == (2, 2)
    assert stage.version(name) == 1
    answer = whole(talk)
    assert stage.version(name) == 2  # the device has pulled by itself
    assert answer.token_ids == expected
    assert list(expected[:10]) == said
    assert answer.traffic.sessions == 2


def test_a_drained_session_goes_on_and_new_ones_begin_in_the_new_epoch(
    stage: Stage, protected_stories: Path
) -> None:
    name = "drained"
    stage.publish(protected_stories, name)
    expected = stage.device.generate(name, PROMPT, max_tokens=TOKENS).token_ids
    with stage.device._home.access().client() as client:
        old = client.open_session(name)
        talk = stage.device.stream(name, PROMPT, max_tokens=TOKENS)
        next(talk)
        stage.developer.account.rotate(name, drain_s=3600)
        said = [next(talk).token_id for _ in range(5)]
        assert list(expected[1:6]) == said  # still in the old epoch
        assert stage.version(name) == 1
        fresh = client.open_session(name)
        assert (fresh.version, fresh.epoch) == (2, 2)
        with pytest.raises(RetiredError, match="device pull"):
            client.open_session(name, version=1)
        # The deadline comes: what the timer calls, now.
        developer = stage.developer.account.home.access().developer
        serving = stage.cloud.app.state.serving
        ended = serving._in_loop(lambda: serving._admission.end(developer, {(name, 1)}))
        assert ended == 2
        with pytest.raises(RetiredError, match="key epoch of this session has ended"):
            client.connection.request("POST", f"/v1/sessions/{old.id}/fork")
        stranger, _ = stage.developer.device("stranger")
        with (
            stranger._home.access().client() as other,
            pytest.raises(NotFoundError, match="no such session"),
        ):
            other.connection.request("POST", f"/v1/sessions/{old.id}/fork")
    assert whole(talk).token_ids == expected
    assert stage.version(name) == 2
    assert serving.totals().endings["retired"] >= 2


def test_the_timer_ends_a_drained_session(stage: Stage, protected_stories: Path) -> None:
    name = "timed"
    stage.publish(protected_stories, name)
    with stage.device._home.access().client() as client:
        client.open_session(name)
        serving = stage.cloud.app.state.serving
        before = serving.totals().endings["retired"]
        stage.developer.account.rotate(name, drain_s=1)
        until(lambda: serving.totals().endings["retired"] == before + 1)


def test_a_revoked_device_stops_at_once_whatever_is_drained(
    stage: Stage, protected_stories: Path
) -> None:
    name = "revoked"
    lost, _ = stage.developer.device("lost")
    stage.developer.publish(protected_stories, name)
    stage.developer.grant("lost", name)
    lost.pull(name)
    talk = lost.stream(name, PROMPT, max_tokens=TOKENS)
    next(talk)
    stage.developer.account.revoke("lost")
    stage.developer.account.rotate(name, drain_s=3600)
    with pytest.raises(AuthError):
        whole(talk)


def test_who_gets_no_bundle_of_the_new_epoch_is_told_so(
    stage: Stage, protected_stories: Path
) -> None:
    name = "left"
    stage.publish(protected_stories, name)
    talk = stage.device.stream(name, PROMPT, max_tokens=TOKENS)
    next(talk)
    record = stage.developer.home.existing_model(name)
    stage.developer.home.keep_model(replace(record, devices=()))
    stage.developer.account.rotate(name)
    with pytest.raises(NotFoundError, match="developer grant"):
        whole(talk)


def test_an_answer_in_words_goes_on_over_the_end_of_its_epoch(
    stage: Stage, tmp_path: Path, stories_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "words"
    first, second = (permute(stories_model, tmp_path / each) for each in ("one", "two"))
    stage.publish(first.out, name)
    expected = stage.device.generate(name, PROMPT, max_tokens=TOKENS).token_ids
    serving, steps, rotated = stage.cloud.app.state.serving, count(), threading.Event()
    advance = serving.advance

    async def pausing(*work: Any) -> Any:
        """The cloud would have said all before its reader takes the third word."""
        if next(steps) == 3:
            await asyncio.to_thread(rotated.wait)
        return await advance(*work)

    monkeypatch.setattr(serving, "advance", pausing)
    talk = stage.device.stream(name, PROMPT, max_tokens=TOKENS)
    said = [next(talk).token_id for _ in range(3)]
    stage.developer.publish(second.out, name, revoke_earlier=True)
    rotated.set()
    answer = whole(talk)
    assert answer.token_ids == expected
    assert list(expected[:3]) == said
    assert stage.version(name) == 2
