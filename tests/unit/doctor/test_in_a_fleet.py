"""The doctor of a fleet: any process may look, all know what was found, and lost jobs come back into their queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import text

from iaas.cloud import Cloud
from iaas.config import CloudConfig
from iaas.db.repositories import jobs
from iaas.db.store import Store
from iaas.doctor.findings import Drift
from iaas.drivers.interface import MachineKind
from iaas.drivers.sim.backend import build_sim_backend
from iaas.jobs.fleet import JobQueue
from iaas.kernel.clock import CloudClock
from iaas.kernel.ids import IdSource
from tests.factories import CREDENTIALS, START, job_of, operator, settle, wish


@pytest.fixture
def fleet(postgres_url: str, tmp_path: Path) -> Iterator[list[Cloud]]:
    """Two processes' clouds on one database and one simulated world; neither runs jobs by itself."""
    clock = CloudClock(start=START, scale=0)
    backend = build_sim_backend(":memory:", clock, zones=("zone-1",))
    with ExitStack() as stack:
        clouds = []
        for seed in (1, 2):
            store = Store(postgres_url, clock)
            cloud = Cloud(
                config=CloudConfig(state_dir=tmp_path, database_url=postgres_url, zones=("zone-1",)),
                backend=backend,
                store=store,
                clock=clock,
                ids=IdSource(seed),
                given_credentials=CREDENTIALS,
                queue=JobQueue(store),
            )
            stack.callback(cloud.close)
            clouds.append(cloud)
        yield clouds


def drifts(cloud: Cloud) -> list[Drift]:
    return [finding.drift for finding in cloud.doctor.check().findings]


def create(cloud: Cloud) -> str:
    """Create an instance, its job run here as a worker would, and return its id."""
    accepted, job = cloud.instances.create(operator(cloud), [wish()])[0]
    cloud.executor.submit(job.id)
    settle(cloud)
    run_the_others(cloud)
    cloud.store.write(lambda tx: tx.connection.execute(text("DELETE FROM procrastinate_jobs")))
    return accepted.id


def run_the_others(cloud: Cloud) -> None:
    """Run what the jobs have added: it waits in the queue, too."""
    with cloud.store.read() as connection:
        left = jobs.unfinished(connection)
    for job in left:
        cloud.executor.submit(job.id)
    settle(cloud)


def test_a_job_that_waits_or_is_in_other_hands_is_not_stuck(fleet: list[Cloud]) -> None:
    server, other = fleet
    _, job = server.instances.create(operator(server), [wish()])[0]
    assert drifts(other) == []
    in_hand = text(
        "UPDATE procrastinate_jobs SET status = 'doing',"
        " worker_id = (SELECT worker_id FROM procrastinate_register_worker_v1() LIMIT 1)"
    )
    server.store.write(lambda tx: tx.connection.execute(in_hand))
    assert server._queue is not None
    assert server._queue.has(job.id)
    assert drifts(other) == []


def test_a_job_that_no_queue_has_is_found_and_handed_over_again(fleet: list[Cloud]) -> None:
    server, other = fleet
    _, job = server.instances.create(operator(server), [wish()])[0]
    server.store.write(lambda tx: tx.connection.execute(text("DELETE FROM procrastinate_jobs")))
    assert drifts(other) == [Drift.STUCK_JOB]
    assert other.doctor.repair().findings == ()
    with server.store.read() as connection:
        queued = connection.execute(text("SELECT queue_name, args ->> 'job_id' FROM procrastinate_jobs")).all()
        host = connection.execute(text("SELECT host_id FROM instances")).scalar()
    assert [tuple(row) for row in queued] == [(host, job.id)]
    assert job_of(server, job.id).status == "queued"


def test_a_job_is_never_twice_in_a_queue(fleet: list[Cloud]) -> None:
    server, other = fleet
    _, job = server.instances.create(operator(server), [wish()])[0]
    for cloud in fleet:
        cloud._queue_again(job.id)
    with other.store.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM procrastinate_jobs")).scalar() == 1


def test_what_one_finds_the_others_know_and_it_is_told_once(fleet: list[Cloud]) -> None:
    server, other = fleet
    instance_id = create(server)
    server.backend.compute[MachineKind.CONTAINER].remove_machine(instance_id)
    found = server.doctor.check()
    assert [finding.drift for finding in found.findings] == [Drift.LOST_MACHINE]
    assert other.doctor.last == found
    assert other.doctor.counts()["lost_machine"] == 1
    other.doctor.check()
    mended = other.doctor.repair()
    assert server.doctor.last == mended
    assert [finding.drift for finding in mended.repaired] == [Drift.LOST_MACHINE]
    with server.store.read() as connection:
        told = (
            connection.execute(text("SELECT type FROM events WHERE type LIKE 'doctor.%' ORDER BY id")).scalars().all()
        )
    assert told == ["doctor.drift_found", "doctor.drift_repaired"]
    failure = other.instances.get(operator(other), instance_id).failure
    assert failure is not None
    assert failure.code == "machine_lost"


def test_a_report_of_very_many_findings_keeps_the_first(fleet: list[Cloud], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iaas.doctor.shelf.MOST_FINDINGS", 1)
    server, other = fleet
    for instance_id in [create(server) for _ in range(2)]:
        server.backend.compute[MachineKind.CONTAINER].remove_machine(instance_id)
    assert len(server.doctor.check().findings) == 2
    assert other.doctor.last is not None
    assert len(other.doctor.last.findings) == 1
