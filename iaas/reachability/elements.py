"""A topology made ready for walking: addresses parsed, routing tables filled, who has which address known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TypeVar

from iaas.drivers.interface import (
    BLACKHOLE,
    METADATA_ADDRESS,
    SERVICE_ADDRESS,
    PortSpec,
    RouteSpec,
    SubnetSpec,
    VPCSpec,
)
from iaas.kernel.errors import NotFound
from iaas.reachability.questions import Rule
from iaas.reachability.tables import RoutingTable
from iaas.reachability.topology import Guest, Topology

T = TypeVar("T")

ANYWHERE = IPv4Network("0.0.0.0/0")
SERVICE_ADDRESSES = frozenset({IPv4Address(METADATA_ADDRESS), IPv4Address(SERVICE_ADDRESS)})


@dataclass(frozen=True, slots=True)
class Reserved:
    """Addresses that any port of the owner may speak for."""

    owner: str
    first: IPv4Address
    last: IPv4Address


@dataclass(eq=False, slots=True)
class Segment:
    """One subnet."""

    spec: SubnetSpec
    network: IPv4Network | None
    gateway: IPv4Address | None
    reserved: tuple[Reserved, ...]
    ports: list[Port] = field(default_factory=list)
    holders: dict[IPv4Address, list[Plug]] = field(default_factory=dict)  # whoever would answer for it there

    def port_of(self, address: IPv4Address) -> Port | None:
        """Return the port that the address was given to."""
        return next((port for port in self.ports if address in port.addresses), None)


@dataclass(eq=False, slots=True)
class Port:
    """One NIC's port."""

    spec: PortSpec
    segment: Segment
    addresses: tuple[IPv4Address, ...]
    pairs: tuple[tuple[IPv4Network, str], ...]  # with the MAC that goes with it
    plugs: list[Plug] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Plug:
    """A guest's end of a port."""

    stack: Stack
    port: Port
    mac: str
    addresses: tuple[IPv4Interface, ...]


@dataclass(frozen=True, slots=True)
class GuestRoute:
    """By which plug (None: to a network inside the guest), and by whom (None: straight to the target)."""

    plug: Plug | None
    next_hop: IPv4Address | None
    rule: Rule


@dataclass(eq=False, slots=True)
class Stack:
    """One guest's IP stack."""

    facts: Guest
    plugs: list[Plug] = field(default_factory=list)
    local: set[IPv4Address] = field(default_factory=set)
    broadcasts: set[IPv4Address] = field(default_factory=set)
    table: RoutingTable[GuestRoute] = field(default_factory=RoutingTable)


@dataclass(frozen=True, slots=True)
class RouterRoute:
    """On which subnet (None: on none that there is), by whom (None: straight to the target), from which entry."""

    segment: Segment | None
    next_hop: IPv4Address | None
    spec: RouteSpec | None


@dataclass(eq=False, slots=True)
class Router:
    """One VPC's router."""

    spec: VPCSpec
    segments: list[Segment] = field(default_factory=list)
    local: set[IPv4Address] = field(default_factory=set)
    broadcasts: set[IPv4Address] = field(default_factory=set)
    table: RoutingTable[RouterRoute] = field(default_factory=RoutingTable)


