"""Instances over HTTPS: devices under different keys, and keys that serve one session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headless import until
from live_cloud import Developer, LiveCloud, running_cloud
from tiny_encoders import tiny_encoder

from triparty.common.artifacts import Kind, Manifest
from triparty.common.errors import (
    NotFoundError,
    PoolEmptyError,
    RequestError,
    SealError,
    SpentError,
    UnreachableError,
)
from triparty.common.keying import Bundle
from triparty.common.sealing import SEALED_FILE, open_sealed
from triparty.common.transport import CloudClient
from triparty.developer.instances import Instances
from triparty.developer.protect import protect
from triparty.device.client import Device

PROMPT = "Once upon a time"
TOKENS = 12


@dataclass(frozen=True)
class Stage:
    """A cloud over HTTPS, a developer, and the model `tiny`, protected once."""

    cloud: LiveCloud
    developer: Developer
    out: Path
    folder: Path

    def expected(self, device: Device, name: str) -> tuple[int, ...]:
        return device.generate(name, PROMPT, max_tokens=TOKENS).token_ids

    def laid_out(self, name: str) -> set[str]:
        """Versions of a model whose files lie on the cloud."""
        found = self.cloud.app.state.settings.model_folder.glob(f"*/{name}/[0-9]*")
        return {path.name for path in found}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, stories_model: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("instances")
    protect(str(stories_model), folder / "out")
    with running_cloud(folder / "cloud", https=True) as cloud:
        developer = Developer.new(cloud, folder / "acme")
        developer.enroll()
        yield Stage(cloud, developer, folder / "out", folder)


@pytest.fixture(scope="module")
def stock(stories_model: Path) -> tuple[int, ...]:
    """What `transformers` generates greedily from the original."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given = AutoTokenizer.from_pretrained(stories_model)(PROMPT, return_tensors="pt")
    model = AutoModelForCausalLM.from_pretrained(stories_model)
    with torch.inference_mode():
        whole = model.generate(**given, do_sample=False, max_new_tokens=TOKENS)
    return tuple(whole[0, given["input_ids"].shape[1] :].tolist())


def bundle_of(device: Device, name: str) -> Bundle:
    return Bundle.open(device._home.bundle_folder(name))


def test_devices_of_two_instances_answer_alike_and_open_nothing_of_each_other(
    stage: Stage, stock: tuple[int, ...], tmp_path: Path
) -> None:
    one, one_id = stage.developer.device("one")
    two, two_id = stage.developer.device("two")
    stage.developer.publish(stage.out, "own", instances=Instances.of("per-device"))
    granted = [stage.developer.grant(name, "own") for name in ("one", "two")]
    assert len({done.version for done in granted}) == 2
    for device in (one, two):
        (held,) = device.pull("own").taken
        assert held.name == "own"
        assert stage.expected(device, "own") == stock
    # The keys differ: the row of a token is another one, and so is the order of the head.
    ids = np.arange(20)
    rows = [bundle_of(each, "own").rows(ids, start=0).as_float32() for each in (one, two)]
    assert not np.isclose(np.sort(rows[0]), rows[1]).all()
    assert np.allclose(np.sort(rows[0]), np.sort(rows[1]))  # permuted, and the same model

    with one._home.access().client() as client:
        shown = [
            Manifest.from_bytes(signed.payload)
            for signed in client.artifacts(kind=Kind.BUNDLE, name="own")
        ]
        assert {manifest.recipient for manifest in shown} == {one_id}
        theirs = next(
            manifest
            for manifest in stage.developer.manifests(Kind.BUNDLE, "own")
            if manifest.recipient == two_id
        )
        (file,) = theirs.files
        with pytest.raises(NotFoundError):
            client.download_blob(tmp_path / "theirs", sha256=file.sha256, size=file.size)
        for version in (theirs.version, 99):  # theirs is as if it were not there
            with pytest.raises(NotFoundError, match="no model 'own' for you here"):
                client.open_session("own", version=version)
    # Even with the ciphertext in hand, it opens for nobody else.
    with two._home.access().client() as client:
        sealed = tmp_path / SEALED_FILE
        client.download_blob(sealed, sha256=file.sha256, size=file.size)
    facts = {"model": "own", "version": theirs.version, "epoch": theirs.epoch}
    with pytest.raises(SealError):
        open_sealed(sealed, tmp_path / "no", one._home.sealing_key(), device=one_id, **facts)
    open_sealed(sealed, tmp_path / "yes", two._home.sealing_key(), device=two_id, **facts)


