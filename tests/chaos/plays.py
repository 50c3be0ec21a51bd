"""One play per action: how to get there, and what must be true afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from iaas.cloud import Cloud
from iaas.resources.instances import Instance, InstanceStatus
from iaas.resources.jobs import Job, JobStatus
from tests.factories import create, instance_row, job_of, operator, settle, wish

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
    ("instance.watch_guest", "await_guest"): ("inspect_machine", "is_guest_ready"),
}


EVERY_CALL = [(action, step, call) for (action, step), calls in CALLS.items() for call in calls]
LAST_CALL = {action: (step, call) for action, step, call in EVERY_CALL}


@dataclass(frozen=True)
class Play:
    """``begin`` accepts the action; ``done`` and ``failed`` are the statuses that it may end in."""

    prepare: Callable[[Cloud], Instance | None]
    begin: Callable[[Cloud, Instance | None], tuple[Instance, Job]]
    done: frozenset[InstanceStatus]
    failed: frozenset[InstanceStatus]


def _running(cloud: Cloud) -> Instance:
    return create(cloud, name="play")


def _stopped(cloud: Cloud) -> Instance:
    instance = _running(cloud)
    cloud.instances.stop(operator(cloud), instance.id)
    settle(cloud)
    return instance


def _retire(cloud: Cloud, instance: Instance | None) -> tuple[Instance, Job]:
    cloud.instances.retention_s = 7200
    return cloud.instances.delete(operator(cloud), _id(instance))


def _retained(cloud: Cloud) -> Instance:
    instance, _ = _retire(cloud, _running(cloud))
    settle(cloud)
    return instance


def _id(instance: Instance | None) -> str:
    assert instance is not None
    return instance.id


def _create(cloud: Cloud, _instance: Instance | None) -> tuple[Instance, Job]:
    return cloud.instances.create(operator(cloud), [wish(name="play")])[0]


_RUNNING = frozenset({S.RUNNING})
_STOPPED = frozenset({S.STOPPED})
_DELETED = frozenset({S.DELETED})

PLAYS: dict[str, Play] = {
    "instance.create": Play(lambda _: None, _create, _RUNNING, frozenset({S.FAILED})),
    "instance.start": Play(
        _stopped, lambda cloud, it: cloud.instances.start(operator(cloud), _id(it)), _RUNNING, _STOPPED
    ),
    "instance.stop": Play(
        _running, lambda cloud, it: cloud.instances.stop(operator(cloud), _id(it)), _STOPPED, _RUNNING | _STOPPED
    ),
    "instance.restart": Play(
        _running, lambda cloud, it: cloud.instances.restart(operator(cloud), _id(it)), _RUNNING, _RUNNING | _STOPPED
    ),
    "instance.resize": Play(
        _stopped,
        lambda cloud, it: cloud.instances.resize(operator(cloud), _id(it), vcpus=3, memory_mib=64),
        _STOPPED,
        _STOPPED,
    ),
    "instance.rebuild": Play(
        _running, lambda cloud, it: cloud.instances.rebuild(operator(cloud), _id(it)), _RUNNING, _RUNNING | _STOPPED
    ),
    "instance.delete": Play(
        _running,
        lambda cloud, it: cloud.instances.delete(operator(cloud), _id(it)),
        frozenset({S.DELETED}),
        frozenset({S.FAILED}),
    ),
    "instance.retire": Play(_running, _retire, _DELETED, _RUNNING | _STOPPED),
    "instance.purge": Play(
        _retained, lambda cloud, it: cloud.instances.delete(operator(cloud), _id(it), purge=True), _DELETED, _DELETED
    ),
    "instance.recover": Play(
        _retained, lambda cloud, it: cloud.instances.recover(operator(cloud), _id(it)), _STOPPED, _DELETED
    ),
    "instance.watch_guest": Play(lambda _: None, _create, _RUNNING, _RUNNING),
}


def play_job(cloud: Cloud, action: str, accepted: Job) -> Job:
    """Return the job that the play is about: the accepted one, or the watch that followed from it."""
    if action == accepted.action:
        return job_of(cloud, accepted.id)
    from iaas.db.repositories import jobs
    from iaas.db.repositories.query import Listing

    with cloud.store.read() as connection:
        found, _ = jobs.list_page(connection, Listing(filters={"action": action}), project_id=accepted.project_id)
    assert len(found) == 1
    return found[0]


def assert_done(cloud: Cloud, action: str, instance: Instance, accepted: Job) -> None:
    assert play_job(cloud, action, accepted).status == JobStatus.SUCCEEDED
    row = instance_row(cloud, instance.id)
    assert row.status in PLAYS[action].done
    if row.status == S.RUNNING:
        assert row.guest_ready_at is not None
    if action == "instance.resize":
        assert (row.vcpus, row.memory_mib, row.flavor) == (3, 64, None)
    if action == "instance.rebuild":
        assert row.disk_generation == 1


def assert_failed(cloud: Cloud, action: str, instance: Instance, accepted: Job) -> None:
    job = play_job(cloud, action, accepted)
    assert job.status == JobStatus.FAILED
    assert job.error is not None
    assert job.error.message
    row = instance_row(cloud, instance.id)
    assert row.status in PLAYS[action].failed
    assert (row.failure is not None) == (row.status == S.FAILED)
