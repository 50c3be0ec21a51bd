from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from iaas.drivers.interface import BackendDownError, MachineKind
from iaas.kernel.errors import Unavailable
from iaas.services import health
from iaas.services.health import BackendHealth
from tests.factories import open_cloud, operator, wait_for, wish, world


class Daemon:
    """Answers a question, refuses it, or hangs until it is let go."""

    def __init__(self) -> None:
        self.error: BackendDownError | None = None
        self.hangs = False
        self.go = threading.Event()
        self.asked = 0

    def check_available(self) -> None:
        self.asked += 1
        if self.hangs:
            self.go.wait(30)
        if self.error is not None:
            raise self.error


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    monkeypatch.setattr(health, "FRESH_S", 0.05)
    return Daemon()


def gate(daemon: Daemon, **changes: object) -> BackendHealth:
    """Return the health of a simulated backend whose container driver is ``daemon``."""
    with open_cloud(blocking=True) as cloud:
        driver = cloud.backend.compute[MachineKind.CONTAINER]
        driver.check_available = daemon.check_available  # type: ignore[method-assign]  # the daemon of this test
        return BackendHealth(replace(cloud.backend, **changes), patience_s=1.0)  # type: ignore[arg-type]  # any field


def test_a_daemon_that_hangs_is_waited_for_once(daemon: Daemon) -> None:
    daemon.hangs = True
    health_of_it = gate(daemon)
    before = threading.active_count()
    for _ in range(20):
        with pytest.raises(Unavailable, match=r"hangs: no answer for .* Restart its daemon") as caught:
            health_of_it.check(MachineKind.CONTAINER)
        assert caught.value.retry_after_s
    assert daemon.asked == 1
    assert threading.active_count() - before <= 1
    began = time.monotonic()
    with pytest.raises(Unavailable):
        health_of_it.check("container")
    assert time.monotonic() - began < 0.5, "once it is known to hang nobody waits"
    daemon.go.set()
    wait_for(lambda: "container" not in health_of_it.problems())


def test_other_kinds_are_not_concerned(daemon: Daemon) -> None:
    daemon.error = BackendDownError("LXD does not answer")
    with open_cloud(blocking=True) as cloud:
        cloud.backend.compute[MachineKind.CONTAINER].check_available = daemon.check_available  # type: ignore[method-assign]  # as above
        cloud.health = BackendHealth(cloud.backend)
        cloud.instances._health = cloud.instances._creation._health = cloud.health
        with pytest.raises(Unavailable, match="LXD does not answer"):
            cloud.instances.create(operator(cloud), [wish()])
        cloud.instances.create(operator(cloud), [wish(kind="vm")])
        assert set(cloud.health.problems()) == {"container"}


def test_what_is_down_is_revived_with_pauses(daemon: Daemon) -> None:
    revived: list[int] = []
    daemon.error = BackendDownError("gone")

    seen = threading.Event()

    def revive() -> None:
        seen.wait(20)
        revived.append(1)
        daemon.error = None

    health_of_it = gate(daemon, revive=revive)
    assert health_of_it.problems()["container"] == "gone"
    seen.set()
    wait_for(lambda: revived == [1])
    wait_for(lambda: "container" not in health_of_it.problems())
    daemon.error = BackendDownError("gone again")
    wait_for(lambda: "container" in health_of_it.problems())
    assert revived == [1], "not every few milliseconds"


def test_the_simulation_is_asked_directly() -> None:
    with open_cloud() as cloud:
        cloud.health.check("vm")
        world(cloud).faults.fail_next("check_available", BackendDownError("down"))
        with pytest.raises(Unavailable, match="down"):
            cloud.instances.create(operator(cloud), [wish()])
        cloud.instances.create(operator(cloud), [wish()])
