"""The worker's thread at its ends: what comes too late is refused, not forgotten."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from triparty.cloud.serving.engine import Reply
from triparty.cloud.serving.scheduler import Limits
from triparty.cloud.serving.worker import Reading, Step, Worker
from triparty.common.errors import CloudError, UnavailableError


def one_step() -> Step:
    return Step("s", "p", 0, np.ones((1, 4), np.float32), Reply.parse("hidden"))


@pytest.fixture
def worker(fake_engine: Any) -> Any:
    worker = Worker(fake_engine, Limits(), name="test-worker")
    worker.start()
    yield worker
    worker.stop()


def test_a_step_is_answered(worker: Worker) -> None:
    step = one_step()
    worker.submit(step)
    (hidden,) = step.future.result(5)
    assert hidden.tolist() == [[1, 1, 1, 1]]


def test_a_call_runs_in_the_thread_and_its_errors_come_back(worker: Worker) -> None:
    assert worker.call(lambda: 42).result(5) == 42
    with pytest.raises(CloudError):
        worker.call(lambda: [][0]).result(5)


def test_after_the_stop_everything_is_refused(worker: Worker) -> None:
    worker.stop()
    step = one_step()
    worker.submit(step)
    for future in (step.future, worker.call(lambda: 42)):
        with pytest.raises(UnavailableError):
            future.result(5)


def test_what_was_queued_behind_the_stop_is_refused(fake_engine: Any) -> None:
    worker = Worker(fake_engine, Limits(), name="test-worker")
    first, second = one_step(), one_step()
    fake_engine.gate.clear()
    worker.start()
    worker.submit(first)
    assert fake_engine.entered.wait(5)
    worker.stop(wait=False)
    worker.submit(second)
    call = worker.call(lambda: 42)
    fake_engine.gate.set()
    assert first.future.result(5)
    for future in (second.future, call):
        with pytest.raises(UnavailableError):
            future.result(5)


def test_texts_that_are_read_take_turns_with_steps(fake_engine: Any) -> None:
    told: list[str] = []
    run = fake_engine.run
    fake_engine.read = lambda session, rows: told.append(session)

    def watched(batch: Any) -> Any:
        told.extend(f"step of {work.session}" for work in batch)
        return run(batch)

    fake_engine.run = watched
    worker = Worker(fake_engine, Limits(), name="test-worker")
    text = np.ones((600, 4), np.float32)
    readings = [Reading(f"a{n}", "a", text) for n in range(4)]
    cancelled, step = Reading("a4", "a", text), one_step()
    cancelled.future.cancel()
    for task in (*readings, cancelled, Reading("b0", "b", text), step):
        worker.submit(task)
    worker.start()
    assert [reading.future.result(5) for reading in readings] == [()] * 4
    worker.stop()
    assert told == ["a0", "step of s", "b0", "a1", "a2", "a3"]
    assert worker.counts.steps == 1  # a text has no reply
    assert worker.counts.rows == 5 * 600 + 1


def test_a_text_that_cannot_be_read_is_an_error_of_its_own(fake_engine: Any) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no memory")

    fake_engine.read = broken
    worker = Worker(fake_engine, Limits(), name="test-worker")
    reading, step = Reading("a", "a", np.ones((3, 4), np.float32)), one_step()
    worker.submit(reading)
    worker.submit(step)
    worker.start()
    with pytest.raises(CloudError):
        reading.future.result(5)
    assert step.future.result(5)
    worker.stop()
