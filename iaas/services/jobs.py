"""Jobs, as clients see them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from iaas.db.repositories import jobs
from iaas.db.repositories.query import Listing
from iaas.db.store import Store, Tx
from iaas.jobs.signals import JobSignals
from iaas.kernel.errors import NotCancellable, NotFound, ResourceRef
from iaas.resources.common import Principal, Role
from iaas.resources.jobs import Job, JobStatus
from iaas.services.access import require
from iaas.workflows import WORKFLOWS

if TYPE_CHECKING:
    from iaas.jobs.executor import Executor


class JobService:
    def __init__(self, store: Store, signals: JobSignals, executor: Executor) -> None:
        self._store = store
        self._signals = signals
        self._executor = executor

    def get(self, principal: Principal, job_id: str) -> Job:
        with self._store.read() as connection:
            found = jobs.get(connection, job_id, project_id=principal.project_id)
        if found is None:
            raise NotFound(f"there is no job {job_id}", resource=ResourceRef("job", job_id))
        return self._live(found)

    def cancel(self, principal: Principal, job_id: str) -> Job:
        """Call a job off; it ends ``cancelled`` once what it has done is undone. A second call changes nothing.

        Raises:
            NotCancellable: it has ended otherwise, unwinds already, or there is no way back from where it is.
        """
        require(principal, Role.MEMBER)
        last_position = {action: workflow.last_cancellable for action, workflow in WORKFLOWS.items()}

        def work(tx: Tx) -> Job:
            job = jobs.get(tx.connection, job_id, project_id=principal.project_id)
            if job is None:
                raise NotFound(f"there is no job {job_id}", resource=ResourceRef("job", job_id))
            if job.cancel_requested_at is not None:
                return job
            if not jobs.request_cancel(tx, job_id, last_position=last_position[job.action]):
                raise NotCancellable(_why_not(job), resource=ResourceRef("job", job_id))
            tx.on_commit(lambda: self._executor.cancel(job_id))
            return replace(job, cancel_requested_at=tx.now)

        return self._live(self._store.write(work))

    def wait(self, principal: Principal, job_id: str, *, timeout_s: float) -> Job:
        """Return the job when it has ended, after ``timeout_s`` (wall), or at once when too many wait already."""
        job = self.get(principal, job_id)
        if job.is_finished or timeout_s <= 0:
            return job
        event = self._signals.subscribe(job_id)
        if event is None:
            return job
        try:
            job = self.get(principal, job_id)  # it may have ended before the subscription
            if job.is_finished:
                return job
            event.wait(timeout_s)
        finally:
            self._signals.leave(job_id, event)
        return self.get(principal, job_id)

    def list_page(
        self, principal: Principal, listing: Listing, *, resource_id: str | None = None
    ) -> tuple[list[Job], str | None]:
        with self._store.read() as connection:
            found, cursor = jobs.list_page(
                connection, listing, project_id=principal.project_id, resource_id=resource_id
            )
        return [self._live(job) for job in found], cursor

    def _live(self, job: Job) -> Job:
        progress = None if job.is_finished else self._executor.progress_of(job.id)
        return job if progress is None else replace(job, status=JobStatus.RUNNING, progress=progress)


def _why_not(job: Job) -> str:
    if job.is_finished:
        return f"job {job.id} has {job.status} already"
    if job.unwinding:
        return f"job {job.id} has failed and is being undone already"
    return f"job {job.id} ({job.action}) cannot be cancelled any more: {WORKFLOWS[job.action].cancel.reason}"
