from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("libvirt")  # the extra "real"

import libvirt

from iaas.drivers.interface import (
    BackendDownError,
    DriverError,
    MachineKind,
    MachineSpec,
    NoCapacityError,
    NotFoundError,
    PermanentError,
    TransientError,
    UnsupportedError,
)
from iaas.drivers.libvirt import LibvirtComputeDriver
from iaas.drivers.libvirt.errors import translate


def an_error(code: int, text: str, *, domain: int = 10) -> libvirt.libvirtError:
    error = libvirt.libvirtError(text)
    error.err = (code, domain, text, 2, None, None, None, -1, -1)
    return error


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (libvirt.VIR_ERR_NO_DOMAIN, NotFoundError),
        (libvirt.VIR_ERR_XML_ERROR, PermanentError),
        (libvirt.VIR_ERR_RPC, BackendDownError),
        (libvirt.VIR_ERR_OPERATION_FAILED, TransientError),
    ],
)
def test_codes_have_their_meaning(code: int, kind: type[DriverError]) -> None:
    assert type(translate(an_error(code, "text"), "do it")) is kind


def test_a_lost_way_to_the_daemon_is_the_backend_being_down() -> None:
    error = an_error(libvirt.VIR_ERR_SYSTEM_ERROR, "Connection reset by peer", domain=libvirt.VIR_FROM_RPC)
    assert type(translate(error, "do it")) is BackendDownError


def test_a_full_disk_is_a_lack_of_capacity() -> None:
    error = an_error(libvirt.VIR_ERR_INTERNAL_ERROR, "cannot write /a/b: No space left on device")
    assert type(translate(error, "do it")) is NoCapacityError


def test_tenants_are_shown_no_path_of_the_host() -> None:
    error = an_error(libvirt.VIR_ERR_OPERATION_FAILED, "Could not open '/var/lib/iaas/x.qcow2': Permission denied")
    assert str(translate(error, "start the machine")) == (
        "cannot start the machine: Could not open '(path)': Permission denied"
    )


@pytest.fixture
def driver_without_daemon(tmp_path: Path) -> LibvirtComputeDriver:
    return LibvirtComputeDriver(f"qemu:///system?socket={tmp_path}/none", "tabc", tmp_path / "state")


def a_spec(**changes: object) -> MachineSpec:
    values: dict[str, object] = {
        "machine_id": "i-00000000",
        "kind": MachineKind.VM,
        "hostname": "a",
        "vcpus": 1,
        "memory_mib": 128,
        "root_disk_gib": 1,
        "image_id": "img-00000000",
    }
    return MachineSpec(**(values | changes))  # type: ignore[arg-type]  # fields by name, checked by the dataclass


def test_without_a_daemon_every_call_says_so(driver_without_daemon: LibvirtComputeDriver) -> None:
    driver = driver_without_daemon
    for call in (
        driver.check_available,
        driver.inventory,
        lambda: driver.ensure_machine(a_spec()),
        lambda: driver.inspect_machine("i-00000000"),
        lambda: driver.remove_machine("i-00000000"),
        lambda: driver.execute("i-00000000", ["true"], timeout_s=1),
    ):
        with pytest.raises(BackendDownError, match="libvirt does not answer"):
            call()
    driver.close()
    driver.close()
    with pytest.raises(BackendDownError):
        driver.check_available()


def test_what_vms_cannot_be_is_refused_before_anything_is_made(driver_without_daemon: LibvirtComputeDriver) -> None:
    for spec in (a_spec(nesting=True), a_spec(privileged=True)):
        with pytest.raises(UnsupportedError):
            driver_without_daemon.ensure_machine(spec)
    with pytest.raises(PermanentError):
        driver_without_daemon.ensure_machine(a_spec(kind=MachineKind.CONTAINER))
    driver_without_daemon.close()
