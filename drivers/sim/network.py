"""Simulated networks: rows for VPCs, subnets and ports, and a way to talk to the guests behind them.

METADATA is not among the capabilities: no packets flow, so nothing of ours can listen inside a VPC.
Simulated guests know their identity all the same (see ``guest.py``).
"""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Collection

from iaas.drivers.interface import (
    NetworkCapability,
    NotFoundError,
    PermanentError,
    PortSpec,
    PortState,
    PortStatistics,
    PowerState,
    ProbeReport,
    ProbeSpec,
    SubnetSpec,
    SubnetState,
    TransientError,
    UnsupportedError,
    VPCSpec,
    VPCState,
)
from iaas.drivers.interface.networks import LinkLostListener
from iaas.drivers.sim.guest_http import serve
from iaas.drivers.sim.links import read_statistics
from iaas.drivers.sim.network_checks import block, check_port, check_subnet, check_vpc
from iaas.drivers.sim.network_documents import port_document, subnet_document, vpc_document
from iaas.drivers.sim.reach import is_of_vpc, way_from_router
from iaas.drivers.sim.web import HTTP_PORT
from iaas.drivers.sim.world import Change, SimWorld, page_of


class SimNetworkDriver:
    """Networks of one simulated world. Implements NetworkDriver."""

    capabilities = frozenset({NetworkCapability.DIAL, NetworkCapability.STATISTICS})

    def __init__(self, world: SimWorld) -> None:
        self.world = world
        self._listeners: list[LinkLostListener] = []

    def check_available(self) -> None:
        """Return while the world is open; raises BackendDownError otherwise."""
        with self.world.read("check_available"):
            pass

    # --- VPCs -----------------------------------------------------------------------------------------------

    def ensure_vpc(self, spec: VPCSpec) -> VPCState:
        """Make the VPC, or bring the one that is there to the spec; one of an older revision changes nothing.

        Raises:
            PermanentError: the spec makes no sense, or the VPC is there with another CIDR.
        """
        document = vpc_document(spec)
        with self.world.change("ensure_vpc", spec.vpc_id) as change:
            present = change.connection.execute(
                "SELECT revision, cidr, document FROM vpcs WHERE vpc_id = ?", (spec.vpc_id,)
            ).fetchone()
            if present is not None:
                if present == (spec.revision, spec.cidr, document) or present[0] > spec.revision:
                    return VPCState(vpc_id=spec.vpc_id)
                if present[1] != spec.cidr:
                    raise PermanentError(f"VPC {spec.vpc_id} is there with the addresses {present[1]}")
            check_vpc(spec)
            change.begin()
            change.connection.execute(
                "INSERT INTO vpcs (vpc_id, cidr, revision, document) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (vpc_id) DO UPDATE SET revision = excluded.revision, document = excluded.document",
                (spec.vpc_id, spec.cidr, spec.revision, document),
            )
        return VPCState(vpc_id=spec.vpc_id)

    def remove_vpc(self, vpc_id: str) -> None:
        """Remove the VPC. Already absent is success.

        Raises:
            PermanentError: subnets of it are still there.
        """
        with self.world.write("remove_vpc", vpc_id) as connection:
            subnet = connection.execute("SELECT subnet_id FROM subnets WHERE vpc_id = ? LIMIT 1", (vpc_id,)).fetchone()
            if subnet is not None:
                raise PermanentError(f"VPC {vpc_id} still has the subnet {subnet[0]}")
            connection.execute("DELETE FROM vpcs WHERE vpc_id = ?", (vpc_id,))

    def vpcs(self) -> list[VPCState]:
        """Return all VPCs of this world."""
        with self.world.read("vpcs") as connection:
            rows = connection.execute("SELECT vpc_id FROM vpcs ORDER BY vpc_id").fetchall()
        return [VPCState(vpc_id=row[0]) for row in rows]

    # --- subnets --------------------------------------------------------------------------------------------

    def ensure_subnet(self, spec: SubnetSpec) -> SubnetState:
        """Make the segment, or bring the one that is there to the spec; one of an older revision changes nothing.

        Raises:
            NotFoundError: the VPC was not ensured.
            PermanentError: the spec makes no sense, its block overlaps another one of the VPC, a NIC has the
                gateway's address, or the subnet is there with another block in the same VPC.
        """
        document = subnet_document(spec)
        asked = (spec.vpc_id, spec.cidr, spec.gateway, spec.mtu, spec.revision, document)
        with self.world.change("ensure_subnet", spec.subnet_id) as change:
            present = change.connection.execute(
                "SELECT vpc_id, cidr, gateway, mtu, revision, document FROM subnets WHERE subnet_id = ?",
                (spec.subnet_id,),
            ).fetchone()
            if present is not None:
                if present == asked or present[4] > spec.revision:
                    return SubnetState(subnet_id=spec.subnet_id, vpc_id=present[0])
                if spec.vpc_id is not None and present[0] == spec.vpc_id and present[1] != spec.cidr:
                    raise PermanentError(f"subnet {spec.subnet_id} is there with the addresses {present[1]}")
            _check_in_vpc(change.connection, spec)
            own = None if spec.cidr is None else block(spec.cidr)
            change.begin()
            change.connection.execute(
                "INSERT INTO subnets (vpc_id, cidr, gateway, mtu, revision, document, first, last, subnet_id)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (subnet_id) DO UPDATE SET"
                " vpc_id = excluded.vpc_id, cidr = excluded.cidr, gateway = excluded.gateway, mtu = excluded.mtu,"
                " revision = excluded.revision, document = excluded.document, first = excluded.first,"
                " last = excluded.last",
                (
                    *asked,
                    None if own is None else int(own.network_address),
                    None if own is None else int(own.broadcast_address),
                    spec.subnet_id,
                ),
            )
        return SubnetState(subnet_id=spec.subnet_id, vpc_id=spec.vpc_id)

    def remove_subnet(self, subnet_id: str) -> None:
        """Remove the segment with its ports. Already absent is success."""
        with self.world.write("remove_subnet", subnet_id) as connection:
            for table in ("port_names", "port_addresses", "ports", "subnets"):
                connection.execute(f"DELETE FROM {table} WHERE subnet_id = ?", (subnet_id,))  # noqa: S608 - the names are ours, above

    def subnets(self) -> list[SubnetState]:
        """Return all subnets of this world."""
        with self.world.read("subnets") as connection:
            rows = connection.execute("SELECT subnet_id, vpc_id FROM subnets ORDER BY subnet_id").fetchall()
        return [SubnetState(subnet_id=subnet_id, vpc_id=vpc_id) for subnet_id, vpc_id in rows]

    # --- ports ----------------------------------------------------------------------------------------------

    def ensure_port(self, spec: PortSpec) -> PortState:
        """Let the NIC in, or bring its port to the spec; one of an older revision changes nothing.

        Raises:
            NotFoundError: the subnet was not ensured.
            PermanentError: no guest of the subnet can have an address, another port has it or the MAC, or the
                port is there with another MAC.
        """
        document = port_document(spec)
        state = PortState(nic_id=spec.nic_id, subnet_id=spec.subnet_id)
        with self.world.change("ensure_port", spec.nic_id) as change:
            row = change.connection.execute(
                "SELECT cidr, gateway, ports.revision, mac, ports.document FROM subnets LEFT JOIN ports"
                " ON ports.subnet_id = subnets.subnet_id AND ports.nic_id = ? WHERE subnets.subnet_id = ?",
                (spec.nic_id, spec.subnet_id),
            ).fetchone()
            if row is None:
                raise NotFoundError(f"there is no subnet {spec.subnet_id}")
            cidr, gateway, revision, mac, known = row
            if revision is not None:
                if (revision, mac, known) == (spec.revision, spec.mac, document) or revision > spec.revision:
                    return state
                if mac != spec.mac:
                    raise PermanentError(f"NIC {spec.nic_id} is there with another MAC")
            check_port(spec, cidr, gateway)
            _write_port(change, spec, document, known)
        return state

    def remove_port(self, subnet_id: str, nic_id: str) -> None:
        """Forget the port. Already absent is success."""
        with self.world.write("remove_port", nic_id) as connection:
            row = connection.execute(
                "DELETE FROM ports WHERE subnet_id = ? AND nic_id = ? RETURNING document", (subnet_id, nic_id)
            ).fetchone()
            if row is not None:
                _forget_claims(connection, subnet_id, nic_id, row[0])

    def ports(
        self, subnet_id: str, *, only: Collection[str] | None = None, after: str = "", limit: int | None = None
    ) -> list[PortState]:
        """Return ports of one subnet by NIC; see ``NetworkDriver.ports``. Without a limit, all of them."""
        part, values = page_of("nic_id", only=only, after=after, limit=limit)
        with self.world.read("ports", subnet_id) as connection:
            rows = connection.execute(
                f"SELECT nic_id FROM ports WHERE subnet_id = ? AND {part}",  # noqa: S608 - all of it is ours
                (subnet_id, *values),
            ).fetchall()
        return [PortState(nic_id=row[0], subnet_id=subnet_id) for row in rows]

    # --- traffic --------------------------------------------------------------------------------------------

    def statistics(self, subnet_id: str, nic_id: str) -> PortStatistics | None:
        """Return what the guest has sent and received since the NIC was plugged; None while it is not plugged."""
        with self.world.read("statistics", nic_id) as connection:
            return read_statistics(connection, subnet_id, nic_id, self.world.now_us())

    def probe(self, spec: ProbeSpec) -> ProbeReport | None:
        """Refuse: no packets flow in a simulated VPC.

        Raises:
            UnsupportedError: always; PROBE is not in ``capabilities``.
        """
        raise UnsupportedError("no packet can be sent in a simulated VPC")

    def on_link_lost(self, listener: LinkLostListener) -> None:
        """Tell ``listener`` of NICs that died with a namespace of their guest; at once of those that are dead now."""
        self._listeners.append(listener)
        self.world.listen_to_links(listener)

    def dial(self, vpc_id: str, address: str, port: int, *, timeout_s: float) -> socket.socket:
        """Return a socket to a simulated guest: port 80 of a machine whose guest is ready answers HTTP.

        Nothing else listens in simulated guests, and a refusal comes at once, whatever ``timeout_s``.

        Raises:
            NotFoundError: no such VPC.
            PermanentError: the address is none of the VPC's, or its router's.
            TransientError: refused, or nobody has the address.
        """
        with self.world.read("dial", vpc_id) as connection:
            if not is_of_vpc(connection, vpc_id, address):
                raise PermanentError(f"{address} is no guest address of VPC {vpc_id}")
            now_us = self.world.now_us()
            holder = way_from_router(connection, vpc_id, address, now_us).holder
        if holder is None:
            raise TransientError(f"{address} does not answer: no machine has this address")
        if holder.machine.power(now_us) is not PowerState.RUNNING:
            raise TransientError(f"{address} does not answer: its machine does not run")
        if not holder.machine.is_ready(now_us) or port != HTTP_PORT:
            raise TransientError(f"{address}:{port} refused the connection")
        ours, guests = socket.socketpair()
        ours.settimeout(timeout_s)
        serve(self.world, holder.machine.machine_id, guests)
        return ours

    def listen(self, vpc_id: str, address: str, port: int) -> socket.socket:
        """Refuse: no packets flow in a simulated VPC.

        Raises:
            UnsupportedError: always; METADATA is not in ``capabilities``.
        """
        raise UnsupportedError("nothing can listen inside a simulated VPC")

    def close(self) -> None:
        """Let go of the listeners. The world is closed by who opened it."""
        for listener in self._listeners:
            self.world.unlisten_to_links(listener)
        self._listeners.clear()


