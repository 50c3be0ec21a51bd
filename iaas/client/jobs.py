"""Jobs, and waiting for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from iaas.client.collection import Collection
from iaas.client.errors import JobFailed, WaitTimeout
from iaas.client.resource import TIME, Resource, decode, read_failure, read_reference, reads, reads_all
from iaas.kernel.errors import Failure, ResourceRef

if TYPE_CHECKING:
    from iaas.client.client import Client

DEFAULT_WAIT_S = 600.0
_LONG_POLL_S = 30
# With a listener for the progress each poll is short: the server answers a long one at the end of the job only.
_PROGRESS_POLL_S = 1
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
_FINISHED = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Step ``step`` of ``steps``, its name, and a sentence for people where there is one."""

    step: int = 0
    steps: int = 0
    name: str = ""
    message: str = ""
    attempts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Resource):
    """One asynchronous action. ``status`` is ``queued``, ``running``, ``succeeded``, ``failed`` or ``cancelled``."""

    path: ClassVar[str] = "/v1/jobs"
    key: ClassVar[str] = "job"

    action: str = ""
    status: str = "queued"
    progress: Progress | None = field(default=None, metadata=reads(lambda data: decode(Progress, data)))
    resources: tuple[ResourceRef, ...] = field(default=(), metadata=reads_all(read_reference))
    error: Failure | None = field(default=None, metadata=reads(read_failure))
    cancel_requested: bool = False
    finished_at: datetime | None = field(default=None, metadata=TIME)

    @property
    def is_finished(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status in _FINISHED

    def wait(
        self, *, timeout_s: float | None = DEFAULT_WAIT_S, on_progress: Callable[[Job], None] | None = None
    ) -> Job:
        """Return the job when it has succeeded.

        Args:
            timeout_s: by the wall clock; None waits for ever.
            on_progress: called with the job at first and whenever its step or status has changed.

        Raises:
            JobFailed: it failed or was cancelled.
            WaitTimeout: the time is over; the job goes on.
        """
        return wait_for_job(self.client, self, timeout_s=timeout_s, on_progress=on_progress)

    def cancel(self) -> Job:
        """Have the server call the job off; return it as it is then. A second call changes nothing.

        It ends ``cancelled`` a little later, when what it has done is undone.

        Raises:
            NotCancellable: it has ended, or there is no way back from where it is; the message says why.
        """
        answer = self.client.request("POST", f"{self.path}/{self.id}/actions/cancel")
        return Job.from_answer(self.client, answer)


class Jobs(Collection[Job]):
    """``client.jobs``."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, Job)


def wait_for_job(
    client: Client, job: Job, *, timeout_s: float | None, on_progress: Callable[[Job], None] | None
) -> Job:
    """Do what ``Job.wait`` says: long polls, and plain polling wherever the server answers those early."""
    transport = client.transport
    deadline = math.inf if timeout_s is None else transport.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    told: object = None
    while True:
        if on_progress and (job.status, job.progress) != told:
            told = (job.status, job.progress)
            on_progress(job)
        if job.status == "succeeded":
            return job
        if job.is_finished:
            raise JobFailed(job)
        asked_at = transport.monotonic()
        left_s = max(0.0, deadline - asked_at)
        poll_s = math.floor(min(left_s, _PROGRESS_POLL_S if on_progress else _LONG_POLL_S))
        answer = client.request(
            "GET", f"{Job.path}/{job.id}", params={"wait": poll_s or None}, timeout_s=transport.timeout_s + poll_s
        )
        job = Job.from_answer(client, answer)
        if job.is_finished:
            continue
        answered_at = transport.monotonic()
        # The job is asked for once more even when no time was given at all: it may be through already.
        if answered_at >= deadline:
            raise WaitTimeout(f"{job.action} is not through after {timeout_s:g} s", job=job)
        if answered_at - asked_at < poll_s / 2 or not poll_s:
            # The server has no waiter to spare (or the rest is too short for one): poll, more and more slowly.
            transport.sleep(min(pause_s, deadline - answered_at))
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
