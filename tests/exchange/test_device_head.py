"""The head on the device, over HTTPS: the original's tokens from a cloud without logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from live_cloud import Developer, LiveCloud, running_cloud

from triparty.common.errors import RequestError
from triparty.common.keying import Bundle
from triparty.common.wire import encode_frames
from triparty.developer.protect import Choices, protect
from triparty.device.client import Device

PROMPT = "Once upon a time, Zyxwolf met a quizzical brontosaurus"
TOKENS = 30
HEADER_BYTES = 24  # of a frame with two dims


@dataclass(frozen=True)
class Stage:
    """A cloud with one trained model, its head on the device, under each scheme."""

    cloud: LiveCloud
    device: Device

    def bundle(self, name: str) -> Bundle:
        return Bundle.open(self.device._home.bundle_folder(name))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, stories_model: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("head")
    with running_cloud(folder / "cloud") as cloud:
        developer = Developer.new(cloud, folder / "acme")
        developer.enroll()
        device, _ = developer.device("phone")
        for scheme in ("permutation", "orthogonal"):
            choices = Choices.of(scheme=scheme, head="device")
            protect(str(stories_model), folder / scheme, choices=choices)
            developer.publish(folder / scheme, scheme)
            developer.grant("phone", scheme)
        device.pull()
        yield Stage(cloud, device)


@pytest.mark.parametrize("scheme", ["permutation", "orthogonal"])
def test_the_answer_is_the_originals(stage: Stage, scheme: str, stories_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stories_model)
    model = AutoModelForCausalLM.from_pretrained(stories_model)
    given = tokenizer(PROMPT, return_tensors="pt")
    with torch.inference_mode():
        whole = model.generate(**given, do_sample=False, max_new_tokens=TOKENS)
    expected = whole[0, given["input_ids"].shape[1] :].tolist()
    answer = stage.device.generate(scheme, PROMPT, max_tokens=TOKENS)
    assert list(answer.token_ids) == expected
    assert len(expected) == TOKENS


@pytest.mark.parametrize("scheme", ["permutation", "orthogonal"])
def test_the_cloud_has_no_logits_to_answer(stage: Stage, scheme: str) -> None:
    bundle = stage.bundle(scheme)
    info = bundle.info
    rows = bundle.rows(np.array([1, 5, 9]), start=0)
    with stage.device._home.access().client() as client:
        session = client.open_session(scheme).id
        for reply in ("logits", "topk=1", "id"):
            with pytest.raises(RequestError, match="its head is not on the cloud"):
                client.step(session, rows, position=0, request_id=reply, reply=reply)
        answer = client.step(session, rows, position=0, request_id="h", reply="hidden")
        client.close_session(session)
    (frame,) = answer.frames
    assert frame.array.shape == (1, info.width)
    assert len(encode_frames(frame)) == HEADER_BYTES + 4 * info.width < 4 * info.vocabulary

    models = stage.cloud.app.state.serving._models.loaded()
    heads = {hosted.key.name: hosted.engine._head.weight for hosted in models}
    assert not heads[scheme].any()
    assert heads[scheme].shape == (info.vocabulary, info.width)
