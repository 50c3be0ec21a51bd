"""Drives jobs through their workflows: one agenda, one thread that decides, a pool for calls that block.

From the accepting commit on nothing is lost: the agenda is rebuilt from the job rows at start. What happens to
one job is in :mod:`iaas.jobs.stepper`; here is when, and in which thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError

from iaas.db.repositories import jobs
from iaas.db.store import Store
from iaas.drivers.interface import Backend
from iaas.jobs.agenda import Agenda
from iaas.jobs.driver_pool import Call, DriverPool
from iaas.jobs.journal import Journal
from iaas.jobs.observer import JobObserver, NobodyLooks
from iaas.jobs.periodic import PeriodicTasks
from iaas.jobs.run import Run
from iaas.jobs.signals import JobSignals
from iaas.jobs.stepper import UNDO_TRIES, Stepper
from iaas.kernel.clock import CloudClock
from iaas.kernel.errors import Failure
from iaas.kernel.ids import IdSource
from iaas.kernel.turns import Turns
from iaas.resources.instances import Instance
from iaas.resources.jobs import Job, JobProgress, JobStatus
from iaas.workflows.framework import Context, Workflow

log = structlog.get_logger(__name__)

ENDS_A_COMMIT = 16  # jobs whose ends share a commit; more would save little and let the first wait longer
FRESH_MOST = 1024  # new jobs kept in memory until they are taken up; the others are read again
TURN_S = 0.0015  # for each of the requests that wait: then they go first
DATABASE_PAUSE_S = 1.0  # until the next attempt when the database did not take a write (cloud clock)
DRIVER_CALLS = 4
DRAIN_S = 5.0


class Executor:
    """Runs the jobs of one cloud.

    ``run_due`` does all that is due now and returns; tests with a frozen clock call it themselves. ``start``
    makes a thread that does so for ever.

    Args:
        driver_calls: how many driver calls a host takes at once, by kind of machine (blocking backends).
        turns: shared with whoever else computes in this process.
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
        driver_calls: Mapping[str, int] | None = None,
        observer: JobObserver | None = None,
        turns: Turns | None = None,
    ) -> None:
        self._store = store
        self._backend = backend
        self._clock = clock
        self._ids = ids
        self._workflows = workflows
        self._signals = signals
        self._add_job = add_job
        self._driver_calls = driver_calls or {}
        self._observer = observer or NobodyLooks()
        self._turns = turns or Turns()
        self._condition = threading.Condition()
        self._agenda = Agenda()
        self._runs: dict[str, Run] = {}
        self._fresh: dict[str, tuple[Job, Instance | None]] = {}
        self._ending: list[Run] = []
        self._ensured_subnets: dict[str, tuple[int, int]] = {}
        self._landed: list[tuple[Run, Call]] = []
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._pool: DriverPool | None = None
        self._stepper = Stepper(
            journal=Journal(store, self._forget, in_groups=not backend.blocking),
            clock=clock,
            blocking=backend.blocking,
            deadlines_s=deadlines_s,
            random=ids.generator("back-off"),
            later=lambda run, at: self.submit(run.job.id, at),
            in_pool=self._in_pool,
            observer=self._observer,
        )
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

    def stop(self, *, timeout_s: float = DRAIN_S) -> bool:
        """Stop after the step at hand. Driver calls under way are awaited, for ``timeout_s`` at most.

        Everything else is in the journal. False when some call has not come back: its step counts as begun
        and runs again at the next start.
        """
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)
            self._thread = None
        self.periodic.stop()
        if self._pool is None:
            return True
        drained = self._pool.stop(timeout_s=timeout_s)
        if not drained:
            log.warning("driver_calls_left", load=self._pool.load())
        return drained

    def submit(self, job_id: str, due_at: datetime | None = None) -> None:
        """Put a committed job onto the agenda."""
        with self._condition:
            self._agenda.put(job_id, due_at or self._clock.now())
            self._condition.notify_all()

    def knows(self, job_id: str) -> bool:
        """Return whether the job is on the agenda or at hand; an unfinished one that is not would never end."""
        with self._condition:
            return job_id in self._agenda or job_id in self._runs

    def submit_new(self, new: Sequence[tuple[Job, Instance | None]]) -> None:
        """Put jobs that have just been committed onto the agenda, with what need not be read again.

        Args:
            new: jobs, each with its instance as its row is now; read when None.
        """
        now = self._clock.now()
        with self._condition:
            for job, instance in new:
                if len(self._fresh) < FRESH_MOST:
                    self._fresh[job.id] = (job, instance)
                self._agenda.put(job.id, now)
            self._condition.notify_all()

    def cancel(self, job_id: str) -> None:
        """Take notice of the mark that a commit has set in the job's row, as soon as its step at hand returns."""
        self._fresh.pop(job_id, None)  # it knows nothing of the mark
        run = self._runs.get(job_id)
        if run is not None:
            run.cancel_requested = True
        self.submit(job_id)

    def progress_of(self, job_id: str) -> JobProgress | None:
        """Return where a job in flight stands now, which the database learns only at commits."""
        run = self._runs.get(job_id)
        return None if run is None else run.progress()

    def driver_load(self) -> dict[str, tuple[int, int]]:
        """Return (running, waiting) driver calls by lane: host and kind of machine."""
        return {} if self._pool is None else self._pool.load()

    def next_due(self) -> datetime | None:
        """Return when the next job on the agenda is due, None when it is empty."""
        with self._condition:
            return self._agenda.first_due()

    @property
    def agenda_size(self) -> int:
        """How many jobs are on the agenda."""
        return len(self._agenda)

    @property
    def is_idle(self) -> bool:
        """Nothing on the agenda and nothing in the pool."""
        with self._condition:
            return not len(self._agenda) and not self._landed and not any(run.in_pool for run in self._runs.values())

    def _wake(self) -> None:
        with self._condition:
            self._condition.notify_all()

    def _loop(self) -> None:
        while True:
            try:
                self.run_due()
            except Exception:  # one job that cannot even be begun; it is off the agenda now, and the others go on
                log.exception("executor_broke")
            with self._condition:
                if self._stopping:
                    return
                if self._landed:
                    continue
                timeout_s: float | None = None
                dues = [due for due in (self._agenda.first_due(), self.periodic.next_due()) if due]
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
            with self._turns.turn(is_short=False):
                done = self._work_a_while()
            if not done:
                return taken
            taken += done

    def _work_a_while(self) -> int:
        """Take up jobs that are due until none is left, or others want to go on; return how many that were."""
        began_s = time.monotonic()
        taken = 0
        while True:
            with self._condition:
                landed = job_id = None
                if not self._stopping:
                    landed = self._landed.pop(0) if self._landed else None
                    job_id = None if landed else self._agenda.take(self._clock.now())
            if landed is not None:
                self._land(*landed)
            elif job_id is not None:
                self._take_up(job_id)
            elif self._ending:
                self._commit_ends()  # may put new jobs onto the agenda
                continue
            else:
                return taken
            taken += 1
            if len(self._ending) >= ENDS_A_COMMIT:
                self._commit_ends()
            waiting = self._turns.waiting
            if waiting and time.monotonic() - began_s >= TURN_S * waiting:
                self._commit_ends()
                return taken

    def _commit_ends(self) -> None:
        ending, self._ending = self._ending, []
        self._store.flush()
        for run in ending:
            self._guarded(run, lambda run=run: self._stepper.ended(run))  # type: ignore[misc]  # bound now

    # -- one job ------------------------------------------------------------------------------------------

    def _take_up(self, job_id: str) -> None:
        run = self._runs.get(job_id)
        if run is None:
            job, instance = self._fresh.pop(job_id, (None, None))
            if job is None:
                try:
                    with self._store.read() as connection:
                        job = jobs.get(connection, job_id)
                except DBAPIError as error:
                    self._wait_for_database(job_id, error)
                    return
            if job is None or job.is_finished:
                return
            run = self._begin(job, instance)
        if not run.in_pool and run.ending is None:
            self._guarded(run, lambda: self._stepper.advance(run))
            if run.ending is not None:
                self._ending.append(run)

    def _land(self, run: Run, call: Call) -> None:
        run.call = None
        self._guarded(run, lambda: self._stepper.settle(run, call.result))

    def _begin(self, job: Job, instance: Instance | None) -> Run:
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
            _instance=instance,
            ensured_subnets=self._ensured_subnets,
        )
        run.step_began_at = job.step_began_at
        run.journalled = job.position
        run.cancel_requested = job.cancel_requested_at is not None
        if job.unwinding:
            run.failure = job.error or Failure("interrupted", "the action was being undone when the server stopped")
            run.failure_journalled = True
            run.undo_position = len(run.steps) - 1
        self._runs[job.id] = run
        return run

    def _forget(self, run: Run, status: JobStatus) -> None:
        job = run.job
        self._runs.pop(job.id, None)
        self._observer.job_ended(job.action, status)
        log.info(
            "job_ended",
            request_id=job.request_id,
            job_id=job.id,
            action=job.action,
            resource_id=job.resource.id,
            status=status.value,
            code=run.failure.code if run.failure else None,
            seconds=round((self._clock.now() - job.created_at).total_seconds(), 3),
        )
        self._signals.finished(run.job.id)

    def _guarded(self, run: Run, action: Callable[[], None]) -> None:
        """A fault of ours in one job must not stop the others: it fails that job.

        Where the database is what fails, nothing was decided: the job waits for it.
        """
        try:
            action()
        except DBAPIError as error:
            self._wait_for_database(run.job.id, error)
        except Exception:  # ours, whatever it is: see above
            log.exception("job_broke", job_id=run.job.id, action=run.job.action, request_id=run.job.request_id)
            self._after_fault(run)

    def _wait_for_database(self, job_id: str, error: DBAPIError) -> None:
        log.error("database_refused", job_id=job_id, reason=str(error.orig))
        self.submit(job_id, self._clock.now() + timedelta(seconds=DATABASE_PAUSE_S))

    def _after_fault(self, run: Run) -> None:
        if run.failure is None:
            fault = Failure("internal", "a fault in the server; its log says more")
            self._guarded(run, lambda: self._stepper.unwind(run, fault))
            return
        run.faults += 1
        if run.faults < UNDO_TRIES:
            self.submit(run.job.id, self._stepper.backoff(run))
        else:
            self._runs.pop(run.job.id, None)  # its row stays unfinished: taken up again at the next start

    def _in_pool(self, run: Run, function: Callable[[], Any]) -> None:
        if self._pool is None:
            self._pool = DriverPool(self._limit_of)

        def landed(call: Call) -> None:
            with self._condition:
                self._landed.append((run, call))
                self._condition.notify_all()

        with self._condition:  # it may land before ``run.call`` is set, but is not looked at before
            run.call = self._pool.submit(function, lane=run.ctx.lane, group=run.job.project_id, landed=landed)

    def _limit_of(self, lane: str) -> int:
        return self._driver_calls.get(lane.rpartition("/")[2], DRIVER_CALLS)
