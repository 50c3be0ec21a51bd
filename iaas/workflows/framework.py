"""What a workflow is made of.

A workflow is an explicit list of named steps. A :class:`Step` has an effect outside the database: its ``do``
and ``undo`` run without a transaction, may run twice, and are keyed by ids chosen beforehand. A
:class:`RowStep` changes rows only and shares the commit of its neighbour. Nothing sleeps: a ``do`` that has
to wait returns :class:`NotYet`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from iaas.db.repositories import instances
from iaas.db.store import Store, Tx
from iaas.drivers.interface import Backend
from iaas.kernel.clock import Clock
from iaas.kernel.errors import Failure
from iaas.kernel.ids import IdSource
from iaas.resources.instances import Instance
from iaas.resources.jobs import Job


@dataclass(frozen=True, slots=True)
class Done:
    """The step is through. ``memo`` is remembered in the journal for later steps."""

    memo: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotYet:
    """Call ``do`` again at ``retry_at`` (cloud clock; a short poll interval when None)."""

    retry_at: datetime | None = None
    message: str = ""


Outcome = Done | NotYet


@dataclass(slots=True, kw_only=True)
class Context:
    """What a step works with. ``memo`` holds what earlier steps found out."""

    job: Job
    memo: dict[str, Any]
    store: Store
    backend: Backend
    clock: Clock
    ids: IdSource
    report: Callable[[str], None]
    add_job: Callable[..., Job]
    _instance: Instance | None = None
    ensured_subnets: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Subnets that jobs of this process have ensured, with the generations (theirs, their VPC's) at that time."""

    @property
    def input(self) -> dict[str, Any]:
        """What the service put into the job when it was accepted."""
        return self.job.input

    @property
    def lane(self) -> str:
        """Where the job's driver calls queue: ``host/kind``, or the networks'."""
        if self.job.resource.type != "instance":
            return str(self.job.input.get("lane", "/networks"))
        return f"{self.instance.host_id or ''}/{self.instance.kind}"

    @property
    def instance(self) -> Instance:
        """The job's instance as it was when this run began (rows do not change under a transition)."""
        if self._instance is None:
            with self.store.read() as connection:
                found = instances.get(connection, self.job.resource.id, with_deleted=True)
            if found is None:
                raise LookupError(f"job {self.job.id} is for {self.job.resource.id}, which has no row")
            self._instance = found
        return self._instance


@dataclass(frozen=True, slots=True)
class Step:
    """An outside effect. ``undo`` accepts "it never happened" and removes only what this job made."""

    name: str
    do: Callable[[Context], Outcome]
    undo: Callable[[Context], None] | None = None


@dataclass(frozen=True, slots=True)
class RowStep:
    """Rows only: runs inside the commit of the step before it."""

    name: str
    do: Callable[[Tx, Context], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelUntil:
    """A job can be called off until the end of the effect ``step``; from then on ``reason`` says why not."""

    step: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NeverCancel:
    """A job cannot be called off at all, for this reason."""

    reason: str


@dataclass(frozen=True, kw_only=True)  # no slots: it keeps what it worked out
class Workflow:
    """One action.

    After an unwinding ``look`` asks the backend for the true state (an effect: the memo of its ``Done`` joins the
    job's, ``NotYet`` has it called again for a while), and ``on_failed`` puts the resource to rest in the job's
    last commit. A job that is called off unwinds like one that failed, with a failure of the code ``cancelled``.
    """

    action: str
    steps: tuple[Step | RowStep, ...]
    on_failed: Callable[[Tx, Context, Failure], None]
    cancel: CancelUntil | NeverCancel
    look: Callable[[Context], Outcome] | None = None

    @cached_property
    def last_cancellable(self) -> int:
        """The position of the last step at which a job can be called off; -1 when there is none."""
        if isinstance(self.cancel, NeverCancel):
            return -1
        return next(index for index, step in enumerate(self.steps) if step.name == self.cancel.step)
