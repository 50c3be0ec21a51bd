"""What the executor commits of a job: the step begun, the rows that changed, that it unwinds, how it ended.

A job that can be called off is called off by a mark in its row, set while the row stands at such a step. So
each commit that takes a job beyond its last such step asks for the row *without* the mark: whichever of the
two comes second finds the other, and neither is lost.
"""

from __future__ import annotations

from collections.abc import Callable

from iaas.db.repositories import jobs
from iaas.db.store import Store, Tx
from iaas.jobs.run import Run
from iaas.kernel.errors import Failure
from iaas.resources.jobs import JobStatus
from iaas.workflows.framework import RowStep


class CancelledMeanwhile(Exception):
    """The job was called off before this commit, which therefore did not take place."""


class Journal:
    """Args:
    store: of the jobs' rows.
    on_finished: told each run whose job has ended and how, after the commit.
    in_groups: ends of jobs wait for the executor's next flush, many to a commit.
    """

    def __init__(self, store: Store, on_finished: Callable[[Run, JobStatus], None], *, in_groups: bool = False) -> None:
        self._store = store
        self._in_groups = in_groups
        self._on_finished = on_finished

    def begun(self, run: Run) -> None:
        """Write that the step at hand begins.

        Raises:
            CancelledMeanwhile: see there.
        """
        position = run.position

        def work(tx: Tx) -> None:
            written = jobs.journal(
                tx,
                run.job.id,
                unless_cancelled=_leaves_cancellable(run, position),
                status=JobStatus.RUNNING,
                position=position,
                step_name=run.steps[position].name,
                memo=dict(run.ctx.memo),
                step_began_at=run.step_began_at,
            )
            if not written:
                raise CancelledMeanwhile

        self._store.write(work)
        run.journalled = position

    def rows(self, run: Run) -> bool:
        """Run the row steps at hand in one commit; True when that was the end of the job.

        Of a journal that commits in groups the end is only queued then: see ``run.ending``.

        Raises:
            CancelledMeanwhile: see there.
        """
        last = run.position
        while last < len(run.steps) and isinstance(run.steps[last], RowStep):
            last += 1
        row_steps = run.steps[run.position : last]
        ends = last == len(run.steps)
        guarded = _leaves_cancellable(run, run.position)

        def work(tx: Tx) -> None:
            for step in row_steps:
                assert isinstance(step, RowStep)  # noqa: S101 - chosen so above; for the type checker
                step.do(tx, run.ctx)
            if ends:
                self._finish(tx, run, JobStatus.SUCCEEDED, None, guarded=guarded)
                return
            at = {"position": last, "step_name": run.steps[last].name, "memo": dict(run.ctx.memo)}
            if not jobs.journal(tx, run.job.id, unless_cancelled=guarded, **at):
                raise CancelledMeanwhile  # takes back what the steps have written

        if ends and self._in_groups:
            run.ending = self._store.write_soon(work)
            return True
        self._store.write(work)
        run.position = last
        run.journalled = last
        return ends

    def succeeded(self, run: Run) -> None:
        """Write that all is done (for workflows whose last step is an effect).

        Raises:
            CancelledMeanwhile: see there.
        """
        guarded = _leaves_cancellable(run, run.position)
        self._store.write(lambda tx: self._finish(tx, run, JobStatus.SUCCEEDED, None, guarded=guarded))

    def unwinding(self, run: Run, failure: Failure) -> None:
        """Write that everything is being undone, and why."""
        self._store.write(
            lambda tx: jobs.journal(
                tx,
                run.job.id,
                status=JobStatus.RUNNING,
                unwinding=True,
                error_code=failure.code,
                error_message=failure.message[:1024],
            )
        )
        run.failure_journalled = True

    def unwound(self, run: Run, failure: Failure) -> None:
        """Put the resource to rest and end the job, failed or cancelled, in one commit."""

        def work(tx: Tx) -> None:
            run.workflow.on_failed(tx, run.ctx, failure)
            self._finish(tx, run, run.end_status, failure)

        self._store.write(work)

    def _finish(self, tx: Tx, run: Run, status: JobStatus, error: Failure | None, *, guarded: bool = False) -> None:
        last = len(run.steps)
        at = {"position": last, "step_name": run.steps[last - 1].name} if status is JobStatus.SUCCEEDED else {}
        if not jobs.finish(tx, run.job.id, status, error, dict(run.ctx.memo), unless_cancelled=guarded, **at):
            raise CancelledMeanwhile
        tx.on_commit(lambda: self._on_finished(run, status))


def _leaves_cancellable(run: Run, position: int) -> bool:
    return 0 <= run.workflow.last_cancellable < position
