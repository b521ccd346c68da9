"""Training jobs over HTTP.

A device uploads a data set to its own room of blobs, asks for a job, and watches. A job of
another device is as if it were not there. Progress comes as server-sent events, each the job
as `GET` shows it; a stream ends when the job does, when the cloud drains, or when access ends,
and whoever still wants to know asks again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from datetime import timedelta
from typing import Annotated, Final, cast

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from triparty.cloud.accounts import Principal
from triparty.cloud.auth import TokenCache, require
from triparty.cloud.database import Database
from triparty.cloud.jobs import register
from triparty.cloud.jobs.bodies import JobReply, JobRequest, JobsReply
from triparty.cloud.jobs.keeper import Jobs
from triparty.cloud.jobs.register import UNFINISHED, WAITING
from triparty.cloud.jobs.tasks import Task, check_task, dataset_limits
from triparty.cloud.settings import CloudSettings
from triparty.cloud.state import Clock, Now, Settings, Store
from triparty.cloud.tables import JobRow, PrincipalRow
from triparty.common.artifacts import Manifest
from triparty.common.datasets import check_dataset
from triparty.common.documents import format_time
from triparty.common.errors import (
    BlobMissingError,
    DigestError,
    LimitError,
    NotFoundError,
    TooLargeError,
    TripartyError,
)
from triparty.common.events import MEDIA_TYPE, event
from triparty.common.jobs import verify_dataset
from triparty.common.signing import PublicKey, length_prefixed, to_base64url
from triparty.common.trust import SignedDocument

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
Trainee = Annotated[Principal, Depends(require("train"))]
LOOK_S: Final = 0.1
READ_S: Final = 1.0
ALIVE_S: Final = 15.0
_STILL_HERE: Final = b": still here\n\n"  # a comment: no event


async def _jobs(request: Request) -> Jobs:
    return cast(Jobs, request.app.state.jobs)


Work = Annotated[Jobs, Depends(_jobs)]


@router.post("", status_code=201)
def post_job(
    body: JobRequest,
    device: Trainee,
    settings: Settings,
    store: Store,
    jobs: Work,
    clock: Clock,
) -> JobReply:
    """Has a filter trained from an uploaded data set; the same request again is one job."""
    request = _digest(body)
    now = clock()
    with store.reading() as session:
        before = register.repeated_job(session, device, body.job, request)
        if before is not None:
            return _reply(before, jobs, settings)
        register.check_room(session, device, settings, now=now)
        key = PublicKey.from_text(session.get_one(PrincipalRow, device.id).identity or "")
    task = body.task()
    check_task(task, settings)
    manifest = _dataset(body, device, key, settings, clock)
    rows = _checked(manifest, device, task, settings, jobs)
    sha256 = manifest.files[0].sha256
    row = JobRow(
        job=body.job,
        principal=device.id,
        developer=device.developer,
        folder=jobs.new_folder(device.id, sha256, task),
        request=request,
        dataset=sha256,
        task=task.to_json(),
        rows=rows,
        size=manifest.size,
        state=WAITING,
        progress="{}",
        attempts=0,
        cpu_ms=0,
        created=now,
    )
    try:
        with store.writing() as session:
            added = register.add_job(session, device, row, settings, now=now)
    except BaseException:
        jobs.drop_folder(row.folder)
        raise
    if added is not row:
        jobs.drop_folder(row.folder)
    jobs.drop_upload(device.id, sha256)
    jobs.begin()
    return _reply(added, jobs, settings)


@router.get("")
def get_jobs(device: Trainee, settings: Settings, store: Store, jobs: Work) -> JobsReply:
    """The device's jobs, newest first."""
    with store.reading() as session:
        rows = register.jobs_of(session, device)
    return JobsReply(jobs=[_reply(row, jobs, settings) for row in rows])


@router.get("/{job}")
def get_job(
    job: str, device: Trainee, settings: Settings, store: Store, jobs: Work
) -> JobReply:
    """One of the device's jobs."""
    with store.reading() as session:
        row = register.find_job(session, device, job)
    return _reply(row, jobs, settings)


@router.delete("/{job}", status_code=204)
def delete_job(job: str, device: Trainee, store: Store, jobs: Work) -> Response:
    """Ends a job at once: before this answers its process is dead and its data are gone."""
    with store.reading() as session:
        row = register.find_job(session, device, job)
    jobs.end_where(JobRow.number == row.number)
    return Response(status_code=204)


@router.get(
    "/{job}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
async def get_events(
    job: str,
    request: Request,
    device: Trainee,
    settings: Settings,
    store: Store,
    jobs: Work,
    clock: Clock,
) -> Response:
    """The job whenever it changed, until it ends."""
    watch = _Watch(request, device, job, settings, store, jobs, clock)
    first = await run_in_threadpool(watch.read)
    if first is None:
        raise NotFoundError("no such job")
    claim = ExitStack()
    claim.enter_context(jobs.watched_by(device.id))
    return _Events(watch.events(first), claim)


class _Events(StreamingResponse):
    """Server-sent events of a claim that ends with them, also if they never began."""

    def __init__(self, events: AsyncGenerator[bytes, None], claim: ExitStack) -> None:
        unbuffered = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type=MEDIA_TYPE, headers=unbuffered)
        self._events, self._claim = events, claim

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
            self._claim.close()


