"""One play per action: how to get there, and what must be true afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from iaas.cloud import Cloud
from iaas.db.repositories import jobs
from iaas.db.repositories.query import Listing
from iaas.resources.instances import Instance, InstanceStatus
from iaas.resources.jobs import Job, JobStatus
from tests.factories import instance_row, job_of, operator, settle, wish

S = InstanceStatus

# Which driver calls each step makes, by the names that the simulation's faults have.
CALLS: dict[tuple[str, str], tuple[str, ...]] = {
    ("instance.create", "ensure_image"): ("ensure_image",),
    ("instance.create", "ensure_network"): ("ensure_network", "ensure_port"),
    ("instance.create", "ensure_machine"): ("ensure_machine",),
    ("instance.create", "start_machine"): ("start_machine",),
    ("instance.create", "await_running"): ("inspect_machine",),
    ("instance.start", "ensure_network"): ("ensure_network", "ensure_port"),
    ("instance.start", "start_machine"): ("start_machine",),
    ("instance.start", "await_running"): ("inspect_machine",),
    ("instance.stop", "ask_guest"): ("inspect_machine", "stop_machine"),
    ("instance.restart", "ask_guest"): ("inspect_machine", "stop_machine"),
    ("instance.restart", "start_machine"): ("start_machine",),
    ("instance.restart", "await_running"): ("inspect_machine",),
    ("instance.resize", "resize_machine"): ("resize_machine",),
    ("instance.rebuild", "ensure_image"): ("ensure_image",),
    ("instance.rebuild", "cut_power"): ("stop_machine",),
    ("instance.rebuild", "replace_disk"): ("ensure_machine",),
    ("instance.rebuild", "start_machine"): ("start_machine",),
    ("instance.rebuild", "await_running"): ("inspect_machine",),
    ("instance.delete", "remove_machine"): ("remove_machine",),
    ("instance.delete", "remove_ports"): ("remove_port",),
    ("instance.retire", "cut_power"): ("stop_machine",),
    ("instance.retire", "remove_ports"): ("remove_port",),
    ("instance.purge", "remove_machine"): ("remove_machine",),
    ("instance.recover", "ensure_network"): ("ensure_network", "ensure_port"),
    ("instance.recover", "find_machine"): ("inspect_machine",),
    ("instance.recover", "set_macs"): ("set_macs",),
    ("instance.watch_guest", "await_guest"): ("inspect_machine", "is_guest_ready"),
}


EVERY_CALL = [(action, step, call) for (action, step), calls in CALLS.items() for call in calls]
LAST_CALL = {action: (step, call) for action, step, call in EVERY_CALL}


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
    """``begin`` accepts the action; ``done`` and ``failed`` are the statuses that it may end in."""

    prepare: Callable[[Stage], Instance | None]
    begin: Callable[[Stage, Instance | None], tuple[Instance, Job]]
    done: frozenset[InstanceStatus]
    failed: frozenset[InstanceStatus]


def play(action: str, stage: Stage) -> tuple[Instance, Job]:
    """Prepare and begin the play of an action; return what was accepted."""
    it = PLAYS[action]
    return it.begin(stage, it.prepare(stage))


def _create(stage: Stage, _instance: Instance | None = None) -> tuple[Instance, Job]:
    return stage.cloud.instances.create(operator(stage.cloud), [wish(kind=stage.kind)])[0]


def _running(stage: Stage) -> Instance:
    instance, _ = _create(stage)
    stage.rest()
    assert instance_row(stage.cloud, instance.id).status == S.RUNNING
    return instance


def _stopped(stage: Stage) -> Instance:
    instance = _running(stage)
    stage.cloud.instances.stop(operator(stage.cloud), instance.id, force=True)
    stage.rest()
    assert instance_row(stage.cloud, instance.id).status == S.STOPPED
    return instance


def _retire(stage: Stage, instance: Instance | None) -> tuple[Instance, Job]:
    stage.cloud.instances.retention_s = 7200
    return stage.cloud.instances.delete(operator(stage.cloud), _id(instance))


def _retained(stage: Stage) -> Instance:
    instance, _ = _retire(stage, _running(stage))
    stage.rest()
    assert instance_row(stage.cloud, instance.id).deleted_at is not None
    return instance


def _id(instance: Instance | None) -> str:
    assert instance is not None
    return instance.id


def _act(verb: str, **options: Any) -> Callable[[Stage, Instance | None], tuple[Instance, Job]]:
    """Return a ``begin`` that asks the service for the verb; stops and restarts with the stage's patience."""

    def begin(stage: Stage, instance: Instance | None) -> tuple[Instance, Job]:
        patience = {"timeout_s": stage.stop_timeout_s} if verb in ("stop", "restart") else {}
        accepted: tuple[Instance, Job] = getattr(stage.cloud.instances, verb)(
            operator(stage.cloud), _id(instance), **patience, **options
        )
        return accepted

    return begin


