from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from iaas.cloud import Cloud
from iaas.db.repositories import instances, shared
from iaas.db.schema import upgrade
from iaas.db.store import Store
from iaas.jobs.fleet_turns import FleetTurns
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


@pytest.fixture(params=["sqlite", "postgresql"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Store]]:
    """What four processes have of one database, on one clock that stands."""
    url = f"sqlite:///{tmp_path}/one.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    clock = CloudClock(start=START, scale=0)
    opened = [Store(url, clock) for _ in range(4)]
    upgrade(opened[0])
    yield opened
    for store in opened:
        store.close()


def processes(stores: list[Store], ran: list[int], *, first_in_s: float | None = None) -> list[PeriodicTasks]:
    """Return the tasks of as many processes; each notes its number when it runs the task."""
    made = []
    for number, store in enumerate(stores):
        tasks = PeriodicTasks(clock_of(store), lambda: None)
        tasks.turns = FleetTurns(store)
        tasks.add("count", lambda number=number: ran.append(number), interval_s=60, first_in_s=first_in_s)
        made.append(tasks)
    return made


def clock_of(store: Store) -> CloudClock:
    clock = store._clock
    assert isinstance(clock, CloudClock)
    return clock


def test_of_several_processes_one_runs_a_task_each_time_it_is_due(stores: list[Store]) -> None:
    ran: list[int] = []
    fleet = processes(stores, ran)
    clock = clock_of(stores[0])
    for turn in range(1, 11):
        clock.advance(60)
        barrier = threading.Barrier(len(fleet))

        def come(tasks: PeriodicTasks, barrier: threading.Barrier = barrier) -> int:
            barrier.wait(20)
            return tasks.run_due()

        with ThreadPoolExecutor(len(fleet)) as pool:
            assert sum(pool.map(come, fleet)) == 1
        assert len(ran) == turn
        assert {tasks.next_due() for tasks in fleet} == {clock.now() + timedelta(seconds=60)}


def test_a_process_that_is_gone_is_not_waited_for(stores: list[Store]) -> None:
    ran: list[int] = []
    first, second = processes(stores[:2], ran)
    clock = clock_of(stores[0])
    clock.advance(60)
    assert (first.run_due(), second.run_due()) == (1, 0)
    clock.advance(60)
    assert second.run_due() == 1
    assert ran == [0, 1]


def test_what_is_due_at_the_start_is_done_once_for_those_that_start_together(stores: list[Store]) -> None:
    ran: list[int] = []
    together = processes(stores[:2], ran, first_in_s=0)
    assert [tasks.run_due() for tasks in together] == [1, 0]
    clock = clock_of(stores[0])
    clock.advance(59)
    [later] = processes(stores[2:3], ran, first_in_s=2)
    clock.advance(2)
    assert later.run_due() == 1, "another start, another look"


def test_what_is_about_the_process_itself_is_run_by_each(stores: list[Store]) -> None:
    ran: list[int] = []
    fleet = processes(stores, [])
    for number, tasks in enumerate(fleet):
        tasks.add("own", lambda number=number: ran.append(number), interval_s=1, each_process=True)
    clock_of(stores[0]).advance(1)
    for tasks in fleet:
        tasks.run_due()
    assert ran == [0, 1, 2, 3]


def test_a_turn_taken_before_the_clock_was_set_back_holds_nobody_up(stores: list[Store]) -> None:
    turns = FleetTurns(stores[0])
    stores[1].write(lambda tx: shared.put_setting(tx, "turn of count", (tx.now + timedelta(days=1)).isoformat()))
    assert turns.take("count", interval_s=60, unless_within_s=60) is None


def test_a_database_that_does_not_answer_costs_a_turn_and_nothing_else(stores: list[Store]) -> None:
    ran: list[int] = []
    [tasks] = processes(stores[:1], ran)
    clock = clock_of(stores[0])
    take = tasks.turns.take  # type: ignore[union-attr]  # set just now

    def refuse(*_args: object, **_more: object) -> None:
        raise OperationalError("no", None, RuntimeError("no"))

    tasks.turns.take = refuse  # type: ignore[union-attr,method-assign,assignment]  # as above
    clock.advance(60)
    assert tasks.run_due() == 0
    tasks.turns.take = take  # type: ignore[union-attr,method-assign]  # as above
    clock.advance(60)
    assert tasks.run_due() == 1
