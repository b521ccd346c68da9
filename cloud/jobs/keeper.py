"""The jobs of a cloud at work: whose turn it is is trained, what ended is kept and removed.

```
DATA/jobs/uploads/DEVICE/...   data on their way to a job, a namespace a device
DATA/jobs/work/FOLDER/         one job: its data, checkpoints, result
```

A job's data are removed before anybody hears that it ended. A cloud that dies leaves the job
as it was, and its trainer dies with it; the next start goes on from the checkpoint.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
import shutil
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement

from triparty.cloud.blob_room import BlobQuota
from triparty.cloud.blobs import BlobKey, BlobStore
from triparty.cloud.database import Database
from triparty.cloud.disk_blobs import DiskBlobs
from triparty.cloud.jobs import register
from triparty.cloud.jobs.register import DONE, FAILED, UNFINISHED, Outcome
from triparty.cloud.jobs.results import job_key, signed_result
from triparty.cloud.jobs.tasks import Task, dataset_limits
from triparty.cloud.jobs.training import Ended, Training
from triparty.cloud.settings import CloudSettings
from triparty.cloud.state import Now
from triparty.cloud.tables import JobRow
from triparty.common.artifacts import Manifest
from triparty.common.datasets import DATASET_FILE
from triparty.common.errors import LimitError, TripartyError
from triparty.common.files import make_private_folder, write_private

LOOK_EVERY_S: Final = 60.0
MOST_WATCHERS: Final = 8
CANCELLED: Final = "cancelled"
_NOTE_EVERY_S: Final = 2.0
_KILL_AFTER_S: Final = 10.0
_UPLOADS_PER_DEVICE: Final = 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobTotals:
    """What the trainings of this process did, and what jobs there are.

    Attributes:
        by_state: jobs now.
        ended: of this process, by how.
        cpu_s: CPU seconds that its trainers used.
    """

    by_state: Mapping[str, int]
    ended: Mapping[str, int]
    cpu_s: float


class Jobs:
    """All jobs of a cloud; any thread may call.

    Args:
        settings: of the cloud.
        database: of the cloud.
        clock: the time.
    """

    def __init__(self, settings: CloudSettings, database: Database, *, clock: Now) -> None:
        """Starts nothing yet."""
        self._settings, self._database, self._clock = settings, database, clock
        self._work = settings.job_folder / "work"
        make_private_folder(settings.job_folder)
        make_private_folder(self._work)
        uploads = settings.job_folder / "uploads"
        make_private_folder(uploads)
        self.uploads = BlobStore(
            uploads,
            DiskBlobs(uploads),
            max_blob_bytes=settings.max_dataset_bytes,
            quota=BlobQuota(
                bytes=2 * settings.max_dataset_bytes,
                blobs=_UPLOADS_PER_DEVICE,
                uploads=_UPLOADS_PER_DEVICE,
            ),
            clock_s=lambda: clock().timestamp(),
        )
        self.key = job_key(settings.data)
        self.revision = 0
        self._lock = threading.RLock()
        self._running: dict[int, Training] = {}
        self._progress: dict[int, Mapping[str, Any]] = {}
        self._noted_s: dict[int, float] = {}
        self._watchers: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._cpu_ms = 0
        self._wanted = threading.Event()
        self._is_over = True

    # What routes ask

    def upload_of(self, device: str, sha256: str) -> Path:
        """Where a device's whole upload is."""
        verified = self.uploads.verified
        if not isinstance(verified, DiskBlobs):
            raise TypeError("uploads are on this machine's disk")
        return verified.path(BlobKey(device, sha256))

    def new_folder(self, device: str, sha256: str, task: Task) -> str:
        """Lays a job's folder out from an upload; returns its name.

        Raises:
            NotFoundError: the upload is gone.
        """
        name = secrets.token_hex(16)
        folder = self._work / name
        make_private_folder(folder)
        try:
            self.uploads.fetch(device, sha256, folder / DATASET_FILE)
            write_private(folder / "task.json", json.dumps(self._assignment(task)).encode())
        except BaseException:
            self.drop_folder(name)
            raise
        return name

    def drop_folder(self, name: str) -> None:
        """Removes a job's folder."""
        shutil.rmtree(self._work / name, ignore_errors=True)

    def drop_upload(self, device: str, sha256: str) -> None:
        """Removes an upload that is a job's now, or nobody's."""
        key = BlobKey(device, sha256)
        for blob in self.uploads.verified.listed(device):
            if blob.key == key:
                self.uploads.remove_unwanted(blob, before_s=math.inf)

    def begin(self) -> None:
        """There is a new job, or room for one."""
        self._changed()
        self._wanted.set()

    def end_where(self, where: ColumnElement[bool]) -> int:
        """Ends jobs at once: processes, rows, data and results; returns how many."""
        with self._database.writing() as session:
            rows = register.remove_jobs(session, where)
        for row in rows:
            with self._lock:
                training = self._running.get(row.number)
            if training is not None:
                training.kill()
                training.join()
            self._forget(row)
            with self._lock:
                self._ended[CANCELLED] += row.state in UNFINISHED
        self.begin()
        return len(rows)

    def end_of_principal(self, principal: str) -> int:
        """Ends a device's jobs at once."""
        return self.end_where(JobRow.principal == principal)

    def end_of_developer(self, developer: str) -> int:
        """Ends the jobs of all devices of a developer at once."""
        return self.end_where(JobRow.developer == developer)

    def progress(self, row: JobRow) -> Mapping[str, Any]:
        """How far a training is."""
        with self._lock:
            found = self._progress.get(row.number)
        return json.loads(row.progress) if found is None else found

    def result_file(self, rows: list[JobRow], sha256: str) -> Path | None:
        """The file of a result of one of these jobs; None if none has it."""
        for row in rows:
            if row.manifest is None:
                continue
            for file in Manifest.from_bytes(row.manifest).files:
                if file.sha256 == sha256:
                    return self._work / row.folder / "result" / file.path
        return None

    @contextmanager
    def watched_by(self, principal: str) -> Iterator[None]:
        """Somebody watches a job while the block runs.

        Raises:
            LimitError: a principal watches too many already.
        """
        with self._lock:
            if self._watchers[principal] >= MOST_WATCHERS:
                raise LimitError(
                    f"you watch {MOST_WATCHERS} jobs already: close one of the streams"
                )
            self._watchers[principal] += 1
        try:
            yield
        finally:
            with self._lock:
                self._watchers[principal] -= 1
                if not self._watchers[principal]:
                    del self._watchers[principal]

    def totals(self) -> JobTotals:
        """What there is and what was done; asks the database."""
        with self._database.reading() as session:
            by_state = register.count_jobs(session)
        with self._lock:
            ended = {how: self._ended[how] for how in (DONE, FAILED, CANCELLED)}
            return JobTotals(by_state, ended, self._cpu_ms / 1000)

    # The work

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Trains while the block runs; then what is being trained is kept and stopped."""
        await asyncio.to_thread(self._remove_strays)
        self._is_over = False
        thread = threading.Thread(target=self._go_on, name="jobs", daemon=True)
        thread.start()
        try:
            yield
        finally:
            await asyncio.to_thread(self._stop, thread)

    def _remove_strays(self) -> None:
        """Removes what a process that died left, before anybody asks for anything."""
        try:
            with self._database.reading() as session:
                rows = register.all_jobs(session)
        except TripartyError as error:
            _log.warning(f"files of jobs are not looked at: {error.message}")
            return
        known = {row.folder for row in rows}
        for folder in self._work.iterdir():
            if folder.name not in known:
                self.drop_folder(folder.name)
        for row in rows:  # nobody else sends the same again now
            self.drop_upload(row.principal, row.dataset)

    def _put_back(self) -> None:
        with self._database.writing() as session:
            register.put_back(session)

    def _go_on(self) -> None:
        has_begun = False
        while not self._is_over:
            self._wanted.clear()
            try:
                if not has_begun:
                    self._put_back()
                    has_begun = True
                while self._start_next():
                    pass
                self.sweep()
            except TripartyError as error:
                _log.warning(f"jobs are put off: {error.message}")
            except Exception:  # the outermost edge of this work; the next look tries again
                logging.getLogger(__name__).exception("jobs failed")
            self._wanted.wait(LOOK_EVERY_S)

    def _stop(self, thread: threading.Thread) -> None:
        self._is_over = True
        self._wanted.set()
        thread.join()
        with self._lock:
            trainings = list(self._running.values())
        for training in trainings:
            training.stop()
        for training in trainings:
            if not training.join(_KILL_AFTER_S):
                training.kill()
                training.join()

    def _start_next(self) -> bool:
        """Starts the job whose turn it is; False if there is none, or no room."""
        with self._lock:  # so that nobody removes it between the row and the process
            if self._is_over or len(self._running) >= self._settings.max_trainers:
                return False
            with self._database.writing() as session:
                row = register.take_next(session, now=self._clock())
            if row is None:
                return False
            number, principal = row.number, row.principal
            if (self._work / row.folder / "result").is_dir():  # died before it was told
                self._conclude(row, self._done(row))
                return True
            if not (self._work / row.folder / DATASET_FILE).is_file():
                self._conclude(row, Outcome(FAILED, "its data are not here: send them again"))
                return True
            self._bound(row)
            self._running[number] = Training(
                self._work / row.folder,
                threads=self._settings.trainer_threads,
                on_progress=lambda told: self._heard(number, told),
                on_end=lambda ended: self._buried(row, principal, ended),
            )
        self._changed()
        return True

    def _assignment(self, task: Task) -> dict[str, Any]:
        settings = self._settings
        return {
            "task": json.loads(task.to_json()),
            "limits": asdict(dataset_limits(settings)),
            "checkpoint_s": settings.job_checkpoint_s,
            "bounds": {
                "memory_bytes": settings.max_trainer_bytes,
                "cpu_s": settings.max_job_cpu_s,
                "nice": settings.trainer_nice,
                "threads": settings.trainer_threads,  # as the first process, so the last
            },
        }

    def _bound(self, row: JobRow) -> None:
        """Leaves a process the CPU time that those before it left."""
        file = self._work / row.folder / "task.json"
        assignment = json.loads(file.read_bytes())
        left_s = self._settings.max_job_cpu_s - row.cpu_ms // 1000
        assignment["bounds"]["cpu_s"] = max(1, left_s)
        write_private(file, json.dumps(assignment).encode())

    def _heard(self, number: int, told: Mapping[str, Any]) -> None:
        now_s = self._clock().timestamp()
        with self._lock:
            self._progress[number] = dict(told)
            is_due = now_s >= self._noted_s.get(number, -math.inf) + _NOTE_EVERY_S
            if is_due:
                self._noted_s[number] = now_s
        self._changed()
        if is_due:
            self._keep_progress(number, told)

    def _keep_progress(self, number: int, told: Mapping[str, Any]) -> None:
        try:
            with self._database.writing() as session:
                register.note_progress(session, number, told)
        except TripartyError as error:
            _log.warning(f"a job's progress is not kept: {error.message}")

    def _buried(self, row: JobRow, principal: str, ended: Ended) -> None:
        """A process is dead: the job is done, failed, or waits for another process."""
        try:
            with self._database.writing() as session:
                register.count_cpu(
                    session, row.number, principal, ended.cpu_ms, now=self._clock()
                )
            if outcome := self._outcome(row, ended):
                self._conclude(row, outcome)
        except Exception:  # the edge of a thread; a start of the cloud finds the job running
            logging.getLogger(__name__).exception("a job's end could not be kept")
        finally:
            with self._lock:
                self._cpu_ms += ended.cpu_ms
                self._running.pop(row.number, None)
                self._noted_s.pop(row.number, None)
            self.begin()

    def _outcome(self, row: JobRow, ended: Ended) -> Outcome | None:
        """What becomes of a job; None if it waits for another process."""
        if ended.said == "done":
            return self._done(row)
        if ended.said == "failed":
            return Outcome(FAILED, ended.problem)
        if ended.signal in (signal.SIGXCPU, signal.SIGKILL) and self._is_used_up(row):
            limit_s = self._settings.max_job_cpu_s
            return Outcome(
                FAILED,
                f"the training used up its {limit_s} CPU seconds: ask for fewer epochs, send "
                "fewer rows, or make the network smaller",
            )
        if ended.said == "stopped" or self._is_over:
            with self._database.writing() as session:
                register.wait_again(session, row.number)
            return None
        _log.warning(
            f"a trainer died ({ended.signal or 'without a signal'}): {ended.error:.200}"
        )
        with self._database.writing() as session:
            has_another = register.died(session, row.number)
        if has_another:
            return None
        return Outcome(FAILED, "its trainer died again and again: tell the cloud's operator")

    def _done(self, row: JobRow) -> Outcome:
        signed = signed_result(
            self._work / row.folder / "result",
            job=row.job,
            developer=row.developer,
            key=self.key,
            now=self._clock(),
        )
        return Outcome(DONE, manifest=signed.payload, signature=signed.signature)

    def _is_used_up(self, row: JobRow) -> bool:
        with self._database.reading() as session:
            found = session.get(JobRow, row.number)
            return found is not None and found.cpu_ms >= 1000 * self._settings.max_job_cpu_s

    def _conclude(self, row: JobRow, outcome: Outcome) -> None:
        """Removes what a training needed, then lets its end be seen."""
        self._remove_data(row.folder, keeps_result=outcome.state == DONE)
        self.drop_upload(row.principal, row.dataset)
        with self._lock:  # it stays until the job is forgotten: readers may hold an older row
            progress = self._progress.get(row.number)
        with self._database.writing() as session:
            if progress is not None:
                register.note_progress(session, row.number, progress)
            is_there = register.end_job(session, row.number, outcome, now=self._clock())
        if not is_there:
            self.drop_folder(row.folder)
        with self._lock:
            self._ended[outcome.state] += is_there

    def _remove_data(self, name: str, *, keeps_result: bool) -> None:
        """Everything of a job but its result."""
        folder = self._work / name
        for path in list(folder.iterdir()) if folder.is_dir() else []:
            if keeps_result and path.name == "result":
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _forget(self, row: JobRow) -> None:
        self.drop_folder(row.folder)
        self.drop_upload(row.principal, row.dataset)
        with self._lock:
            self._progress.pop(row.number, None)

    def sweep(self) -> None:
        """Removes jobs that ended long ago, data of nobody, and what a crash left."""
        now = self._clock()
        keep = timedelta(hours=self._settings.keep_results_hours)
        before_s = (now - keep).timestamp()
        with self._database.writing() as session:
            old = register.remove_jobs(
                session, JobRow.state.not_in(UNFINISHED) & (JobRow.ended < now - keep)
            )
            register.drop_usage(session, now=now)
        for row in old:
            self._forget(row)
        with self._database.reading() as session:
            ended = [row for row in register.all_jobs(session) if row.state == DONE]
        for row in ended:
            self._remove_data(row.folder, keeps_result=True)
        self.uploads.drop_stale(before_s=before_s)
        for blob in list(self.uploads.verified.listed()):
            self.uploads.remove_unwanted(blob, before_s=before_s)

    def _changed(self) -> None:
        with self._lock:
            self.revision += 1