def test_a_cohort_keeps_its_devices_and_revoking_names_who_shares(stage: Stage) -> None:
    developer = stage.developer
    for name in ("a", "b", "c"):
        developer.device(name)
    done = developer.publish(stage.out, "cohorts", instances=Instances.of("2"))
    assert len(done.compiled) == 2
    assert all(each.size_bytes > 1e6 and each.seconds >= 0 for each in done.compiled)
    first = {name: developer.grant(name, "cohorts").version for name in ("a", "b", "c")}
    assert set(first.values()) <= {1, 2}
    again = developer.publish(stage.out, "cohorts")  # as before: two instances, same keys
    assert again.model.version == 3
    second = {done.name: done.version for done in again.granted}
    assert second == {name: version + 2 for name, version in first.items()}
    revoked = developer.account.revoke("a")
    assert "cohorts" in revoked.shared
    developer.device("sole")
    developer.publish(stage.out, "alone", instances=Instances.of("per-device"))
    version = developer.grant("sole", "alone").version
    assert developer.account.revoke("sole").shared == ()  # nobody else had that key
    assert {f"{kind}/alone@{version}" for kind in ("model", "bundle")} <= set(
        developer.latest().revoked
    )


def test_a_one_time_instance_serves_one_session_and_is_gone(
    stage: Stage, stock: tuple[int, ...]
) -> None:
    developer = stage.developer
    device, _ = developer.device("spy")
    pool = Instances.of("one-time", pool=3)
    assert len(developer.publish(stage.out, "once", instances=pool).compiled) == 3
    account = developer.account
    granted = account.grant("spy", model="once", sessions=2)
    assert len({done.version for done in granted}) == 2
    assert all(held.once for held in device.pull("once").taken)

    first, second = sorted(done.version for done in granted)
    with device._home.access().client() as client:
        session = client.open_session("once", version=first)
        for _ in range(2):  # also while the first session is open
            with pytest.raises(SpentError, match=rf"version {first}.*device pull.*grant"):
                client.open_session("once", version=first)
        with pytest.raises(RequestError, match="takes no fork"):
            client.fork_session(session.id)
        client.close_session(session.id)
        until_gone(stage, "once", first)
        with pytest.raises(SpentError):
            client.open_session("once", version=first)
    other, _ = developer.device("other")
    with other._home.access().client() as client:
        for version in (first, 99):  # whether another's was used, nobody is told
            with pytest.raises(NotFoundError, match="no model 'once' for you here"):
                client.open_session("once", version=version)
    # The device's own record was passed by: it finds out, takes the next and answers.
    assert stage.expected(device, "once") == stock
    assert device._home.used("once") == {first, second}
    assert not list((device._home.folder / "once" / "once").glob("*"))
    until_gone(stage, "once", second)
    with pytest.raises(PoolEmptyError, match="developer grant"):
        stage.expected(device, "once")
    with pytest.raises(PoolEmptyError, match="developer grant"):
        device.pull("once")

    developer.grant("spy", "once")
    with pytest.raises(PoolEmptyError, match=r"publish .* --instances one-time"):
        developer.grant("spy", "once")
    developer.publish(stage.out, "once", instances=Instances.of("one-time", pool=1))
    record = developer.home.existing_model("once")
    assert len(record.instances) == 2  # those that were used are gone, with their keys
    left = [form.version for form in record.instances]
    assert left == sorted({1, 2, 3, 4} - {first, second})
    folders = stage.out / "instances" / "once"
    assert sorted(path.name for path in folders.iterdir()) == [f"{n:06}" for n in left]
    developer.grant("spy", "once")
    assert len(device.pull("once").taken) == 2
    for _ in range(2):
        assert stage.expected(device, "once") == stock
    for version in left:
        until_gone(stage, "once", version)
    # All are used and deleted, on both sides: versions go on behind them all the same.
    again = developer.publish(stage.out, "once", instances=Instances.of("one-time", pool=1))
    assert [form.version for form in again.model.instances] == [5]
    developer.grant("spy", "once")
    device.pull("once")
    assert stage.expected(device, "once") == stock


