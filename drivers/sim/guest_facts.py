"""What the world's database says about one guest."""

from __future__ import annotations

import sqlite3
from ipaddress import ip_network

from iaas.drivers.interface import MachineKind
from iaas.drivers.sim.guest import GuestFacts, GuestNIC


def read_facts(connection: sqlite3.Connection, machine_id: str, now_us: int) -> GuestFacts:
    """Return the facts of a machine that is there, with the addresses its ports have at this moment."""
    kind, hostname, vcpus, memory_mib, running_since_us = connection.execute(
        "SELECT kind, hostname, vcpus, memory_mib, due_us FROM machines WHERE machine_id = ?", (machine_id,)
    ).fetchone()
    nics = connection.execute(
        "SELECT nics.device_index, nics.mac, ports.address, networks.cidr FROM nics"
        " LEFT JOIN ports ON ports.nic_id = nics.nic_id AND ports.network_id = nics.network_id"
        " LEFT JOIN networks ON networks.network_id = nics.network_id"
        " WHERE nics.machine_id = ? ORDER BY nics.device_index",
        (machine_id,),
    ).fetchall()
    return GuestFacts(
        machine_id=machine_id,
        kind=MachineKind(kind),
        hostname=hostname,
        vcpus=vcpus,
        memory_mib=memory_mib,
        uptime_s=max(now_us - running_since_us, 0) / 1e6,
        now_us=now_us,
        nics=tuple(
            GuestNIC(
                device_index=index,
                mac=mac,
                address=None if address is None or cidr is None else f"{address}/{ip_network(cidr).prefixlen}",
            )
            for index, mac, address, cidr in nics
        ),
    )
