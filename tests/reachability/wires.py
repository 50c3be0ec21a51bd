"""Worlds made real: VPCs by the real driver, guests as network namespaces with the addresses and routes they claim."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from iaas.drivers.interface import METADATA_ADDRESS, SERVICE_ADDRESS, NetworkDriver, PortSpec, SubnetSpec, VPCSpec
from iaas.drivers.linux.namespaces import entered, netlink, run_inside
from iaas.kernel.ids import suffix
from iaas.reachability import Guest, Topology
from tests.contract.wire_guest import INNER_BRIDGE, WireGuest
from tests.reachability.worlds import held
from tests.real_host import RealHost

SERVICE_PORT = 80
THREADS = 4

# A guest behaves as the oracle takes it to, whatever the host's own settings are: new namespaces inherit those.
GUEST_SYSCTLS = {
    "conf/all/rp_filter": "0",
    "conf/default/rp_filter": "0",
    "conf/all/accept_redirects": "0",  # else neighbours of a next hop learn a way that no route names
    "conf/default/accept_redirects": "0",
    "conf/all/send_redirects": "0",
    "conf/default/send_redirects": "0",
    "conf/all/arp_announce": "0",
    "conf/default/arp_announce": "0",
}


@dataclass
class Wires:
    """A world on this host: where each running guest is, and what listens in the routers."""

    namespaces: dict[str, str] = field(default_factory=dict)  # by guest id
    listeners: list[tuple[socket.socket, str]] = field(default_factory=list)  # with the VPC's id

    def forget_neighbours(self, guest_ids: Iterable[str]) -> None:
        """Empty the ARP caches of guests; of those that do not run there are none."""
        for guest_id in guest_ids:
            if guest_id in self.namespaces:
                run_inside(self.namespaces[guest_id], ["ip", "-4", "neighbour", "flush", "all"])


@contextmanager
def wired(
    host: RealHost, driver: NetworkDriver, topology: Topology, *, removes_networks: bool = True
) -> Iterator[Wires]:
    """Make the topology real for the block; nothing of it is left afterwards, or only networks if one wishes so."""
    wires = Wires()
    guests: list[WireGuest] = []
    with ThreadPoolExecutor(THREADS) as pool, ExitStack() as undo:
        if removes_networks:
            undo.callback(_remove_networks, driver, topology, pool)
        undo.callback(lambda: list(pool.map(WireGuest.close, guests)))
        list(pool.map(lambda vpc: _make_vpc(driver, topology, vpc), topology.vpcs))
        _make_subnets(driver, topology, None)
        for vpc in topology.vpcs:
            for address in (METADATA_ADDRESS, SERVICE_ADDRESS):
                listener = undo.enter_context(driver.listen(vpc.vpc_id, address, SERVICE_PORT))
                wires.listeners.append((listener, vpc.vpc_id))

        def make(guest: Guest) -> dict[str, str]:
            wire = WireGuest(host, suffix(guest.guest_id))
            guests.append(wire)
            _plug(topology, guest, wire)
            return {guest.guest_id: wire.namespace} | _add_pods(topology, guest, wire)

        machines = [guest for guest in topology.guests if guest.is_running and not _is_pod(guest)]
        for made in pool.map(make, machines):
            wires.namespaces |= made
        yield wires


def _is_pod(guest: Guest) -> bool:
    return any(interface.mac is not None for interface in guest.interfaces)


def _make_vpc(driver: NetworkDriver, topology: Topology, vpc: VPCSpec) -> None:
    driver.ensure_vpc(vpc)
    _make_subnets(driver, topology, vpc.vpc_id)


def _make_subnets(driver: NetworkDriver, topology: Topology, vpc_id: str | None) -> None:
    subnets = {subnet.subnet_id: subnet for subnet in topology.subnets if subnet.vpc_id == vpc_id}
    for subnet in subnets.values():
        driver.ensure_subnet(subnet)
    for port in topology.ports:
        if port.subnet_id in subnets:
            driver.ensure_port(port)


def _remove_networks(driver: NetworkDriver, topology: Topology, pool: ThreadPoolExecutor) -> None:
    list(pool.map(lambda subnet: driver.remove_subnet(subnet.subnet_id), topology.subnets))
    list(pool.map(lambda vpc: driver.remove_vpc(vpc.vpc_id), topology.vpcs))


def _plug(topology: Topology, guest: Guest, wire: WireGuest) -> None:
    """Plug all NICs of the guest, with what it has on them, and its routes."""
    ports = {port.nic_id: port for port in topology.ports}
    subnets = {subnet.subnet_id: subnet for subnet in topology.subnets}
    sysctls = GUEST_SYSCTLS | {"ip_forward": str(int(guest.forwards))}
    with entered(wire.namespace):
        for key, value in sysctls.items():
            (Path("/proc/sys/net/ipv4") / key).write_text(value)
    plugs = [(interface, ports[interface.nic_id]) for interface in guest.interfaces]
    local = {address for interface, port in plugs for address in held(interface, port)}
    gateway: str | None = None
    for interface, port in plugs:
        subnet = subnets[port.subnet_id]
        name = wire.plug(port)
        for text in port.addresses if interface.addresses is None else interface.addresses:
            address, prefix_length = _split(text, subnet)
            wire.add_address(address, prefix_length, interface=name)
            if gateway is None and prefix_length < 32 and subnet.gateway not in local:
                gateway = subnet.gateway
    if gateway is not None:
        wire.add_route("default", gateway)
    for route in guest.routes:
        wire.add_route(route.destination, route.next_hop)


def _add_pods(topology: Topology, guest: Guest, wire: WireGuest) -> dict[str, str]:
    """Bridge the guest's pods on to its NIC, and return where each of them is."""
    made: dict[str, str] = {}
    ports = {port.nic_id: port for port in topology.ports}
    subnets = {subnet.subnet_id: subnet for subnet in topology.subnets}
    nic_ids = [interface.nic_id for interface in guest.interfaces]
    for pod in topology.guests:
        for interface in pod.interfaces:
            if interface.mac is None or interface.nic_id not in nic_ids:
                continue
            port = ports[interface.nic_id]
            if not made:
                _bridge(wire, f"eth{nic_ids.index(interface.nic_id)}", port)
            (address,) = interface.addresses or ()
            made[pod.guest_id] = wire.add_pod(interface.mac, address, subnet=subnets[port.subnet_id])
    return made


def _bridge(wire: WireGuest, interface: str, port: PortSpec) -> None:
    wire.bridge_nic(interface)
    with netlink(wire.namespace) as handle:
        # Else the bridge takes whichever MAC is lowest among its ports, and the guest speaks with that.
        handle.link("set", index=handle.link_lookup(ifname=INNER_BRIDGE)[0], address=port.mac)


def _split(text: str, subnet: SubnetSpec) -> tuple[str, int]:
    """Return an address of an interface, and its prefix length."""
    address, _, length = text.partition("/")
    if length:
        return address, int(length)
    block = IPv4Network(subnet.cidr or "0.0.0.0/32")
    return address, block.prefixlen if IPv4Address(address) in block else 32
