"""Drives jobs through their workflows: one agenda, one thread that decides, a pool for calls that block.

From the accepting commit on nothing is lost: the agenda is rebuilt from the job rows at start. Where driver
calls block (real backends), the journal is committed before each effect. The simulation is driven inline and
writes no journal between its effects: its world is keyed by the same ids, so after a kill the whole workflow
simply runs again from its first step; for the same reason an unwinding undoes *every* step, begun or not
(each ``undo`` accepts that it never happened).
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog

from iaas.db.repositories import jobs
from iaas.db.store import Store, Tx
from iaas.drivers.interface import Backend, DriverError, NoCapacityError, TransientError
from iaas.jobs.periodic import PeriodicTasks
from iaas.jobs.signals import JobSignals
from iaas.kernel.clock import CloudClock
from iaas.kernel.errors import Failure
from iaas.kernel.ids import IdSource
from iaas.resources.jobs import Job, JobProgress, JobStatus
from iaas.workflows.framework import Context, NotYet, Outcome, RowStep, Step, Workflow

log = structlog.get_logger(__name__)

POLL_S = 0.25
BACKOFF_FIRST_S = 0.5
BACKOFF_MOST_S = 15.0
UNDO_TRIES = 8
POOL_SIZE = 8


@dataclass(slots=True)
class Run:
    """One job in flight, in memory."""

    job: Job
    workflow: Workflow
    ctx: Context
    position: int
    step_began_at: datetime | None = None
    journalled: int = -1  # the highest position known to the database as begun
    attempts: int = 0
    failure: Failure | None = None
    undo_position: int = -1
    looked: bool = False
    message: str = ""
    in_pool: bool = field(default=False)

    @property
    def steps(self) -> tuple[Step | RowStep, ...]:
        return self.workflow.steps


class Executor:
    """Runs the jobs of one cloud.

    ``run_due`` does all that is due now and returns; tests with a frozen clock call it themselves. ``start``
    makes a thread that does so for ever.
    """

    def __init__(
        self,
        *,
        store: Store,
        backend: Backend,
        clock: CloudClock,
        ids: IdSource,
        workflows: Mapping[str, Workflow],
        deadlines_s: Mapping[tuple[str, str], float],
        signals: JobSignals,
        add_job: Callable[..., Job],
    ) -> None:
        self._store = store
        self._backend = backend
        self._clock = clock
        self._ids = ids
        self._workflows = workflows
        self._deadlines_s = deadlines_s
        self._signals = signals
        self._add_job = add_job
        self._condition = threading.Condition()
        self._agenda: list[tuple[datetime, int, str]] = []
        self._order = itertools.count()
        self._runs: dict[str, Run] = {}
        self._results: list[tuple[Run, Future[Any]]] = []
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None
        self.periodic = PeriodicTasks(clock, self._wake)
        clock.on_change(self._wake)

    # -- life ---------------------------------------------------------------------------------------------

    def recover(self) -> int:
        """Take up again what an earlier process left unfinished; return how many jobs that is."""
        with self._store.read() as connection:
            left = jobs.unfinished(connection)
        for job in left:
            self.submit(job.id)
        return len(left)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name="executor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop after the step at hand; calls in the pool are awaited, everything else stays in the journal."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.periodic.stop()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def submit(self, job_id: str, due_at: datetime | None = None) -> None:
        """Put a committed job onto the agenda."""
        with self._condition:
            heapq.heappush(self._agenda, (due_at or self._clock.now(), next(self._order), job_id))
            self._condition.notify_all()

    def progress_of(self, job_id: str) -> JobProgress | None:
        """Return where a job in flight stands now, which the database learns only at commits."""
        run = self._runs.get(job_id)
        if run is None or run.position >= len(run.steps):
            return None
        return JobProgress(
            step=run.position + 1, steps=len(run.steps), name=run.steps[run.position].name, message=run.message
        )

    def next_due(self) -> datetime | None:
        """Return when the next job on the agenda is due, None when it is empty."""
        with self._condition:
            return self._agenda[0][0] if self._agenda else None

    @property
    def is_idle(self) -> bool:
        """Nothing on the agenda and nothing in the pool."""
        with self._condition:
            return not self._agenda and not self._results and not any(run.in_pool for run in self._runs.values())

    def _wake(self) -> None:
        with self._condition:
            self._condition.notify_all()

    def _loop(self) -> None:
        while True:
            self.run_due()
            with self._condition:
                if self._stopping:
                    return
                if self._results:
                    continue
                timeout_s: float | None = None
                dues = [due for due in (self._agenda[0][0] if self._agenda else None, self.periodic.next_due()) if due]
                if dues:
                    timeout_s = self._clock.wall_seconds_until(min(dues))
                    if timeout_s == 0:
                        continue
                self._condition.wait(timeout_s)

    def run_due(self) -> int:
        """Do everything that is due now; return how many jobs were taken up."""
        taken = 0
        while True:
            if not self._stopping:
                self.periodic.run_due()
            with self._condition:
                if self._stopping:
                    return taken
                if self._results:
                    run, future = self._results.pop(0)
                    job_id = None
                elif self._agenda and self._agenda[0][0] <= self._clock.now():
                    _, _, job_id = heapq.heappop(self._agenda)
                else:
                    return taken
            if job_id is None:
                run.in_pool = False
                self._land(run, future)
            else:
                self._take_up(job_id)
            taken += 1

    def _land(self, run: Run, future: Future[Any]) -> None:
        def settle() -> None:
            self._settle(run, future.result)

        self._guarded(run, settle)

    # -- one job ------------------------------------------------------------------------------------------

    def _take_up(self, job_id: str) -> None:
        run = self._runs.get(job_id)
        if run is None:
            with self._store.read() as connection:
                job = jobs.get(connection, job_id)
            if job is None or job.is_finished:
                return
            run = self._begin(job)
        if not run.in_pool:
            self._guarded(run, lambda: self._advance(run))

    def _begin(self, job: Job) -> Run:
        workflow = self._workflows[job.action]
        run = Run(job=job, workflow=workflow, ctx=None, position=job.position)  # type: ignore[arg-type]  # set below: the context reports into its run

        def report(message: str) -> None:
            run.message = message

        run.ctx = Context(
            job=job,
            memo=dict(job.memo),
            store=self._store,
            backend=self._backend,
            clock=self._clock,
            ids=self._ids,
            report=report,
            add_job=self._add_job,
        )
        run.step_began_at = job.step_began_at
        run.journalled = job.position
        if job.unwinding:
            run.failure = job.error or Failure("interrupted", "the action was being undone when the server stopped")
            run.undo_position = len(run.steps) - 1
        self._runs[job.id] = run
        return run

    def _guarded(self, run: Run, action: Callable[[], None]) -> None:
        """A fault of ours in one job must not stop the others: it fails that job, or leaves it for the next start."""
        try:
            action()
        except Exception:
            log.exception("job_broke", job_id=run.job.id, action=run.job.action, request_id=run.job.request_id)
            if run.failure is None:
                self._guarded(
                    run, lambda: self._unwind(run, Failure("internal", "a fault in the server; its log says more"))
                )
            else:
                self._runs.pop(run.job.id, None)  # its row stays unfinished: taken up again at the next start

    def _advance(self, run: Run) -> None:
        if run.failure is not None:
            self._undo_next(run)
            return
        while run.position < len(run.steps):
            step = run.steps[run.position]
            if isinstance(step, RowStep):
                if self._commit_rows(run):
                    return
                continue
            if run.step_began_at is None:
                run.step_began_at = self._clock.now()
            if self._backend.blocking and run.journalled < run.position:
                self._journal(run)
            if self._backend.blocking:
                self._in_pool(run, lambda step=step: step.do(run.ctx))  # type: ignore[misc]  # as above
                return
            if not self._settle(run, lambda step=step: step.do(run.ctx), inline=True):  # type: ignore[misc]  # as above
                return
        self._finish(run)

    def _settle(self, run: Run, outcome_of: Callable[[], Outcome], *, inline: bool = False) -> bool:
        """Take the outcome of the step at hand; True when the next step may go on at once."""
        if run.failure is not None:
            self._settle_undo(run, outcome_of)
            return False
        step = run.steps[run.position]
        try:
            outcome = outcome_of()
        except TransientError as error:
            self._later(run, self._backoff(run), f"{step.name}: {error}", error)
            return False
        except DriverError as error:
            self._unwind(run, Failure(_code_of(error), str(error)))
            return False
        if isinstance(outcome, NotYet):
            run.message = outcome.message or run.message
            retry_at = outcome.retry_at or self._clock.now() + timedelta(seconds=POLL_S)
            self._later(run, retry_at, outcome.message or f"{step.name} took too long", None)
            return False
        run.ctx.memo.update(outcome.memo)
        run.position += 1
        run.attempts = 0
        run.step_began_at = None
        run.message = ""
        if not inline:
            self._advance(run)
        return True

    def _later(self, run: Run, at: datetime, message: str, error: DriverError | None) -> None:
        step = run.steps[run.position]
        limit_s = self._deadlines_s[(run.job.action, step.name)]
        began_at = run.step_began_at or self._clock.now()
        give_up_at = began_at + timedelta(seconds=limit_s)
        if self._clock.now() >= give_up_at:
            code = _code_of(error) if error is not None else "timed_out"
            self._unwind(run, Failure(code, f"gave up after {limit_s:g} s: {message}"))
            return
        self.submit(run.job.id, min(at, give_up_at))

    def _backoff(self, run: Run) -> datetime:
        run.attempts += 1
        seconds = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** (run.attempts - 1))
        return self._clock.now() + timedelta(seconds=seconds)

    # -- commits ------------------------------------------------------------------------------------------

    def _journal(self, run: Run) -> None:
        position, name = run.position, run.steps[run.position].name
        memo, began_at = dict(run.ctx.memo), run.step_began_at
        self._store.write(
            lambda tx: jobs.journal(
                tx,
                run.job.id,
                status=JobStatus.RUNNING,
                position=position,
                step_name=name,
                memo=memo,
                step_began_at=began_at,
            )
        )
        run.journalled = position

    def _commit_rows(self, run: Run) -> bool:
        """Run the row steps at hand in one commit; True when that was the end of the job."""
        last = run.position
        while last < len(run.steps) and isinstance(run.steps[last], RowStep):
            last += 1
        row_steps = run.steps[run.position : last]
        ends = last == len(run.steps)

        def work(tx: Tx) -> None:
            for step in row_steps:
                assert isinstance(step, RowStep)  # noqa: S101 - chosen so above; for the type checker
                step.do(tx, run.ctx)
            if ends:
                self._finish_in(tx, run, JobStatus.SUCCEEDED, None)
            else:
                jobs.journal(tx, run.job.id, position=last, step_name=run.steps[last].name, memo=dict(run.ctx.memo))

        self._store.write(work)
        run.position = last
        run.journalled = last
        return ends

    def _finish(self, run: Run) -> None:
        self._store.write(lambda tx: self._finish_in(tx, run, JobStatus.SUCCEEDED, None))

    def _finish_in(self, tx: Tx, run: Run, status: JobStatus, error: Failure | None) -> None:
        jobs.finish(tx, run.job.id, status, error, dict(run.ctx.memo))
        last = len(run.steps)
        if status is JobStatus.SUCCEEDED:
            jobs.journal(tx, run.job.id, position=last, step_name=run.steps[last - 1].name)

        def told() -> None:
            self._runs.pop(run.job.id, None)
            self._signals.finished(run.job.id)

        tx.on_commit(told)

    # -- unwinding ----------------------------------------------------------------------------------------

    def _unwind(self, run: Run, failure: Failure) -> None:
        log.info(
            "job_unwinds",
            job_id=run.job.id,
            action=run.job.action,
            request_id=run.job.request_id,
            code=failure.code,
            reason=failure.message,
        )
        run.failure = failure
        run.undo_position = len(run.steps) - 1
        run.attempts = 0
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
        self._undo_next(run)

    def _undo_next(self, run: Run) -> None:
        while run.undo_position >= 0:
            step = run.steps[run.undo_position]
            undo = step.undo if isinstance(step, Step) else None
            if undo is None:
                run.undo_position -= 1
                continue
            if self._backend.blocking:
                self._in_pool(run, lambda undo=undo: undo(run.ctx))  # type: ignore[misc]  # as above
            else:
                self._settle_undo(run, lambda undo=undo: undo(run.ctx))  # type: ignore[misc]  # as above
            return
        if run.workflow.look is not None and not run.looked:
            look = run.workflow.look
            if self._backend.blocking:
                self._in_pool(run, lambda: look(run.ctx))
            else:
                self._settle_undo(run, lambda: look(run.ctx))
            return
        failure = run.failure
        assert failure is not None  # noqa: S101 - this is the unwinding; for the type checker

        def work(tx: Tx) -> None:
            run.workflow.on_failed(tx, run.ctx, failure)
            self._finish_in(tx, run, JobStatus.FAILED, failure)

        self._store.write(work)

    def _settle_undo(self, run: Run, outcome_of: Callable[[], Any]) -> None:
        try:
            found = outcome_of()
        except DriverError as error:
            if run.attempts + 1 < UNDO_TRIES:
                self.submit(run.job.id, self._backoff(run))
                return
            # What could not be undone is named, and the rest goes on: the doctor finds the leak by its tag.
            log.error("undo_failed", job_id=run.job.id, step=run.steps[run.undo_position].name, reason=str(error))
            found = None
        run.attempts = 0
        if run.undo_position >= 0:
            run.undo_position -= 1
        else:
            run.looked = True
            run.ctx.memo.update(found or {})
        self._undo_next(run)

    def _in_pool(self, run: Run, call: Callable[[], Any]) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=POOL_SIZE, thread_name_prefix="driver")
        run.in_pool = True
        future = self._pool.submit(call)

        def landed(done: Future[Any]) -> None:
            with self._condition:
                self._results.append((run, done))
                self._condition.notify_all()

        future.add_done_callback(landed)


def _code_of(error: DriverError) -> str:
    if isinstance(error, NoCapacityError):
        return "out_of_capacity"
    return "backend_unavailable" if isinstance(error, TransientError) else "backend_error"
