"""The jobs in the database; every function works inside the caller's transaction.

A job is its device's alone: every look-up names the principal, so that a job of somebody else
is as if it were not there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from triparty.cloud.accounts import Principal, check_alive, lock_principal
from triparty.cloud.jobs.turns import Turn, next_turn
from triparty.cloud.settings import CloudSettings
from triparty.cloud.tables import JobRow, JobUsageRow
from triparty.common.errors import ConflictError, LimitError, NotFoundError

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
UNFINISHED = (WAITING, RUNNING)
MOST_ATTEMPTS = 5
"""Trainers that may die without a word before a job is given up."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATER_S = 60


@dataclass(frozen=True)
class Outcome:
    """How a trainer's process ended.

    Attributes:
        state: of the job from now on.
        problem: why it failed.
        manifest: of the result.
        signature: of the manifest.
    """

    state: str
    problem: str | None = None
    manifest: bytes | None = None
    signature: bytes | None = None


def jobs_of(session: Session, principal: Principal) -> list[JobRow]:
    """A device's jobs, newest first."""
    mine = select(JobRow).where(JobRow.principal == principal.id)
    return list(session.scalars(mine.order_by(JobRow.number.desc())))


def find_job(session: Session, principal: Principal, job: str) -> JobRow:
    """A device's job.

    Raises:
        NotFoundError: no such job, or another device's.
    """
    mine = (JobRow.principal == principal.id) & (JobRow.job == job)
    row = session.scalars(select(JobRow).where(mine)).one_or_none()
    if row is None:
        raise NotFoundError("no such job")
    return row


def repeated_job(
    session: Session, principal: Principal, job: str, request: str
) -> JobRow | None:
    """The job that this request made already; None if it is new.

    Raises:
        ConflictError: the device asked for something else under this id.
    """
    mine = (JobRow.principal == principal.id) & (JobRow.job == job)
    row = session.scalars(select(JobRow).where(mine)).one_or_none()
    if row is not None and row.request != request:
        raise ConflictError("you asked for another job under this id: draw a new one")
    return row


def check_room(
    session: Session, principal: Principal, settings: CloudSettings, *, now: datetime
) -> None:
    """Returns only if a device may have another job.

    Raises:
        LimitError: it has, or its developer's devices have, as many as they may, or it used
            its CPU time of today up.
    """
    count = select(func.count(JobRow.number))
    if (session.scalar(count.where(JobRow.principal == principal.id)) or 0) >= (
        settings.max_jobs_per_principal
    ):
        raise LimitError(
            f"you have {settings.max_jobs_per_principal} jobs on this cloud: fetch or cancel "
            "one first",
            retry_after_s=_LATER_S,
        )
    if (session.scalar(count.where(JobRow.developer == principal.developer)) or 0) >= (
        settings.max_jobs_per_developer
    ):
        raise LimitError(
            f"the devices of your developer have {settings.max_jobs_per_developer} jobs on "
            "this cloud: try later",
            retry_after_s=_LATER_S,
        )
    usage = session.get(JobUsageRow, (principal.id, day_of(now)))
    if usage is not None and usage.cpu_ms >= 1000 * settings.max_job_cpu_s_per_day:
        tomorrow = _EPOCH + timedelta(days=day_of(now) + 1)
        raise LimitError(
            f"your trainings used {settings.max_job_cpu_s_per_day} CPU seconds today: try "
            "tomorrow",
            retry_after_s=max(1, int((tomorrow - now).total_seconds())),
        )


def add_job(
    session: Session,
    principal: Principal,
    row: JobRow,
    settings: CloudSettings,
    *,
    now: datetime,
) -> JobRow:
    """Adds a job, or finds the one that the same request made meanwhile.

    Raises:
        LimitError: as `check_room`.
        ConflictError: as `repeated_job`.
        TokenRevokedError: the device was revoked meanwhile.
    """
    check_alive(session, principal.id)
    lock_principal(session, principal.developer)
    lock_principal(session, principal.id)
    if before := repeated_job(session, principal, row.job, row.request):
        return before
    check_room(session, principal, settings, now=now)
    session.add(row)
    session.flush()
    return row


