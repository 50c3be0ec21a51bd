"""Takes one job from step to step: forward, again after a failure that may pass, or back to where it began.

Where driver calls block (real backends), the journal is committed before each effect. The simulation is driven
inline and writes no journal between its effects: its world is keyed by the same ids, so after a kill the whole
workflow simply runs again from its first step; for the same reason an unwinding undoes *every* step, begun or
not (each ``undo`` accepts that it never happened).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from random import Random
from typing import Any, TypeVar

import structlog

from iaas.drivers.interface import DriverError, NoCapacityError, TransientError
from iaas.jobs.journal import CancelledMeanwhile, Journal
from iaas.jobs.observer import JobObserver, StepOutcome
from iaas.jobs.run import CANCELLED, Run
from iaas.kernel.clock import CloudClock
from iaas.kernel.errors import Failure
from iaas.kernel.log_scope import in_scope
from iaas.workflows.framework import Context, Done, NotYet, Outcome, RowStep, Step

log = structlog.get_logger(__name__)

T = TypeVar("T")

POLL_S = 0.25
BACKOFF_FIRST_S = 0.5
BACKOFF_MOST_S = 15.0
UNDO_TRIES = 8
LOOK_PATIENCE_S = 120.0  # how long a guest that is on its way from one state to another is waited for, cloud time

CalledOff = Failure(CANCELLED, "it was cancelled on request")


class Stepper:
    """The rules of one job's progress; decides and commits, and leaves waiting and threads to its owner.

    Args:
        blocking: driver calls go through ``in_pool``, which hands their outcome back to :meth:`settle`.
        deadlines_s: how long each step may take, by action and step.
        random: for the jitter of back-offs.
        later: puts a run back onto the agenda.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        clock: CloudClock,
        blocking: bool,
        deadlines_s: Mapping[tuple[str, str], float],
        random: Random,
        later: Callable[[Run, datetime], None],
        in_pool: Callable[[Run, Callable[[], Any]], None],
        observer: JobObserver,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._blocking = blocking
        self._deadlines_s = deadlines_s
        self._random = random
        self._resume_at = later
        self._in_pool = in_pool
        self._observer = observer

    def advance(self, run: Run) -> None:
        """Go on from where the run stands, as far as it goes now."""
        if run.failure is not None:
            self._undo_next(run)
            return
        try:
            self._go_on(run)
        except CancelledMeanwhile:
            self.unwind(run, CalledOff)

    def ended(self, run: Run) -> None:
        """Take the outcome of the commit that was to end the job (``run.ending``, which is done)."""
        ending, run.ending = run.ending, None
        assert ending is not None  # noqa: S101 - the caller has looked; for the type checker
        try:
            ending.result()
        except CancelledMeanwhile:
            self.unwind(run, CalledOff)

    def settle(self, run: Run, outcome_of: Callable[[], Any]) -> None:
        """Take the outcome of a call from the pool and go on."""
        if run.failure is not None:
            self._settle_undo(run, outcome_of)
        elif self._settle_step(run, outcome_of):
            self.advance(run)

    def backoff(self, run: Run) -> datetime:
        """Count one more failure of what is at hand; return when to try again."""
        run.attempts += 1
        seconds = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** min(run.attempts - 1, 16))
        # Jobs that failed together (a daemon went down) must not all come back together.
        return self._clock.now() + timedelta(seconds=seconds * (0.75 + self._random.random() / 4))

    # -- forward --------------------------------------------------------------------------------------------

    def _go_on(self, run: Run) -> None:
        blocking = self._blocking
        no_return = run.workflow.last_cancellable + 1
        while run.position < len(run.steps):
            if run.cancel_requested and run.may_be_cancelled:
                raise CancelledMeanwhile
            step = run.steps[run.position]
            if isinstance(step, RowStep):
                if self._journal.rows(run):
                    return
                continue
            if run.step_began_at is None:
                run.step_began_at = self._clock.now()
            if run.journalled < run.position and (blocking or run.position == no_return > 0):
                self._journal.begun(run)
            if blocking:
                self._in_pool(run, _scoped(run, step.name, step.do))
                return
            if not self._settle_step(run, _scoped(run, step.name, step.do)):
                return
        self._journal.succeeded(run)

    def _settle_step(self, run: Run, outcome_of: Callable[[], Outcome]) -> bool:
        """Take the outcome of the step at hand; True when the next step may go on at once."""
        step = run.steps[run.position]
        try:
            outcome = outcome_of()
        except TransientError as error:
            retry_at = self.backoff(run)
            self._observer.step_retried(run.job.action, step.name)
            log.info("step_retried", **_scope_of(run, step.name), attempts=run.attempts, reason=str(error))
            self._wait(run, retry_at, f"{step.name}: {error}", error)
            return False
        except DriverError as error:
            self.unwind(run, Failure(_code_of(error), str(error)))
            return False
        if isinstance(outcome, NotYet):
            run.attempts = 0
            retry_at = outcome.retry_at or self._clock.now() + timedelta(seconds=POLL_S)
            self._wait(run, retry_at, outcome.message or "takes its time", None)
            return False
        run.ctx.memo.update(outcome.memo)
        self._step_ended(run, step.name, "done")
        run.position += 1
        run.attempts = 0
        run.step_began_at = None
        run.message = ""
        return True

    def _step_ended(self, run: Run, step: str, outcome: StepOutcome) -> None:
        began_at = run.step_began_at
        if began_at is not None:
            self._observer.step_ended(run.job.action, step, outcome, (self._clock.now() - began_at).total_seconds())

    def _wait(self, run: Run, at: datetime, message: str, error: DriverError | None) -> None:
        if run.cancel_requested and run.may_be_cancelled:
            self.unwind(run, CalledOff)
            return
        step = run.steps[run.position]
        limit_s = self._deadlines_s[(run.job.action, step.name)]
        now = self._clock.now()
        give_up_at = (run.step_began_at or now) + timedelta(seconds=limit_s)
        if now >= give_up_at:
            code = _code_of(error) if error is not None else "timed_out"
            self.unwind(run, Failure(code, f"gave up after {limit_s:g} s: {message}"))
            return
        at = min(at, give_up_at)
        if error is not None:
            message = f"{message} (failed {run.attempts} times, tried again in {(at - now).total_seconds():.1f} s)"
        run.message = message
        self._resume_at(run, at)

    # -- back -----------------------------------------------------------------------------------------------

    def unwind(self, run: Run, failure: Failure) -> None:
        """Undo what was done, last step first, and let the job end for this reason."""
        step = run.steps[min(run.position, len(run.steps) - 1)].name
        log.info("job_unwinds", **_scope_of(run, step), code=failure.code, reason=failure.message)
        if run.failure is None:
            self._step_ended(run, step, "failed")
        run.failure = failure
        run.undo_position = len(run.steps) - 1
        run.attempts = 0
        self._undo_next(run)

    def _undo_next(self, run: Run) -> None:
        failure = run.failure
        assert failure is not None  # noqa: S101 - this is the unwinding; for the type checker
        if not run.failure_journalled:  # before anything is undone: a restart must not go on forward from here
            self._journal.unwinding(run, failure)
        while run.undo_position >= 0:
            step = run.steps[run.undo_position]
            undo = step.undo if isinstance(step, Step) else None
            if undo is None:
                run.undo_position -= 1
                continue
            self._call_undo(run, _scoped(run, f"undo {step.name}", undo))
            return
        look = run.workflow.look
        if look is not None and not run.looked:
            self._call_undo(run, _scoped(run, "look", look))
            return
        self._journal.unwound(run, failure)

    def _call_undo(self, run: Run, call: Callable[[], Any]) -> None:
        if self._blocking:
            self._in_pool(run, call)
        else:
            self._settle_undo(run, call)

    def _settle_undo(self, run: Run, outcome_of: Callable[[], Any]) -> None:
        """Take the outcome of an undo, or of the look after all of them."""
        outcome: Outcome | None = None
        try:
            outcome = outcome_of()
        except DriverError as error:
            if run.attempts + 1 < UNDO_TRIES:
                self._resume_at(run, self.backoff(run))
                return
            # What could not be undone is named, and the rest goes on: the doctor finds the leak by its tag.
            log.error("undo_failed", **_scope_of(run, run.steps[run.undo_position].name), reason=str(error))
        run.attempts = 0
        if run.undo_position >= 0:
            run.undo_position -= 1
        elif isinstance(outcome, NotYet) and self._has_patience(run):
            self._resume_at(run, outcome.retry_at or self._clock.now() + timedelta(seconds=POLL_S))
            return
        else:
            run.looked = True
            if isinstance(outcome, Done):
                run.ctx.memo.update(outcome.memo)
        self._undo_next(run)

    def _has_patience(self, run: Run) -> bool:
        now = self._clock.now()
        if run.look_began_at is None:
            run.look_began_at = now
        return now < run.look_began_at + timedelta(seconds=LOOK_PATIENCE_S)


def _scope_of(run: Run, step: str) -> dict[str, Any]:
    """Return what every log line of this step carries."""
    job = run.job
    return {
        "request_id": job.request_id,
        "job_id": job.id,
        "action": job.action,
        "step": step,
        "resource_id": job.resource.id,
    }


def _scoped(run: Run, step: str, function: Callable[[Context], T]) -> Callable[[], T]:
    """Return the call of ``function`` with the run's context; what it logs, in whatever thread, names the job."""
    return lambda: in_scope(_scope_of(run, step), lambda: function(run.ctx))


def _code_of(error: DriverError) -> str:
    if isinstance(error, NoCapacityError):
        return "out_of_capacity"
    return "backend_unavailable" if isinstance(error, TransientError) else "backend_error"
