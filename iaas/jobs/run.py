"""One job in flight: what the executor remembers of it between two looks."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime

from iaas.jobs.driver_pool import Call
from iaas.kernel.errors import Failure
from iaas.resources.jobs import Job, JobProgress, JobStatus
from iaas.workflows.framework import Context, RowStep, Step, Workflow

CANCELLED = "cancelled"
"""The code of the failure that a cancelled job unwinds with."""

LONG_CALL_S = 5.0  # a driver call that takes longer is mentioned in the job's progress (wall clock)


@dataclass(slots=True)
class Run:
    """``position`` is the step at hand; ``undo_position`` the one that is being undone once there is a ``failure``."""

    job: Job
    workflow: Workflow
    ctx: Context
    position: int
    step_began_at: datetime | None = None
    journalled: int = -1  # the highest position known to the database as begun
    attempts: int = 0  # how often the step at hand (or its undo) has failed so far
    faults: int = 0  # faults of our own while it unwound
    cancel_requested: bool = False
    failure: Failure | None = None
    failure_journalled: bool = False
    undo_position: int = -1
    look_began_at: datetime | None = None
    looked: bool = False
    message: str = ""
    ending: Future[None] | None = None  # the commit that ends the job is queued
    call: Call | None = None  # the driver call under way in the pool

    @property
    def steps(self) -> tuple[Step | RowStep, ...]:
        return self.workflow.steps

    @property
    def in_pool(self) -> bool:
        return self.call is not None

    @property
    def may_be_cancelled(self) -> bool:
        """Whether the step at hand is one at which the workflow can still be called off."""
        return self.position <= self.workflow.last_cancellable

    @property
    def end_status(self) -> JobStatus:
        """How the job ends once it is unwound."""
        is_cancelled = self.failure is not None and self.failure.code == CANCELLED
        return JobStatus.CANCELLED if is_cancelled else JobStatus.FAILED

    def progress(self) -> JobProgress | None:
        """Return where the job stands now; None when there is nothing left but its last commit."""
        if self.position >= len(self.steps):
            return None
        message = self.message
        if self.failure is not None:
            message = f"being undone: {self.failure.message}"
        elif self.call is not None and not message:
            message = _told_of(self.call)
        return JobProgress(
            step=self.position + 1,
            steps=len(self.steps),
            name=self.steps[self.position].name,
            message=message,
            attempts=self.attempts,
        )


def _told_of(call: Call) -> str:
    if call.running_s is None:
        return "waiting for its turn on the host: as many calls as allowed are under way"
    if call.running_s >= LONG_CALL_S:
        return f"the backend has been at it for {call.running_s:.0f} s"
    return ""
