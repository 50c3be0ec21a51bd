"""Who answers for an address: the few rules that simulated guests need.

A segment knows its own addresses; the router of a VPC knows its subnets and routes. What is missing here on
purpose (return paths, anti-spoofing of what is forwarded) is the reachability oracle's.
"""

from __future__ import annotations

import sqlite3
from ipaddress import IPv4Address
from typing import NamedTuple

from iaas.drivers.interface import BLACKHOLE, METADATA_ADDRESS, SERVICE_ADDRESS, NotFoundError
from iaas.drivers.sim.guest_facts import GuestFacts, GuestNIC
from iaas.drivers.sim.machines import Machine, find_machine
from iaas.drivers.sim.network_checks import address_number, block
from iaas.drivers.sim.network_documents import read_port, read_reservations, read_vpc


class Holder(NamedTuple):
    """The machine that answers for an address, running or not, and the NIC that packets to it come in by."""

    machine: Machine
    nic_id: str


class Way(NamedTuple):
    """Where packets for an address end: at a machine, at the router itself, or (neither) nowhere.

    ``refused`` tells that somebody knows that there is no way, and says so at once.
    """

    holder: Holder | None = None
    router: bool = False
    refused: bool = False
    routed: bool = False


class GuestWay(NamedTuple):
    """How a guest's own packets go. Without a NIC they stay in the guest (``local``) or have no way out of it."""

    nic: GuestNIC | None
    way: Way
    local: bool = False
    dropped: bool = False  # the NIC's port does not let them in: their source is none of its addresses


def is_of_vpc(connection: sqlite3.Connection, vpc_id: str, address: str) -> bool:
    """Return whether the VPC can have a guest with this address: in its CIDR or behind a route, and no gateway.

    Raises:
        NotFoundError: there is no such VPC.
    """
    row = connection.execute("SELECT cidr, document FROM vpcs WHERE vpc_id = ?", (vpc_id,)).fetchone()
    if row is None:
        raise NotFoundError(f"there is no VPC {vpc_id}")
    try:
        wanted = IPv4Address(address)
    except ValueError:
        return False
    subnet = _subnet_at(connection, vpc_id, address)
    if subnet is not None and subnet.gateway == address:
        return False
    return wanted in block(row[0]) or any(wanted in block(route[0]) for route in read_vpc(row[1]).routes)


def way_from_router(connection: sqlite3.Connection, vpc_id: str, address: str, now_us: int) -> Way:
    """Return where the router of a VPC brings packets for ``address``."""
    if address in {METADATA_ADDRESS, SERVICE_ADDRESS}:
        return Way(router=True)
    subnet = _subnet_at(connection, vpc_id, address)
    next_hop = _next_hop(connection, vpc_id, address, longer_than=-1 if subnet is None else subnet.prefix_length)
    if next_hop is None:
        if subnet is None:
            return Way(refused=True)
        if subnet.gateway == address:
            return Way(router=True)
        return Way(find_holder(connection, subnet.subnet_id, address, now_us), routed=True)
    gate = None if next_hop == BLACKHOLE else _subnet_at(connection, vpc_id, next_hop)
    if gate is None:
        return Way(refused=True)
    holder = find_holder(connection, gate.subnet_id, next_hop, now_us)
    if holder is None:
        return Way(routed=True)
    inside = connection.execute(
        "SELECT 1 FROM guest_addresses WHERE machine_id = ? AND address = ?", (holder.machine.machine_id, address)
    ).fetchone()
    return Way(holder if inside is not None else None, routed=True)


def way_from_guest(connection: sqlite3.Connection, facts: GuestFacts, namespace: str, address: str) -> GuestWay:
    """Return how packets for ``address`` go from one namespace of a guest."""
    here = [nic for nic in facts.nics if nic.namespace == namespace]
    wanted = IPv4Address(address)
    if wanted.is_loopback or any(each.split("/")[0] == address for nic in here for each in nic.addresses):
        return GuestWay(None, Way(), local=True)
    gateway = facts.namespaces.get(namespace, "") if namespace else facts.gateway
    for target in (address, gateway):  # first whom a segment reaches, then by way of the gateway
        leaving = None if not target else _leaving_by(here, target)
        if leaving is None:
            continue
        nic, own = leaving
        if not may_speak(connection, nic.subnet_id, nic.nic_id, own):
            return GuestWay(nic, Way(), dropped=True)
        if target == address and address != nic.gateway:
            return GuestWay(nic, Way(find_holder(connection, nic.subnet_id, address, facts.now_us)))
        if nic.gateway != target or nic.vpc_id is None:
            return GuestWay(nic, Way())  # by way of a guest: forwarding is not simulated
        return GuestWay(nic, way_from_router(connection, nic.vpc_id, address, facts.now_us))
    return GuestWay(None, Way(refused=True))


