"""One play per action: how to get there, and what must be true afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from iaas.cloud import Cloud
from iaas.db.repositories import jobs
from iaas.db.repositories.query import Listing
from iaas.drivers.interface import Backend, PermanentError
from iaas.drivers.sim.faults import Faults
from iaas.resources.instances import Instance, InstanceStatus
from iaas.resources.jobs import Job, JobStatus
from iaas.resources.networks import NewNIC
from tests.chaos import network_plays
from tests.chaos.hooks import Striker, faults_of_world
from tests.chaos.stage import Play, Stage, Subject, create, row_of, running, status_of, stopped
from tests.factories import job_of, operator

S = InstanceStatus

_PORT = ("ensure_vpc", "ensure_subnet", "ensure_port")

# Which driver calls each step makes, by the names that the simulation's faults have.
CALLS: dict[tuple[str, str], tuple[str, ...]] = {
    ("instance.create", "ensure_image"): ("ensure_image",),
    ("instance.create", "ensure_network"): _PORT,
    ("instance.create", "ensure_machine"): ("ensure_machine",),
    ("instance.create", "start_machine"): ("start_machine",),
    ("instance.create", "await_running"): ("inspect_machine",),
    ("instance.start", "ensure_network"): _PORT,
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
    ("instance.retire", "let_nics_go"): ("detach_nic",),
    ("instance.retire", "remove_ports"): ("remove_port",),
    ("instance.purge", "remove_machine"): ("remove_machine",),
    ("instance.recover", "ensure_network"): _PORT,
    ("instance.recover", "find_machine"): ("inspect_machine",),
    ("instance.recover", "set_macs"): ("set_macs",),
    ("instance.watch_guest", "await_guest"): ("inspect_machine", "is_guest_ready"),
    ("nic.attach", "ensure_port"): _PORT,
    ("nic.attach", "attach_nic"): ("attach_nic",),
    ("nic.detach", "detach_nic"): ("detach_nic",),
    ("nic.detach", "remove_port"): ("remove_port",),
    ("nic.apply", "ensure_port"): _PORT,
    ("nic.replug", "replug_nic"): ("replug_nic",),
    ("vpc.create", "ensure_vpc"): ("ensure_vpc",),
    ("vpc.apply", "ensure_vpc"): ("ensure_vpc",),
    ("vpc.delete", "remove_vpc"): ("remove_vpc",),
    ("subnet.create", "ensure_subnet"): ("ensure_vpc", "ensure_subnet"),
    ("subnet.apply", "ensure_subnet"): ("ensure_vpc", "ensure_subnet"),
    ("subnet.join", "ensure_subnet"): ("ensure_vpc", "ensure_subnet"),
    ("subnet.join", "ensure_ports"): ("ensure_port",),
    ("subnet.leave", "ensure_subnet"): ("ensure_subnet",),
    ("subnet.leave", "ensure_ports"): ("ensure_port",),
    ("subnet.delete", "remove_subnet"): ("remove_subnet",),
}

# Ports are tried once more without addresses when one is refused: they may have changed addresses among each other.
STRIKES = {("subnet.join", "ensure_ports"): 2, ("subnet.leave", "ensure_ports"): 2}


EVERY_CALL = [(action, step, call) for (action, step), calls in CALLS.items() for call in calls]
LAST_CALL = {action: (step, call) for action, step, call in EVERY_CALL}


def play(action: str, stage: Stage) -> tuple[Subject, Job]:
    """Prepare and begin the play of an action; return what was accepted."""
    it = PLAYS[action]
    return it.begin(stage, it.prepare(stage))


def _with_nic_of_its_own(stage: Stage) -> Instance:
    instance = running(stage)
    nic = stage.cloud.nics.create(operator(stage.cloud), NewNIC(subnet=f"basic-{instance.zone}"))
    network_plays.attach(stage, instance, nic)
    return instance


def _retire(stage: Stage, instance: Instance) -> tuple[Instance, Job]:
    stage.cloud.instances.retention_s = 7200
    return stage.cloud.instances.delete(operator(stage.cloud), instance.id)


def _retained(stage: Stage) -> Instance:
    instance, _ = _retire(stage, running(stage))
    stage.rest()
    assert row_of(stage.cloud, instance.id).deleted_at is not None
    return instance


def _act(verb: str, **options: Any) -> Callable[[Stage, Instance], tuple[Instance, Job]]:
    """Return a ``begin`` that asks the service for the verb; stops and restarts with the stage's patience."""

    def begin(stage: Stage, instance: Instance) -> tuple[Instance, Job]:
        patience = {"timeout_s": stage.stop_timeout_s} if verb in ("stop", "restart") else {}
        accepted: tuple[Instance, Job] = getattr(stage.cloud.instances, verb)(
            operator(stage.cloud), instance.id, **patience, **options
        )
        return accepted

    return begin


