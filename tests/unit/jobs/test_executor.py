"""How jobs are driven: waiting, trying again, giving up, unwinding, journalling."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from iaas.cloud import Cloud
from iaas.drivers.interface import NoCapacityError, PermanentError, TransientError
from iaas.kernel.clock import CloudClock
from iaas.resources.instances import InstanceStatus
from iaas.resources.jobs import JobStatus
from tests.factories import (
    START,
    assert_consistent,
    create,
    instance_row,
    job_of,
    make_cloud,
    open_cloud,
    operator,
    settle,
    wait_for,
    wish,
    world,
)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with open_cloud() as opened:
        yield opened


def test_nothing_happens_before_its_time(cloud: Cloud) -> None:
    accepted, job = cloud.instances.create(operator(cloud), [wish(kind="vm")])[0]
    cloud.executor.run_due()
    assert cloud.executor.run_due() == 0
    due = cloud.executor.next_due()
    assert due is not None
    assert due > cloud.clock.now()
    shown = cloud.jobs.get(operator(cloud), job.id)
    assert (shown.status, shown.progress.name) == (JobStatus.RUNNING, "await_running")
    cloud.clock.advance((due - cloud.clock.now()).total_seconds())
    cloud.executor.run_due()
    assert job_of(cloud, job.id).status == JobStatus.SUCCEEDED
    assert cloud.instances.get(operator(cloud), accepted.id).status == InstanceStatus.RUNNING


def test_a_transient_error_is_tried_again_later_and_later(cloud: Cloud) -> None:
    world(cloud).faults.fail_next("ensure_machine", TransientError("not now"), count=7)
    cloud.instances.create(operator(cloud), [wish()])
    waits_s = []
    cloud.executor.run_due()
    for _ in range(7):
        due = cloud.executor.next_due()
        assert due is not None
        waits_s.append((due - cloud.clock.now()).total_seconds())
        cloud.clock.advance(waits_s[-1])
        cloud.executor.run_due()
    assert world(cloud).faults.waiting() == 0
    assert waits_s == sorted(waits_s)
    assert waits_s[0] < 2
    assert waits_s[-1] <= 30
    settle(cloud)
    assert_consistent(cloud)


def test_no_capacity_on_the_host_has_its_own_code(cloud: Cloud) -> None:
    world(cloud).faults.fail_next("ensure_machine", NoCapacityError("the pool is full"))
    accepted, _ = cloud.instances.create(operator(cloud), [wish()])[0]
    settle(cloud)
    failure = instance_row(cloud, accepted.id).failure
    assert failure is not None
    assert (failure.code, failure.message) == ("out_of_capacity", "the pool is full")


def test_unwinding_goes_back_in_reverse(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    driver = cloud.backend.compute[next(iter(cloud.backend.compute))]
    for each in cloud.backend.compute.values():
        for name in ("stop_machine", "remove_machine"):
            original = getattr(each, name)
            monkeypatch.setattr(
                each, name, lambda *a, name=name, original=original, **k: (calls.append(name), original(*a, **k))[1]
            )
    original_port = cloud.backend.networks.remove_port
    monkeypatch.setattr(
        cloud.backend.networks, "remove_port", lambda *a: (calls.append("remove_port"), original_port(*a))[1]
    )
    world(cloud).faults.fail_next("inspect_machine", PermanentError("gone"))
    cloud.instances.create(operator(cloud), [wish()])
    settle(cloud)
    assert calls == ["stop_machine", "remove_machine", "remove_port"]
    assert driver.inventory() == []


def test_a_fault_of_ours_fails_its_job_and_no_other(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, job = cloud.instances.create(operator(cloud), [wish(kind="vm")])[0]
    good, _ = cloud.instances.create(operator(cloud), [wish(kind="container")])[0]
    from iaas.drivers.interface import MachineKind

    def fail(*_args: object) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(cloud.backend.compute[MachineKind.VM], "ensure_machine", fail)
    settle(cloud)
    failed = job_of(cloud, job.id)
    assert failed.status == JobStatus.FAILED
    assert failed.error is not None
    assert failed.error.code == "internal"
    assert "a bug" not in failed.error.message
    assert instance_row(cloud, broken.id).status == InstanceStatus.FAILED
    assert instance_row(cloud, good.id).status == InstanceStatus.RUNNING
    assert_consistent(cloud)


@pytest.mark.parametrize("blocking", [False, True])
def test_a_new_cloud_on_the_same_files_goes_on(tmp_path: Path, blocking: bool) -> None:
    clock = CloudClock(start=START, scale=0)
    first = make_cloud(tmp_path, clock=clock, blocking=blocking)
    stopped = create(first, name="stopped")
    accepted = [first.instances.create(operator(first), [wish(kind=kind)])[0] for kind in ("vm", "container")]
    first.instances.stop(operator(first), stopped.id)
    first.executor.run_due()
    first.close()
    with open_cloud(tmp_path, clock=clock, blocking=blocking, seed=2) as second:
        assert second.executor.recover() == 3
        settle(second)
        assert instance_row(second, stopped.id).status == InstanceStatus.STOPPED
        for instance, job in accepted:
            assert instance_row(second, instance.id).status == InstanceStatus.RUNNING
            assert job_of(second, job.id).status == JobStatus.SUCCEEDED
        assert_consistent(second)


def test_blocking_backends_have_a_journal_before_each_effect() -> None:
    with open_cloud(blocking=True) as cloud:
        seen: list[tuple[int, str]] = []
        accepted, job = cloud.instances.create(operator(cloud), [wish(kind="vm")])[0]
        while not job_of(cloud, job.id).is_finished:
            row = job_of(cloud, job.id)
            if not seen or seen[-1] != (row.position, row.progress.name):
                seen.append((row.position, row.progress.name))
            if not cloud.executor.run_due():
                due = cloud.executor.next_due()
                if due is not None:
                    cloud.clock.advance(max(0.0, (due - cloud.clock.now()).total_seconds()))
        assert seen == sorted(seen)
        assert seen[0] == (0, "ensure_image")
        assert (3, "start_machine") in seen
        settle(cloud)
        assert instance_row(cloud, accepted.id).status == InstanceStatus.RUNNING


def test_the_simulation_is_driven_in_few_commits(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = 0
    original = cloud.store.write

    def counted(work: object) -> object:
        nonlocal writes
        writes += 1
        return original(work)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(cloud.store, "write", counted)
    _, job = cloud.instances.create(operator(cloud), [wish()])[0]
    while not job_of(cloud, job.id).is_finished:
        cloud.clock.advance(0.25)
        cloud.executor.run_due()
    assert writes <= 3  # accepted, done; a guest that is ready at once is noted as well


def test_the_thread_works_by_itself(tmp_path: Path) -> None:
    with open_cloud(tmp_path, clock=CloudClock(scale=1000)) as cloud:
        cloud.start()
        accepted, job = cloud.instances.create(operator(cloud), [wish(kind="vm")])[0]
        wait_for(lambda: job_of(cloud, job.id).is_finished, what="the job")
        waited = cloud.jobs.wait(operator(cloud), job.id, timeout_s=20)
        assert waited.status == JobStatus.SUCCEEDED
        wait_for(lambda: instance_row(cloud, accepted.id).guest_ready_at is not None, what="the guest")


def test_a_wait_ends_with_the_job(tmp_path: Path) -> None:
    with open_cloud(tmp_path, clock=CloudClock(scale=200)) as cloud:
        cloud.start()
        _, job = cloud.instances.create(operator(cloud), [wish(kind="vm")])[0]
        assert cloud.jobs.wait(operator(cloud), job.id, timeout_s=60).status == JobStatus.SUCCEEDED


def test_finished_jobs_keep_the_times_of_the_cloud(cloud: Cloud) -> None:
    _, job = cloud.instances.create(operator(cloud), [wish(kind="vm")])[0]
    settle(cloud)
    finished = job_of(cloud, job.id)
    assert finished.created_at == START
    assert finished.finished_at is not None
    assert finished.finished_at - START == timedelta(seconds=1)
