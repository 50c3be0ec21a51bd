"""Passages of simulated machines from one power state to the next, with what their consoles show of it."""

from __future__ import annotations

import sqlite3

from iaas.drivers.interface import MachineKind, PowerState
from iaas.drivers.sim import console
from iaas.drivers.sim.latency import Delay
from iaas.drivers.sim.links import forget_guest_links, forget_links
from iaas.drivers.sim.machines import Machine, save_power
from iaas.drivers.sim.world import SimWorld


def delay_us(world: SimWorld, machine: Machine, delay: Delay) -> int:
    """Return how long ``delay`` is for this machine, in microseconds of the cloud clock."""
    return world.latency.microseconds(MachineKind(machine.kind), delay, machine.machine_id)


def start(world: SimWorld, connection: sqlite3.Connection, machine: Machine, now_us: int) -> Machine:
    """Let a machine that does not run start."""
    due_us = max(now_us, machine.busy_until_us) + delay_us(world, machine, Delay.START)
    started = machine._replace(
        passage=PowerState.STARTING.value,
        target=PowerState.RUNNING.value,
        due_us=due_us,
        ready_us=due_us + delay_us(world, machine, Delay.GUEST_READY),
    )
    save_power(connection, started)
    forget_links(connection, machine.machine_id)
    console.record(
        connection,
        machine.machine_id,
        console.ConsoleEvent.BOOT,
        at_us=due_us,
        until_us=started.ready_us,
        text=machine.hostname,
    )
    return started


def shut_down(
    world: SimWorld, connection: sqlite3.Connection, machine: Machine, now_us: int, *, announce: bool
) -> Machine:
    """Let the guest stop its machine; one that still boots does so once it is ready."""
    begins_us = max(now_us, machine.ready_us)
    due_us = begins_us + delay_us(world, machine, Delay.STOP_GRACEFUL)
    console.record(connection, machine.machine_id, console.ConsoleEvent.SHUTDOWN, at_us=begins_us, until_us=due_us)
    return stop_at(connection, machine, due_us, announce=announce)


def cut_power(world: SimWorld, connection: sqlite3.Connection, machine: Machine, now_us: int) -> Machine:
    """Stop the machine without asking its guest."""
    due_us = now_us + delay_us(world, machine, Delay.STOP_FORCED)
    if machine.power(now_us) is PowerState.STOPPING:
        due_us = min(due_us, machine.due_us)
    console.cut(connection, machine.machine_id, MachineKind(machine.kind), now_us=now_us)
    return stop_at(connection, machine, due_us)


def stop_at(connection: sqlite3.Connection, machine: Machine, due_us: int, *, announce: bool = False) -> Machine:
    """Let the machine be stopped at ``due_us``, and be STOPPING until then."""
    stopped = machine._replace(
        passage=PowerState.STOPPING.value, target=PowerState.STOPPED.value, due_us=due_us, ready_us=0
    )
    save_power(connection, stopped, unannounced=announce)
    return stopped


def reboot(world: SimWorld, connection: sqlite3.Connection, machine: Machine, now_us: int) -> None:
    """Let the guest boot anew."""
    down_us = now_us + delay_us(world, machine, Delay.STOP_GRACEFUL)
    ready_us = down_us + delay_us(world, machine, Delay.GUEST_READY)
    # The machine itself never stops running, as on real hosts: only its guest is away for a while.
    save_power(connection, machine._replace(ready_us=ready_us))
    forget_guest_links(connection, machine)
    for event, at_us, until_us in (
        (console.ConsoleEvent.SHUTDOWN, now_us, down_us),
        (console.ConsoleEvent.BOOT, down_us, ready_us),
    ):
        console.record(connection, machine.machine_id, event, at_us=at_us, until_us=until_us, text=machine.hostname)


def crash(connection: sqlite3.Connection, machine: Machine, now_us: int) -> None:
    """Let the machine crash now, as a kernel panic would."""
    console.cut(connection, machine.machine_id, MachineKind(machine.kind), now_us=now_us)
    console.record(
        connection, machine.machine_id, console.ConsoleEvent.TEXT, at_us=now_us, text="Kernel panic - not syncing\n"
    )
    crashed = machine._replace(passage="", target=PowerState.CRASHED.value, due_us=now_us, ready_us=0)
    save_power(connection, crashed, unannounced=True)
