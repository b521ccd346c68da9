"""Training jobs: refused early, fair, ended at once, without a trace, resumed bit for bit."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_jobs import (
    body_of,
    data_of,
    design,
    events_of,
    files_of,
    get,
    post,
    put,
    samples,
    waited,
)

from triparty.cloud.jobs import trainer
from triparty.cloud.jobs.checkpoints import Checkpoints
from triparty.cloud.jobs.tasks import Task, most_weights
from triparty.cloud.jobs.turns import Turn, next_turn
from triparty.cloud.tables import JobRow
from triparty.common.datasets import DATASET_FILE
from triparty.common.errors import CheckpointError
from triparty.common.files import make_private_folder
from triparty.common.nets.course import Course
from triparty.common.nets.design import Design
from triparty.common.nets.inputs import InputSpec
from triparty.common.nets.network import FilterNetwork
from triparty.common.nets.samples import Inputs, Samples

DATABASES = ["sqlite", "postgresql"]
POINT = InputSpec("input", "vector", (6,))


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    return data_of(tmp_path, samples())


@pytest.fixture
def idle(make_cloud: Callable[..., Any]) -> Any:
    """A cloud whose jobs wait."""
    return make_cloud(max_trainers=0, max_jobs_per_principal=3, max_job_epochs=50)


# Asking


def test_a_job_waits_is_listed_and_is_gone_without_a_trace(idle: Any, data: bytes) -> None:
    device = idle.developer().device()
    answer = post(device, data)
    assert answer.status_code == 201
    job = answer.json()["job"]
    assert answer.json()["state"] == "waiting"
    assert (answer.json()["rows"], answer.json()["bytes"]) == (200, len(data))
    assert [one["job"] for one in device.request("GET", "/v1/jobs").json()["jobs"]] == [job]
    assert idle.request("GET", "/v1/status", idle.operator).json()["jobs"] == 1
    assert any(path.endswith(DATASET_FILE) for path in files_of(idle.data))
    assert device.request("DELETE", f"/v1/jobs/{job}").status_code == 204
    assert files_of(idle.data) == []
    assert idle.request("GET", "/v1/status", idle.operator).json()["jobs"] == 0
    for method in ("GET", "DELETE"):
        assert device.request(method, f"/v1/jobs/{job}").status_code == 404


def test_the_same_request_is_one_job(idle: Any, data: bytes, slug: Any) -> None:
    device = idle.developer().device()
    assert put(device, data).status_code == 201
    body = body_of(device, data)
    first = device.request("POST", "/v1/jobs", json=body)
    again = device.request("POST", "/v1/jobs", json=body)  # its upload is the job's now
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    other = device.request("POST", "/v1/jobs", json=body | {"kind": "reuse"})
    assert (other.status_code, slug(other)) == (409, "conflict")


def test_as_many_jobs_as_one_may_have(idle: Any, data: bytes, slug: Any) -> None:
    developer = idle.developer()
    device = developer.device()
    for _ in range(3):
        assert post(device, data).status_code == 201
    refused = post(device, data)
    assert (refused.status_code, slug(refused)) == (429, "limit")
    assert int(refused.headers["retry-after"]) > 0
    assert post(developer.device("other"), data).status_code == 201


def test_cpu_seconds_of_a_day(make_cloud: Any, data: bytes, slug: Any) -> None:
    from triparty.cloud.jobs import register

    cloud = make_cloud(max_trainers=0, max_job_cpu_s_per_day=10)
    device = cloud.developer().device()
    with cloud.app.state.database.writing() as session:
        register.count_cpu(session, 0, device.id, 9_999, now=cloud.now)
    assert post(device, data).status_code == 201
    with cloud.app.state.database.writing() as session:
        register.count_cpu(session, 0, device.id, 1, now=cloud.now)
    refused = post(device, data)
    assert (refused.status_code, slug(refused)) == (429, "limit")
    left_s = int(refused.headers["retry-after"])
    cloud.now += timedelta(seconds=left_s - 2)
    assert post(device, data).status_code == 429
    cloud.now += timedelta(seconds=2)
    assert post(device, data).status_code == 201


@pytest.mark.one_database
def test_too_much_is_refused_with_the_limit(
    make_cloud: Any, tmp_path: Path, data: bytes, slug: Any
) -> None:
    cloud = make_cloud(
        max_trainers=0, max_dataset_rows=100, max_dataset_bytes=8192, max_job_weights=5000
    )
    device = cloud.developer().device()
    too_many = post(device, data)
    assert (too_many.status_code, slug(too_many)) == (413, "size")
    assert "200 rows: at most 100" in too_many.json()["detail"]
    assert files_of(cloud.data) == []  # what is of no use is not kept
    few = data_of(tmp_path, samples(count=60))
    epochs = post(device, few, course={"epochs": 201})
    assert (epochs.status_code, epochs.json()["limit"]) == (413, 200)
    large = post(device, few, design=design(units=4000))
    assert (large.status_code, large.json()["limit"]) == (413, 5000)
    big = bytes(8193)
    assert put(device, big).status_code == 413
    claimed = device.request("POST", "/v1/jobs", json=body_of(device, big))
    assert claimed.status_code == 413
    assert post(device, few).status_code == 201


def changed(place: Any, value: float) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        made = samples()
        made.inputs.columns["input"][place] = value
        return data_of(folder, made)

    return make


def one_class(folder: Path) -> bytes:
    made = samples()
    return data_of(folder, Samples(made.inputs, np.ones_like(made.labels)))


def other_shape(folder: Path) -> bytes:
    made = samples()
    columns = {"input": made.inputs.columns["input"][:, :5]}
    return data_of(folder, Samples(Inputs(columns, made.inputs.present), made.labels))


def two_to_the_forty(folder: Path) -> bytes:
    import zipfile

    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**40}, 6), }}\n".encode()
    header = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    with zipfile.ZipFile(folder / "huge.npz", "w") as archive:
        archive.writestr("input.input.npy", header)
    return (folder / "huge.npz").read_bytes()


@pytest.mark.one_database
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (changed((17, 3), np.nan), "row 17 of 'input.input' holds a number that is not finite"),
        (changed((199, 0), np.inf), "row 199 of 'input.input'"),
        (one_class, "label 1 in all 200 rows"),
        (other_shape, "shape (5,): expected float32 and (6,)"),
        (two_to_the_forty, "declares 1099511627776 rows"),
        (lambda _: b"\x80\x04K\x01.", "a pickle, which runs code"),
    ],
)
def test_bad_data_is_refused_with_the_row_and_not_kept(
    idle: Any, tmp_path: Path, make: Any, says: str
) -> None:
    device = idle.developer().device()
    refused = post(device, make(tmp_path))
    assert refused.status_code in (413, 422)
    assert says in refused.json()["detail"]
    assert files_of(idle.data) == []
    assert device.request("GET", "/v1/jobs").json()["jobs"] == []


@pytest.mark.one_database
def test_only_the_device_signs_its_data_for_its_job(idle: Any, data: bytes, slug: Any) -> None:
    developer = idle.developer()
    device, other = developer.device(), developer.device("other")
    assert put(device, data).status_code == 201
    body = body_of(device, data)
    taken = device.request("POST", "/v1/jobs", json=body_of(other, data))
    assert (taken.status_code, slug(taken)) == (422, "signature")
    renamed = device.request("POST", "/v1/jobs", json=body | {"job": "0" * 32})
    assert (renamed.status_code, slug(renamed)) == (422, "manifest")
    absent = device.request("POST", "/v1/jobs", json=body_of(device, b"other bytes"))
    assert (absent.status_code, slug(absent)) == (409, "blob-missing")
    for wrong in ({"kind": "both"}, {"design": design(layers=3)}, {"course": {"epochs": 0}}):
        assert device.request("POST", "/v1/jobs", json=body | wrong).status_code == 422
    vague = design() | {"inputs": [{"name": "input", "modality": "image", "shape": [6]}]}
    assert device.request("POST", "/v1/jobs", json=body | {"design": vague}).status_code == 400
    assert developer.request("GET", "/v1/jobs").status_code == 403


# Others


def test_nobody_else_finds_a_job_its_data_or_its_blobs(idle: Any, data: bytes) -> None:
    """Its developer and another device of it included."""
    from hashlib import sha256

    developer = idle.developer()
    device = developer.device()
    assert put(device, data).status_code == 201
    held = f"/v1/blobs/{sha256(data).hexdigest()}"
    strangers = [developer.device("sibling"), idle.developer("rival").device()]
    for party in (*strangers, developer):
        assert party.request("HEAD", held).status_code == 404
        assert party.request("GET", held).status_code == 404
    assert device.request("HEAD", held).status_code == 200
    job = device.request("POST", "/v1/jobs", json=body_of(device, data)).json()["job"]
    for stranger in strangers:
        assert stranger.request("GET", "/v1/jobs").json()["jobs"] == []
        for method, path in (
            ("GET", f"/v1/jobs/{job}"),
            ("GET", f"/v1/jobs/{job}/events"),
            ("DELETE", f"/v1/jobs/{job}"),
        ):
            assert stranger.request(method, path).status_code == 404
        mine = stranger.request("POST", "/v1/jobs", json=body_of(stranger, data, job=job))
        assert mine.status_code == 409  # its own upload is missing: the id is free for it
        assert mine.json()["type"].endswith("blob-missing")
    assert get(device, job)["state"] == "waiting"


def test_what_a_revoked_device_had_is_gone(idle: Any, data: bytes) -> None:
    developer, rival = idle.developer(), idle.developer("rival")
    device, sibling, other = developer.device(), developer.device("s"), rival.device()
    for party in (device, sibling, other):
        assert post(party, data).status_code == 201
    assert len([p for p in files_of(idle.data) if p.endswith(DATASET_FILE)]) == 3
    assert developer.request("DELETE", f"/v1/devices/{device.id}").status_code == 204
    assert len([p for p in files_of(idle.data) if p.endswith(DATASET_FILE)]) == 2
    path = f"/v1/developers/{developer.id}"
    assert idle.request("DELETE", path, idle.operator).status_code == 204
    assert len([p for p in files_of(idle.data) if p.endswith(DATASET_FILE)]) == 1
    assert len(other.request("GET", "/v1/jobs").json()["jobs"]) == 1


def test_turns_go_round() -> None:
    def turn(number: int, who: str) -> Turn:
        return Turn(number, who, who[0])

    waiting = [turn(n, "a1") for n in range(5)] + [turn(5, "a2"), turn(6, "b1")]
    order, running, left = [], [], list(waiting)
    while left:
        chosen = next_turn(left, running, {})
        assert chosen is not None
        order.append(chosen.principal)
        running.append(chosen)
        left.remove(chosen)
    assert order == ["a1", "b1", "a2", "a1", "a1", "a1", "a1"]
    assert next_turn([turn(0, "a1"), turn(1, "b1")], [], {"a1": 5}) == turn(1, "b1")
    assert next_turn([turn(0, "a1"), turn(1, "a2")], [], {"a1": 5}) == turn(1, "a2")
    assert next_turn([], [turn(0, "a1")], {}) is None


# Limits of networks


@pytest.mark.parametrize(
    "spec",
    [
        POINT,
        InputSpec("input", "text", (12,), 500),
        InputSpec("input", "series", (32, 5)),
        InputSpec("input", "image", (24, 20, 3)),
        InputSpec("input", "video", (4, 3, 24, 20)),
        InputSpec("input", "audio", (4096,)),
        InputSpec("input", "audio", (20, 30)),
    ],
    ids=lambda spec: f"{spec.modality} {len(spec.shape)}",
)
def test_the_size_of_a_network_is_told_without_building_it(spec: InputSpec) -> None:
    built = Design("skip", (spec,), tasks=3, units=20, embedding=16, filters=6, text_width=5)
    weights = sum(one.numel() for one in FilterNetwork(built).parameters())
    assert weights <= most_weights(built) <= 1.6 * weights


# The trainer


@pytest.fixture
def assigned(tmp_path: Path, data: bytes) -> Callable[..., Path]:
    """A trainer's folder."""

    def make(name: str, **changes: Any) -> Path:
        folder = tmp_path / name
        make_private_folder(folder)
        (folder / DATASET_FILE).write_bytes(data)
        course = Course(epochs=3, batch=16, rate=5e-3, accelerated=True)
        sizes = {"units": 16, "embedding": 12, "filters": 4, "text_width": 4}
        task = Task(Design("skip", (POINT,), **sizes), course)
        assignment = {
            "task": json.loads(task.to_json()),
            "limits": {"rows": 1000, "bytes": 1 << 20},
            "checkpoint_s": 0,
        }
        (folder / "task.json").write_text(json.dumps(assignment | changes))
        return folder

    return make


