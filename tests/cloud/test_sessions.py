"""A published model, from the upload of its files to the logits of a session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from triparty.common.wire import Frame, decode_frames, encode_frames


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("checkpoint")
    config = LlamaConfig(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def expected_logits(folder: Path, rows: np.ndarray) -> np.ndarray:
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        return np.asarray(model(inputs_embeds=torch.tensor(rows)[None]).logits[0, -1])


def step(device, session: str, rows: np.ndarray, position: int):
    return device.request(
        "POST",
        f"/v1/sessions/{session}/step",
        content=encode_frames(Frame.of(rows)),
        headers={
            "Triparty-Position": str(position),
            "Triparty-Request-Id": f"at-{position}",
            "Triparty-Reply": "logits",
        },
    )


def test_publish_grant_open_step_revoke(cloud, developer, device, checkpoint, slug):
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    assert developer.publish(files, epoch=3).status_code == 201
    before = device.request("POST", "/v1/models/tiny/sessions", json={})
    assert (before.status_code, slug(before)) == (404, "not-found")
    assert developer.grant(device, epoch=3).status_code == 201

    opened = device.request("POST", "/v1/models/tiny/sessions", json={})
    assert opened.status_code == 201, opened.text
    assert (opened.json()["version"], opened.json()["epoch"]) == (1, 3)
    session = opened.json()["session"]
    rows = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    assert step(device, session, rows[:4], 0).status_code == 200
    answer = step(device, session, rows[4:], 4)
    assert answer.headers["Triparty-Position"] == "5"
    (logits,) = decode_frames(answer.content, limit_bytes=10_000)
    np.testing.assert_allclose(
        logits.array[0], expected_logits(checkpoint, rows), rtol=1e-4, atol=1e-5
    )

    neighbour = developer.device("neighbour")
    developer.grant(neighbour, epoch=3)
    stranger = cloud.developer("other").device("stranger")
    for other in (neighbour, stranger):
        refused = step(other, session, rows[:1], 5)
        assert (refused.status_code, slug(refused)) == (404, "not-found")
    assert cloud.request("GET", "/v1/status", cloud.operator).json()["sessions"] == 1

    opened = neighbour.request("POST", "/v1/models/tiny/sessions", json={})
    assert opened.status_code == 201
    developer.request("DELETE", f"/v1/devices/{device.id}")
    assert slug(step(device, session, rows[:1], 5)) == "token-revoked"
    assert cloud.request("GET", "/v1/status", cloud.operator).json()["sessions"] == 1
    cloud.request("DELETE", f"/v1/developers/{developer.id}", cloud.operator)
    assert slug(step(neighbour, opened.json()["session"], rows[:1], 0)) == "token-revoked"
    assert cloud.request("GET", "/v1/status", cloud.operator).json()["sessions"] == 0
