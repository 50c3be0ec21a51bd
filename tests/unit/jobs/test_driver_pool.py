from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from iaas.jobs.agenda import Agenda
from iaas.jobs.driver_pool import Call, DriverPool
from tests.factories import wait_for


def ignore(_: Call) -> None:
    pass


class Gate:
    """Calls that wait for being let through, and remember who came."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.inside: list[str] = []

    def call(self, name: str) -> str:
        self.inside.append(name)
        assert self.open.wait(20)
        return name


def test_a_lane_takes_no_more_than_its_limit_and_no_more_threads() -> None:
    gate, pool = Gate(), DriverPool(lambda lane: 3)
    before = threading.active_count()
    calls = [
        pool.submit(lambda n=n: gate.call(str(n)), lane="h/vm", group="p", landed=ignore)  # type: ignore[misc]  # bound now
        for n in range(50)
    ]
    wait_for(lambda: len(gate.inside) == 3)
    assert pool.load() == {"h/vm": (3, 47)}
    assert threading.active_count() - before <= 3
    gate.open.set()
    wait_for(lambda: all(call.value is not None for call in calls))
    assert pool.stop(timeout_s=5)


def test_a_lane_that_hangs_holds_up_no_other() -> None:
    gate, pool = Gate(), DriverPool(lambda lane: 2)
    for _ in range(10):
        pool.submit(lambda: gate.call("hung"), lane="h/container", group="p", landed=ignore)
    wait_for(lambda: len(gate.inside) == 2)
    done = pool.submit(lambda: "vm", lane="h/vm", group="p", landed=ignore)
    wait_for(lambda: done.value == "vm")
    assert not pool.stop(timeout_s=0.05), "it says that calls are left"
    gate.open.set()


def test_projects_take_turns() -> None:
    gate, pool = Gate(), DriverPool(lambda lane: 1)
    first = Gate()
    pool.submit(lambda: first.call("first"), lane="h/vm", group="greedy", landed=ignore)
    wait_for(lambda: first.inside == ["first"])
    gate.open.set()
    for number in range(20):
        pool.submit(lambda n=number: gate.call(f"greedy-{n}"), lane="h/vm", group="greedy", landed=ignore)  # type: ignore[misc]  # bound now
    for number in range(2):
        pool.submit(lambda n=number: gate.call(f"modest-{n}"), lane="h/vm", group="modest", landed=ignore)  # type: ignore[misc]  # bound now
    first.open.set()
    wait_for(lambda: len(gate.inside) == 22)
    assert gate.inside[:4] == ["greedy-0", "modest-0", "greedy-1", "modest-1"]
    assert pool.stop(timeout_s=5)


def test_an_error_comes_out_where_the_result_is_asked_for() -> None:
    pool = DriverPool(lambda lane: 1)

    def broken() -> None:
        raise ValueError("no")

    landed = threading.Event()
    call = pool.submit(broken, lane="h/vm", group="p", landed=lambda _: landed.set())
    assert landed.wait(10)
    with pytest.raises(ValueError, match="no"):
        call.result()
    assert pool.stop(timeout_s=5)


def test_a_stopped_pool_begins_nothing() -> None:
    pool = DriverPool(lambda lane: 1)
    assert pool.stop(timeout_s=0)
    call = pool.submit(lambda: "late", lane="h/vm", group="p", landed=ignore)
    assert call.running_s is None
    assert pool.load() == {}


def test_the_agenda_has_each_job_once() -> None:
    agenda, now = Agenda(), datetime(2026, 1, 1, tzinfo=UTC)
    agenda.put("job-1", now + timedelta(seconds=10))
    agenda.put("job-2", now + timedelta(seconds=5))
    agenda.put("job-1", now)
    assert len(agenda) == 2
    assert agenda.take(now) == "job-1"
    assert agenda.take(now) is None
    assert agenda.first_due() == now + timedelta(seconds=5)
    assert agenda.take(now + timedelta(seconds=60)) == "job-2"
    assert agenda.first_due() is None
    assert agenda.take(now + timedelta(seconds=60)) is None
