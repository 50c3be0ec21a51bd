from __future__ import annotations

import threading

import pytest

from iaas.cloud import Cloud
from iaas.db.repositories import instances
from iaas.jobs.periodic import PeriodicTasks
from iaas.kernel.clock import CloudClock
from tests.factories import START, create, instance_row, open_cloud, settle, wait_for


def make_tasks() -> tuple[CloudClock, PeriodicTasks]:
    clock = CloudClock(start=START, scale=0)
    return clock, PeriodicTasks(clock, lambda: None)


def test_a_task_comes_round_every_interval_of_the_cloud_clock() -> None:
    clock, tasks = make_tasks()
    ran: list[float] = []
    tasks.add("count", lambda: ran.append(1), interval_s=60)
    assert tasks.run_due() == 0
    clock.advance(59)
    assert tasks.run_due() == 0
    clock.advance(1)
    assert tasks.run_due() == 1
    assert tasks.run_due() == 0
    clock.advance(60)
    assert tasks.run_due() == 1
    assert len(ran) == 2


def test_a_task_missed_many_times_runs_once() -> None:
    clock, tasks = make_tasks()
    ran: list[int] = []
    tasks.add("count", lambda: ran.append(1), interval_s=1)
    clock.advance(3600)
    assert tasks.run_due() == 1
    due = tasks.next_due()
    assert due is not None
    assert (due - clock.now()).total_seconds() == 1


def test_tasks_run_in_the_order_in_which_they_fall_due() -> None:
    clock, tasks = make_tasks()
    ran: list[str] = []
    tasks.add("late", lambda: ran.append("late"), interval_s=30)
    tasks.add("early", lambda: ran.append("early"), interval_s=20)
    tasks.add("at once", lambda: ran.append("at once"), interval_s=100, first_in_s=0)
    clock.advance(30)
    tasks.run_due()
    assert ran == ["at once", "early", "late"]


def test_a_fault_in_a_task_is_kept_and_the_task_comes_round_again() -> None:
    clock, tasks = make_tasks()

    def broken() -> None:
        raise RuntimeError("it broke")

    tasks.add("broken", broken, interval_s=1)
    for _ in range(2):
        clock.advance(1)
        tasks.run_due()
    [task] = tasks.all()
    assert (task.runs, task.failures, task.last_error) == (0, 2, "it broke")


def test_a_task_out_of_its_turn_tells_its_error() -> None:
    _, tasks = make_tasks()

    def broken() -> None:
        raise RuntimeError("it broke")

    tasks.add("broken", broken, interval_s=1)
    with pytest.raises(RuntimeError, match="it broke"):
        tasks.run_now("broken")
    with pytest.raises(KeyError):
        tasks.run_now("another")


def test_names_are_unique_and_intervals_positive() -> None:
    _, tasks = make_tasks()
    tasks.add("one", lambda: None, interval_s=1)
    with pytest.raises(ValueError, match="one"):
        tasks.add("one", lambda: None, interval_s=1)
    with pytest.raises(ValueError, match="positive"):
        tasks.add("two", lambda: None, interval_s=0)


def test_a_task_with_a_thread_holds_up_nobody_and_never_runs_twice_at_once() -> None:
    clock, tasks = make_tasks()
    go_on = threading.Event()
    ran: list[int] = []

    def slow() -> None:
        ran.append(1)
        go_on.wait(20)

    tasks.add("slow", slow, interval_s=1, in_thread=True)
    for _ in range(3):
        clock.advance(1)
        tasks.run_due()
    [task] = tasks.all()
    wait_for(lambda: ran == [1])
    assert task.is_running
    go_on.set()
    tasks.stop()
    assert not task.is_running
    clock.advance(1)
    tasks.run_due()
    wait_for(lambda: ran == [1, 1])
    tasks.stop()


def test_the_executor_fires_tasks_when_a_test_advances_the_clock() -> None:
    ran: list[int] = []
    with open_cloud() as cloud:
        cloud.executor.periodic.add("count", lambda: ran.append(1), interval_s=600)
        create(cloud)
        assert cloud.executor.is_idle, "a task that comes round for ever is no work left to do"
        cloud.clock.advance(600)
        settle(cloud)
        assert ran == [1]


def test_the_executors_own_thread_wakes_up_for_tasks() -> None:
    ran: list[int] = []
    with open_cloud() as cloud:
        cloud.start()
        cloud.executor.periodic.add("count", lambda: ran.append(1), interval_s=600)
        cloud.clock.advance(600)
        wait_for(lambda: ran == [1])
        cloud.clock.advance(600)
        wait_for(lambda: ran == [1, 1])


def test_a_task_may_write_and_submit_jobs() -> None:
    with open_cloud() as cloud:
        instance = create(cloud)
        cloud.executor.periodic.add("note", lambda: _rename(cloud, instance.id), interval_s=60)
        cloud.clock.advance(60)
        settle(cloud)
        assert instance_row(cloud, instance.id).hostname == "renamed"


def _rename(cloud: Cloud, instance_id: str) -> None:
    cloud.store.write(lambda tx: instances.change(tx, instance_id, hostname="renamed"))
