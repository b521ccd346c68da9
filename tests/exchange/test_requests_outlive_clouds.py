"""A cloud that is killed in the middle of a training: its trainer dies, another one goes on."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from live_cloud import Developer, LiveCloud
from made_inputs import SIZES, clouds
from mortal_cloud import MortalCloud

from triparty.cloud.initialise import initialise
from triparty.cloud.jobs import trainer
from triparty.common.datasets import DATASET_FILE, write_dataset
from triparty.common.nets.course import Course
from triparty.common.replies import JobRecord
from triparty.common.transport import CloudClient
from triparty.device.client import Device
from triparty.device.filters import Filter, Recipe, class_not_in
from triparty.device.filters.fitting import parted
from triparty.device.filters.requests import request_filter, wanted_filter

LIMIT_S = 60
COURSE = Course(epochs=30, patience=30, rate=5e-3, batch=16)


def trainers(data: Path) -> list[int]:
    """Processes of trainings of a cloud's folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(os.fsencode(data)) for word in words) and (
            b"triparty.cloud.jobs.trainer" in words
        ):
            found.append(int(path.parent.name))
    return found


def test_the_same_filter_comes_of_a_cloud_that_was_killed(tmp_path: Path) -> None:
    data = tmp_path / "cloud"
    operator = initialise(data, now=datetime.now(UTC)).token
    with (data / "cloud.toml").open("a") as settings:
        settings.write("job_checkpoint_s = 0\n")
    points, classes = clouds(480)
    wanted = wanted_filter(
        points,
        classes.tolist(),
        class_not_in(0),
        recipe=Recipe("skip", sizes=SIZES),
        course=COURSE,
        sending="inputs",
    )
    with MortalCloud(tmp_path / "log") as cloud:
        cloud.start(data)
        developer = Developer.new(LiveCloud(cloud.url, None, operator), tmp_path)
        developer.enroll()
        device = Device(tmp_path / "phone")
        device.enroll(developer.invite("phone"), name="a phone")
        killer: list[threading.Thread] = []

        def kill_and_start() -> None:
            cloud.kill()
            end_s = time.monotonic() + LIMIT_S
            while trainers(data) and time.monotonic() < end_s:
                time.sleep(0.01)
            assert not trainers(data)
            cloud.start(data)

        def die(record: JobRecord) -> None:
            if record.epoch >= 3 and not killer:
                assert len(trainers(data)) == 1
                killer.append(threading.Thread(target=kill_and_start))
                killer[0].start()

        made = request_filter(
            device._home,
            wanted,
            tmp_path / "made",
            now=datetime.now(UTC),
            on_job=die,
            sleep=lambda _: time.sleep(0.2),
        )
        killer[0].join()
        with device._home.access().client() as client:
            assert CloudClient.jobs(client) == ()
        cloud.stop()
    assert Filter.load(tmp_path / "made").artifact.network == made.artifact.network
    assert made.artifact.network == undisturbed(tmp_path, wanted)


def undisturbed(folder: Path, wanted: object) -> bytes:
    """The network of the same training in one piece, in this process."""
    from dataclasses import replace

    from triparty.cloud.jobs.tasks import Task
    from triparty.device.filters.requests import Wanted

    assert isinstance(wanted, Wanted)
    learned, _ = parted(wanted.samples, wanted.recipe.calibration_share, wanted.course.seed)
    where = folder / "undisturbed"
    where.mkdir()
    write_dataset(where / DATASET_FILE, learned)
    task = Task(wanted.design, replace(wanted.course, accelerated=True))
    assignment = {
        "task": json.loads(task.to_json()),
        "limits": {"rows": 1000, "bytes": 1 << 20},
        "checkpoint_s": 1000,
    }
    trainer._train(where, assignment, threading.Event())
    return (where / "result" / "filter.onnx").read_bytes()