def _check_in_vpc(connection: sqlite3.Connection, spec: SubnetSpec) -> None:
    """Return when the subnet can be made, or changed so."""
    vpc = None
    if spec.vpc_id is not None:
        vpc = connection.execute("SELECT cidr FROM vpcs WHERE vpc_id = ?", (spec.vpc_id,)).fetchone()
        if vpc is None:
            raise NotFoundError(f"there is no VPC {spec.vpc_id}")
    check_subnet(spec, None if vpc is None else vpc[0])
    if spec.cidr is None or spec.gateway is None:
        return
    own = block(spec.cidr)
    # Of the blocks that begin before the end of this one only the last can reach into it, or lies in it.
    below = connection.execute(
        "SELECT subnet_id, last FROM subnets WHERE vpc_id = ? AND first <= ? AND subnet_id <> ?"
        " ORDER BY first DESC LIMIT 1",
        (spec.vpc_id, int(own.broadcast_address), spec.subnet_id),
    ).fetchone()
    if below is not None and below[1] >= int(own.network_address):
        raise PermanentError(f"subnet {spec.subnet_id}: {spec.cidr} overlaps subnet {below[0]}")
    taken = connection.execute(
        "SELECT nic_id FROM port_addresses WHERE subnet_id = ? AND address = ?", (spec.subnet_id, spec.gateway)
    ).fetchone()
    if taken is not None:
        raise PermanentError(f"subnet {spec.subnet_id}: the gateway's address is that of NIC {taken[0]}")


