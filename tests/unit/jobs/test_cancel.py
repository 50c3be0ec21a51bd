from __future__ import annotations

from pathlib import Path

import pytest

from iaas.cloud import Cloud
from iaas.db.repositories import jobs
from iaas.drivers.interface import MachineKind, TransientError
from iaas.kernel.clock import CloudClock
from iaas.kernel.errors import NotCancellable, NotFound, PermissionDenied
from iaas.resources.common import Role
from iaas.resources.instances import Instance, InstanceStatus
from iaas.resources.jobs import Job, JobStatus
from iaas.workflows import WORKFLOWS
from iaas.workflows.framework import CancelUntil, Step
from tests.chaos.clearing import clear
from tests.chaos.plays import PLAYS
from tests.chaos.stage import Stage
from tests.factories import (
    START,
    assert_consistent,
    claims,
    create,
    instance_row,
    job_of,
    open_cloud,
    operator,
    principal_in,
    settle,
    used_capacity,
    wait_for,
    wish,
    world,
)

BOTH = pytest.mark.parametrize("blocking", [False, True], ids=["inline", "pool"])


def begin_create(cloud: Cloud) -> tuple[Instance, Job]:
    """Accept a create that cannot go on until the faults are cleared."""
    world(cloud).faults.fail_next("start_machine", TransientError("the daemon is busy"), count=10_000)
    instance, job = cloud.instances.create(operator(cloud), [wish(name="web")])[0]
    return instance, job


def run_a_while(cloud: Cloud) -> None:
    """Let pass what is due within the next two seconds."""
    for _ in range(8):
        run_now(cloud)
        cloud.clock.advance(0.25)


def run_now(cloud: Cloud) -> None:
    """Do what is due now, calls in the pool to their end included."""
    executor = cloud.executor
    executor.run_due()
    wait_for(lambda: executor.run_due() >= 0 and not any(run.in_pool for run in executor._runs.values()))


def test_every_workflow_says_until_when() -> None:
    for workflow in WORKFLOWS.values():
        assert workflow.cancel.reason
        if isinstance(workflow.cancel, CancelUntil):
            assert isinstance(workflow.steps[workflow.last_cancellable], Step), "a row step cannot be interrupted"


@BOTH
def test_a_create_that_is_cancelled_holds_nothing(blocking: bool) -> None:
    with open_cloud(blocking=blocking) as cloud:
        instance, job = begin_create(cloud)
        run_a_while(cloud)
        asked = cloud.jobs.cancel(operator(cloud), job.id)
        assert asked.cancel_requested_at is not None
        assert not asked.is_finished
        settle(cloud)
        ended = job_of(cloud, job.id)
        assert ended.status == JobStatus.CANCELLED
        assert ended.error is not None
        assert ended.error.code == "cancelled"
        row = instance_row(cloud, instance.id)
        assert (row.status, row.transition) == (InstanceStatus.FAILED, None)
        assert row.failure is not None
        assert row.failure.code == "cancelled"
        assert_consistent(cloud)
        assert used_capacity(cloud) == (0, 0, 0)
        assert not claims(cloud)
        again = cloud.jobs.cancel(operator(cloud), job.id)
        assert again.status == JobStatus.CANCELLED
        world(cloud).faults.clear()
        assert create(cloud, name="web").status == InstanceStatus.RUNNING


@BOTH
def test_a_stop_that_is_cancelled_leaves_the_machine_running(blocking: bool) -> None:
    with open_cloud(blocking=blocking) as cloud:
        instance = create(cloud)
        world(cloud).faults.ignore_shutdown(instance.id)
        _, job = cloud.instances.stop(operator(cloud), instance.id, timeout_s=600)
        run_a_while(cloud)
        assert instance_row(cloud, instance.id).transition == "stopping"
        cloud.jobs.cancel(operator(cloud), job.id)
        settle(cloud)
        assert job_of(cloud, job.id).status == JobStatus.CANCELLED
        assert instance_row(cloud, instance.id).status == InstanceStatus.RUNNING
        assert instance_row(cloud, instance.id).guest_ready_at is not None
        assert_consistent(cloud)


@BOTH
def test_a_guest_that_has_begun_to_stop_is_waited_for(blocking: bool) -> None:
    with open_cloud(blocking=blocking) as cloud:
        instance = create(cloud)
        _, job = cloud.instances.stop(operator(cloud), instance.id)
        run_now(cloud)
        state = cloud.backend.compute[MachineKind.CONTAINER].inspect_machine(instance.id)
        assert state is not None
        assert state.power == "stopping"
        cloud.jobs.cancel(operator(cloud), job.id)
        settle(cloud)
        assert job_of(cloud, job.id).status == JobStatus.CANCELLED
        assert instance_row(cloud, instance.id).status == InstanceStatus.STOPPED
        assert_consistent(cloud)


