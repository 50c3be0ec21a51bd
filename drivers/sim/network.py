"""Simulated networks: rows for networks and ports, and a way to talk to the guests behind them.

METADATA is not among the capabilities: no packets flow, so nothing of ours can listen inside a network.
Simulated guests know their identity all the same (see ``guest.py``).
"""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

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
from iaas.drivers.sim.world import SimWorld, page_of

# Ports that have something of a new one: its NIC, address or MAC.
RIVALS = (
    "SELECT nic_id, mac, address FROM ports WHERE network_id = ?1 AND nic_id = ?2"
    " UNION SELECT nic_id, mac, address FROM ports WHERE network_id = ?1 AND address = ?3"
    " UNION SELECT nic_id, mac, address FROM ports WHERE network_id = ?1 AND mac = ?4"
)


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
        """Make the network, or change MTU and domain of the one that is there.

        Raises:
            PermanentError: CIDR or gateway make no sense, or the network is there with others.
        """
        try:
            if ip_address(spec.gateway) not in _block(spec.cidr):
                raise PermanentError(f"network {spec.network_id}: the gateway {spec.gateway} is not in {spec.cidr}")
        except ValueError as exc:
            raise PermanentError(f"network {spec.network_id}: {exc}") from exc
        with self.world.change("ensure_network", spec.network_id) as change:
            present = change.connection.execute(
                "SELECT cidr, gateway, dns_domain, mtu FROM networks WHERE network_id = ?", (spec.network_id,)
            ).fetchone()
            if present is not None and present[:2] != (spec.cidr, spec.gateway):
                raise PermanentError(f"network {spec.network_id} is there with the addresses {present[0]}")
            if present is not None and present[2:] == (spec.dns_domain, spec.mtu):
                return NetworkState(network_id=spec.network_id)
            change.begin()
            change.connection.execute(
                "INSERT INTO networks (network_id, cidr, gateway, dns_domain, mtu) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (network_id) DO UPDATE SET dns_domain = excluded.dns_domain, mtu = excluded.mtu",
                (spec.network_id, spec.cidr, spec.gateway, spec.dns_domain, spec.mtu),
            )
        return NetworkState(network_id=spec.network_id)

    def remove_network(self, network_id: str) -> None:
        """Remove the network with its ports. Already absent is success."""
        with self.world.write("remove_network", network_id) as connection:
            connection.execute("DELETE FROM ports WHERE network_id = ?", (network_id,))
            connection.execute("DELETE FROM networks WHERE network_id = ?", (network_id,))

    def ensure_port(self, spec: PortSpec) -> PortState:
        """Reserve ``address`` for ``mac``; a new host name replaces the one before.

        Raises:
            NotFoundError: the network was not ensured.
            PermanentError: no guest of the network can have the address, another NIC has it or the MAC, or
                this NIC is there with others.
        """
        with self.world.write("ensure_port", spec.nic_id) as connection:
            _check_guest_address(_addresses_of(connection, spec.network_id), spec.network_id, spec.address)
            asked = (spec.network_id, spec.nic_id, spec.address, spec.mac)
            for nic_id, mac, address in connection.execute(RIVALS, asked):
                if nic_id != spec.nic_id:
                    raise PermanentError(f"NIC {spec.nic_id}: address or MAC is reserved for {nic_id}")
                if (mac, address) != (spec.mac, spec.address):
                    raise PermanentError(f"NIC {spec.nic_id} is there with another MAC or address")
            connection.execute(
                "INSERT INTO ports (network_id, nic_id, mac, address, hostname) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (network_id, nic_id) DO UPDATE SET hostname = excluded.hostname",
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

    def ports(
        self, network_id: str, *, only: Collection[str] | None = None, after: str = "", limit: int | None = None
    ) -> list[PortState]:
        """Return ports of one network by NIC; see ``NetworkDriver.ports``. Without a limit, all of them."""
        part, values = page_of("nic_id", only=only, after=after, limit=limit)
        with self.world.read("ports", network_id) as connection:
            rows = connection.execute(
                f"SELECT nic_id FROM ports WHERE network_id = ? AND {part}",  # noqa: S608 - all of it is ours
                (network_id, *values),
            ).fetchall()
        return [PortState(nic_id=row[0], network_id=network_id) for row in rows]

    def dial(self, network_id: str, address: str, port: int, *, timeout_s: float) -> socket.socket:
        """Return a socket to a simulated guest: port 80 of a machine whose guest is ready answers HTTP.

        Nothing else listens in simulated guests, and a refusal comes at once, whatever ``timeout_s``.

        Raises:
            NotFoundError: no such network.
            PermanentError: no guest of the network can have this address.
            TransientError: refused, or nobody has the address.
        """
        with self.world.read("dial", network_id) as connection:
            _check_guest_address(_addresses_of(connection, network_id), network_id, address)
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


def _addresses_of(connection: sqlite3.Connection, network_id: str) -> tuple[str, str]:
    """Return CIDR and gateway of a network that must be there."""
    row: tuple[str, str] | None = connection.execute(
        "SELECT cidr, gateway FROM networks WHERE network_id = ?", (network_id,)
    ).fetchone()
    if row is None:
        raise NotFoundError(f"there is no network {network_id}")
    return row


@lru_cache(maxsize=256)
def _block(cidr: str) -> IPv4Network | IPv6Network:
    return ip_network(cidr)


def _check_guest_address(network: tuple[str, str], network_id: str, address: str) -> None:
    cidr, gateway = network
    try:
        fits = ip_address(address) in _block(cidr) and address != gateway
    except ValueError:
        fits = False
    if not fits:
        raise PermanentError(f"{address} is no guest address of network {network_id}")