def _write_port(change: Change, spec: PortSpec, document: str, known: str | None) -> None:
    connection = change.connection
    change.begin()
    try:
        if known is None:
            connection.execute(
                "INSERT INTO ports (subnet_id, nic_id, mac, revision, document) VALUES (?, ?, ?, ?, ?)",
                (spec.subnet_id, spec.nic_id, spec.mac, spec.revision, document),
            )
        else:
            connection.execute(
                "UPDATE ports SET revision = ?, document = ? WHERE subnet_id = ? AND nic_id = ?",
                (spec.revision, document, spec.subnet_id, spec.nic_id),
            )
            _forget_claims(connection, spec.subnet_id, spec.nic_id, known)
        connection.executemany(
            "INSERT INTO port_addresses (subnet_id, address, nic_id) VALUES (?, ?, ?)",
            [(spec.subnet_id, address, spec.nic_id) for address in spec.addresses],
        )
    except sqlite3.IntegrityError as exc:
        raise PermanentError(f"NIC {spec.nic_id}: another NIC has the MAC or one of the addresses") from exc
    if spec.addresses:
        connection.executemany(
            "INSERT OR IGNORE INTO port_names (subnet_id, name, nic_id, address) VALUES (?, ?, ?, ?)",
            [(spec.subnet_id, name.lower(), spec.nic_id, spec.addresses[0]) for name in spec.names],
        )


def _forget_claims(connection: sqlite3.Connection, subnet_id: str, nic_id: str, document: str) -> None:
    """Give back the addresses and names that a port of this document holds."""
    _, addresses, names, _ = json.loads(document)
    connection.executemany(
        "DELETE FROM port_addresses WHERE subnet_id = ? AND address = ?", [(subnet_id, each) for each in addresses]
    )
    connection.executemany(
        "DELETE FROM port_names WHERE subnet_id = ? AND name = ? AND nic_id = ?",
        [(subnet_id, name.lower(), nic_id) for name in names],
    )
