"""Flower's real processes on loopback, with TLS and authentication; sites that die or lie."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra federation")
pytest.importorskip("torch")

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from made_outputs import PAIR, recorded_outputs

from triparty.common.federation import Task
from triparty.common.processes import Program
from triparty.developer.federation.beginning import first_links
from triparty.developer.federation.checkpoint import Checkpoint
from triparty.developer.federation.federation import Federation
from triparty.developer.federation.plan import Plan
from triparty.developer.federation.service import run, start, trained_links
from triparty.device.federation.recordings import RecordedLearner
from triparty.device.federation.supernode import Site

LYING: Final = "lying"
KILLED: Final = "killed"
WARY: Final = "wary"
STRANGER: Final = "stranger"
LIE: Final = """
import numpy as np
from flwr.app import Array
from triparty.device.federation import answer

honest = answer.answer

def lie(message, open_learner):
    reply = honest(message, open_learner)
    for record in reply.content.array_records.values():
        for name, array in list(record.items()):
            record[name] = Array(np.full_like(array.numpy(), np.nan))
    return reply

answer.answer = lie
"""


@dataclass
class Deployment:
    """A federation of one round, and the SuperNodes of its sites.

    Attributes:
        federation: of the developer.
        nodes: by name of the site.
        codes: that the SuperLink's one open port answered strangers with.
    """

    federation: Federation
    nodes: dict[str, Program] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)

    def round(self) -> dict[str, Any]:
        """Runs the round; `killed` is killed in it. Returns what the journal says of it."""
        done = run(
            self.federation, host="127.0.0.1", now=datetime.now(UTC), on_event=self._on_event
        )
        assert (done.round, done.in_vain) == (1, 0)
        events = self.federation.journal().events()
        (ended,) = (one for one in events if one["event"] == "round")
        return ended

    def check_links(self, numbers: Sequence[int]) -> None:
        """The weights are the mean of what these sites, by number, make of the first ones."""
        first = Checkpoint.load(self.federation.path("initial.safetensors")).weights
        task = self.federation.plan().task
        trained = [
            RecordedLearner(recorded_outputs(number)).train(first, task).weights
            for number in numbers
        ]
        for name, value in self.federation.last().weights.items():
            wanted = np.mean([weights[name] for weights in trained], axis=0)
            np.testing.assert_allclose(value, wanted, atol=1e-6)
            assert np.abs(value - first[name]).max() > 1e-3
        ((source, target, link),) = trained_links(self.federation)
        assert (source, target) == PAIR[0]
        assert link.parameters == 12

    def _on_event(self, event: dict[str, Any]) -> None:
        if event["event"] != "asked":
            return
        self.nodes[KILLED].kill()
        context = ssl.create_default_context(cafile=self.federation.path("ca.pem"))
        address = f"https://{self.federation.call().superlink}"
        with httpx.Client(verify=context, base_url=address, trust_env=False) as web:
            self.codes += [
                web.post(path).status_code
                for path in (
                    "/v1/control/start-run",
                    "/v1/runtime/get-nodes",
                    "/v1/fleet/activate-node",
                )
            ]


@contextmanager
def deployed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, names: Sequence[str], plan: Plan
) -> Iterator[Deployment]:
    """SuperNodes of sites; the first has number 1, and its data are `recorded_outputs(1)`.

    Args:
        folder: gets everything.
        monkeypatch: sets what one of them is started with.
        names: of the sites. All but `stranger` are registered; `lying` sends NaN, `wary`
            trusts another developer.
        plan: of one round.
    """
    links, weights = first_links(recorded_outputs(0), PAIR, 0)
    address = f"127.0.0.1:{free_port()}"
    now = datetime.now(UTC)
    federation = start(folder / "federation", links, weights, plan, address=address, now=now)
    lies = folder / "lies"
    lies.mkdir()
    (lies / "sitecustomize.py").write_text(LIE)
    made = Deployment(federation)
    with ExitStack() as stack:
        for number, name in enumerate(names, start=1):
            recorded_outputs(number).save(folder / name)
            site = Site(folder / f"site-{name}")
            if name != STRANGER:
                federation.register(name, site.public_key())
            call = federation.call()
            heard = replace(call, signer=another_key()) if name == WARY else call
            with monkeypatch.context() as patched:
                if name == LYING:
                    patched.setenv("PYTHONPATH", str(lies), prepend=":")
                node = site.supernode(heard, folder / name, port=free_port())
                made.nodes[name] = stack.enter_context(node)
        yield made


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def another_key() -> str:
    public = Ed25519PrivateKey.generate().public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def check_door(codes: Sequence[int]) -> None:
    """From outside there is the Fleet API alone; the Control API would run anybody's code."""
    assert codes[:2] == [404, 404]
    assert codes[2] not in (200, 404)


def test_a_site_that_is_killed_and_one_that_sends_nan_do_not_spoil_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(
        Task("", epochs=2, rate=0.05), rounds=1, least_sites=1, deadline_s=30, wait_s=120
    )
    with deployed(tmp_path, monkeypatch, ("good", LYING, KILLED), plan) as made:
        ended = made.round()
    assert ended["sites"] == ["good"]
    assert ended["left_out"].keys() == {LYING, KILLED}
    assert "not finite" in ended["left_out"][LYING]
    assert ended["left_out"][KILLED] == "no answer within 30 s"
    check_door(made.codes)
    made.check_links([1])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_who_may_not_join_and_who_trusts_another_developer_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two good sites, one killed, one lying, one that trusts another developer, a stranger."""
    plan = Plan(
        Task("", epochs=2, rate=0.05), rounds=1, least_sites=2, deadline_s=90, wait_s=180
    )
    names = ("good", "other", LYING, KILLED, WARY, STRANGER)
    with deployed(tmp_path, monkeypatch, names, plan) as made:
        ended = made.round()
        refused = (tmp_path / f"site-{STRANGER}" / "supernode.log").read_text()
    assert ended["sites"] == ["good", "other"]
    assert ended["left_out"].keys() == {LYING, KILLED, WARY}
    assert "not finite" in ended["left_out"][LYING]
    assert "FAB could not be verified" in ended["left_out"][WARY]
    why = ended["left_out"][KILLED]
    assert "Unavailable" in why or "no answer" in why
    assert "2004" in refused, "a site that is not registered was not turned away"
    check_door(made.codes)
    made.check_links([1, 2])
