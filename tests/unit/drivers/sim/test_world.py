from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from iaas.drivers.interface import (
    BackendDownError,
    MachineKind,
    MachineSpec,
    NICSpec,
    PermanentError,
    PowerState,
    RouteSpec,
)
from iaas.drivers.sim.compute import SimComputeDriver
from iaas.drivers.sim.network import SimNetworkDriver
from iaas.drivers.sim.schema import SCHEMA
from iaas.drivers.sim.world import SimWorld
from iaas.kernel.clock import CloudClock
from tests.unit.drivers.sim.conftest import ADDRESS, PORT, SUBNET, VM_ID, VPC

KILLED_PROGRAM = """
import sys
from iaas.drivers.interface import ImageSpec, MachineKind, MachineSpec
from iaas.drivers.sim.backend import build_sim_backend
from iaas.kernel.clock import CloudClock

backend = build_sim_backend(sys.argv[1], CloudClock())
both = frozenset(MachineKind)
backend.images.ensure_image(
    ImageSpec(image_id="img-1", source="builtin:tiny", kinds=both), kind=MachineKind.VM, progress=lambda _: None
)
driver = backend.compute[MachineKind.VM]
for number in range(100):
    machine_id = f"i-{number:08d}"
    driver.ensure_machine(MachineSpec(machine_id=machine_id, kind=MachineKind.VM, hostname="h", vcpus=1,
        memory_mib=64, root_disk_gib=1, image_id="img-1"))
    driver.start_machine(machine_id)
print("made", flush=True)
sys.stdin.read()
"""


# Networks and NICs as the first version had them, and one machine.
VERSION_1 = """
CREATE TABLE nics (
  machine_id TEXT NOT NULL, device_index INTEGER NOT NULL, nic_id TEXT NOT NULL, network_id TEXT NOT NULL,
  mac TEXT NOT NULL, PRIMARY KEY (machine_id, device_index)
) WITHOUT ROWID;
CREATE INDEX nics_nic ON nics (nic_id);
CREATE TABLE networks (
  network_id TEXT PRIMARY KEY, cidr TEXT NOT NULL, gateway TEXT NOT NULL, dns_domain TEXT NOT NULL,
  mtu INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE ports (
  network_id TEXT NOT NULL, nic_id TEXT NOT NULL, mac TEXT NOT NULL, address TEXT NOT NULL, hostname TEXT NOT NULL,
  PRIMARY KEY (network_id, nic_id)
) WITHOUT ROWID;
CREATE INDEX ports_address ON ports (network_id, address);
CREATE INDEX ports_mac ON ports (network_id, mac);
CREATE INDEX ports_nic ON ports (nic_id);
INSERT INTO machines (machine_id, kind, hostname, vcpus, memory_mib, root_disk_gib, image_id, nesting,
  privileged, generation) VALUES ('i-old00000', 'vm', 'old', 1, 64, 1, 'img-1', 0, 0, 0);
INSERT INTO nics VALUES ('i-old00000', 0, 'nic-old00000', 'net-old00000', '52:54:00:00:00:01');
INSERT INTO networks VALUES ('net-old00000', '10.0.0.0/24', '10.0.0.1', 'internal', 1500);
INSERT INTO ports VALUES ('net-old00000', 'nic-old00000', '52:54:00:00:00:01', '10.0.0.2', 'old');
PRAGMA user_version = 1;
"""


def test_a_killed_process_loses_nothing(tmp_path: Path, clock: CloudClock) -> None:
    path = tmp_path / "killed.db"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_PROGRAM, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"made\n"
        os.kill(process.pid, signal.SIGKILL)
    world = SimWorld(path, clock)
    clock.advance(60)
    states = SimComputeDriver(MachineKind.VM, world).inventory()
    world.close()
    assert len(states) == 100
    assert {state.power for state in states} == {PowerState.RUNNING}


