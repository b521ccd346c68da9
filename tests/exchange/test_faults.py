"""A bad network between device and cloud: the right tokens, or a typed error in time.

The wire carries TLS, so a bit that changes on it is noticed. (What a cloud itself answers is
not authenticated; no test can say otherwise.)
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from faulty_wire import Fault, Wire, wire_to
from live_cloud import Developer, LiveCloud, running_cloud

from triparty.common import connection as connections
from triparty.common.errors import DeadlineError, TripartyError
from triparty.developer.protect import Choices, protect
from triparty.device import Device, GenerationOptions
from triparty.device.inference import conversation as conversations

PROMPT = "Once upon a time, Zyxwolf met a quizzical brontosaurus"
TOKENS = 12
DEADLINE_S, BRIEF_S = 5.0, 2.0
TIDYING_S = conversations.CLOSING_S
BUSY_S = 10.0  # what a busy machine may add; a cloud's silence alone would last 120
SETTING_UP = 4  # pieces of a connection before it carries requests
INTERFACES = ("rows", "words")


@dataclass(frozen=True)
class Stage:
    """A device whose cloud is at the other end of a wire."""

    cloud: LiveCloud
    device: Device
    wire: Wire
    expected: tuple[int, ...]

    def ask(self, model: str, *, deadline_s: float = DEADLINE_S) -> tuple[int, ...]:
        return self.device.generate(
            model, PROMPT, max_tokens=TOKENS, deadline_s=deadline_s
        ).token_ids

    def ask_until_swallowed(self, model: str) -> None:
        """Has the wire swallow everything as soon as an answer has begun."""
        wanted = GenerationOptions(max_tokens=400, ignore_eos=True, deadline_s=BRIEF_S)
        for _ in self.device.stream(model, PROMPT, options=wanted):
            self.wire.plan((Fault.SWALLOW,), 1.0, 0)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, stories_model: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("faults")
    with running_cloud(folder / "cloud", https=True) as cloud:
        developer = Developer.new(cloud, folder / "acme")
        developer.enroll()
        device, _ = developer.device("phone")
        for name, interface in zip(INTERFACES, ("embeddings", "tokens"), strict=True):
            protect(str(stories_model), folder / name, choices=Choices.of(interface=interface))
            developer.publish(folder / name, name)
            developer.grant("phone", name)
        device.pull()
        expected = [device.generate(n, PROMPT, max_tokens=TOKENS).token_ids for n in INTERFACES]
        assert expected[0] == expected[1]
        with wire_to(urlsplit(cloud.url).port or 0) as wire:
            file = device._home.folder / "cloud.json"
            access = json.loads(file.read_text())
            access["url"] = f"https://127.0.0.1:{wire.port}"
            file.write_text(json.dumps(access))
            yield Stage(cloud, device, wire, expected[0])


@pytest.fixture(autouse=True)
def brief_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "PAUSES_S", (0.05,) * 12)
    monkeypatch.setattr(connections, "BACKOFF_S", 0.02)


@pytest.fixture(autouse=True)
def whole_wire(stage: Stage) -> Iterator[None]:
    yield
    stage.wire.plan((), 0, 0)
    assert stage.ask("rows", deadline_s=60) == stage.expected, "afterwards all is well"


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))]
)
@pytest.mark.parametrize("model", INTERFACES)
def test_every_answer_is_right_or_a_typed_error_in_time(
    stage: Stage, model: str, seed: int
) -> None:
    stage.wire.plan(tuple(Fault), 0.06, seed)
    right = 0
    for _ in range(5):
        started = time.monotonic()
        with suppress(TripartyError):
            assert stage.ask(model) == stage.expected
            right += 1
        assert time.monotonic() - started < DEADLINE_S + TIDYING_S + BUSY_S
    assert stage.wire.happened or right == 5


@pytest.mark.parametrize("fault", list(Fault))
def test_words_through_each_fault_end_right_or_in_a_typed_error(
    stage: Stage, fault: Fault
) -> None:
    """An answer in words is one request, which is not repeated."""
    stage.wire.plan((fault,), 0.2, 1)
    while not stage.wire.happened[fault]:
        with suppress(TripartyError):
            assert stage.ask("words", deadline_s=BRIEF_S) == stage.expected


@pytest.mark.parametrize(
    ("fault", "spared"),
    [
        (Fault.DROP, 0),
        (Fault.CUT, 0),
        (Fault.DELAY, 0),
        (Fault.FLIP, SETTING_UP),
        (Fault.DUPLICATE, SETTING_UP),
    ],
)
def test_what_repeating_helps_against_ends_in_the_right_tokens(
    stage: Stage, fault: Fault, spared: int
) -> None:
    """Steps have names, so that repeating one is safe.

    What is wrong while TLS is set up may be the cloud itself, and is told at once.
    """
    stage.wire.plan((fault,), 0.08, 1, spared=spared)
    for _ in range(4):
        assert stage.ask("rows", deadline_s=60) == stage.expected
    assert stage.wire.happened[fault] > 3


@dataclass(frozen=True)
class Knowing:
    """Guesses from the known answer, every third token wrong."""

    stage: Stage

    def propose(self, ids: Sequence[int], count: int) -> list[int]:
        question = self.stage.device.open("rows").tokenizer.encode(PROMPT).ids
        at = len(ids) - len(question)
        following = enumerate(self.stage.expected[at:], at)
        return [token + (place % 3 == 0) for place, token in following]


@pytest.mark.parametrize("fault", [Fault.DROP, Fault.CUT])
def test_guesses_on_a_bad_network_change_no_token(stage: Stage, fault: Fault) -> None:
    stage.wire.plan((fault,), 0.08, 1)
    for _ in range(4):
        said = stage.device.generate(
            "rows",
            PROMPT,
            max_tokens=TOKENS,
            deadline_s=60,
            speculate=5,
            draft=Knowing(stage),
        )
        assert said.token_ids == stage.expected
        assert 0 < said.traffic.wrong_guesses < said.traffic.guesses
    assert stage.wire.happened[fault] > 1


@pytest.mark.parametrize("share", [1.0, 0.0])
@pytest.mark.parametrize("model", INTERFACES)
def test_a_wire_that_swallows_everything_ends_at_the_deadline(
    stage: Stage, model: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the beginning, or from the first token on, when there is a session to end."""
    monkeypatch.setattr(connections, "CONNECT_S", 120.0)  # only the deadline is shorter
    stage.wire.plan((Fault.SWALLOW,), share, 0)
    started = time.monotonic()
    with pytest.raises(DeadlineError):
        stage.ask_until_swallowed(model)
    took_s = time.monotonic() - started
    assert BRIEF_S <= took_s < BRIEF_S + TIDYING_S + BUSY_S
    assert stage.wire.happened


@pytest.mark.parametrize(("model", "path"), [("rows", "/step"), ("words", "/completions")])
def test_a_request_that_arrives_twice_changes_no_token(
    stage: Stage, model: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps have names and count once; a completion is answered twice."""
    send, doubled = httpx.HTTPTransport.handle_request, []

    def twice(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith(path):
            doubled.append(request.headers.get("Triparty-Request-Id"))
            first = send(transport, request)
            first.read()
            first.close()
        return send(transport, request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", twice)
    before = stage.cloud.app.state.serving.totals().rows
    assert stage.ask(model, deadline_s=60) == stage.expected
    assert len(doubled) == (TOKENS if model == "rows" else 1)
    if model == "rows":
        prompt = len(stage.device.open("rows").tokenizer.encode(PROMPT).ids)
        rows = stage.cloud.app.state.serving.totals().rows - before
        assert rows == prompt + TOKENS - 1