class _Watch:
    """One client that watches one job."""

    def __init__(
        self,
        request: Request,
        device: Principal,
        job: str,
        settings: CloudSettings,
        store: Database,
        jobs: Jobs,
        clock: Now,
    ) -> None:
        self._device, self._job, self._settings = device, job, settings
        self._store, self._jobs, self._clock = store, jobs, clock
        self._drain = request.app.state.drain
        self._tokens: TokenCache = request.app.state.tokens
        self._token = request.headers.get("authorization", "").partition(" ")[2]

    def read(self) -> JobReply | None:
        """The job now; None if it is gone."""
        try:
            with self._store.reading() as session:
                row = register.find_job(session, self._device, self._job)
        except NotFoundError:
            return None
        return _reply(row, self._jobs, self._settings)

    def _read_if_allowed(self) -> JobReply | None:
        """The same for a token that is still good; `AuthError` for one that is not."""
        if self._tokens.known(self._token, now=self._clock()) is None:
            self._tokens.look_up(self._token, self._store, self._clock)
        return self.read()

    async def events(self, first: JobReply) -> AsyncGenerator[bytes, None]:
        shown, said_s = first, time.monotonic()
        yield event(shown.model_dump_json())
        while shown.state in UNFINISHED:
            if not await self._waited():
                return
            try:
                now = await run_in_threadpool(self._read_if_allowed)
            except TripartyError:
                return  # revoked, or the database does not answer: whoever asks again hears
            if now is None:
                yield event(json.dumps({"job": self._job, "state": "cancelled"}))
                return
            if now != shown:
                shown, said_s = now, time.monotonic()
                yield event(shown.model_dump_json())
            elif time.monotonic() > said_s + ALIVE_S:
                said_s = time.monotonic()
                yield _STILL_HERE

    async def _waited(self) -> bool:
        """Waits for a change, at most a second; False if the cloud drains."""
        revision, until_s = self._jobs.revision, time.monotonic() + READ_S
        while revision == self._jobs.revision and time.monotonic() < until_s:
            if self._drain.is_draining:
                return False
            await asyncio.sleep(LOOK_S)
        return True


def _digest(body: JobRequest) -> str:
    rest = body.model_dump_json(exclude={"manifest", "signature"}).encode()
    whole = length_prefixed(body.manifest, body.signature, rest)
    return hashlib.sha256(whole).hexdigest()


def _dataset(
    body: JobRequest, device: Principal, key: PublicKey, settings: CloudSettings, clock: Now
) -> Manifest:
    """The verified manifest of a job's data.

    Raises:
        ArtifactError: not signed by the device, or not for this job.
        TooLargeError: more bytes than a data set may have.
    """
    manifest = verify_dataset(
        SignedDocument(body.manifest, body.signature),
        key=key,
        job=body.job,
        developer=device.developer,
        limit_bytes=settings.max_blob_bytes,
        now=clock(),
    )
    if manifest.size > settings.max_dataset_bytes:
        raise TooLargeError(
            f"the data set has {manifest.size} bytes: at most {settings.max_dataset_bytes} are "
            "taken; send fewer rows, or features",
            limit=settings.max_dataset_bytes,
        )
    return manifest


def _checked(
    manifest: Manifest, device: Principal, task: Task, settings: CloudSettings, jobs: Jobs
) -> int:
    """How many rows an uploaded data set has that the task can learn from.

    Raises:
        BlobMissingError: it is not uploaded.
        DatasetError, SizeError: data that nothing can be learnt from, or too many.
    """
    file = manifest.files[0]
    held = jobs.uploads.held(device.id, file.sha256)
    if held is None or not held.is_complete:
        raise BlobMissingError("the data set is not uploaded", missing=[file.sha256])
    if held.size != file.size:
        raise DigestError(f"the data set has {held.size} bytes, not {file.size}")
    try:
        path = jobs.upload_of(device.id, file.sha256)
        return check_dataset(path, task.design, dataset_limits(settings))
    except LimitError:
        raise
    except TripartyError:
        jobs.drop_upload(device.id, file.sha256)  # of no use for anybody
        raise


def _reply(row: JobRow, jobs: Jobs, settings: CloudSettings) -> JobReply:
    task = Task.from_json(row.task)
    progress = jobs.progress(row)
    kept = row.ended and row.ended + timedelta(hours=settings.keep_results_hours)
    return JobReply.model_validate(
        {
            "job": row.job,
            "kind": task.design.kind,
            "state": row.state,
            "created": format_time(row.created),
            "rows": row.rows,
            "bytes": row.size,
            "epochs": task.course.epochs,
            "epoch": progress.get("epoch", 0),
            "training_loss": progress.get("training_loss"),
            "loss": progress.get("loss"),
            "seconds_left": progress.get("seconds_left") if row.state in UNFINISHED else None,
            "cpu_s": row.cpu_ms / 1000,
            "problem": row.problem,
            "kept_until": kept and format_time(kept),
            "manifest": row.manifest and to_base64url(row.manifest),
            "signature": row.signature and to_base64url(row.signature),
        }
    )