def test_a_copy_is_a_world_of_its_own(
    tmp_path: Path, clock: CloudClock, world: SimWorld, ready_vm: SimComputeDriver
) -> None:
    world.copy_to(tmp_path / "copy.db")
    copy = SimWorld(tmp_path / "copy.db", clock)
    copied = SimComputeDriver(MachineKind.VM, copy)
    copied.remove_machine(VM_ID)
    assert copied.inventory() == []
    assert ready_vm.is_guest_ready(VM_ID)
    copy.close()


def test_the_files_of_a_world_are_for_their_owner_only(
    tmp_path: Path, world: SimWorld, ready_vm: SimComputeDriver
) -> None:
    world.copy_to(tmp_path / "copy.db")
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert {"world.db", "world.db-wal", "copy.db"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_a_closed_world_is_one_file_that_can_be_copied(
    tmp_path: Path, clock: CloudClock, world: SimWorld, ready_vm: SimComputeDriver
) -> None:
    world.close()
    shutil.copyfile(tmp_path / "world.db", tmp_path / "elsewhere.db")
    moved = SimWorld(tmp_path / "elsewhere.db", clock)
    assert SimComputeDriver(MachineKind.VM, moved).is_guest_ready(VM_ID)
    moved.close()


def test_a_closed_world_is_a_backend_that_is_down(world: SimWorld, vms: SimComputeDriver) -> None:
    vms.check_available()
    world.close()
    world.close()
    with pytest.raises(BackendDownError):
        vms.check_available()
    with pytest.raises(BackendDownError):
        vms.inspect_machine(VM_ID)


def test_a_world_in_memory_leaves_no_file(tmp_path: Path, clock: CloudClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    world = SimWorld(":memory:", clock)
    SimComputeDriver(MachineKind.VM, world).check_available()
    world.close()
    assert list(tmp_path.iterdir()) == []


def test_a_world_of_another_version_is_refused(tmp_path: Path, clock: CloudClock) -> None:
    connection = sqlite3.connect(tmp_path / "old.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(PermanentError, match="format 99"):
        SimWorld(tmp_path / "old.db", clock)


def test_a_world_of_the_version_before_is_brought_to_this_one(
    tmp_path: Path, clock: CloudClock, spec: MachineSpec
) -> None:
    path = tmp_path / "world.db"
    SimWorld(path, clock).close()
    connection = sqlite3.connect(path)
    for table in (
        "vpcs", "subnets", "ports", "port_addresses", "port_names", "links", "namespaces", "guest_addresses", "nics",
    ):  # fmt: skip
        connection.execute(f"DROP TABLE {table}")
    connection.execute("ALTER TABLE machines DROP COLUMN host_id")
    connection.executescript(VERSION_1)
    connection.close()
    for _ in range(2):
        world = SimWorld(path, clock)
        [state] = SimComputeDriver(MachineKind.VM, world).inventory()
        assert (state.machine_id, state.host_id, state.nic_ids) == ("i-old00000", None, ("nic-old00000",))
        networks = SimNetworkDriver(world)
        assert (networks.vpcs(), networks.subnets()) == ([], [])
        with world.read("tables") as connection:
            upgraded = _tables_of(connection)
        world.close()
    fresh = sqlite3.connect(":memory:")
    fresh.executescript(SCHEMA)
    assert upgraded == _tables_of(fresh)


def _tables_of(connection: sqlite3.Connection) -> dict[tuple[str, str], set[str]]:
    """Return the columns of each table, and of each index."""
    names = connection.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
    return {
        (kind, name): {str(row[1:]) for row in connection.execute(f"PRAGMA {kind}_info({name})")}
        for kind, name in names
    }


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be looked at" * 40, None])
def test_a_broken_file_is_a_backend_that_is_down(tmp_path: Path, clock: CloudClock, content: bytes | None) -> None:
    path = tmp_path / "missing folder" / "world.db"
    if content is not None:
        path = tmp_path / "broken.db"
        path.write_bytes(content)
    with pytest.raises(BackendDownError, match="cannot be opened"):
        SimWorld(path, clock)


def test_no_call_about_one_machine_walks_all_of_them(
    world: SimWorld, vms: SimComputeDriver, spec: MachineSpec, networks: SimNetworkDriver, clock: CloudClock
) -> None:
    statements: set[str] = set()
    with world.lock:
        world.connection().set_trace_callback(statements.add)
    vms.ensure_machine(spec)
    vms.start_machine(VM_ID)
    clock.advance(10)
    vms.inspect_machine(VM_ID)
    vms.is_guest_ready(VM_ID)
    vms.read_console(VM_ID, tail_bytes=100)
    second = NICSpec(nic_id="nic-00000009", subnet_id=SUBNET.subnet_id, mac="52:54:00:00:00:09", device_index=1)
    vms.attach_nic(VM_ID, second)
    vms.replug_nic(VM_ID, second.nic_id)
    networks.ensure_vpc(replace(VPC, routes=(RouteSpec(destination="10.9.0.0/16", next_hop=ADDRESS),)))
    networks.ensure_subnet(replace(SUBNET, mtu=1400))
    port = replace(PORT, nic_id=second.nic_id, mac=second.mac, addresses=("10.0.0.99", "10.0.0.98"), names=("nine",))
    for spec_of_port in (port, replace(port, names=("ten",)), PORT):
        networks.ensure_port(spec_of_port)
    clock.advance(10)
    script = (
        "echo a > /tmp/a; ls /tmp; ip addr; ip route; getent hosts ten; ping -c 1 10.0.0.99; wget -qO- 10.9.0.1;"
        "ip netns add pod; ip link set eth1 netns pod; ip -n pod addr add 10.0.0.99/24 dev eth1;"
        "ip netns exec pod ping -c 1 10.0.0.10; ip netns del pod; poweroff"
    )
    vms.execute(VM_ID, ["sh", "-c", script], timeout_s=500)
    networks.statistics(SUBNET.subnet_id, second.nic_id)
    networks.ports("net-00000001", limit=1)
    clock.advance(10)
    vms.detach_nic(VM_ID, second.nic_id)
    networks.remove_port(SUBNET.subnet_id, second.nic_id)
    vms.resize_machine(VM_ID, vcpus=1, memory_mib=64)
    vms.remove_machine(VM_ID)
    networks.remove_subnet("net-00000009")
    networks.remove_vpc("vpc-00000009")
    with world.lock:
        connection = world.connection()
        connection.set_trace_callback(None)
        plans = {
            statement: [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
            for statement in statements
            if statement.split()[0] in {"SELECT", "UPDATE", "DELETE", "INSERT"}
        }
    assert len(plans) > 60
    scans = {statement: plan for statement, plan in plans.items() if any(step.startswith("SCAN") for step in plan)}
    assert scans == {}
    whole_subnet = [
        statement
        for statement, plan in plans.items()
        if "nic_id >" not in statement and not (statement.startswith("DELETE") and "net-00000009" in statement)
        # One column of an index over (subnet, something): all ports of the subnet would be read.
        if any(re.search(r"SEARCH port\S* .*\(subnet_id=\?\)", step) for step in plan)
    ]
    assert whole_subnet == []


def test_a_listener_may_call_the_driver(ready_vm: SimComputeDriver, clock: CloudClock) -> None:
    started: list[PowerState] = []
    ready_vm.on_lifecycle(lambda machine_id, _: started.append(ready_vm.start_machine(machine_id).power))
    ready_vm.execute(VM_ID, ["poweroff"], timeout_s=5)
    clock.advance(5)
    assert started == [PowerState.STARTING]


def test_two_worlds_on_one_clock_are_strangers(
    open_world: Callable[[], SimWorld], tmp_path: Path, clock: CloudClock, ready_vm: SimComputeDriver
) -> None:
    other = SimWorld(tmp_path / "other.db", clock)
    assert SimComputeDriver(MachineKind.VM, other).inventory() == []
    other.close()
    assert len(ready_vm.inventory()) == 1