def test_a_one_time_instance_of_an_encoder_answers_one_request_and_is_gone(
    stage: Stage, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoTokenizer, BertForSequenceClassification

    source = tiny_encoder("bert-labels", tmp_path / "source")
    protect(str(source), tmp_path / "out")
    developer = stage.developer
    device, _ = developer.device("reader")
    developer.publish(tmp_path / "out", "moods", instances=Instances.of("one-time", pool=3))
    granted = developer.account.grant("reader", model="moods", sessions=3)
    device.pull("moods")
    texts = ["river stone lamp", "bee", "the quiet doctor walks"]
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = BertForSequenceClassification.from_pretrained(source)

    def scores(text: str) -> dict[str, float]:
        with torch.inference_mode():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
        named = zip(model.config.id2label.values(), logits.softmax(0).tolist(), strict=True)
        return dict(named)

    versions = sorted(done.version for done in granted)
    asked: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        losing(patch, asked)
        for version, given in zip(versions, (texts, texts[:1]), strict=False):
            answers = device.classify("moods", given)
            for answer, text in zip(answers, given, strict=True):
                assert answer.scores == pytest.approx(scores(text), abs=1e-5)
            until_gone(stage, "moods", version)
    assert device._home.used("moods") == set(versions[:2])
    assert asked == ["open", "open", "forward", "forward"] * 2  # each answer was lost once
    with device._home.access().client() as client:
        client.open_session("moods", version=versions[2], request_id="first")
        with pytest.raises(SpentError, match=r"device pull.*grant"):
            client.open_session("moods", version=versions[2], request_id="second")
    with pytest.raises(PoolEmptyError, match="developer grant"):
        device.classify("moods", texts)


def losing(patch: pytest.MonkeyPatch, asked: list[str]) -> None:
    """Has the first answer to each opening and each forward request get lost on its way."""
    lost: set[str] = set()

    def wrapped(real: Any, what: str) -> Any:
        def called(client: CloudClient, *args: Any, request_id: str, **rest: Any) -> Any:
            asked.append(what)
            answer = real(client, *args, request_id=request_id, **rest)
            if request_id not in lost:
                lost.add(request_id)
                raise UnreachableError("the answer was lost")
            return answer

        return called

    patch.setattr(CloudClient, "open_session", wrapped(CloudClient.open_session, "open"))
    patch.setattr(CloudClient, "forward", wrapped(CloudClient.forward, "forward"))
    patch.setattr("triparty.device.inference.forwarding.PAUSES_S", (0.0,))


def until_gone(stage: Stage, name: str, version: int) -> None:
    """Waits until the cloud has deleted a used instance: folder, artifacts, weights."""
    until(lambda: str(version) not in stage.laid_out(name))
    until(lambda: version not in stage.developer.versions(Kind.BUNDLE, name))
    assert version not in stage.developer.versions(Kind.MODEL, name)


def test_a_cut_compilation_goes_on_at_the_instance_where_it_stopped(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stories_model: Path
) -> None:
    out = tmp_path / "out"
    protect(str(stories_model), out)
    real, seen = protect, []

    def cut_at_the_third(source: str, folder: Path, **options: object) -> None:
        seen.append(folder.name)
        if folder.name == "000003" and seen.count("000003") == 1:
            raise KeyboardInterrupt
        real(source, folder, **options)

    monkeypatch.setattr("triparty.developer.protect.protect", cut_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        stage.developer.publish(out, "cut", instances=Instances.of("5"))
    assert stage.developer.versions(name="cut") == []
    kept = {
        number: (out / "instances/cut" / number / "secrets" / "master.key").read_bytes()
        for number in ("000001", "000002")
    }
    done = stage.developer.publish(out, "cut", instances=Instances.of("5"))
    assert seen == [f"{number:06}" for number in (1, 2, 3, 3, 4, 5)]
    assert [form.version for form in done.model.forms] == [1, 2, 3, 4, 5]
    for number, master in kept.items():
        path = out / "instances/cut" / number / "secrets" / "master.key"
        assert path.read_bytes() == master
    masters = {path.read_bytes() for path in out.glob("instances/cut/*/secrets/master.key")}
    assert len(masters) == 5
    assert (out / "secrets" / "master.key").read_bytes() not in masters
