"""What guests do with their links: where a NIC has gone, which addresses they gave it, and what it has counted."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from iaas.drivers.interface import MachineKind, PortStatistics, PowerState
from iaas.drivers.sim.machines import Machine, find_machine


class Traffic(NamedTuple):
    """Frames on a link, with what they hold in bytes."""

    packets: int
    size_bytes: int


NO_TRAFFIC = Traffic(0, 0)


def count(
    connection: sqlite3.Connection,
    machine_id: str,
    nic_id: str,
    *,
    received: Traffic = NO_TRAFFIC,
    sent: Traffic = NO_TRAFFIC,
) -> None:
    """Add to the counters of a machine's NIC."""
    connection.execute(
        "INSERT INTO links (machine_id, nic_id, received_packets, received_bytes, sent_packets, sent_bytes)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (machine_id, nic_id) DO UPDATE SET"
        " received_packets = received_packets + excluded.received_packets,"
        " received_bytes = received_bytes + excluded.received_bytes,"
        " sent_packets = sent_packets + excluded.sent_packets, sent_bytes = sent_bytes + excluded.sent_bytes",
        (machine_id, nic_id, *received, *sent),
    )


def count_dropped(connection: sqlite3.Connection, machine_id: str, nic_id: str, packets: int) -> None:
    """Add to what the NIC has sent and the network did not let in."""
    connection.execute(
        "INSERT INTO links (machine_id, nic_id, sent_dropped) VALUES (?, ?, ?)"
        " ON CONFLICT (machine_id, nic_id) DO UPDATE SET sent_dropped = sent_dropped + excluded.sent_dropped",
        (machine_id, nic_id, packets),
    )


def read_statistics(connection: sqlite3.Connection, subnet_id: str, nic_id: str, now_us: int) -> PortStatistics | None:
    """Return the counters of a NIC on the subnet; None while no machine that runs has it, or its link is dead."""
    row = connection.execute(
        "SELECT nics.machine_id, lost, received_bytes, received_packets, received_dropped, sent_bytes, sent_packets,"
        " sent_dropped FROM nics LEFT JOIN links ON links.machine_id = nics.machine_id AND links.nic_id = nics.nic_id"
        " WHERE nics.nic_id = ? AND nics.subnet_id = ?",
        (nic_id, subnet_id),
    ).fetchone()
    machine = None if row is None else find_machine(connection, row[0])
    if machine is None or row[1] or machine.power(now_us) not in {PowerState.RUNNING, PowerState.STOPPING}:
        return None
    counted = [each or 0 for each in row[2:]]
    return PortStatistics(
        received_bytes=counted[0],
        received_packets=counted[1],
        received_dropped=counted[2],
        sent_bytes=counted[3],
        sent_packets=counted[4],
        sent_dropped=counted[5],
    )


def forget_links(connection: sqlite3.Connection, machine_id: str) -> None:
    """Forget all that the guest did with its links: the machine is about to start."""
    for table in ("links", "namespaces", "guest_addresses"):
        connection.execute(f"DELETE FROM {table} WHERE machine_id = ?", (machine_id,))  # noqa: S608 - the names are ours, above


def forget_guest_links(connection: sqlite3.Connection, machine: Machine) -> None:
    """Forget what the guest did with its links: it boots anew. A VM's links go on counting, a container's are new."""
    if machine.kind == MachineKind.CONTAINER.value:
        forget_links(connection, machine.machine_id)
        return
    connection.execute("UPDATE links SET namespace = '' WHERE machine_id = ?", (machine.machine_id,))
    for table in ("namespaces", "guest_addresses"):
        connection.execute(f"DELETE FROM {table} WHERE machine_id = ?", (machine.machine_id,))  # noqa: S608 - the names are ours, above


def forget_link(connection: sqlite3.Connection, machine_id: str, nic_id: str) -> None:
    """Forget one link: its NIC was taken away, or is plugged anew."""
    for table in ("links", "guest_addresses"):
        connection.execute(
            f"DELETE FROM {table} WHERE machine_id = ? AND nic_id = ?",  # noqa: S608 - the names are ours, above
            (machine_id, nic_id),
        )


def move_link(
    connection: sqlite3.Connection, machine_id: str, nic_id: str, namespace: str, *, lost: bool = False
) -> None:
    """Put a link into another namespace of the guest ("" is the first one); as on Linux it loses its addresses."""
    connection.execute("DELETE FROM guest_addresses WHERE machine_id = ? AND nic_id = ?", (machine_id, nic_id))
    connection.execute(
        "INSERT INTO links (machine_id, nic_id, namespace, lost) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (machine_id, nic_id) DO UPDATE SET namespace = excluded.namespace, lost = excluded.lost",
        (machine_id, nic_id, namespace, lost),
    )
