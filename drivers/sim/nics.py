"""NICs of simulated machines, while they run and while they do not."""

from __future__ import annotations

import sqlite3

from iaas.drivers.interface import MachineKind, NICSpec, NoCapacityError, PermanentError, PowerState, TransientError
from iaas.drivers.interface.compute import NICS_PER_MACHINE
from iaas.drivers.sim.latency import Delay
from iaas.drivers.sim.links import forget_link
from iaas.drivers.sim.machines import Machine, insert_nic
from iaas.drivers.sim.passages import delay_us
from iaas.drivers.sim.world import SimWorld


def attach(world: SimWorld, connection: sqlite3.Connection, machine: Machine, nic: NICSpec, now_us: int) -> None:
    """Give the machine a NIC; a guest that runs has it at once, and brings it up a little later.

    Raises:
        PermanentError: the device index or the NIC is taken by another.
        NoCapacityError: the machine has as many as it can have.
    """
    here = connection.execute(
        "SELECT device_index, nic_id, subnet_id, mac FROM nics WHERE machine_id = ?", (machine.machine_id,)
    ).fetchall()
    asked = (nic.device_index, nic.nic_id, nic.subnet_id, nic.mac)
    if asked in here:
        connection.execute(
            "UPDATE nics SET leaving_us = 0 WHERE machine_id = ? AND device_index = ? AND leaving_us <> 0",
            (machine.machine_id, nic.device_index),
        )
        return
    for device_index, nic_id, _, _ in here:
        if nic_id == nic.nic_id:
            raise PermanentError(f"machine {machine.machine_id} has NIC {nic_id} already, and otherwise")
        if device_index == nic.device_index:
            raise PermanentError(f"NIC {nic_id} of machine {machine.machine_id} has the device index {device_index}")
    elsewhere = connection.execute("SELECT machine_id FROM nics WHERE nic_id = ?", (nic.nic_id,)).fetchone()
    if elsewhere is not None:
        raise PermanentError(f"NIC {nic.nic_id} is still plugged into machine {elsewhere[0]}")
    if len(here) >= NICS_PER_MACHINE:
        raise NoCapacityError(f"machine {machine.machine_id} has no room for more than {NICS_PER_MACHINE} NICs")
    up_us = now_us + delay_us(world, machine, Delay.NIC_UP) if is_on(machine, now_us) else 0
    insert_nic(connection, machine.machine_id, nic, up_us=up_us)


def detach(world: SimWorld, connection: sqlite3.Connection, machine: Machine, nic_id: str, now_us: int) -> bool:
    """Take the NIC away; False when the guest needs time to let go of it, which begins with the first request.

    Raises:
        TransientError: the guest of a VM that boots or shuts down does not hear the request.
    """
    row = connection.execute(
        "SELECT device_index, leaving_us FROM nics WHERE nic_id = ? AND machine_id = ?", (nic_id, machine.machine_id)
    ).fetchone()
    if row is None:
        return True
    device_index, leaving_us = row
    if is_on(machine, now_us):
        if machine.kind == MachineKind.VM.value and not machine.is_ready(now_us):
            raise TransientError(f"the guest of machine {machine.machine_id} does not answer, and keeps NIC {nic_id}")
        gone_us = leaving_us or now_us + delay_us(world, machine, Delay.NIC_GONE)
        if gone_us > now_us:
            connection.execute(
                "UPDATE nics SET leaving_us = ? WHERE machine_id = ? AND device_index = ?",
                (gone_us, machine.machine_id, device_index),
            )
            return False
    connection.execute("DELETE FROM nics WHERE machine_id = ? AND device_index = ?", (machine.machine_id, device_index))
    forget_link(connection, machine.machine_id, nic_id)
    return True


def replug(world: SimWorld, connection: sqlite3.Connection, machine: Machine, nic_id: str, now_us: int) -> bool:
    """Plug a NIC again whose link is dead; return whether it was."""
    lost = connection.execute(
        "SELECT 1 FROM links WHERE machine_id = ? AND nic_id = ? AND lost = 1", (machine.machine_id, nic_id)
    ).fetchone()
    if lost is None or not is_on(machine, now_us):
        return False
    forget_link(connection, machine.machine_id, nic_id)
    connection.execute(
        "UPDATE nics SET up_us = ? WHERE nic_id = ? AND machine_id = ?",
        (now_us + delay_us(world, machine, Delay.NIC_UP), nic_id, machine.machine_id),
    )
    return True


def is_on(machine: Machine, now_us: int) -> bool:
    """Return whether somebody in the machine could notice."""
    return machine.power(now_us) not in {PowerState.STOPPED, PowerState.CRASHED}
