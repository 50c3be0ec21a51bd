"""Jobs and events."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from iaas.kernel.errors import Failure, ResourceRef


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINISHED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """Step ``step`` of ``steps`` (1 based; ``steps`` when done), its name, and a sentence while it takes long.

    ``attempts`` counts how often the step has failed and will be tried again.
    """

    step: int
    steps: int
    name: str
    message: str = ""
    attempts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One asynchronous action and its outcome."""

    id: str
    project_id: str
    action: str
    status: str
    resource: ResourceRef
    progress: JobProgress
    error: Failure | None
    request_id: str | None
    input: dict[str, Any]
    memo: dict[str, Any]
    position: int
    unwinding: bool
    step_began_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    cancel_requested_at: datetime | None = None

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED


OPERATORS = ""
"""In the place of a project's id: an event for all admins, whatever their project."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One fact about a resource, in the order in which it happened.

    ``project_id`` is None for what is no project's business but the operators' (hosts, the doctor).
    """

    id: int
    type: str
    project_id: str | None
    resource: ResourceRef
    generation: int | None
    job_id: str | None
    request_id: str | None
    created_at: datetime
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events: of one resource, of one type of resource, with types that begin so. None is no filter."""

    resource_id: str | None = None
    resource_type: str | None = None
    type_prefix: str | None = None
