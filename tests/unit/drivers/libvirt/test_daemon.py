"""The driver against a daemon that goes away and comes back; no guest is booted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("libvirt")  # the extra "real"

from iaas.drivers.images import build_tiny
from iaas.drivers.interface import BackendDownError, MachineKind, MachineSpec, PowerState
from iaas.drivers.libvirt import LibvirtComputeDriver
from tests.real_host import RealHost

pytestmark = pytest.mark.real

SPEC = MachineSpec(
    machine_id="i-daemon00",
    kind=MachineKind.VM,
    hostname="daemon",
    vcpus=1,
    memory_mib=128,
    root_disk_gib=1,
    image_id="img-daemon00",
)


@pytest.fixture
def state_dir(real_host: RealHost) -> Path:
    return real_host.state_dir / "compute-daemon"


@pytest.fixture
def driver(real_host: RealHost, state_dir: Path) -> Iterator[LibvirtComputeDriver]:
    driver = LibvirtComputeDriver(real_host.libvirt_uri, real_host.tag, state_dir)
    driver.import_image(SPEC.image_id, build_tiny(None, print).artefacts[MachineKind.VM])
    try:
        yield driver
    finally:
        driver.remove_machine(SPEC.machine_id)
        driver.remove_image(SPEC.image_id)
        driver.close()


def test_a_daemon_that_was_restarted_is_reached_again(real_host: RealHost, driver: LibvirtComputeDriver) -> None:
    made = driver.ensure_machine(SPEC)
    real_host.daemons.stop()
    try:
        with pytest.raises(BackendDownError):
            driver.check_available()
        with pytest.raises(BackendDownError):
            driver.inspect_machine(SPEC.machine_id)
    finally:
        real_host.daemons.ensure()
    driver.check_available()
    assert driver.inspect_machine(SPEC.machine_id) == made


@pytest.mark.parametrize("generation", [0, 1])
def test_a_machine_whose_disk_was_taken_back_gets_one_again(
    driver: LibvirtComputeDriver, state_dir: Path, generation: int
) -> None:
    spec = replace(SPEC, generation=generation)
    driver.ensure_machine(SPEC)
    driver.ensure_machine(spec)
    (disk,) = state_dir.glob("vm/*/root-*.qcow2")
    disk.unlink()
    state = driver.ensure_machine(spec)
    assert (state.power, state.generation) == (PowerState.STOPPED, generation)
    assert disk.exists()


def test_a_removed_machine_leaves_no_file(driver: LibvirtComputeDriver, state_dir: Path) -> None:
    driver.ensure_machine(SPEC)
    driver.remove_image(SPEC.image_id)
    assert list(state_dir.glob("bases/*"))
    driver.remove_machine(SPEC.machine_id)
    assert list(state_dir.glob("vm/*")) == []
    assert list(state_dir.glob("bases/*")) == []
