"""Flower's real processes on loopback, TLS and authentication; two good sites, four others."""

from __future__ import annotations

import socket
import ssl
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra federation")
pytest.importorskip("torch")

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from made_outputs import PAIR, recorded_outputs

from triparty.common.federation import Task
from triparty.developer.federation.beginning import first_links
from triparty.developer.federation.checkpoint import Checkpoint
from triparty.developer.federation.plan import Plan
from triparty.developer.federation.service import run, start, trained_links
from triparty.device.federation.recordings import RecordedLearner
from triparty.device.federation.supernode import Site

REGISTERED = ("good", "other", "lying", "killed", "wary")
LIE = """
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


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def another_key() -> str:
    public = Ed25519PrivateKey.generate().public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_round_of_real_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is killed, one sends NaN, one trusts another developer, one is not registered."""
    port = free_port()
    links, weights = first_links(recorded_outputs(0), PAIR, 0)
    plan = Plan(
        Task("", epochs=2, rate=0.05), rounds=1, least_sites=2, deadline_s=90, wait_s=180
    )
    federation = start(
        tmp_path / "federation",
        links,
        weights,
        plan,
        address=f"127.0.0.1:{port}",
        now=datetime.now(UTC),
    )
    lies = tmp_path / "lies"
    lies.mkdir()
    (lies / "sitecustomize.py").write_text(LIE)
    call = federation.call()
    codes: list[int] = []

    with ExitStack() as stack:
        nodes = {}
        for number, name in enumerate((*REGISTERED, "stranger"), start=1):
            recorded_outputs(number).save(tmp_path / name)
            site = Site(tmp_path / f"site-{name}")
            if name != "stranger":
                federation.register(name, site.public_key())
            heard = replace(call, signer=another_key()) if name == "wary" else call
            with monkeypatch.context() as patched:
                if name == "lying":
                    patched.setenv("PYTHONPATH", str(lies), prepend=":")
                node = site.supernode(heard, tmp_path / name, port=free_port())
                nodes[name] = stack.enter_context(node)

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "asked":
                nodes["killed"].kill()
                context = ssl.create_default_context(cafile=federation.path("ca.pem"))
                with httpx.Client(verify=context, base_url=f"https://127.0.0.1:{port}") as web:
                    codes.append(web.post("/v1/control/start-run").status_code)
                    codes.append(web.post("/v1/runtime/get-nodes").status_code)
                    codes.append(web.post("/v1/fleet/activate-node").status_code)

        done = run(federation, host="127.0.0.1", now=datetime.now(UTC), on_event=on_event)
        refused = (tmp_path / "site-stranger" / "supernode.log").read_text()

    assert (done.round, done.in_vain) == (1, 0)
    (ended,) = (one for one in federation.journal().events() if one["event"] == "round")
    assert ended["sites"] == ["good", "other"]
    assert ended["left_out"].keys() == {"lying", "killed", "wary"}
    assert "not finite" in ended["left_out"]["lying"]
    assert "FAB could not be verified" in ended["left_out"]["wary"]
    assert (
        "Unavailable" in ended["left_out"]["killed"]
        or "no answer" in ended["left_out"]["killed"]
    )
    assert "2004" in refused, "a site that is not registered was not turned away"
    # From outside there is Flower's Fleet API alone; its Control API would run anybody's code.
    assert codes[:2] == [404, 404]
    assert codes[2] not in (200, 404)

    first = Checkpoint.load(federation.path("initial.safetensors")).weights
    task = federation.plan().task
    both = [
        RecordedLearner(recorded_outputs(number)).train(first, task).weights
        for number in (1, 2)
    ]
    for name, value in federation.last().weights.items():
        np.testing.assert_allclose(value, (both[0][name] + both[1][name]) / 2, atol=1e-6)
        assert np.abs(value - first[name]).max() > 1e-3
    ((source, target, link),) = trained_links(federation)
    assert (source, target) == PAIR[0]
    assert link.parameters == 12
