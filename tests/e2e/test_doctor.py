"""The doctor on libvirt and LXD: machines are killed, deleted and made behind the server's back."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import libvirt
import pylxd
import pytest

from iaas.client import Client, Instance
from iaas.drivers.interface import ComputeDriver, MachineKind, MachineSpec, PortSpec
from iaas.drivers.libvirt.driver import LibvirtComputeDriver
from iaas.drivers.linux import names
from iaas.drivers.linux.daemons import PrivateDaemons
from iaas.drivers.linux.fabric import Fabric
from iaas.drivers.linux.network import LinuxNetworkDriver
from iaas.drivers.linux.processes import find_processes
from iaas.drivers.lxd.driver import LXDComputeDriver
from tests.e2e.cloud_server import CloudServer, wait_for
from tests.real_host import PARENT, new_test_folder, remove_killed_runs, require_real_host

pytestmark = pytest.mark.real

STRAYS = {MachineKind.VM: "i-strayvm0", MachineKind.CONTAINER: "i-strayct0"}


@dataclass
class Behind:
    """The host of a running server, reached past it."""

    server: CloudServer
    client: Client
    tag: str
    state_dir: Path
    daemons: PrivateDaemons
    fabric: Fabric

    def create(self, kind: str, name: str) -> Instance:
        return self.client.instances.create(kind=kind, image="tiny", flavor="nano", name=name).wait(timeout_s=180)

    def kill_qemu(self, instance: Instance) -> None:
        """Kill the VM's process, found by its domain's name, which carries this test's tag."""
        name = names.machine(self.tag, instance.id)
        processes = find_processes(lambda each: any(f"guest={name}," in part for part in each.argv))
        assert len(processes) == 1
        os.kill(processes[0].pid, signal.SIGKILL)

    def undefine(self, instance: Instance) -> None:
        connection = libvirt.open(self.daemons.libvirt_uri)
        try:
            connection.lookupByName(names.machine(self.tag, instance.id)).undefine()
        finally:
            connection.close()

    def delete_container(self, instance: Instance) -> None:
        container = pylxd.Client(endpoint=self.daemons.lxd_endpoint).instances.get(names.machine(self.tag, instance.id))
        container.stop(force=True, wait=True)
        container.delete(wait=True)

    def move_rows(self, host_by_instance: Mapping[str, str]) -> None:
        """Let the database say that instances are on other hosts than they are."""
        with contextlib.closing(sqlite3.connect(self.state_dir / "cloud.db", timeout=30)) as database, database:
            for instance_id, host_id in host_by_instance.items():
                database.execute("UPDATE instances SET host_id = ? WHERE id = ?", (host_id, instance_id))

    def drivers(self) -> dict[MachineKind, ComputeDriver]:
        return {
            MachineKind.VM: LibvirtComputeDriver(self.daemons.libvirt_uri, tag=self.tag, state_dir=self.state_dir),
            MachineKind.CONTAINER: LXDComputeDriver(
                self.daemons.lxd_endpoint, tag=self.tag, pool=self.daemons.lxd_pool, state_dir=self.state_dir
            ),
        }

    def status(self, instance: Instance) -> str:
        return self.client.instances.get(instance.id).status


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    require_real_host()
    remove_killed_runs()
    PARENT.mkdir(parents=True, exist_ok=True)
    tag, state_dir = new_test_folder()
    server = CloudServer("real", state_dir, tag, extra=["--doctor-every", "0"])
    try:
        server.start()
        fabric = Fabric(tag, state_dir)
        with server.client() as client:
            yield Behind(server, client, tag, state_dir, PrivateDaemons(fabric), fabric)
    finally:
        from tests.e2e.test_cloud import remove_and_check

        server.close()
        remove_and_check(tag, state_dir)


