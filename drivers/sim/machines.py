"""Rows of simulated machines: what a machine turns into, and when."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from iaas.drivers.interface import MachineKind, MachineSpec, MachineState, NICSpec, PowerState
from iaas.drivers.sim.world import from_microseconds


class Machine(NamedTuple):
    """One row of ``machines``, as far as power and shape go."""

    machine_id: str
    kind: str
    hostname: str
    vcpus: int
    memory_mib: int
    generation: int
    passage: str  # the word of the passage until ``due_us``
    target: str  # the power state from ``due_us`` on
    due_us: int
    ready_us: int  # when the guest has booted, while the target is running
    busy_until_us: int  # work on the disk that the next start waits for
    host_id: str | None
    nics: str | None  # "0 nic-...,1 nic-...": device index and id of each, in no order

    def power(self, now_us: int) -> PowerState:
        return PowerState(self.passage if self.due_us > now_us else self.target)

    def is_ready(self, now_us: int) -> bool:
        return self.power(now_us) is PowerState.RUNNING and self.ready_us <= now_us

    def state(self, now_us: int) -> MachineState:
        power = self.power(now_us)
        next_us = self.due_us if self.due_us > now_us else None
        if power is PowerState.RUNNING and self.ready_us > now_us:
            next_us = self.ready_us
        return MachineState(
            machine_id=self.machine_id,
            kind=MachineKind(self.kind),
            power=power,
            vcpus=self.vcpus,
            memory_mib=self.memory_mib,
            generation=self.generation,
            next_change_at=None if next_us is None else from_microseconds(next_us),
            host_id=self.host_id,
            nic_ids=self.nic_ids(),
        )

    def nic_ids(self) -> tuple[str, ...]:
        """Return the NICs in the order of their device indexes."""
        if self.nics is None:
            return ()
        numbered = [each.split(" ") for each in self.nics.split(",")]
        return tuple(nic_id for _, nic_id in sorted(numbered, key=lambda pair: int(pair[0])))


_NICS = "(SELECT group_concat(device_index || ' ' || nic_id) FROM nics WHERE nics.machine_id = machines.machine_id)"
COLUMNS = ", ".join(_NICS if field == "nics" else field for field in Machine._fields)


def find_machine(connection: sqlite3.Connection, machine_id: str) -> Machine | None:
    """Return the machine of either kind; None when there is none."""
    row = connection.execute(
        f"SELECT {COLUMNS} FROM machines WHERE machine_id = ?",  # noqa: S608 - the columns are ours, above
        (machine_id,),
    ).fetchone()
    return None if row is None else Machine._make(row)


def insert_machine(connection: sqlite3.Connection, spec: MachineSpec, *, busy_until_us: int) -> None:
    """Make a stopped machine with its NICs, whose disk is being made until ``busy_until_us``."""
    connection.execute(
        "INSERT INTO machines (machine_id, kind, hostname, vcpus, memory_mib, root_disk_gib, image_id, nesting,"
        " privileged, generation, host_id, busy_until_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            spec.machine_id,
            spec.kind.value,
            spec.hostname,
            spec.vcpus,
            spec.memory_mib,
            spec.root_disk_gib,
            spec.image_id,
            spec.nesting,
            spec.privileged,
            spec.generation,
            spec.host_id,
            busy_until_us,
        ),
    )
    for nic in spec.nics:
        insert_nic(connection, spec.machine_id, nic)


def insert_nic(connection: sqlite3.Connection, machine_id: str, nic: NICSpec, *, up_us: int = 0) -> None:
    """Give the machine a NIC, which its guest has brought up at ``up_us`` if it runs by then."""
    connection.execute(
        "INSERT INTO nics (machine_id, device_index, nic_id, subnet_id, mac, up_us) VALUES (?, ?, ?, ?, ?, ?)",
        (machine_id, nic.device_index, nic.nic_id, nic.subnet_id, nic.mac, up_us),
    )


def rebuild_machine(connection: sqlite3.Connection, spec: MachineSpec, *, busy_until_us: int) -> None:
    """Give the machine a fresh disk: its files are gone, its generation is the spec's."""
    connection.execute("DELETE FROM files WHERE machine_id = ?", (spec.machine_id,))
    connection.execute(
        "UPDATE machines SET image_id = ?, hostname = ?, root_disk_gib = ?, generation = ?,"
        " busy_until_us = max(busy_until_us, ?) WHERE machine_id = ?",
        (spec.image_id, spec.hostname, spec.root_disk_gib, spec.generation, busy_until_us, spec.machine_id),
    )


def delete_machine(connection: sqlite3.Connection, machine_id: str) -> None:
    """Delete the machine with all that it has."""
    for table in ("machines", "nics", "files", "console", "links", "namespaces", "guest_addresses"):
        connection.execute(f"DELETE FROM {table} WHERE machine_id = ?", (machine_id,))  # noqa: S608 - the names are ours, above


def save_power(connection: sqlite3.Connection, machine: Machine, *, unannounced: bool = False) -> None:
    """Write what the machine turns into; ``unannounced`` when its listeners are to hear of it."""
    connection.execute(
        "UPDATE machines SET passage = ?, target = ?, due_us = ?, ready_us = ?, unannounced = ? WHERE machine_id = ?",
        (machine.passage, machine.target, machine.due_us, machine.ready_us, unannounced, machine.machine_id),
    )
