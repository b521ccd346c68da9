"""A filter from a device's data to a filter in use, trained by a cloud over real HTTPS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_cloud import Developer, LiveCloud, running_cloud
from made_inputs import SIZES, clouds, model
from made_jobs import files_of
from typer.testing import CliRunner

from triparty.common.datasets import DATASET_FILE
from triparty.common.errors import (
    CloudError,
    DatasetError,
    SignatureError,
    StateError,
    UnreachableError,
)
from triparty.common.nets.course import Course
from triparty.common.replies import JobRecord
from triparty.common.signing import PrivateKey
from triparty.common.transport import CloudClient
from triparty.device.cli import app as device_commands
from triparty.device.filters import Filter, Recipe, class_not_in
from triparty.device.filters.first_stage import STAGE_FILE, FirstStage
from triparty.device.filters.requests import (
    Requested,
    Wanted,
    jobs_under_way,
    request_filter,
    wanted_filter,
)
from triparty.device.home import Home

COURSE = Course(epochs=12, rate=1e-2)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCloud]:
    data = tmp_path_factory.mktemp("cloud") / "data"
    with running_cloud(data, https=True, max_jobs_per_principal=2) as cloud:
        yield cloud


@pytest.fixture
def set_trainers(cloud: LiveCloud) -> Iterator[Any]:
    """Changes how many trainings the cloud runs, until the test ends."""
    jobs = cloud.app.state.jobs
    before = jobs._settings

    def change(count: int) -> None:
        jobs._settings = before.model_copy(update={"max_trainers": count})
        jobs.begin()

    yield change
    change(before.max_trainers)


@pytest.fixture
def home(cloud: LiveCloud, tmp_path: Path) -> Home:
    developer = Developer.new(cloud, tmp_path)
    developer.enroll()
    device, _ = developer.device("phone")
    return device._home


def wanted(sending: Any, count: int = 480, **changes: Any) -> Wanted:
    points, classes = clouds(count)
    made = wanted_filter(
        points,
        classes.tolist(),
        class_not_in(0),
        recipe=Recipe("skip", sizes=SIZES),
        course=COURSE,
        sending=sending,
    )
    return replace(made, **changes)


def ask(home: Home, what: Wanted, target: Path, **options: Any) -> Requested:
    options = {"sleep": lambda _: None, "patience_s": 10.0} | options
    return request_filter(home, what, target, now=datetime.now(UTC), **options)


def data_folder(cloud: LiveCloud) -> Path:
    folder: Path = cloud.app.state.settings.data
    return folder


def test_features_become_a_filter_and_nothing_stays(
    cloud: LiveCloud, home: Home, tmp_path: Path
) -> None:
    told: list[JobRecord] = []
    sent: list[bytes] = []
    real = CloudClient.upload_blob

    def noted(self: CloudClient, file: Path, **options: Any) -> None:
        sent.append(file.read_bytes())
        real(self, file, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CloudClient, "upload_blob", noted)
        patch.setattr("secrets.randbits", lambda bits: 1)  # as well as one draw of a layer does
        done = ask(home, wanted("features"), tmp_path / "made", on_job=told.append)
    assert (done.sent_rows, done.kept_rows) == (360, 120)
    assert done.taken.is_taken
    assert [one.epoch for one in told] == sorted(one.epoch for one in told)
    assert told[-1].state == "done"
    assert told[-1].epoch == told[-1].epochs == COURSE.epochs
    assert any(one.loss is not None and one.training_loss is not None for one in told)

    points, classes = clouds(300, seed=7)
    filter_ = Filter.load(tmp_path / "made")
    calibration = filter_.artifact.tasks[0].calibration
    assert calibration.samples == 120
    assert calibration.filter_rate > 0.5
    found = filter_.evaluate(points, classes.tolist()).tasks[0].calibrated
    assert found.accuracy > 0.85
    assert found.filter_rate > 0.5
    assert filter_.artifact.tasks[0].measure.name == "class-not-in"

    (data,) = sent  # no row of what is raw, nothing of the stage
    stage = FirstStage.open(tmp_path / "made")
    assert stage is not None
    assert stage.layers[0].weights[0].tobytes() not in data
    raw = wanted("features").samples.inputs.columns["input"]
    assert not any(row[:2].tobytes() in data for row in raw)
    assert files_of(data_folder(cloud)) == []
    assert jobs_under_way(home) == []
    assert not list(home.folder.glob("jobs/*"))


def test_the_command_sends_raw_inputs_only_when_told(
    cloud: LiveCloud, home: Home, tmp_path: Path
) -> None:
    points, classes = clouds(480)
    data = tmp_path / "data.npz"
    np.savez(data, x=points, results=classes)
    words = ["filter", "request", str(data), "-o", str(tmp_path / "made")]
    words += ["--measure", "class-not-in:0", "--epochs", "12", "--home", str(home.folder)]
    words += [part for name, value in SIZES.items() for part in ("--size", f"{name}={value}")]
    done = CliRunner().invoke(device_commands, [*words, "--send", "inputs", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["sent"] == "inputs"
    assert "the inputs themselves" in document["cloud_learns"]
    assert document["sent_rows"] == 360
    assert document["taken"] is True
    assert not (tmp_path / "made" / STAGE_FILE).exists()
    assert Filter.load(tmp_path / "made").artifact.inputs[0].name == "x"
    assert files_of(data_folder(cloud)) == []
    wrong = CliRunner().invoke(device_commands, [*words, "--send", "everything"])
    assert wrong.exit_code != 0


def test_nothing_sends_nothing(home: Home, tmp_path: Path) -> None:
    """Also the default where this device can train; no request leaves it."""
    points, classes = clouds(300)
    data = tmp_path / "data.npz"
    np.savez(data, x=points, results=classes)
    words = ["filter", "request", str(data), "-o", str(tmp_path / "made"), "--epochs", "2"]
    words += ["--measure", "class-not-in:0", "--home", str(home.folder), "--json"]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a request left the device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("triparty.common.connection.Connection.request", refuse)
        patch.setattr("triparty.common.connection.Connection.stream", refuse)
        for choice in (["--send", "nothing"], []):
            done = CliRunner().invoke(device_commands, [*words, *choice])
            assert done.exit_code == 0, done.output
            document = json.loads(done.stdout)
            assert (document["sent"], document["sent_bytes"]) == ("nothing", 0)
        patch.setattr("triparty.device.filters.fitting.can_train", lambda: False)
        assert CliRunner().invoke(device_commands, words).exit_code != 0  # features: it asks


class Cut:
    """A connection that breaks off once at each of some calls."""

    def __init__(self, patch: pytest.MonkeyPatch, *methods: str) -> None:
        self.left = set(methods)
        for method in methods:
            self._break(patch, method, getattr(CloudClient, method))

    def _break(self, patch: pytest.MonkeyPatch, method: str, real: Any) -> None:
        def broken(client: CloudClient, *words: Any, **options: Any) -> Any:
            answer = real(client, *words, **options)
            if method in self.left:
                self.left.discard(method)
                raise UnreachableError("cut")
            return answer

        patch.setattr(CloudClient, method, broken)


def test_a_request_waits_through_cuts_and_refuses_a_worse_filter(
    cloud: LiveCloud, home: Home, tmp_path: Path, set_trainers: Any
) -> None:
    """One training: cut at each call, left, taken up, and judged against a better filter."""
    what = wanted("inputs")
    better = Filter.fit(*better_data(), class_not_in(0), recipe=what.recipe, course=COURSE)
    better.save(tmp_path / "made")
    before = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    shuffled = np.random.default_rng(0).permutation(what.samples.labels)
    learnt = what.samples.labels.copy()
    learnt[kept_back(what) == 0] = shuffled[kept_back(what) == 0]
    worse = replace(what, samples=replace(what.samples, labels=learnt))

    set_trainers(0)  # it waits
    with pytest.MonkeyPatch.context() as patch:
        cut = Cut(patch, "upload_blob", "request_job", "job")

        def leave(*_: Any) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ask(home, worse, tmp_path / "made", on_job=leave)
        assert not cut.left
    (job,) = jobs_under_way(home)
    with home.access().client() as client:
        assert [(one.job, one.state) for one in client.jobs()] == [(job, "waiting")]
    assert not (home.folder / "jobs" / job / "data" / DATASET_FILE).exists()
    set_trainers(1)
    done = ask(home, worse, tmp_path / "made")
    assert done.job == job
    assert not done.taken.is_taken
    assert done.taken.after < done.taken.before
    assert {p.name: p.read_bytes() for p in (tmp_path / "made").iterdir()} == before
    assert files_of(data_folder(cloud)) == []


def better_data() -> tuple[Any, Any]:
    points, _ = clouds(480, seed=3)
    return points, [model()(one) for one in points]


def kept_back(what: Wanted) -> Any:
    """(n,) 1 for samples that never leave."""
    from triparty.common.nets.samples import Inputs, Samples
    from triparty.device.filters.fitting import parted

    rows = np.arange(len(what.samples))
    marked = Samples(
        Inputs({"row": rows[:, None]}, np.ones((len(rows), 1), np.bool_)), what.samples.labels
    )
    kept = parted(marked, what.recipe.calibration_share, what.course.seed)[1]
    return np.isin(rows, kept.inputs.columns["row"][:, 0]).astype(int)


def test_a_result_of_another_key_or_job_is_refused(
    cloud: LiveCloud, home: Home, tmp_path: Path
) -> None:
    """One training; the cloud shows its result under a wrong key, then a wrong name."""
    from triparty.common.artifacts import Manifest
    from triparty.common.errors import ManifestError
    from triparty.common.jobs import new_job_id, sign_result

    real = CloudClient.watch_job
    forged: dict[str, Any] = {}

    def watch(client: CloudClient, job: str) -> Iterator[JobRecord]:
        for record in real(client, job):
            if record.result is None:
                yield record
                continue
            manifest = Manifest.from_bytes(record.result.payload)
            changed = replace(manifest, **forged["changes"](manifest))
            yield replace(record, result=sign_result(changed, forged["key"]))

    own = cloud.app.state.jobs.key
    stranger = PrivateKey.generate()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CloudClient, "watch_job", watch)
        patch.setattr(CloudClient, "job", lambda client, job: next(watch(client, job)))
        for kind, key, changes in (
            (SignatureError, stranger, lambda _: {"signer": stranger.public.key_id}),
            (ManifestError, own, lambda _: {"name": new_job_id()}),
            (ManifestError, own, lambda m: {"files": m.files[:1]}),
        ):
            forged.update(key=key, changes=changes)
            with pytest.raises(kind):
                ask(home, wanted("inputs", count=240), tmp_path / "made")
    assert not (tmp_path / "made").exists()
    assert ask(home, wanted("inputs", count=240), tmp_path / "made").taken.is_taken


def test_what_is_wrong_here_is_refused_before_anything_is_sent(
    cloud: LiveCloud, home: Home, tmp_path: Path
) -> None:
    points, classes = clouds(100)
    points[31, 2] = np.nan
    data = tmp_path / "data.npz"
    np.savez(data, x=points, results=classes)
    words = ["filter", "request", str(data), "-o", str(tmp_path / "made")]
    words += ["--measure", "class-not-in:0", "--home", str(home.folder), "--send", "inputs"]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a request left the device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("triparty.common.connection.Connection.request", refuse)
        patch.setattr("triparty.common.connection.Connection.stream", refuse)
        done = CliRunner().invoke(device_commands, words)
        assert isinstance(done.exception, DatasetError)
        assert "row 31 of 'x'" in str(done.exception)
        np.savez(data, x=clouds(100)[0], results=np.ones(100, int))
        done = CliRunner().invoke(device_commands, words)
        assert "at least two different ones" in str(done.exception)
    assert jobs_under_way(home) == []


def test_who_knows_no_job_key_is_told_what_to_do(home: Home, tmp_path: Path) -> None:
    replace(home.access(), job_key=None).save(home.folder)
    with pytest.raises(StateError, match="enroll --again"):
        ask(home, wanted("inputs"), tmp_path / "made")


def test_jobs_are_listed_and_cancelled(
    cloud: LiveCloud, home: Home, tmp_path: Path, set_trainers: Any
) -> None:
    set_trainers(0)

    def leave(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(home, wanted("inputs"), tmp_path / "made", on_job=leave)
    (job,) = jobs_under_way(home)
    words = ["filter", "jobs", "--home", str(home.folder), "--json"]
    listed = json.loads(CliRunner().invoke(device_commands, words).stdout)["jobs"]
    assert [(one["job"], one["state"]) for one in listed] == [(job, "waiting")]
    done = CliRunner().invoke(device_commands, [*words, "--cancel", job])
    assert json.loads(done.stdout)["jobs"] == []
    assert jobs_under_way(home) == []
    assert files_of(data_folder(cloud)) == []
    real = CloudClient.watch_job

    def watch(client: CloudClient, job: str) -> Iterator[JobRecord]:
        stream = real(client, job)
        yield next(stream)
        client.end_job(job)
        yield from stream

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CloudClient, "watch_job", watch)
        with pytest.raises(CloudError, match="cancelled"):
            ask(home, wanted("inputs"), tmp_path / "made")