def test_what_was_lost_and_leaked_is_found_and_repaired(behind: Behind) -> None:
    lost = {kind: behind.create(kind, f"lost-{kind}") for kind in ("vm", "container")}
    kept = {kind: behind.create(kind, f"kept-{kind}") for kind in ("vm", "container")}
    report = behind.client.doctor.check()
    assert report.is_clean, report.raw
    assert report.checked["machines"] == 4

    # A machine that dies is followed at once: no drift yet.
    behind.kill_qemu(lost["vm"])
    wait_for(lambda: behind.status(lost["vm"]) == "stopped", 30, "the instance to follow its killed machine")
    behind.undefine(lost["vm"])
    behind.delete_container(lost["container"])
    image_id = behind.client.images.get("tiny").id
    drivers = behind.drivers()
    try:
        for kind, machine_id in STRAYS.items():
            drivers[kind].ensure_machine(
                MachineSpec(
                    machine_id=machine_id,
                    kind=kind,
                    hostname="stray",
                    vcpus=1,
                    memory_mib=128,
                    root_disk_gib=1,
                    image_id=image_id,
                )
            )
        nic = kept["vm"].nics[0]
        networks = LinuxNetworkDriver(behind.fabric, behind.tag, behind.state_dir)
        address = kept["vm"].address
        assert address is not None
        networks.ensure_port(
            PortSpec(
                nic_id="nic-stray000",
                subnet_id=nic.subnet_id,
                mac="52:54:00:99:99:99",
                owner="prj-stray000",
                addresses=(address.rpartition(".")[0] + ".250",),
                names=("stray",),
            )
        )
        networks.close()

        expected = {
            ("lost_machine", lost["vm"].id),
            ("lost_machine", lost["container"].id),
            ("leaked_machine", STRAYS[MachineKind.VM]),
            ("leaked_machine", STRAYS[MachineKind.CONTAINER]),
            ("leaked_port", "nic-stray000"),
        }
        report = behind.client.doctor.check()
        found = {(each.drift, each.resource.id if each.resource else "") for each in report.findings}
        assert found == expected, report.raw
        report = behind.client.doctor.repair()
        assert {(each.drift, each.resource.id if each.resource else "") for each in report.repaired} == expected
        assert report.is_clean, report.raw
        for kind, machine_id in STRAYS.items():
            assert drivers[kind].inspect_machine(machine_id) is None
    finally:
        for driver in drivers.values():
            driver.close()

    for instance in lost.values():
        shown = behind.client.instances.get(instance.id)
        assert shown.status == "failed"
        assert shown.failure is not None
        assert shown.failure.code == "machine_lost"
    for instance in kept.values():
        assert behind.status(instance) == "running"
    for instance in (*lost.values(), *kept.values()):
        instance.delete().wait(timeout_s=120)
    assert behind.client.doctor.check().is_clean
    done = behind.server.cli("doctor")
    assert "all is well" in done.stdout


def test_a_machine_on_another_host_than_the_database_says_is_found_and_followed(behind: Behind) -> None:
    made = [behind.create(kind, f"placed-{kind}") for kind in ("vm", "container")]
    for instance in made:
        instance.wait_until_ready(timeout_s=180)  # a row that changes during a look is not judged
    assert behind.client.doctor.check().is_clean
    right = {each.id: str(behind.client.instances.get(each.id).host_id) for each in made}
    hosts = [host.id for host in behind.client.hosts.list()]
    behind.move_rows({each: next(host for host in hosts if host != host_id) for each, host_id in right.items()})
    report = behind.client.doctor.check()
    misplaced = [each for each in report.findings if each.drift == "wrong_placement"]
    found = {each.resource.id: each.message for each in misplaced if each.resource is not None}
    assert found.keys() == right.keys(), report.raw
    for instance_id, message in found.items():
        assert f"its machine on {right[instance_id]}" in message
    report = behind.client.doctor.repair()
    assert report.is_clean, report.raw
    for instance in made:
        assert behind.client.instances.get(instance.id).host_id == right[instance.id]
        assert behind.status(instance) == "running"
        instance.delete().wait(timeout_s=120)
    assert behind.client.doctor.check().is_clean
