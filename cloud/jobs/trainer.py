"""The process of one training: `python -m triparty.cloud.jobs.trainer FOLDER`.

```
FOLDER/task.json     what to do, within which bounds
FOLDER/data.npz      the samples
FOLDER/checkpoint-N  where it stands
FOLDER/result        the filter, when it is done
```

It writes a JSON object a line: `{"epoch": ...}` after each pass, and one last one, `{"end":
"done"}`, `"stopped"` after SIGTERM, or `"failed"` with `problem`. It dies when its standard
input ends, so with the cloud, however that ends; the next one of the same folder waits for its
death, and goes on from the last checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from triparty.common.errors import DatasetError, TripartyError
from triparty.common.files import locked, make_private_folder, sync_folder, write_private

if TYPE_CHECKING:
    from triparty.common.nets.training import Descent, Epoch, Trained

TASK_FILE: Final = "task.json"
RESULT_FOLDER: Final = "result"
ORPHANED: Final = 3
_GRACE_S = 5


class _Stopped(Exception):  # noqa: N818 - a signal, not an error
    """The cloud wants the training to wait."""


def main(folder: Path) -> None:
    """Trains, until it is done, stopped, or fails."""
    threading.Thread(target=_die_with_the_cloud, daemon=True).start()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the cloud's business
    task = json.loads((folder / TASK_FILE).read_bytes())
    with locked(folder):
        bound(task["bounds"])
        try:
            if not (folder / RESULT_FOLDER).is_dir():
                _train(folder, task, stop)
        except _Stopped:
            say({"end": "stopped"})
        except TripartyError as error:
            say({"end": "failed", "problem": error.message})
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
                raise
            say({"end": "failed", "problem": _too_little_memory(task["bounds"])})
        else:
            say({"end": "done"})


def bound(bounds: Mapping[str, Any]) -> None:
    """Bounds this process: memory, CPU time, priority; no core files.

    Args:
        bounds: `memory_bytes`, `cpu_s`, `nice` and `threads`.
    """
    import torch

    torch.set_num_threads(bounds["threads"])
    memory = bounds["memory_bytes"]
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cpu_s = bounds["cpu_s"]
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + _GRACE_S))
    os.nice(max(0, bounds["nice"] - os.nice(0)))


def say(line: Mapping[str, object]) -> None:
    """Tells the cloud something."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _train(folder: Path, task: Mapping[str, Any], stop: threading.Event) -> None:
    from triparty.cloud.jobs.checkpoints import Checkpoints
    from triparty.cloud.jobs.tasks import Task
    from triparty.common.datasets import DATASET_FILE, Limits, read_samples
    from triparty.common.nets.training import train

    wanted = Task.from_json(json.dumps(task["task"]))
    samples = read_samples(folder / DATASET_FILE, wanted.design, Limits(**task["limits"]))
    checkpoints = Checkpoints(folder)
    clock = _Clock(checkpoints, stop, every_s=task["checkpoint_s"])
    trained = train(
        wanted.design,
        samples,
        wanted.course,
        resume=checkpoints.newest(),
        on_epoch=_Teller(wanted.course.epochs),
        on_step=clock,
    )
    _write_result(folder, trained, wanted.course.seed)


class _Clock:
    """Keeps checkpoints, and ends the training when the cloud wants it to wait."""

    def __init__(self, checkpoints: Any, stop: threading.Event, *, every_s: float) -> None:
        self._checkpoints, self._stop, self._every_s = checkpoints, stop, every_s
        self._saved_s = time.monotonic()

    def __call__(self, descent: Descent) -> None:
        is_over = self._stop.is_set()
        is_due = time.monotonic() >= self._saved_s + self._every_s
        if is_over or (is_due and (self._every_s or descent.is_between_passes)):
            self._checkpoints.save(descent.state())
            self._saved_s = time.monotonic()
        if is_over:
            raise _Stopped


class _Teller:
    """Tells the cloud how far the training is."""

    def __init__(self, epochs: int) -> None:
        self._epochs, self._best = epochs, float("inf")
        self._began_s, self._seen = time.monotonic(), 0

    def __call__(self, epoch: Epoch) -> None:
        self._seen += 1
        each_s = (time.monotonic() - self._began_s) / self._seen
        self._best = min(self._best, epoch.loss)
        say(
            {
                "epoch": epoch.number,
                "training_loss": _finite(epoch.training_loss),
                "loss": _finite(epoch.loss),
                "is_best": epoch.is_best,
                "seconds_left": round(each_s * (self._epochs - epoch.number), 1),
            }
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no others


def _write_result(folder: Path, trained: Trained, seed: int) -> None:
    from triparty.cloud.jobs.results import unjudged_filter
    from triparty.common.filters import FILTER_FILE, NETWORK_FILE
    from triparty.common.nets.export import to_onnx

    if not math.isfinite(trained.loss):
        raise DatasetError("the training diverged, its loss is not finite: lower the rate")
    making = folder / f".{RESULT_FOLDER}"
    shutil.rmtree(making, ignore_errors=True)
    make_private_folder(making)
    write_private(making / NETWORK_FILE, to_onnx(trained.network))
    write_private(making / FILTER_FILE, unjudged_filter(trained, seed=seed))
    os.rename(making, folder / RESULT_FOLDER)
    sync_folder(folder)


def _too_little_memory(bounds: Mapping[str, Any]) -> str:
    return (
        f"the training needs more than {bounds['memory_bytes']} bytes of memory: send fewer "
        "rows, or make batch, units or the input smaller"
    )


def _die_with_the_cloud() -> NoReturn:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(ORPHANED)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
