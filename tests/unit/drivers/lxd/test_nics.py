"""NICs that come and go, against the fake daemon; what needs a guest is in the contract suite."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pylxd", reason="the extra `real` is not installed")

from iaas.drivers.interface import DriverError, NICSpec, NoCapacityError, NotFoundError, PermanentError
from iaas.drivers.interface.compute import NICS_PER_MACHINE
from iaas.drivers.linux.container_links import ContainerLinks
from iaas.drivers.lxd.driver import LXDComputeDriver
from tests.unit.drivers.lxd.fake_lxd import FakeLXD
from tests.unit.drivers.lxd.test_kills import NAME, SPEC

FIRST = SPEC.nics[0]
SECOND = NICSpec(nic_id="nic-dddd4444", subnet_id="net-eeee5555", mac="52:54:00:00:00:02", device_index=3, mtu=1400)
PATCH = f"PATCH /1.0/instances/{NAME}"
PUT = f"PUT /1.0/instances/{NAME}"


class Links(ContainerLinks):
    """Links as a test says: all live but those in ``dead``."""

    def __init__(self) -> None:
        super().__init__("iaas-unit")
        self.dead: set[str] = set()
        self.cleared: list[str] = []

    def is_there(self, name: str) -> bool:
        return name not in self.dead

    def delete_dead(self, names: Collection[str]) -> list[str]:
        self.cleared += names
        return []


@pytest.fixture
def links() -> Links:
    return Links()


@pytest.fixture
def driver(fake_lxd: FakeLXD, links: Links, tmp_path: Path) -> Iterator[LXDComputeDriver]:
    driver = LXDComputeDriver(fake_lxd.socket_path, tag="unit", pool="iaas", state_dir=tmp_path, links=links)
    driver.ensure_machine(SPEC)
    yield driver
    driver.close()


def nics_of(driver: LXDComputeDriver) -> tuple[str, ...]:
    state = driver.inspect_machine(SPEC.machine_id)
    assert state is not None
    return state.nic_ids


def devices(fake: FakeLXD) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = fake.instances[NAME]["devices"]
    return found


def test_an_attached_nic_has_the_name_of_its_device_index(driver: LXDComputeDriver, fake_lxd: FakeLXD) -> None:
    driver.attach_nic(SPEC.machine_id, SECOND)
    assert devices(fake_lxd)["eth3"] == {
        "type": "nic",
        "nictype": "bridged",
        "parent": "vxuniteeee5555",
        "name": "eth3",
        "hwaddr": "52:54:00:00:00:02",
        "host_name": "ctunitdddd4444",
        "mtu": "1400",
    }
    assert nics_of(driver) == (FIRST.nic_id, SECOND.nic_id)


def test_nics_are_told_in_the_order_of_their_indexes(driver: LXDComputeDriver) -> None:
    for index in (10, 9, 2):
        driver.attach_nic(SPEC.machine_id, replace(SECOND, nic_id=f"nic-dddd44{index:02}", device_index=index))
    assert nics_of(driver) == (FIRST.nic_id, "nic-dddd4402", "nic-dddd4409", "nic-dddd4410")


def test_attaching_and_detaching_again_asks_lxd_for_nothing(driver: LXDComputeDriver, fake_lxd: FakeLXD) -> None:
    driver.attach_nic(SPEC.machine_id, SECOND)
    fake_lxd.log.clear()
    driver.attach_nic(SPEC.machine_id, SECOND)
    assert fake_lxd.log == []
    driver.detach_nic(SPEC.machine_id, SECOND.nic_id)
    assert fake_lxd.log == [PUT]
    driver.detach_nic(SPEC.machine_id, SECOND.nic_id)
    driver.detach_nic("i-zzzz9999", SECOND.nic_id)
    assert fake_lxd.log == [PUT]
    assert nics_of(driver) == (FIRST.nic_id,)


def test_what_another_nic_has_is_refused(driver: LXDComputeDriver) -> None:
    driver.attach_nic(SPEC.machine_id, SECOND)
    other = replace(SECOND, nic_id="nic-ffff6666", mac="52:54:00:00:00:03")
    for wrong in (other, replace(SECOND, mac=other.mac), replace(SECOND, device_index=4)):
        with pytest.raises(PermanentError):
            driver.attach_nic(SPEC.machine_id, wrong)
    with pytest.raises(NotFoundError):
        driver.attach_nic("i-zzzz9999", SECOND)
    assert nics_of(driver) == (FIRST.nic_id, SECOND.nic_id)


def test_a_machine_has_room_for_so_many_nics(driver: LXDComputeDriver) -> None:
    many = tuple(replace(SECOND, nic_id=f"nic-dddd44{n:02}", device_index=n) for n in range(NICS_PER_MACHINE + 1))
    for nic in many[1:NICS_PER_MACHINE]:
        driver.attach_nic(SPEC.machine_id, nic)
    with pytest.raises(NoCapacityError):
        driver.attach_nic(SPEC.machine_id, many[-1])
    assert len(nics_of(driver)) == NICS_PER_MACHINE
    with pytest.raises(NoCapacityError):
        driver.ensure_machine(replace(SPEC, machine_id="i-aaaa1112", nics=many))


def test_detaching_keeps_all_else_also_what_lxd_notes_meanwhile(driver: LXDComputeDriver, fake_lxd: FakeLXD) -> None:
    driver.attach_nic(SPEC.machine_id, SECOND)
    before = {name: each for name, each in devices(fake_lxd).items() if name != "eth3"}

    def note(instance: dict[str, Any]) -> None:
        instance["config"]["volatile.last_state.power"] = "STOPPED"

    fake_lxd.changes_between.append(note)
    driver.detach_nic(SPEC.machine_id, SECOND.nic_id)
    assert devices(fake_lxd) == before
    config = fake_lxd.instances[NAME]["config"]
    assert config["volatile.last_state.power"] == "STOPPED"
    assert config["user.iaas.id"] == SPEC.machine_id


def test_a_refused_attach_leaves_the_machine_as_it_was(driver: LXDComputeDriver, fake_lxd: FakeLXD) -> None:
    fake_lxd.failures[PATCH] = ['Failed to start device "eth3": no']
    with pytest.raises(DriverError):
        driver.attach_nic(SPEC.machine_id, SECOND)
    assert nics_of(driver) == (FIRST.nic_id,)
    driver.attach_nic(SPEC.machine_id, SECOND)
    assert nics_of(driver) == (FIRST.nic_id, SECOND.nic_id)


def test_a_dead_link_is_plugged_again_as_the_same_nic(
    driver: LXDComputeDriver, fake_lxd: FakeLXD, links: Links
) -> None:
    driver.start_machine(SPEC.machine_id)
    plain = devices(fake_lxd)["eth0"]
    seen = []
    for _ in range(3):
        links.dead = {"ctunitbbbb2222"}
        assert driver.replug_nic(SPEC.machine_id, FIRST.nic_id)
        seen.append(devices(fake_lxd)["eth0"])
    # LXD plugs a device anew only if it is not the one it was.
    assert seen[0] != plain
    assert seen[1] == plain
    assert seen[2] == seen[0]
    assert {key: seen[0][key] for key in plain} == plain
    links.dead = set()
    assert not driver.replug_nic(SPEC.machine_id, FIRST.nic_id)


def test_only_a_running_machines_own_nic_is_plugged_again(
    driver: LXDComputeDriver, fake_lxd: FakeLXD, links: Links
) -> None:
    links.dead = {"ctunitbbbb2222", "ctunitdddd4444"}
    fake_lxd.log.clear()
    assert not driver.replug_nic(SPEC.machine_id, FIRST.nic_id)  # it is stopped
    assert not driver.replug_nic("i-zzzz9999", FIRST.nic_id)
    driver.start_machine(SPEC.machine_id)
    assert not driver.replug_nic(SPEC.machine_id, SECOND.nic_id)
    assert PATCH not in fake_lxd.log


def test_links_of_the_dead_are_cleared_before_a_start_and_an_attach(driver: LXDComputeDriver, links: Links) -> None:
    driver.attach_nic(SPEC.machine_id, SECOND)
    assert links.cleared == ["ctunitdddd4444"]
    links.cleared.clear()
    driver.start_machine(SPEC.machine_id)
    assert links.cleared == ["ctunitbbbb2222", "ctunitdddd4444"]


def test_macs_are_given_by_nic(driver: LXDComputeDriver, fake_lxd: FakeLXD) -> None:
    driver.attach_nic(SPEC.machine_id, SECOND)
    driver.set_macs(SPEC.machine_id, {SECOND.nic_id: "52:54:00:00:00:09"})
    assert [devices(fake_lxd)[name]["hwaddr"] for name in ("eth0", "eth3")] == [FIRST.mac, "52:54:00:00:00:09"]