_RUNNING = frozenset({S.RUNNING})
_STOPPED = frozenset({S.STOPPED})
_DELETED = frozenset({S.DELETED})

PLAYS: dict[str, Play] = {
    "instance.create": Play(lambda _: None, create, _RUNNING, frozenset({S.FAILED})),
    "instance.start": Play(stopped, _act("start"), _RUNNING, _STOPPED),
    "instance.stop": Play(running, _act("stop"), _STOPPED, _RUNNING | _STOPPED),
    "instance.restart": Play(running, _act("restart"), _RUNNING, _RUNNING | _STOPPED),
    "instance.resize": Play(stopped, _act("resize", vcpus=3, memory_mib=64), _STOPPED, _STOPPED),
    "instance.rebuild": Play(running, _act("rebuild"), _RUNNING, _RUNNING | _STOPPED),
    "instance.delete": Play(_with_nic_of_its_own, _act("delete", purge=True), _DELETED, frozenset({S.FAILED})),
    "instance.retire": Play(_with_nic_of_its_own, _retire, _DELETED, _RUNNING | _STOPPED),
    "instance.purge": Play(_retained, _act("delete", purge=True), _DELETED, _DELETED),
    "instance.recover": Play(_retained, _act("recover"), _STOPPED, _DELETED),
    "instance.watch_guest": Play(lambda _: None, create, _RUNNING, _RUNNING),
    **network_plays.PLAYS,
}


def last_call_fails(action: str, *, faults_of: Callable[[Backend], Faults] = faults_of_world) -> Striker:
    """Return what lets the last effect of an action fail for good once it has happened."""
    step, call = LAST_CALL[action]
    count = STRIKES.get((action, step), 1)
    return Striker(action, step, call, "after", PermanentError("it broke"), count=count, faults_of=faults_of)


def play_job(cloud: Cloud, action: str, accepted: Job) -> Job:
    """Return the job that the play is about: the accepted one, or the watch that followed from it."""
    if action == accepted.action:
        return job_of(cloud, accepted.id)
    listing = Listing(filters={"action": action, "resource_id": accepted.resource.id})
    with cloud.store.read() as connection:
        found, _ = jobs.list_page(connection, listing, project_id=accepted.project_id)
    assert len(found) == 1
    return found[0]


def assert_done(stage: Stage, action: str, subject: Subject, accepted: Job) -> None:
    job = play_job(stage.cloud, action, accepted)
    assert job.status == JobStatus.SUCCEEDED, job.error
    assert status_of(stage.cloud, subject.id) in PLAYS[action].done
    row = row_of(stage.cloud, subject.id)
    assert row is None or row.transition is None
    if status_of(stage.cloud, subject.id) == S.RUNNING and stage.awaits_guests:
        assert row.guest_ready_at is not None
    if action == "instance.resize":
        assert (row.vcpus, row.memory_mib, row.flavor) == (3, 64, None)
    if action == "instance.rebuild":
        assert row.disk_generation == 1


def assert_failed(stage: Stage, action: str, subject: Subject, accepted: Job) -> None:
    job = play_job(stage.cloud, action, accepted)
    assert job.status == JobStatus.FAILED
    assert job.error is not None
    assert job.error.message
    row = row_of(stage.cloud, subject.id)
    status = status_of(stage.cloud, subject.id)
    assert status in PLAYS[action].failed
    assert row.transition is None
    if hasattr(row, "failure"):  # NICs do not rest as failed
        assert (row.failure is not None) == (status == S.FAILED)
