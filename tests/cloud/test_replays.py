"""Requests that somebody recorded and sends again: they change nothing and tell nothing new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.cloud.conftest import Cloud, Developer, Device
from triparty.common.wire import Frame, encode_frames

STEPS = 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder: Path = tmp_path_factory.mktemp("checkpoint")
    config = LlamaConfig(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Recorder:
    """Who sees every request of a party, its token included, and sends it again."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self.seen: list[tuple[str, str, str, dict[str, Any]]] = []

    def ask(self, party: Developer | Device, method: str, path: str, **sent: Any) -> Any:
        self.seen.append((method, path, party.token, sent))
        return self.again(-1)

    def again(self, number: int) -> httpx.Response:
        method, path, token, sent = self.seen[number]
        return self._cloud.request(method, path, token, **sent)


def step(number: int, *, reply: str = "logits") -> dict[str, Any]:
    """The `number`-th step of a session: two rows."""
    rows = np.full((2, 16), number + 1, np.float32)
    headers = {
        "Triparty-Position": str(2 * number),
        "Triparty-Request-Id": f"step-{number}",
        "Triparty-Reply": reply,
    }
    return {"content": encode_frames(Frame.of(rows)), "headers": headers}


@pytest.fixture
def recorder(cloud: Cloud) -> Recorder:
    return Recorder(cloud)


@pytest.fixture
def session(
    developer: Developer, device: Device, checkpoint: Any, recorder: Recorder
) -> tuple[str, list[httpx.Response]]:
    """A session of the device with recorded steps, and their answers."""
    assert developer.publish(checkpoint).status_code == 201
    assert developer.grant(device).status_code == 201
    assert developer.put_latest().status_code == 204
    opened = device.request("POST", "/v1/models/tiny/sessions", json={})
    assert opened.status_code == 201, opened.text
    path = f"/v1/sessions/{opened.json()['session']}"
    answers = [recorder.ask(device, "POST", f"{path}/step", **step(n)) for n in range(STEPS)]
    assert [answer.status_code for answer in answers] == [200] * STEPS
    return path, answers


def test_the_last_step_again_gets_the_answer_that_it_had(session, recorder, device, slug):
    path, answers = session
    for _ in range(2):
        again = recorder.again(-1)
        assert (again.status_code, again.content) == (200, answers[-1].content)
    following = device.request("POST", f"{path}/step", **step(STEPS))
    assert following.status_code == 200  # the session stands where it stood


def test_an_earlier_step_again_is_refused(session, recorder, slug):
    for number in range(STEPS - 1):
        again = recorder.again(number)
        assert (again.status_code, slug(again)) == (409, "position")
        assert again.json()["position"] == 2 * STEPS
    assert recorder.again(-1).content == session[1][-1].content


def test_an_earlier_step_that_took_rows_back_takes_none_back_again(
    session, recorder, device, slug
):
    """The session stands where it stood when the step was new; the step's name tells."""
    path, _ = session
    for number, name in ((STEPS, STEPS - 1), (STEPS + 1, STEPS)):
        sent = step(number)
        sent["headers"] |= {
            "Triparty-Position": str(2 * STEPS - 1 + number - STEPS),
            "Triparty-Rollback-Of": f"step-{name}",
            "Triparty-Reply-Rows": "2",
        }
        assert recorder.ask(device, "POST", f"{path}/step", **sent).status_code == 200
    again = recorder.again(-2)
    assert (again.status_code, slug(again)) == (409, "position")
    assert again.json()["position"] == 2 * STEPS + 2


@pytest.mark.parametrize("number", range(STEPS + 1))
def test_another_device_gets_nothing_for_it(session, developer, slug, number):
    """Sibling or stranger, the step that ran, an earlier one or the next: no such session."""
    path, _ = session
    stranger = developer.cloud.developer("other").device()
    unknown = f"/v1/sessions/{'A' * (len(path) - len('/v1/sessions/'))}"
    for thief in (developer.device("sibling"), stranger):
        refused = thief.request("POST", f"{path}/step", **step(number))
        never = thief.request("POST", f"{unknown}/step", **step(number))
        assert (refused.status_code, refused.text) == (404, never.text)
        assert slug(refused) == "not-found"


def test_a_recorded_token_ends_with_its_rotation(session, recorder, device, slug):
    device.token = device.request("POST", "/v1/tokens/rotate").json()["token"]
    for number in range(STEPS):
        refused = recorder.again(number)
        assert (refused.status_code, slug(refused)) == (401, "token-revoked")
    assert device.request("POST", f"{session[0]}/step", **step(STEPS)).status_code == 200


def test_steps_of_a_closed_session_find_none(session, recorder, device, slug):
    assert device.request("DELETE", session[0]).status_code == 204
    for number in range(STEPS):
        assert slug(recorder.again(number)) == "not-found"


def test_what_a_developer_sent_changes_nothing_when_it_is_sent_again(
    cloud, developer, device, recorder, checkpoint
):
    developer.request = lambda *given, **sent: recorder.ask(developer, *given, **sent)
    assert developer.publish(checkpoint).status_code == 201
    assert developer.publish(checkpoint, version=2).status_code == 201
    assert developer.grant(device).status_code == 201
    assert developer.put_latest(sequence=1).status_code == 204
    assert developer.put_latest(sequence=2).status_code == 204
    del developer.request
    paths = ("/v1/artifacts", "/v1/latest", "/v1/devices")
    before = [developer.request("GET", path).text for path in paths]
    answers = [recorder.again(number) for number in range(len(recorder.seen))]
    assert all(answer.status_code < 500 for answer in answers)
    assert [developer.request("GET", path).text for path in paths] == before