@BOTH
def test_beyond_the_point_of_no_return_it_is_refused_with_the_reason(blocking: bool) -> None:
    with open_cloud(blocking=blocking) as cloud:
        instance = create(cloud)
        world(cloud).faults.fail_next("start_machine", TransientError("busy"), count=10_000)
        _, job = cloud.instances.rebuild(operator(cloud), instance.id)
        run_a_while(cloud)
        with pytest.raises(NotCancellable, match="old disk"):
            cloud.jobs.cancel(operator(cloud), job.id)
        world(cloud).faults.clear()
        settle(cloud)
        assert job_of(cloud, job.id).status == JobStatus.SUCCEEDED
        with pytest.raises(NotCancellable, match="succeeded already"):
            cloud.jobs.cancel(operator(cloud), job.id)


def test_a_delete_is_never_cancelled() -> None:
    with open_cloud() as cloud:
        instance = create(cloud)
        _, job = cloud.instances.delete(operator(cloud), instance.id)
        with pytest.raises(NotCancellable, match="does not come back"):
            cloud.jobs.cancel(operator(cloud), job.id)


def test_the_watch_of_a_guest_can_be_cancelled_and_changes_nothing() -> None:
    with open_cloud() as cloud:
        instance, _ = cloud.instances.create(operator(cloud), [wish()])[0]
        world(cloud).faults.fail_next("is_guest_ready", TransientError("no"), count=10_000)
        run_a_while(cloud)
        with cloud.store.read() as connection:
            (watch,) = [job for job in jobs.unfinished(connection) if job.action == "instance.watch_guest"]
        cloud.jobs.cancel(operator(cloud), watch.id)
        settle(cloud)
        assert job_of(cloud, watch.id).status == JobStatus.CANCELLED
        assert instance_row(cloud, instance.id).status == InstanceStatus.RUNNING


@pytest.mark.parametrize("action", [a for a, w in WORKFLOWS.items() if w.last_cancellable >= 0])
def test_a_mark_set_just_before_the_last_commit_wins(action: str) -> None:
    """The race in its narrowest place: the mark is committed between the last effect and the last commit."""
    with open_cloud(blocking=True) as cloud:
        play = PLAYS[action]
        stage = Stage(cloud)
        prepared = play.prepare(stage)
        journal = cloud.executor._stepper._journal
        original_rows, original_begun = journal.rows, journal.begun
        marked: list[str] = []

        def mark(run: object) -> None:
            job = run.job  # type: ignore[attr-defined]  # a Run
            leaves = run.position == WORKFLOWS[action].last_cancellable + 1  # type: ignore[attr-defined]  # as above
            if job.action == action and leaves and not marked:
                marked.append(job.id)
                assert cloud.store.write(
                    lambda tx: jobs.request_cancel(tx, job.id, last_position=WORKFLOWS[action].last_cancellable)
                )

        journal.rows = lambda run: (mark(run), original_rows(run))[1]  # type: ignore[method-assign]  # a hook
        journal.begun = lambda run: (mark(run), original_begun(run))[1]  # type: ignore[method-assign, func-returns-value]  # a hook
        play.begin(stage, prepared)
        settle(cloud)
        assert marked
        assert job_of(cloud, marked[0]).status == JobStatus.CANCELLED
        assert_consistent(cloud)
        clear(stage)


def test_a_cancel_outlives_the_process(tmp_path: Path) -> None:
    clock = CloudClock(start=START, scale=0)
    with open_cloud(tmp_path, clock=clock) as first:
        instance, job = begin_create(first)
        run_a_while(first)
        first.jobs.cancel(operator(first), job.id)
    with open_cloud(tmp_path, clock=clock, seed=2) as second:
        second.executor.recover()
        settle(second)
        assert job_of(second, job.id).status == JobStatus.CANCELLED
        assert instance_row(second, instance.id).status == InstanceStatus.FAILED
        assert_consistent(second)


def test_nobody_cancels_what_is_not_his() -> None:
    with open_cloud() as cloud:
        _, job = begin_create(cloud)
        stranger, _ = principal_in(cloud, "other")
        reader, _ = principal_in(cloud, "default", Role.READER)
        with pytest.raises(NotFound):
            cloud.jobs.cancel(stranger, job.id)
        with pytest.raises(PermissionDenied):
            cloud.jobs.cancel(reader, job.id)


def test_tries_are_told_and_spread() -> None:
    with open_cloud() as cloud:
        _, job = begin_create(cloud)
        cloud.executor.run_due()
        progress = cloud.jobs.get(operator(cloud), job.id).progress
        assert progress.attempts == 1
        assert "the daemon is busy" in progress.message
        assert "tried again in" in progress.message
        due = cloud.executor.next_due()
        assert due is not None
        assert 0.375 <= (due - cloud.clock.now()).total_seconds() <= 0.5
        for _ in range(12):
            due = cloud.executor.next_due()
            assert due is not None
            assert (due - cloud.clock.now()).total_seconds() <= 15
            cloud.clock.advance((due - cloud.clock.now()).total_seconds())
            cloud.executor.run_due()
        assert cloud.jobs.get(operator(cloud), job.id).progress.attempts == 13


def test_the_same_seed_gives_the_same_pauses() -> None:
    def pauses() -> list[object]:
        with open_cloud(seed=7) as cloud:
            begin_create(cloud)
            cloud.executor.run_due()
            return [cloud.executor.next_due()]

    assert pauses() == pauses()