def _leaving_by(nics: list[GuestNIC], address: str) -> tuple[GuestNIC, str] | None:
    """Return the NIC whose segment the address is on, and its own address there."""
    for nic in nics:
        for each in nic.addresses:
            own, _, prefix_length = each.partition("/")
            if IPv4Address(address) in block(_block_of(own, prefix_length)):
                return nic, own
    return None


def find_holder(connection: sqlite3.Connection, subnet_id: str, address: str, now_us: int) -> Holder | None:
    """Return who answers for ``address`` on a segment; of several the one with the least machine id."""
    given = connection.execute(
        "SELECT nics.machine_id, nics.nic_id, ports.document FROM port_addresses"
        " JOIN ports ON ports.subnet_id = port_addresses.subnet_id AND ports.nic_id = port_addresses.nic_id"
        " JOIN nics ON nics.nic_id = port_addresses.nic_id AND nics.subnet_id = port_addresses.subnet_id"
        " LEFT JOIN links ON links.machine_id = nics.machine_id AND links.nic_id = nics.nic_id"
        " WHERE port_addresses.subnet_id = ? AND port_addresses.address = ? AND nics.up_us <= ?"
        " AND coalesce(links.namespace, '') = '' AND coalesce(links.lost, 0) = 0",
        (subnet_id, address, now_us),
    ).fetchone()
    if given is not None and read_port(given[2]).addresses[0] == address:  # DHCP gives the first of them
        return _holder(connection, given[0], given[1])
    for machine_id, nic_id in connection.execute(
        "SELECT machine_id, nic_id FROM guest_addresses WHERE subnet_id = ? AND address = ?"
        " ORDER BY machine_id, nic_id",
        (subnet_id, address),
    ).fetchall():
        if may_speak(connection, subnet_id, nic_id, address):
            return _holder(connection, machine_id, nic_id)
    return None


def may_speak(connection: sqlite3.Connection, subnet_id: str, nic_id: str, address: str) -> bool:
    """Return whether a port may use ``address`` as its source, with its own MAC."""
    row = connection.execute(
        "SELECT ports.mac, ports.document, subnets.document, vpc_id FROM ports"
        " JOIN subnets ON subnets.subnet_id = ports.subnet_id WHERE ports.subnet_id = ? AND ports.nic_id = ?",
        (subnet_id, nic_id),
    ).fetchone()
    if row is None:
        return False
    mac, port, reservations, vpc_id = row
    known = read_port(port)
    if vpc_id is None or address in known.addresses:  # on a bare segment only MACs are checked
        return True
    number, wanted = address_number(address), IPv4Address(address)
    return any(
        owner == known.owner and address_number(first) <= number <= address_number(last)
        for owner, first, last in read_reservations(reservations)
    ) or any(pair_mac in (None, mac) and wanted in block(cidr) for cidr, pair_mac in known.allowed_pairs)


class _SubnetRow(NamedTuple):
    subnet_id: str
    gateway: str
    prefix_length: int


def _subnet_at(connection: sqlite3.Connection, vpc_id: str, address: str) -> _SubnetRow | None:
    """Return the subnet of the VPC whose block holds the address."""
    number = address_number(address)
    row = connection.execute(
        "SELECT subnet_id, gateway, cidr, last FROM subnets WHERE vpc_id = ? AND first <= ?"
        " ORDER BY first DESC LIMIT 1",
        (vpc_id, number),
    ).fetchone()
    if row is None or row[3] < number:
        return None
    return _SubnetRow(row[0], row[1], block(row[2]).prefixlen)


def _next_hop(connection: sqlite3.Connection, vpc_id: str, address: str, *, longer_than: int) -> str | None:
    """Return the next hop of the most specific route with more than so many bits; None without any."""
    row = connection.execute("SELECT document FROM vpcs WHERE vpc_id = ?", (vpc_id,)).fetchone()
    wanted = IPv4Address(address)
    best: tuple[int, str] | None = None
    for destination, next_hop in () if row is None else read_vpc(row[0]).routes:
        target = block(destination)
        if wanted in target and target.prefixlen > (longer_than if best is None else best[0]):
            best = (target.prefixlen, next_hop)
    return None if best is None else best[1]


def _holder(connection: sqlite3.Connection, machine_id: str, nic_id: str) -> Holder | None:
    machine = find_machine(connection, machine_id)
    return None if machine is None else Holder(machine, nic_id)


def _block_of(address: str, prefix_length: str) -> str:
    """Return the block that an address with a prefix length lies in."""
    mask = (0xFFFFFFFF << (32 - int(prefix_length))) & 0xFFFFFFFF
    return f"{IPv4Address(address_number(address) & mask)}/{prefix_length}"
