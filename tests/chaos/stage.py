"""Where plays are played, what they are about, and the state that most of them begin in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from iaas.cloud import Cloud
from iaas.db.repositories import instances, nics, subnets, vpcs
from iaas.resources.instances import Instance, InstanceStatus
from iaas.resources.jobs import Job
from tests.factories import operator, settle, wish

GONE = "deleted"


class Subject(Protocol):
    """What a play is about: anything with an id."""

    @property
    def id(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Named:
    """A subject of which only the id is known."""

    id: str


@dataclass(frozen=True)
class Stage:
    """Where a play is played.

    Args:
        settle: lets the cloud work until all is at rest (with ``awaits_guests`` also those who watch for guests).
        stop_timeout_s: how long a guest is asked to stop before its power is cut.
    """

    cloud: Cloud
    kind: str = "container"
    settle: Callable[[Cloud], None] = settle
    awaits_guests: bool = True
    stop_timeout_s: float = 60

    def rest(self) -> None:
        self.settle(self.cloud)


@dataclass(frozen=True)
class Play:
    """``prepare`` returns what ``begin`` accepts the action for (None: it makes that itself).

    ``done`` and ``failed`` are the statuses that it may end in.
    """

    prepare: Callable[[Stage], Any]
    begin: Callable[[Stage, Any], tuple[Subject, Job]]
    done: frozenset[str]
    failed: frozenset[str]


def row_of(cloud: Cloud, subject_id: str) -> Any:
    """Return the row of a play's subject as it is now; None when there is none any more."""
    with cloud.store.read() as connection:
        match subject_id.partition("-")[0]:
            case "i":
                return instances.get(connection, subject_id, with_deleted=True)
            case "nic":
                return nics.get(connection, subject_id)
            case "vpc":
                return vpcs.get(connection, subject_id)
            case "net":
                return subnets.get(connection, subject_id)
    raise AssertionError(f"nobody knows what {subject_id} is")


def status_of(cloud: Cloud, subject_id: str) -> str:
    row = row_of(cloud, subject_id)
    return GONE if row is None else str(row.status)


def create(stage: Stage, _nothing: None = None) -> tuple[Instance, Job]:
    return stage.cloud.instances.create(operator(stage.cloud), [wish(kind=stage.kind)])[0]


def running(stage: Stage) -> Instance:
    instance, _ = create(stage)
    stage.rest()
    assert status_of(stage.cloud, instance.id) == InstanceStatus.RUNNING
    return instance


def stopped(stage: Stage) -> Instance:
    instance = running(stage)
    stage.cloud.instances.stop(operator(stage.cloud), instance.id, force=True)
    stage.rest()
    assert status_of(stage.cloud, instance.id) == InstanceStatus.STOPPED
    return instance
