"""The driver against the fake daemon; what needs a guest is in the contract suite."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("pylxd", reason="the extra `real` is not installed")

from iaas.drivers.interface import BackendDownError, PermanentError, PowerState
from iaas.drivers.lxd.connection import pylxd_endpoint
from iaas.drivers.lxd.driver import LXDComputeDriver
from tests.unit.drivers.lxd.fake_lxd import FakeLXD
from tests.unit.drivers.lxd.test_kills import NAME, SPEC


@pytest.fixture
def driver(fake_lxd: FakeLXD, tmp_path: Path) -> Iterator[LXDComputeDriver]:
    driver = LXDComputeDriver(fake_lxd.socket_path, tag="unit", pool="iaas", state_dir=tmp_path)
    yield driver
    driver.close()


def test_a_busy_instance_is_waited_for(driver: LXDComputeDriver, fake_lxd: FakeLXD) -> None:
    driver.ensure_machine(SPEC)
    fake_lxd.busy = 3
    assert driver.start_machine(SPEC.machine_id).power is PowerState.RUNNING
    assert fake_lxd.busy == 0


def test_a_power_change_that_somebody_else_made_first_is_success(driver: LXDComputeDriver, fake_lxd: FakeLXD) -> None:
    driver.ensure_machine(SPEC)
    fake_lxd.failures[f"PUT /1.0/instances/{NAME}/state"] = ["The instance is already running"]
    with pytest.raises(PermanentError):
        driver.start_machine(SPEC.machine_id)  # it is not true
    driver.start_machine(SPEC.machine_id)
    assert driver.start_machine(SPEC.machine_id).power is PowerState.RUNNING


def test_an_instance_of_somebody_else_under_our_name_is_left_alone(driver: LXDComputeDriver, fake_lxd: FakeLXD) -> None:
    foreign = {"name": NAME, "type": "container", "config": {}, "devices": {}, "status": "Stopped"}
    fake_lxd.instances[NAME] = foreign
    assert driver.inspect_machine(SPEC.machine_id) is None
    assert driver.inventory() == []
    driver.remove_machine(SPEC.machine_id)
    assert fake_lxd.instances[NAME] is foreign
    with pytest.raises(PermanentError):
        driver.ensure_machine(SPEC)
    assert fake_lxd.instances[NAME] is foreign


def test_an_older_generation_than_the_present_one_is_refused(driver: LXDComputeDriver) -> None:
    driver.ensure_machine(replace(SPEC, generation=2))
    with pytest.raises(PermanentError):
        driver.ensure_machine(replace(SPEC, generation=1))


def test_no_daemon_is_backend_down_and_comes_back(fake_lxd: FakeLXD, tmp_path: Path) -> None:
    driver = LXDComputeDriver(fake_lxd.socket_path + "x", tag="unit", pool="iaas", state_dir=tmp_path)
    with pytest.raises(BackendDownError):
        driver.check_available()
    with pytest.raises(BackendDownError):
        driver.ensure_machine(SPEC)
    Path(fake_lxd.socket_path + "x").symlink_to(fake_lxd.socket_path)
    driver.check_available()
    driver.close()


def test_calls_from_many_threads_make_each_machine_once(driver: LXDComputeDriver, fake_lxd: FakeLXD) -> None:
    specs = [replace(SPEC, machine_id=f"i-aaaa111{number}") for number in range(4)] * 3
    failures: list[BaseException] = []

    def ensure(index: int) -> None:
        try:
            driver.ensure_machine(specs[index])
        except BaseException as exc:  # noqa: BLE001 - reported by the assertion below
            failures.append(exc)

    threads = [threading.Thread(target=ensure, args=(index,)) for index in range(len(specs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert failures == []
    assert fake_lxd.log.count("POST /1.0/instances") == 4
    assert len(driver.inventory()) == 4


def test_endpoints_are_paths_or_urls() -> None:
    assert pylxd_endpoint("/var/lib/lxd/unix.socket") == "http+unix://%2Fvar%2Flib%2Flxd%2Funix.socket"
    assert pylxd_endpoint("https://10.1.2.3:8443/") == "https://10.1.2.3:8443"
    with pytest.raises(ValueError, match="endpoint"):
        pylxd_endpoint("tcp://10.1.2.3:8443")