def take_next(session: Session, *, now: datetime) -> JobRow | None:
    """Marks the job whose turn it is as running; None if none waits."""
    query = select(JobRow.number, JobRow.principal, JobRow.developer)
    by_state = {
        state: [Turn(*row) for row in session.execute(query.where(JobRow.state == state))]
        for state in UNFINISHED
    }
    principals = {turn.principal for turn in by_state[WAITING]}
    used = {
        row.principal: row.cpu_ms
        for row in session.scalars(
            select(JobUsageRow).where(
                JobUsageRow.day == day_of(now), JobUsageRow.principal.in_(principals)
            )
        )
    }
    turn = next_turn(by_state[WAITING], by_state[RUNNING], used)
    if turn is None:
        return None
    row = session.get(JobRow, turn.number, with_for_update=True)
    if row is not None:
        row.state = RUNNING
    return row


def put_back(session: Session) -> None:
    """Has what a process that is gone was training wait again."""
    for row in session.scalars(select(JobRow).where(JobRow.state == RUNNING)):
        row.state = WAITING


def wait_again(session: Session, number: int) -> None:
    """Has a job whose trainer was stopped wait for the next one, if it is still there."""
    row = session.get(JobRow, number, with_for_update=True)
    if row is not None:
        row.state = WAITING


def all_jobs(session: Session) -> list[JobRow]:
    """Every job, for the cloud's own care."""
    return list(session.scalars(select(JobRow)))


def note_progress(session: Session, number: int, progress: Mapping[str, object]) -> None:
    """Keeps how far a training is, if its job is still there."""
    row = session.get(JobRow, number)
    if row is not None:
        row.progress = json.dumps(progress)


def count_cpu(
    session: Session, number: int, principal: str, cpu_ms: int, *, now: datetime
) -> None:
    """Counts what a process used, also of a job that is gone."""
    key = (principal, day_of(now))
    usage = session.get(JobUsageRow, key, with_for_update=True)
    if usage is None:
        session.add(JobUsageRow(principal=principal, day=key[1], cpu_ms=cpu_ms))
    else:
        usage.cpu_ms += cpu_ms
    row = session.get(JobRow, number, with_for_update=True)
    if row is not None:
        row.cpu_ms += cpu_ms


def end_job(session: Session, number: int, outcome: Outcome, *, now: datetime) -> bool:
    """Notes how a training ended; False if its job is gone, as after a cancel."""
    row = session.get(JobRow, number, with_for_update=True)
    if row is None:
        return False
    row.state, row.problem = outcome.state, outcome.problem
    row.manifest, row.signature = outcome.manifest, outcome.signature
    row.ended = now
    return True


def died(session: Session, number: int) -> bool:
    """Has a job whose trainer died wait for the next one; False if that was the last."""
    row = session.get(JobRow, number, with_for_update=True)
    if row is None:
        return True
    row.attempts += 1
    row.state = WAITING
    return row.attempts < MOST_ATTEMPTS


def remove_jobs(session: Session, where: ColumnElement[bool]) -> list[JobRow]:
    """Removes jobs; their files are left to the caller."""
    rows = list(session.scalars(select(JobRow).where(where)))
    for row in rows:
        session.delete(row)
    return rows


def drop_usage(session: Session, *, now: datetime) -> None:
    """Forgets what was used before yesterday."""
    for row in session.scalars(select(JobUsageRow).where(JobUsageRow.day < day_of(now) - 1)):
        session.delete(row)


def count_jobs(session: Session) -> dict[str, int]:
    """How many jobs there are, by state."""
    by_state = select(JobRow.state, func.count()).group_by(JobRow.state)
    counted = {row[0]: row[1] for row in session.execute(by_state)}
    return {state: counted.get(state, 0) for state in (WAITING, RUNNING, DONE, FAILED)}


def day_of(now: datetime) -> int:
    """Whole days since 1970, UTC."""
    return (now - _EPOCH).days