class Elements:
    """Everything a packet can meet.

    Raises:
        NotFound: something in the topology names what is not in it.
    """

    def __init__(self, topology: Topology) -> None:
        self.routers = {spec.vpc_id: Router(spec, local=set(SERVICE_ADDRESSES)) for spec in topology.vpcs}
        self.segments = {spec.subnet_id: _segment(spec) for spec in topology.subnets}
        self.ports: dict[str, Port] = {}
        for spec in topology.ports:
            segment = _known(self.segments, spec.subnet_id, "subnet")
            self.ports[spec.nic_id] = port = _port(spec, segment)
            segment.ports.append(port)
        self._connect_routers()
        self.stacks = {facts.guest_id: self._stack(facts) for facts in topology.guests}

    def router_of(self, segment: Segment) -> Router | None:
        """Return the router that has a leg on the subnet."""
        return None if segment.spec.vpc_id is None else self.routers[segment.spec.vpc_id]

    def _connect_routers(self) -> None:
        for segment in self.segments.values():
            if segment.spec.vpc_id is None:
                continue
            router = _known(self.routers, segment.spec.vpc_id, "VPC")
            router.segments.append(segment)
            if segment.network is not None and segment.gateway is not None:
                router.local.add(segment.gateway)
                router.broadcasts.update(_broadcasts(segment.network))
                # Before the routes: a subnet's own block is never taken over by a route to the same destination.
                router.table.add(segment.network, RouterRoute(segment, None, None))
        for router in self.routers.values():
            for route in router.spec.routes:
                router.table.add(IPv4Network(route.destination), _router_route(router, route))

    def _stack(self, facts: Guest) -> Stack:
        stack = Stack(facts)
        for interface in facts.interfaces:
            port = _known(self.ports, interface.nic_id, "NIC")
            texts = map(str, port.addresses) if interface.addresses is None else interface.addresses
            addresses = tuple(_on_interface(text, port.segment) for text in texts)
            plug = Plug(stack, port, interface.mac or port.spec.mac, addresses)
            stack.plugs.append(plug)
            port.plugs.append(plug)
        _fill_table(stack)
        for address in stack.local:
            for plug in stack.plugs:
                plug.port.segment.holders.setdefault(address, []).append(plug)
        return stack


def _known(found: dict[str, T], key: str, what: str) -> T:
    try:
        return found[key]
    except KeyError:
        raise NotFound(f"the topology has no {what} {key}") from None


def _segment(spec: SubnetSpec) -> Segment:
    reserved = tuple(
        Reserved(each.owner, IPv4Address(each.first), IPv4Address(each.last)) for each in spec.reservations
    )
    network = None if spec.cidr is None else IPv4Network(spec.cidr)
    return Segment(spec, network, None if spec.gateway is None else IPv4Address(spec.gateway), reserved)


def _port(spec: PortSpec, segment: Segment) -> Port:
    pairs = tuple((IPv4Network(pair.cidr), pair.mac or spec.mac) for pair in spec.allowed_pairs)
    addresses = tuple(IPv4Address(each) for each in spec.addresses)
    # What is left from another block, of a subnet that has joined another VPC since, is nobody's there.
    fitting = tuple(each for each in addresses if segment.network is None or each in segment.network)
    return Port(spec, segment, fitting, pairs)


def _broadcasts(network: IPv4Network) -> Iterable[IPv4Address]:
    # Source: RFC 3021, blocks of 31 bits and more have no addresses to spare for this.
    return (network.broadcast_address,) if network.prefixlen < 31 else ()


def _on_interface(text: str, segment: Segment) -> IPv4Interface:
    if "/" not in text and segment.network is not None and IPv4Address(text) in segment.network:
        return IPv4Interface(f"{text}/{segment.network.prefixlen}")
    return IPv4Interface(text)


def _router_route(router: Router, route: RouteSpec) -> RouterRoute:
    if route.next_hop == BLACKHOLE:
        return RouterRoute(None, None, route)
    next_hop = IPv4Address(route.next_hop)
    on_link = (each for each in router.segments if each.network is not None and next_hop in each.network)
    return RouterRoute(next(on_link, None), next_hop, route)


def _fill_table(stack: Stack) -> None:
    for plug in stack.plugs:
        for address in plug.addresses:
            stack.local.add(address.ip)
            if address.network.prefixlen < 32:
                stack.broadcasts.update(_broadcasts(address.network))
                stack.table.add(address.network, GuestRoute(plug, None, Rule.CONNECTED))
    for block in stack.facts.behind:
        stack.table.add(IPv4Network(block), GuestRoute(None, None, Rule.BEHIND))
    for route in stack.facts.routes:
        next_hop = IPv4Address(route.next_hop)
        on_link = stack.table.find(next_hop)
        if on_link is not None and on_link.rule == Rule.CONNECTED:  # Linux refuses any other
            stack.table.add(IPv4Network(route.destination), GuestRoute(on_link.plug, next_hop, Rule.GUEST_ROUTE))
    for plug in stack.plugs:
        segment = plug.port.segment
        if segment.network is not None and any(address.ip in segment.network for address in plug.addresses):
            if segment.gateway in stack.local:  # Linux refuses a gateway that is the guest itself
                continue
            stack.table.add(ANYWHERE, GuestRoute(plug, segment.gateway, Rule.DEFAULT_ROUTE))
            return
