"""SIGKILL in the middle of twenty answers: all end with the tokens of a cloud that lived.

Of the whole server, with either engine, and of a replica's process.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec

import psutil
import pytest
from three_parties import Cloud, Parties

from triparty.device import Device
from triparty.device.inference.generation import Generation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WHO = ("Lily", "Tim and his mom", "The little dog", "An old bear", "Once upon a time, a bird")
PROMPTS = [f"{who} {did}" for who in WHO for did in ("saw a", "wanted", "was very", "found")]
ANSWERS, TOKENS = len(PROMPTS), 60
WAIT_S = 300
with_ray = pytest.mark.skipif(find_spec("ray") is None, reason="pip install 'triparty[ray]'")


@dataclass
class Answers:
    """Twenty answers in the making, and how far they are together."""

    device: Device
    tokens: int = 0
    passed: threading.Condition = field(default_factory=threading.Condition)

    def all(self) -> list[tuple[int, ...]]:
        with ThreadPoolExecutor(ANSWERS) as threads:
            return list(threads.map(self._one, PROMPTS))

    def _one(self, prompt: str) -> tuple[int, ...]:
        for part in self.device.stream("stories", prompt, max_tokens=TOKENS):
            if isinstance(part, Generation):
                return part.token_ids
            with self.passed:
                self.tokens += 1
                self.passed.notify_all()
        raise AssertionError("an answer has no end")

    def wait_for(self, tokens: int) -> None:
        with self.passed:
            assert self.passed.wait_for(lambda: self.tokens >= tokens, WAIT_S)


@pytest.fixture(scope="module")
def expected(parties: Parties) -> list[tuple[int, ...]]:
    """One by one, on a cloud that lives."""
    device = Device(parties.device("phone"))
    answers = [device.generate("stories", each, max_tokens=TOKENS) for each in PROMPTS]
    assert len({each.token_ids for each in answers}) > ANSWERS // 2, "the prompts say nothing"
    return [each.token_ids for each in answers]


@pytest.fixture
def cloud(parties: Parties, request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """The parties' cloud with an engine, and with its own again afterwards."""
    parties.cloud.stop()
    changes = {"ENGINE": request.param, "REPLICAS": "2", "MAX_SESSIONS_PER_PRINCIPAL": "64"}
    parties.cloud.start({f"TRIPARTY_CLOUD_{name}": each for name, each in changes.items()})
    yield parties.cloud
    parties.cloud.stop()
    parties.cloud.start({})


def family(cloud: Cloud) -> list[psutil.Process]:
    return [psutil.Process(cloud.pid), *psutil.Process(cloud.pid).children(recursive=True)]


def replicas(cloud: Cloud) -> list[int]:
    return [
        each.pid for each in family(cloud) if " ".join(each.cmdline()).startswith("ray::Runner")
    ]


@pytest.mark.parametrize("cloud", ["local", pytest.param("ray", marks=with_ray)], indirect=True)
def test_all_answers_survive_the_server(
    cloud: Cloud, parties: Parties, expected: list[tuple[int, ...]]
) -> None:
    answers = Answers(Device(parties.device("phone")))
    answers.device.generate("stories", "It", max_tokens=1)  # the model is loaded
    with ThreadPoolExecutor(1) as other:
        made = other.submit(answers.all)
        answers.wait_for(ANSWERS * TOKENS // 4)
        before = family(cloud)
        cloud.stop(signal.SIGKILL)
        assert answers.tokens < ANSWERS * TOKENS * 3 // 4, "it was no longer the middle"
        cloud.start()
        assert made.result(WAIT_S) == expected
    _, alive = psutil.wait_procs(before, timeout=WAIT_S)
    assert not alive, "processes of the dead cloud are left"


@with_ray
@pytest.mark.parametrize("cloud", ["ray"], indirect=True)
def test_all_answers_survive_a_replica(
    cloud: Cloud, parties: Parties, expected: list[tuple[int, ...]]
) -> None:
    answers = Answers(Device(parties.device("phone")))
    answers.device.generate("stories", "It", max_tokens=1)
    with ThreadPoolExecutor(1) as other:
        made = other.submit(answers.all)
        answers.wait_for(ANSWERS * TOKENS // 4)
        first, second = replicas(cloud)
        os.kill(first, signal.SIGKILL)
        assert answers.tokens < ANSWERS * TOKENS * 3 // 4, "it was no longer the middle"
        assert made.result(WAIT_S) == expected
    assert first not in replicas(cloud)
    assert second in replicas(cloud), "the other replica was not to die"
