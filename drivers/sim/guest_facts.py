"""What the world's database says about one guest."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

from iaas.drivers.interface import MachineKind
from iaas.drivers.sim.network_documents import read_port, read_vpc

KERNEL = "sim"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestNIC:
    """One NIC as the guest sees it; its link is named by the device index, on every kind of machine."""

    device_index: int
    nic_id: str
    mac: str
    subnet_id: str
    vpc_id: str | None
    gateway: str | None
    mtu: int
    namespace: str  # of the guest; "" is the first one
    addresses: tuple[str, ...]  # with their prefix lengths: the one that DHCP gave, then those that the guest added

    @property
    def name(self) -> str:
        return f"eth{self.device_index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestFacts:
    """What a guest knows of its machine. A NIC whose link is dead is not among ``nics``."""

    machine_id: str
    kind: MachineKind
    hostname: str
    vcpus: int
    memory_mib: int
    uptime_s: float
    now_us: int
    nics: tuple[GuestNIC, ...]
    namespaces: Mapping[str, str]  # name -> gateway, "" without one
    vpc_id: str | None = None  # of the first NIC that DHCP gave an address; as are those below
    gateway: str | None = None
    dns_domain: str = ""
    dns_servers: tuple[str, ...] = ()


def read_facts(connection: sqlite3.Connection, machine_id: str, now_us: int) -> GuestFacts:
    """Return the facts of a machine that is there, with the addresses its NICs have at this moment."""
    kind, hostname, vcpus, memory_mib, running_since_us = connection.execute(
        "SELECT kind, hostname, vcpus, memory_mib, due_us FROM machines WHERE machine_id = ?", (machine_id,)
    ).fetchone()
    nics = _read_nics(connection, machine_id, now_us)
    first = next((nic for nic in nics if nic.vpc_id is not None and nic.addresses and not nic.namespace), None)
    domain, servers = "", tuple[str, ...]()
    if first is not None and (
        vpc := connection.execute("SELECT document FROM vpcs WHERE vpc_id = ?", (first.vpc_id,)).fetchone()
    ):
        document = read_vpc(vpc[0])
        domain, servers = document.dns_domain, tuple(document.dns_servers) or (first.gateway or "",)
    namespaces = connection.execute(
        "SELECT name, gateway FROM namespaces WHERE machine_id = ? ORDER BY name", (machine_id,)
    )
    return GuestFacts(
        machine_id=machine_id,
        kind=MachineKind(kind),
        hostname=hostname,
        vcpus=vcpus,
        memory_mib=memory_mib,
        uptime_s=max(now_us - running_since_us, 0) / 1e6,
        now_us=now_us,
        nics=nics,
        namespaces=dict(namespaces.fetchall()),
        vpc_id=None if first is None else first.vpc_id,
        gateway=None if first is None else first.gateway,
        dns_domain=domain,
        dns_servers=servers,
    )


def _read_nics(connection: sqlite3.Connection, machine_id: str, now_us: int) -> tuple[GuestNIC, ...]:
    added: dict[str, list[str]] = {}
    for nic_id, address, prefix_length in connection.execute(
        "SELECT nic_id, address, prefix_length FROM guest_addresses WHERE machine_id = ? ORDER BY nic_id, address",
        (machine_id,),
    ):
        added.setdefault(nic_id, []).append(f"{address}/{prefix_length}")
    found = []
    for index, nic_id, mac, subnet_id, up_us, vpc_id, cidr, gateway, mtu, port, namespace, lost in connection.execute(
        "SELECT nics.device_index, nics.nic_id, nics.mac, nics.subnet_id, nics.up_us, subnets.vpc_id, subnets.cidr,"
        " subnets.gateway, subnets.mtu, ports.document, links.namespace, links.lost FROM nics"
        " LEFT JOIN subnets ON subnets.subnet_id = nics.subnet_id"
        " LEFT JOIN ports ON ports.subnet_id = nics.subnet_id AND ports.nic_id = nics.nic_id"
        " LEFT JOIN links ON links.machine_id = nics.machine_id AND links.nic_id = nics.nic_id"
        " WHERE nics.machine_id = ? ORDER BY nics.device_index",
        (machine_id,),
    ).fetchall():
        if lost:
            continue
        given = []
        if port is not None and cidr is not None and not namespace and up_us <= now_us:
            prefix_length = IPv4Network(cidr).prefixlen
            given = [f"{address}/{prefix_length}" for address in read_port(port).addresses[:1]]
        found.append(
            GuestNIC(
                device_index=index,
                nic_id=nic_id,
                mac=mac,
                subnet_id=subnet_id,
                vpc_id=vpc_id,
                gateway=gateway,
                mtu=mtu or 1500,
                namespace=namespace or "",
                addresses=(*given, *added.get(nic_id, [])),
            )
        )
    return tuple(found)