class StopAfter(threading.Event):
    """Says so after it was asked so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def is_set(self) -> bool:
        self.times -= 1
        return self.times < 0


def results_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "result").iterdir()}


def train_in(folder: Path, stop: threading.Event) -> None:
    trainer._train(folder, json.loads((folder / "task.json").read_bytes()), stop)


@pytest.mark.parametrize("times", [3, 8])
def test_a_trainer_that_is_stopped_ends_in_the_same_bytes(
    assigned: Any, times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = assigned("whole"), assigned("parts")
    train_in(whole, threading.Event())
    stops = 0
    while not (parts / "result").exists():
        try:
            train_in(parts, StopAfter(times))
        except trainer._Stopped:
            stops += 1
            assert [p.name for p in parts.glob("checkpoint-*")] == [f"checkpoint-{last(parts)}"]
    assert stops >= 2
    assert results_of(parts) == results_of(whole)


def last(folder: Path) -> int:
    return max(int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*"))


@pytest.mark.parametrize("step", ["write_private", "rename", "rmtree"])
def test_a_trainer_that_dies_at_a_checkpoint_ends_in_the_same_bytes(
    assigned: Any, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triparty.cloud.jobs import checkpoints

    class Died(BaseException):
        pass

    whole, parts = assigned("whole"), assigned("parts")
    train_in(whole, threading.Event())
    owner = {"write_private": checkpoints, "rename": os, "rmtree": checkpoints.shutil}[step]
    real, left = getattr(owner, step), 2

    def die(*words: Any, **options: Any) -> Any:
        nonlocal left
        if "checkpoint" in str(words[0]):
            left -= 1
            if not left:
                raise Died
        return real(*words, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, die)
        with pytest.raises(Died):
            train_in(parts, threading.Event())
    train_in(parts, threading.Event())
    assert results_of(parts) == results_of(whole)


def test_a_damaged_checkpoint_is_named(assigned: Any) -> None:
    folder = assigned("one")
    with pytest.raises(trainer._Stopped):
        train_in(folder, StopAfter(3))
    (kept,) = folder.glob("checkpoint-*")
    (kept / "state.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Checkpoints(folder).newest()


# All together: real processes


@pytest.mark.one_database
def test_killed_watched_cancelled_and_done(make_cloud: Any, data: bytes) -> None:
    """One training is cancelled in the middle; another is killed and goes on."""
    cloud = make_cloud(job_checkpoint_s=0, trainer_nice=0)
    device = cloud.developer().device()
    jobs = cloud.app.state.jobs

    def pid_of(job: str) -> int:
        with cloud.app.state.database.reading() as session:
            row = next(one for one in session.query(JobRow) if one.job == job)
        return int(jobs._running[row.number].pid)

    doomed = post(device, data, course={"epochs": 200, "patience": 200}).json()["job"]
    waited(device, doomed, "running")
    pid = pid_of(doomed)
    assert device.request("DELETE", f"/v1/jobs/{doomed}").status_code == 204
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert files_of(cloud.data) == []

    job = post(device, data, course={"epochs": 30, "patience": 30}).json()["job"]
    end_s = time.monotonic() + 60
    while get(device, job)["epoch"] < 3 and time.monotonic() < end_s:
        time.sleep(0.02)
    os.kill(pid_of(job), signal.SIGKILL)
    seen = events_of(device.request("GET", f"/v1/jobs/{job}/events").text)
    assert seen[-1]["state"] == "done"
    assert any(one["loss"] and one["training_loss"] for one in seen)
    epochs = [one["epoch"] for one in seen]
    assert epochs == sorted(epochs)
    done = get(device, job)
    assert done["cpu_s"] > 0
    assert done["problem"] is None
    kept = files_of(cloud.data)
    assert sorted(path.rpartition("/")[2] for path in kept) == ["filter.json", "filter.onnx"]

    cloud.now += timedelta(hours=23)
    jobs.sweep()
    assert files_of(cloud.data) == kept
    cloud.now += timedelta(hours=2)
    jobs.sweep()
    assert files_of(cloud.data) == []
    assert device.request("GET", f"/v1/jobs/{job}").status_code == 404
    assert jobs.totals().ended == {"done": 1, "failed": 0, "cancelled": 1}


@pytest.mark.slow
@pytest.mark.one_database
def test_a_restarted_cloud_ends_in_the_same_bytes(make_cloud: Any, data: bytes) -> None:
    """Drained in the middle: a checkpoint, a stop, and the same filter afterwards."""
    cloud = make_cloud(job_checkpoint_s=0, trainer_nice=0)
    device = cloud.developer().device()
    course = {"epochs": 60, "patience": 60, "batch": 8}
    first = waited(device, post(device, data, course=course).json()["job"])
    job = post(device, data, course=course).json()["job"]
    while get(device, job)["epoch"] < 3:
        time.sleep(0.02)
    cloud.restart()
    second = waited(device, job)
    assert second["state"] == first["state"] == "done"
    manifests = [json.loads(_decoded(one["manifest"])) for one in (first, second)]
    assert manifests[0]["files"] == manifests[1]["files"]


@pytest.mark.slow
@pytest.mark.one_database
def test_cpu_seconds_and_memory_of_a_training(make_cloud: Any, tmp_path: Path) -> None:
    cloud = make_cloud(max_job_cpu_s=8, trainer_nice=0, max_trainer_bytes=600 << 20)
    device = cloud.developer().device()
    data = data_of(tmp_path, samples(count=4000))
    course = {"epochs": 200, "patience": 200, "batch": 1}
    failed = waited(device, post(device, data, course=course).json()["job"])
    assert failed["state"] == "failed"
    assert "used up its 8 CPU seconds" in failed["problem"]
    wide = design() | {"units": 4096, "embedding": 3000}
    failed = waited(device, post(device, data, design=wide).json()["job"])
    assert failed["state"] == "failed"
    assert "bytes of memory" in failed["problem"]
    assert files_of(cloud.data) == []


def _decoded(text: str) -> bytes:
    from triparty.common.signing import from_base64url

    return from_base64url(text)
