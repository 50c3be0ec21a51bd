"""Simulated networks: rows for networks and ports, and a way to talk to the guests behind them.

METADATA is not among the capabilities: no packets flow, so nothing of ours can listen inside a network.
Simulated guests know their identity all the same (see ``guest.py``).
"""

from __future__ import annotations

import socket
import sqlite3

from iaas.drivers.interface import (
    MachineKind,
    NetworkCapability,
    NetworkSpec,
    NetworkState,
    NotFoundError,
    PermanentError,
    PortSpec,
    PortState,
    PowerState,
    TransientError,
    UnsupportedError,
)
from iaas.drivers.sim.guest_http import HTTP_PORT, serve
from iaas.drivers.sim.world import SimWorld


class SimNetworkDriver:
    """Networks of one simulated world. Implements NetworkDriver."""

    capabilities = frozenset({NetworkCapability.DIAL})

    def __init__(self, world: SimWorld) -> None:
        self.world = world

    def check_available(self) -> None:
        """Return while the world is open; raises BackendDownError otherwise."""
        with self.world.read("check_available"):
            pass

    def ensure_network(self, spec: NetworkSpec) -> NetworkState:
        """Make the network, or change it to be as specified."""
        with self.world.write("ensure_network", spec.network_id) as connection:
            connection.execute(
                "INSERT INTO networks (network_id, cidr, gateway, dns_domain, mtu) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (network_id) DO UPDATE SET cidr = excluded.cidr, gateway = excluded.gateway,"
                " dns_domain = excluded.dns_domain, mtu = excluded.mtu",
                (spec.network_id, spec.cidr, spec.gateway, spec.dns_domain, spec.mtu),
            )
        return NetworkState(network_id=spec.network_id)

    def remove_network(self, network_id: str) -> None:
        """Remove the network with its ports. Already absent is success."""
        with self.world.write("remove_network", network_id) as connection:
            connection.execute("DELETE FROM ports WHERE network_id = ?", (network_id,))
            connection.execute("DELETE FROM networks WHERE network_id = ?", (network_id,))

    def ensure_port(self, spec: PortSpec) -> PortState:
        """Give ``address`` to ``mac``, or change what the NIC had.

        Raises:
            NotFoundError: the network was not ensured.
            PermanentError: another NIC of the network has the address.
        """
        with self.world.write("ensure_port", spec.nic_id) as connection:
            self._check_network(connection, spec.network_id)
            holder = connection.execute(
                "SELECT nic_id FROM ports WHERE network_id = ? AND address = ? AND nic_id != ?",
                (spec.network_id, spec.address, spec.nic_id),
            ).fetchone()
            if holder is not None:
                raise PermanentError(f"address {spec.address} of network {spec.network_id} belongs to {holder[0]}")
            connection.execute(
                "INSERT INTO ports (network_id, nic_id, mac, address, hostname) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (network_id, nic_id) DO UPDATE SET mac = excluded.mac, address = excluded.address,"
                " hostname = excluded.hostname",
                (spec.network_id, spec.nic_id, spec.mac, spec.address, spec.hostname),
            )
        return PortState(nic_id=spec.nic_id, network_id=spec.network_id)

    def remove_port(self, network_id: str, nic_id: str) -> None:
        """Forget the reservation. Already absent is success."""
        with self.world.write("remove_port", nic_id) as connection:
            connection.execute("DELETE FROM ports WHERE network_id = ? AND nic_id = ?", (network_id, nic_id))

    def networks(self) -> list[NetworkState]:
        """Return all networks of this world."""
        with self.world.read("networks") as connection:
            rows = connection.execute("SELECT network_id FROM networks ORDER BY network_id").fetchall()
        return [NetworkState(network_id=row[0]) for row in rows]

    def ports(self, network_id: str) -> list[PortState]:
        """Return all ports of one network; empty when the network is absent."""
        with self.world.read("ports", network_id) as connection:
            rows = connection.execute(
                "SELECT nic_id FROM ports WHERE network_id = ? ORDER BY nic_id", (network_id,)
            ).fetchall()
        return [PortState(nic_id=row[0], network_id=network_id) for row in rows]

    def dial(self, network_id: str, address: str, port: int, *, timeout_s: float) -> socket.socket:
        """Return a socket to a simulated guest: port 80 of a machine whose guest is ready answers HTTP.

        Nothing else listens in simulated guests, and a refusal comes at once, whatever ``timeout_s``.

        Raises:
            NotFoundError: no such network.
            TransientError: refused, or nobody has the address.
        """
        with self.world.read("dial", network_id) as connection:
            self._check_network(connection, network_id)
            row = connection.execute(
                "SELECT machines.machine_id, kind, target, due_us, ready_us FROM ports"
                " JOIN nics ON nics.nic_id = ports.nic_id AND nics.network_id = ports.network_id"
                " JOIN machines ON machines.machine_id = nics.machine_id"
                " WHERE ports.network_id = ? AND ports.address = ?",
                (network_id, address),
            ).fetchone()
            now_us = self.world.now_us()
        if row is None:
            raise TransientError(f"{address} does not answer: no machine has this address")
        machine_id, _, target, due_us, ready_us = row
        if target != PowerState.RUNNING.value or due_us > now_us:
            raise TransientError(f"{address} does not answer: its machine does not run")
        if ready_us > now_us or port != HTTP_PORT:
            raise TransientError(f"{address}:{port} refused the connection")
        ours, guests = socket.socketpair()
        ours.settimeout(timeout_s)
        serve(self.world, machine_id, MachineKind(row[1]), guests)
        return ours

    def listen(self, network_id: str, address: str, port: int) -> socket.socket:
        """Refuse: no packets flow in a simulated network.

        Raises:
            UnsupportedError: always; METADATA is not in ``capabilities``.
        """
        raise UnsupportedError("nothing can listen inside a simulated network")

    def close(self) -> None:
        """Do nothing: the world is closed by who opened it."""

    def _check_network(self, connection: sqlite3.Connection, network_id: str) -> None:
        if connection.execute("SELECT 1 FROM networks WHERE network_id = ?", (network_id,)).fetchone() is None:
            raise NotFoundError(f"there is no network {network_id}")