_RUNNING = frozenset({S.RUNNING})
_STOPPED = frozenset({S.STOPPED})
_DELETED = frozenset({S.DELETED})

PLAYS: dict[str, Play] = {
    "instance.create": Play(lambda _: None, _create, _RUNNING, frozenset({S.FAILED})),
    "instance.start": Play(_stopped, _act("start"), _RUNNING, _STOPPED),
    "instance.stop": Play(_running, _act("stop"), _STOPPED, _RUNNING | _STOPPED),
    "instance.restart": Play(_running, _act("restart"), _RUNNING, _RUNNING | _STOPPED),
    "instance.resize": Play(_stopped, _act("resize", vcpus=3, memory_mib=64), _STOPPED, _STOPPED),
    "instance.rebuild": Play(_running, _act("rebuild"), _RUNNING, _RUNNING | _STOPPED),
    "instance.delete": Play(_running, _act("delete", purge=True), _DELETED, frozenset({S.FAILED})),
    "instance.retire": Play(_running, _retire, _DELETED, _RUNNING | _STOPPED),
    "instance.purge": Play(_retained, _act("delete", purge=True), _DELETED, _DELETED),
    "instance.recover": Play(_retained, _act("recover"), _STOPPED, _DELETED),
    "instance.watch_guest": Play(lambda _: None, _create, _RUNNING, _RUNNING),
}


def play_job(cloud: Cloud, action: str, accepted: Job) -> Job:
    """Return the job that the play is about: the accepted one, or the watch that followed from it."""
    if action == accepted.action:
        return job_of(cloud, accepted.id)
    listing = Listing(filters={"action": action, "resource_id": accepted.resource.id})
    with cloud.store.read() as connection:
        found, _ = jobs.list_page(connection, listing, project_id=accepted.project_id)
    assert len(found) == 1
    return found[0]


def assert_done(stage: Stage, action: str, instance: Instance, accepted: Job) -> None:
    job = play_job(stage.cloud, action, accepted)
    assert job.status == JobStatus.SUCCEEDED, job.error
    row = instance_row(stage.cloud, instance.id)
    assert row.status in PLAYS[action].done
    assert row.transition is None
    if row.status == S.RUNNING and stage.awaits_guests:
        assert row.guest_ready_at is not None
    if action == "instance.resize":
        assert (row.vcpus, row.memory_mib, row.flavor) == (3, 64, None)
    if action == "instance.rebuild":
        assert row.disk_generation == 1


def assert_failed(stage: Stage, action: str, instance: Instance, accepted: Job) -> None:
    job = play_job(stage.cloud, action, accepted)
    assert job.status == JobStatus.FAILED
    assert job.error is not None
    assert job.error.message
    row = instance_row(stage.cloud, instance.id)
    assert row.status in PLAYS[action].failed
    assert row.transition is None
    assert (row.failure is not None) == (row.status == S.FAILED)
