"""The process dies at any request to LXD, or LXD refuses it: nothing is lost, nothing leaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pylxd", reason="the extra `real` is not installed")

from iaas.drivers.interface import DriverError, MachineKind, MachineSpec, NICSpec, PowerState
from iaas.drivers.lxd import config
from iaas.drivers.lxd import driver as driver_module
from iaas.drivers.lxd.connection import LXDConnection
from tests.unit.drivers.lxd.fake_lxd import FakeLXD

NAME = "iaas-unit-aaaa1111"
SPEC = MachineSpec(
    machine_id="i-aaaa1111",
    kind=MachineKind.CONTAINER,
    hostname="web-1",
    vcpus=2,
    memory_mib=128,
    root_disk_gib=1,
    image_id="img-tiny0000",
    nics=(NICSpec(nic_id="nic-bbbb2222", subnet_id="net-cccc3333", mac="52:54:00:00:00:01"),),
)
MANY = 30  # more requests than any call makes


class Killed(BaseException):
    """The process is no more: nothing catches this, and nothing can be sent any more."""


class DyingConnection(LXDConnection):
    """Lets ``life`` changing requests through; dies at the next, before LXD has got it or after."""

    life: int
    dies_after_effect: bool
    is_dead = False

    def _request(self, method: str, path: str, action: str, **kwargs: Any) -> Any:
        if self.is_dead:
            raise Killed
        if method != "get":
            self.life -= 1
            if self.life < 0:
                self.is_dead = True
                if self.dies_after_effect:
                    super()._request(method, path, action, **kwargs)
                raise Killed
        return super()._request(method, path, action, **kwargs)


@contextmanager
def opened(fake: FakeLXD, state_dir: Path) -> Iterator[driver_module.LXDComputeDriver]:
    driver = driver_module.LXDComputeDriver(fake.socket_path, tag="unit", pool="iaas", state_dir=state_dir)
    try:
        yield driver
    finally:
        driver.close()


@contextmanager
def doomed(
    fake: FakeLXD, state_dir: Path, monkeypatch: pytest.MonkeyPatch, life: int, dies_after_effect: bool
) -> Iterator[driver_module.LXDComputeDriver]:
    """A driver whose process is killed at request ``life``; the block ends there without an error."""

    def connect(*args: Any, **kwargs: Any) -> DyingConnection:
        connection = DyingConnection(*args, **kwargs)
        connection.life, connection.dies_after_effect = life, dies_after_effect
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(driver_module, "LXDConnection", connect)
        with suppress(Killed), opened(fake, state_dir) as driver:
            yield driver


Act = Callable[[driver_module.LXDComputeDriver], object]


def changing_requests(fake: FakeLXD, state_dir: Path, prepare: Act, act: Act) -> int:
    """Return how many changing requests ``act`` makes when nothing goes wrong."""
    with opened(fake, state_dir) as driver:
        prepare(driver)
        fake.log.clear()
        act(driver)
        count = len(fake.log)
        driver.remove_machine(SPEC.machine_id)
    assert 0 < count < MANY
    return count


def nothing(driver: driver_module.LXDComputeDriver) -> None:
    """Prepare nothing."""


def assert_one_whole_machine(fake: FakeLXD, *, generation: int) -> None:
    assert list(fake.instances) == [NAME]
    assert config.is_complete(fake.instances[NAME])
    assert config.generation(fake.instances[NAME]) == generation


@pytest.mark.parametrize("dies_after_effect", [False, True])
def test_a_create_killed_anywhere_is_finished_by_the_next_ensure(
    fake_lxd: FakeLXD, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_after_effect: bool
) -> None:
    for life in range(changing_requests(fake_lxd, tmp_path, nothing, lambda d: d.ensure_machine(SPEC))):
        with doomed(fake_lxd, tmp_path, monkeypatch, life, dies_after_effect) as driver:
            driver.ensure_machine(SPEC)
        with opened(fake_lxd, tmp_path) as driver:
            # What is there shows in the inventory, so that it can be cleared away if nobody goes on.
            assert len(driver.inventory()) == len(fake_lxd.instances)
            state = driver.ensure_machine(SPEC)
            assert (state.power, state.generation, state.vcpus) == (PowerState.STOPPED, 0, 2)
            assert_one_whole_machine(fake_lxd, generation=0)
            driver.remove_machine(SPEC.machine_id)
        assert fake_lxd.instances == {}


@pytest.mark.parametrize("dies_after_effect", [False, True])
def test_a_rebuild_killed_anywhere_leaves_the_old_disk_or_the_new_one(
    fake_lxd: FakeLXD, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_after_effect: bool
) -> None:
    newer = replace(SPEC, generation=1)
    seen: set[int] = set()
    count = changing_requests(fake_lxd, tmp_path, lambda d: d.ensure_machine(SPEC), lambda d: d.ensure_machine(newer))
    for life in range(count):
        with opened(fake_lxd, tmp_path) as driver:
            driver.ensure_machine(SPEC)
        with doomed(fake_lxd, tmp_path, monkeypatch, life, dies_after_effect) as driver:
            driver.ensure_machine(newer)
        with opened(fake_lxd, tmp_path) as driver:
            between = driver.inspect_machine(SPEC.machine_id)
            assert between is not None
            assert driver.inventory() == [between]
            seen.add(between.generation)
            driver.start_machine(SPEC.machine_id)
            assert fake_lxd.instances[NAME]["status"] == "Running"
            driver.stop_machine(SPEC.machine_id, force=True)
            assert driver.ensure_machine(newer).generation == 1
            assert_one_whole_machine(fake_lxd, generation=1)
            driver.remove_machine(SPEC.machine_id)
        assert fake_lxd.instances == {}
    assert seen == {0, 1}


@pytest.mark.parametrize("dies_after_effect", [False, True])
def test_a_removal_killed_anywhere_is_finished_by_the_next_one(
    fake_lxd: FakeLXD, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_after_effect: bool
) -> None:
    def prepare(driver: driver_module.LXDComputeDriver) -> None:
        driver.ensure_machine(SPEC)
        driver.start_machine(SPEC.machine_id)

    count = changing_requests(fake_lxd, tmp_path, prepare, lambda d: d.remove_machine(SPEC.machine_id))
    for life in range(count):
        with opened(fake_lxd, tmp_path) as driver:
            prepare(driver)
        with doomed(fake_lxd, tmp_path, monkeypatch, life, dies_after_effect) as driver:
            driver.remove_machine(SPEC.machine_id)
        with opened(fake_lxd, tmp_path) as driver:
            driver.remove_machine(SPEC.machine_id)
            assert driver.inventory() == []
        assert fake_lxd.instances == {}


@pytest.mark.parametrize("refused", ["POST /1.0/instances", f"PATCH /1.0/instances/{NAME}"])
def test_a_create_that_lxd_refuses_leaves_nothing(fake_lxd: FakeLXD, tmp_path: Path, refused: str) -> None:
    with opened(fake_lxd, tmp_path) as driver:
        fake_lxd.failures[refused] = ["Failed: no"]
        with pytest.raises(DriverError):
            driver.ensure_machine(SPEC)
        assert fake_lxd.instances == {}
        assert driver.ensure_machine(SPEC).power is PowerState.STOPPED


@pytest.mark.parametrize(
    "refused",
    [
        "POST /1.0/instances",
        f"PATCH /1.0/instances/{NAME}-new",
        f"DELETE /1.0/instances/{NAME}",
        f"POST /1.0/instances/{NAME}-new",
    ],
)
def test_a_rebuild_that_lxd_refuses_can_be_repeated(fake_lxd: FakeLXD, tmp_path: Path, refused: str) -> None:
    with opened(fake_lxd, tmp_path) as driver:
        driver.ensure_machine(SPEC)
        fake_lxd.failures[refused] = ["Failed: no"]
        with pytest.raises(DriverError):
            driver.ensure_machine(replace(SPEC, generation=1))
        assert driver.inspect_machine(SPEC.machine_id) is not None
        driver.ensure_machine(replace(SPEC, generation=1))
        assert_one_whole_machine(fake_lxd, generation=1)
