"""The doctor that looks by itself: when, and when not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from iaas.cloud import Cloud
from iaas.config import CloudConfig, DoctorPolicy
from iaas.db.store import Store
from iaas.doctor.doctor import Doctor
from iaas.drivers.interface import MachineKind
from iaas.drivers.sim.backend import build_sim_backend
from iaas.kernel.clock import CloudClock
from iaas.kernel.ids import IdSource
from tests.factories import CREDENTIALS, START, create, instance_row, open_cloud, wait_for

EAGER = DoctorPolicy(every_s=60, first_in_s=5, least_pause_s=0)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with open_cloud() as opened:
        yield opened


def doctor(cloud: Cloud, policy: DoctorPolicy) -> Doctor:
    return Doctor(
        store=cloud.store,
        backend=cloud.backend,
        clock=cloud.clock,
        executor=cloud.executor,
        policy=policy,
        on_repair=lambda drift: None,
    )


def lose(cloud: Cloud) -> str:
    instance = create(cloud)
    cloud.backend.compute[MachineKind.CONTAINER].remove_machine(instance.id)
    return instance.id


def test_it_finds_and_repairs_only_when_told_to(cloud: Cloud) -> None:
    lost = lose(cloud)
    watching = doctor(cloud, EAGER)
    watching.look_in_passing()
    assert watching.counts()["lost_machine"] == 1
    assert instance_row(cloud, lost).status == "running"
    mending = doctor(cloud, replace(EAGER, repairs=True))
    mending.look_in_passing()
    assert mending.counts()["lost_machine"] == 0
    assert instance_row(cloud, lost).status == "failed"


def test_it_pauses_between_two_looks_even_when_the_cloud_clock_runs(cloud: Cloud) -> None:
    watching = doctor(cloud, replace(EAGER, least_pause_s=3600))
    watching.look_in_passing()
    first = watching.last
    cloud.clock.advance(10 * 86_400)
    watching.look_in_passing()
    assert watching.last is first
    watching.check()
    assert watching.last is not first


def test_it_leaves_huge_simulated_clouds_alone(cloud: Cloud) -> None:
    create(cloud)
    watching = doctor(cloud, replace(EAGER, most_simulated=0))
    watching.look_in_passing()
    assert watching.last is None


def test_it_waits_for_nobody(cloud: Cloud) -> None:
    watching = doctor(cloud, EAGER)
    with watching._alone():
        watching._looked_at_s = float("-inf")
        watching.look_in_passing()
    assert watching.last is None


def test_a_cloud_looks_soon_after_its_start_and_then_from_time_to_time() -> None:
    clock = CloudClock(start=START, scale=0)
    config = CloudConfig(state_dir=None, database_url="sqlite://", doctor=EAGER)
    cloud = Cloud(
        config=config,
        backend=build_sim_backend(":memory:", clock),
        store=Store(config.database_url, clock),
        clock=clock,
        ids=IdSource(1),
        given_credentials=CREDENTIALS,
    )
    try:
        cloud.executor.run_due()
        assert cloud.doctor.last is None
        for number in (1, 2):
            clock.advance(60)
            cloud.executor.run_due()
            [task] = [each for each in cloud.executor.periodic.all() if each.name == "doctor"]
            wait_for(lambda task=task, number=number: task.runs == number, what="the look")  # type: ignore[misc]  # bound now
        assert cloud.doctor.last is not None
        assert cloud.doctor.last.findings == ()
    finally:
        cloud.close()
