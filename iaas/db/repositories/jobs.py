"""Jobs and their journal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from iaas.db.models import JobRow
from iaas.db.repositories.query import Listing, list_rows
from iaas.db.statements import Prepared, insert_rows, update_rows
from iaas.db.store import Tx
from iaas.kernel.errors import Failure, ResourceRef
from iaas.resources.jobs import FINISHED, Job, JobProgress, JobStatus

_jobs = JobRow.__table__

_GET = Prepared(select(_jobs).where(_jobs.c.id == bindparam("id")))


def queued(
    tx: Tx,
    *,
    job_id: str,
    project_id: str,
    action: str,
    resource: ResourceRef,
    input: dict[str, Any],
    steps: int,
    first_step: str,
    request_id: str | None,
) -> Job:
    """Return a new job for :func:`add_all`; its first step counts as begun from that commit on."""
    return Job(
        id=job_id,
        project_id=project_id,
        action=action,
        status=JobStatus.QUEUED,
        resource=resource,
        progress=JobProgress(step=1, steps=steps, name=first_step),
        error=None,
        request_id=request_id,
        input=input,
        memo={},
        position=0,
        unwinding=False,
        step_began_at=None,
        created_at=tx.now,
        finished_at=None,
    )


def add_all(tx: Tx, new: Sequence[Job]) -> None:
    """Write queued jobs."""
    rows = [
        {
            "id": job.id,
            "project_id": job.project_id,
            "action": job.action,
            "status": job.status,
            "resource_type": job.resource.type,
            "resource_id": job.resource.id,
            "input": job.input,
            "memo": job.memo,
            "position": 0,
            "steps": job.progress.steps,
            "step_name": job.progress.name,
            "step_began_at": None,
            "unwinding": False,
            "error_code": None,
            "error_message": None,
            "request_id": job.request_id,
            "created_at": job.created_at,
            "finished_at": None,
        }
        for job in new
    ]
    insert_rows(tx.connection, _jobs, rows)


def journal(tx: Tx, job_id: str, *, unless_cancelled: bool = False, **changes: Any) -> bool:
    """Write progress: ``position``, ``step_name``, ``memo``, ``unwinding``, ``status`` ...

    False, and nothing is written, when ``unless_cancelled`` and the job was called off.
    """
    where: dict[str, Any] = {"id": job_id}
    if unless_cancelled:
        where["cancel_requested_at"] = None
    return update_rows(tx.connection, _jobs, where, changes) == 1


def request_cancel(tx: Tx, job_id: str, *, last_position: int) -> bool:
    """Mark the job as called off; False when it has ended, unwinds, or is beyond ``last_position``."""
    query = update(JobRow).where(
        _jobs.c.id == job_id,
        _jobs.c.finished_at.is_(None),
        _jobs.c.unwinding.is_(False),
        _jobs.c.position <= last_position,
    )
    return tx.connection.execute(query.values(cancel_requested_at=tx.now)).rowcount == 1


def finish(
    tx: Tx,
    job_id: str,
    status: JobStatus,
    error: Failure | None,
    memo: dict[str, Any],
    *,
    unless_cancelled: bool = False,
    **at: Any,
) -> bool:
    """Close the job; ``at`` are its last ``position`` and ``step_name`` where they change.

    False, and nothing is written, when ``unless_cancelled`` and the job was called off.
    """
    changes = {
        "status": status,
        "memo": memo,
        "error_code": error.code if error else None,
        "error_message": error.message[:1024] if error else None,
        "finished_at": tx.now,
        **at,
    }
    where: dict[str, Any] = {"id": job_id}
    if unless_cancelled:
        where["cancel_requested_at"] = None
    return update_rows(tx.connection, _jobs, where, changes) == 1


def get(connection: Connection, job_id: str, *, project_id: str | None = None) -> Job | None:
    row = _GET.first(connection, {"id": job_id})
    return job_from(row) if row and project_id in (None, row.project_id) else None


def list_page(
    connection: Connection, listing: Listing, *, project_id: str, resource_id: str | None = None
) -> tuple[list[Job], str | None]:
    equal = {"project_id": project_id}
    if resource_id is not None:
        equal["resource_id"] = resource_id
    rows, cursor = list_rows(connection, _jobs, listing, equal=equal, sortable=("created_at",))
    return [job_from(row) for row in rows], cursor


def ended_of(connection: Connection, job_ids: Sequence[str]) -> list[str]:
    """Return those of the jobs that have ended."""
    query = select(_jobs.c.id).where(_jobs.c.id.in_(job_ids), _jobs.c.finished_at.is_not(None))
    return list(connection.execute(query).scalars())


def called_off_of(connection: Connection, job_ids: Sequence[str]) -> list[str]:
    """Return those of the jobs that somebody has called off."""
    query = select(_jobs.c.id).where(_jobs.c.id.in_(job_ids), _jobs.c.cancel_requested_at.is_not(None))
    return list(connection.execute(query).scalars())


def unfinished(connection: Connection) -> Sequence[Job]:
    """Return the jobs that a restarted executor must take up again, oldest first."""
    query = select(_jobs).where(_jobs.c.status.not_in([str(status) for status in FINISHED]))
    return [job_from(row) for row in connection.execute(query.order_by(_jobs.c.created_at, _jobs.c.id))]


def job_from(row: Any) -> Job:
    return Job(
        id=row.id,
        project_id=row.project_id,
        action=row.action,
        status=row.status,
        resource=ResourceRef(row.resource_type, row.resource_id),
        progress=JobProgress(step=min(row.position + 1, row.steps), steps=row.steps, name=row.step_name),
        error=Failure(row.error_code, row.error_message or "") if row.error_code else None,
        request_id=row.request_id,
        input=row.input,
        memo=row.memo,
        position=row.position,
        unwinding=row.unwinding,
        step_began_at=row.step_began_at,
        created_at=row.created_at,
        finished_at=row.finished_at,
        cancel_requested_at=row.cancel_requested_at,
    )
