"""One packet's way through the elements, one decision after the other.

A packet is at a guest, on the wire of a subnet, or at a router; each of these places hands it on to the next or ends
its way. What else shall act on packets (firewalls at ports, address translation at routers) joins as a further stage:
one more function in ``LEAVING_PORT``, ``ENTERING_PORT`` or ``ENTERING_ROUTER``, tried in this order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from iaas.reachability.elements import SERVICE_ADDRESSES, Elements, Plug, Router, Segment, Stack
from iaas.reachability.questions import Direction, Element, Hop, Protocol, Reason, Rule
from iaas.reachability.spoofing import permitting_rule

DHCP_SERVER_PORT = 67
DNS_PORT = 53
SERVICE_PORT = 80


@dataclass(frozen=True, slots=True)
class Packet:
    """``port`` is the target's on the way there and the source's on the way back; None for icmp."""

    source: IPv4Address
    target: IPv4Address
    protocol: Protocol
    port: int | None
    direction: Direction


@dataclass(frozen=True, slots=True)
class AtGuest:
    """``came_by`` is None where the packet begins."""

    stack: Stack
    came_by: Plug | None


@dataclass(frozen=True, slots=True)
class AtRouter:
    """``came_by`` is None where the packet begins."""

    router: Router
    came_by: Segment | None


@dataclass(frozen=True, slots=True)
class OnWire:
    """A frame for whoever has ``next_hop``, sent by a guest, or by the subnet's router (``sender`` None).

    ``asks_as`` is who the sender says he is when he asks for the next hop's MAC.
    """

    segment: Segment
    sender: Plug | None
    next_hop: IPv4Address
    asks_as: IPv4Address


@dataclass(frozen=True, slots=True)
class Arrived:
    """The packet is where its target address is local. ``by`` is None where it never left its guest."""

    at: Stack | Router
    by: Segment | None


@dataclass(frozen=True, slots=True)
class Lost:
    reason: Reason
    message: str


Place = AtGuest | AtRouter | OnWire
End = Arrived | Lost
PortStage = Callable[[Packet, OnWire, Plug], Hop | None]  # None: it has nothing to say
RouterStage = Callable[[Packet, Router], Packet]


# Who was asked for his MAC on a subnet knows the asker's from then on, by the address in whose name he was asked.
Heard = dict[tuple[Stack | Router | None, Segment, IPv4Address], Plug | None]


class Walk:
    """Follows one packet and notes every decision in ``hops``; ``vpc_ids`` are those it came through.

    ``heard`` is what was learned on the way there, for the way back; else nobody knows anything from before.
    """

    def __init__(self, elements: Elements, packet: Packet, heard: Heard | None = None) -> None:
        self._elements = elements
        self._packet = packet
        self.heard: Heard = {} if heard is None else heard
        self._seen: set[Stack | Router] = set()
        self.hops: list[Hop] = []
        self.vpc_ids: set[str | None] = set()

    def run(self, place: Place) -> End:
        """Follow the packet from ``place`` to its end."""
        here: Place | End = place
        while not isinstance(here, Arrived | Lost):
            match here:
                case AtGuest():
                    here = self._at_guest(here)
                case AtRouter():
                    here = self._at_router(here)
                case OnWire():
                    here = self._on_wire(here)
        return here

    def _at_guest(self, here: AtGuest) -> Place | End:
        stack, packet = here.stack, self._packet
        name = stack.facts.guest_id
        if not stack.facts.is_running:
            return self._lose(Element.INSTANCE, name, Reason.NOT_RUNNING, f"{name} does not run")
        if here.came_by is not None and packet.source in stack.local:
            text = f"{name} drops what comes from outside with its own address {packet.source}"
            return self._lose(Element.INSTANCE, name, Reason.MARTIAN_SOURCE, text)
        if packet.target in stack.local:
            self._pass(Element.INSTANCE, name, Rule.LOCAL, f"has {packet.target}")
            return Arrived(stack, None if here.came_by is None else here.came_by.port.segment)
        if packet.target in stack.broadcasts:
            text = f"{packet.target} is the broadcast address of a subnet of {name}"
            return self._lose(Element.INSTANCE, name, Reason.BROADCAST, text)
        if here.came_by is not None and not stack.facts.forwards:
            text = f"{name} does not have {packet.target} and does not forward packets"
            return self._lose(Element.INSTANCE, name, Reason.NOT_FORWARDING, text)
        if stack in self._seen:
            return self._lose(Element.INSTANCE, name, Reason.ROUTE_LOOP, f"the packet is at {name} again")
        self._seen.add(stack)
        route = stack.table.find(packet.target)
        if route is None:
            text = f"{name} has no route to {packet.target}"
            return self._lose(Element.INSTANCE, name, Reason.NO_ROUTE, text)
        if route.plug is None:
            self._pass(Element.INSTANCE, name, route.rule, f"has the network of {packet.target} inside")
            return Arrived(stack, None if here.came_by is None else here.came_by.port.segment)
        by = f"by {route.plug.port.spec.nic_id}"
        via = "" if route.next_hop is None else f" via {route.next_hop}"
        self._pass(Element.INSTANCE, name, route.rule, by + via)
        next_hop = route.next_hop or packet.target
        asks_as = packet.source if here.came_by is None else _asks_as(route.plug, next_hop)
        return OnWire(route.plug.port.segment, route.plug, next_hop, asks_as)

    def _at_router(self, here: AtRouter) -> Place | End:
        router, name = here.router, here.router.spec.vpc_id
        if here.came_by is not None:
            for stage in ENTERING_ROUTER:
                self._packet = stage(self._packet, router)
            if self._packet.source in router.local:
                text = f"the router of {name} drops what comes with its own address {self._packet.source}"
                return self._lose(Element.ROUTER, name, Reason.MARTIAN_SOURCE, text)
        packet = self._packet
        if packet.target in router.local:
            if not _serves(packet):
                text = f"the router of {name} has {packet.target} and serves nothing at {packet.protocol} {packet.port}"
                return self._lose(Element.ROUTER, name, Reason.NOTHING_LISTENS, text)
            self._pass(Element.ROUTER, name, Rule.LOCAL, f"has {packet.target}")
            return Arrived(router, here.came_by)
        if packet.target in router.broadcasts:
            text = f"{packet.target} is the broadcast address of a subnet of {name}"
            return self._lose(Element.ROUTER, name, Reason.BROADCAST, text)
        if router in self._seen:
            text = f"the packet is at the router of {name} again"
            return self._lose(Element.ROUTER, name, Reason.ROUTE_LOOP, text)
        self._seen.add(router)
        return self._routed(router)

    def _routed(self, router: Router) -> Place | End:
        name, target = router.spec.vpc_id, self._packet.target
        route = router.table.find(target)
        if route is None:
            text = f"{name} has no subnet and no route for {target}"
            return self._lose(Element.ROUTER, name, Reason.NO_ROUTE, text)
        if route.spec is None:
            assert route.segment is not None  # noqa: S101 - what has no spec is a subnet's own
            self._pass(Element.ROUTER, name, Rule.CONNECTED, f"to {route.segment.spec.subnet_id}")
            return self._from_router(route.segment, target)
        if route.next_hop is None:
            text = f"the target of the route to {route.spec.destination} is gone"
            return self._lose(Element.ROUTE, route.spec.destination, Reason.BLACKHOLE, text)
        if route.segment is None or route.next_hop in router.local:
            text = f"the route to {route.spec.destination} goes via {route.next_hop}, which no subnet's guest can have"
            return self._lose(Element.ROUTE, route.spec.destination, Reason.NEXT_HOP_NOT_ON_LINK, text)
        self._pass(Element.ROUTE, route.spec.destination, Rule.VPC_ROUTE, f"via {route.next_hop}")
        return self._from_router(route.segment, route.next_hop)

    def _from_router(self, segment: Segment, next_hop: IPv4Address) -> OnWire:
        assert segment.gateway is not None  # noqa: S101 - the router has a leg there
        return OnWire(segment, None, next_hop, segment.gateway)

    def _on_wire(self, here: OnWire) -> Place | End:
        segment, sender, subnet_id = here.segment, here.sender, here.segment.spec.subnet_id
        self.vpc_ids.add(segment.spec.vpc_id)
        router = self._elements.router_of(segment)
        holders = [
            plug for plug in segment.holders.get(here.next_hop, ()) if sender is None or plug.stack is not sender.stack
        ]
        inside = [plug for plug in holders if sender is not None and plug.port is sender.port]
        may_ask = sender is None or permitting_rule(sender.port, here.asks_as, sender.mac) is not None
        answering = [plug for plug in holders if _answers(plug, here, is_inside=plug in inside, may_ask=may_ask)]
        is_router = router is not None and sender is not None and may_ask and _router_answers(router, here)
        asker: Stack | Router | None = router if sender is None else sender.stack
        receiver = _chosen(answering, inside, self.heard.get((asker, segment, here.next_hop)))
        if sender is not None and receiver not in inside:
            for leaving in LEAVING_PORT:
                if not self._note(leaving(self._packet, here, sender)):
                    return self._lost_last()
        count = len({plug.stack for plug in answering}) + is_router
        if count > 1:
            text = f"{count} answer for {here.next_hop} on {subnet_id}; who wins is chance"
            return self._lose(Element.SUBNET, subnet_id, Reason.CLAIMED_TWICE, text)
        if router is not None and is_router:
            self._pass(Element.SUBNET, subnet_id, Rule.ADDRESS_FOUND, f"the router has {here.next_hop}")
            self.heard[router, segment, here.asks_as] = sender
            return AtRouter(router, segment)
        if receiver is None:
            return self._lose(Element.SUBNET, subnet_id, *_why_nobody(here, holders))
        rule = Rule.BRIDGED_INSIDE if receiver in inside else Rule.ADDRESS_FOUND
        self._pass(Element.SUBNET, subnet_id, rule, f"{receiver.port.spec.nic_id} answers for {here.next_hop}")
        self.heard[receiver.stack, segment, here.asks_as] = sender
        if receiver not in inside:
            for entering in ENTERING_PORT:
                if not self._note(entering(self._packet, here, receiver)):
                    return self._lost_last()
        return AtGuest(receiver.stack, receiver)

    def _note(self, hop: Hop | None) -> bool:
        if hop is not None:
            self.hops.append(hop)
        return hop is None or hop.passed

    def _pass(self, element: Element, name: str, rule: Rule, detail: str) -> None:
        direction = self._packet.direction
        self._note(Hop(direction=direction, element=element, id=name, passed=True, rule=rule, detail=detail))

    def _lose(self, element: Element, name: str, reason: Reason, message: str) -> Lost:
        direction = self._packet.direction
        self._note(Hop(direction=direction, element=element, id=name, passed=False, rule=reason, detail=message))
        return Lost(reason, message)

    def _lost_last(self) -> Lost:
        last = self.hops[-1]
        return Lost(Reason(last.rule), last.detail)


def _asks_as(plug: Plug, next_hop: IPv4Address) -> IPv4Address:
    """Return the address with which a guest asks for a MAC on behalf of others.

    Source: Linux, ip-sysctl (arp_announce 0) and inet_select_addr().
    """
    fitting = [each.ip for each in plug.addresses if next_hop in each.network]
    return (fitting or [each.ip for each in plug.addresses])[0]


def _may_answer(plug: Plug, address: IPv4Address) -> bool:
    """Return whether the port lets the guest's ARP answer out."""
    return permitting_rule(plug.port, address, plug.mac) is not None


def _answers(plug: Plug, wire: OnWire, *, is_inside: bool, may_ask: bool) -> bool:
    """Return whether the guest, which has the next hop's address, is asked for it and heard."""
    if not plug.stack.facts.is_running or wire.asks_as in plug.stack.local:
        return False
    return is_inside or (may_ask and _may_answer(plug, wire.next_hop))


def _router_answers(router: Router, wire: OnWire) -> bool:
    return wire.next_hop in router.local and wire.asks_as not in router.local


def _chosen(answering: list[Plug], inside: list[Plug], known: Plug | None) -> Plug | None:
    """Return whose MAC the sender takes: one he knows before any that he must ask for, the nearest first."""
    if known in answering:
        return known
    return next(iter([*(plug for plug in answering if plug in inside), *answering]), None)


def _why_nobody(wire: OnWire, holders: list[Plug]) -> tuple[Reason, str]:
    """Return why nobody answers for the address. Who has it and may not be heard says more than that nobody does."""
    address = wire.next_hop
    heard = [plug for plug in holders if _may_answer(plug, address)]
    if running := [plug for plug in heard if plug.stack.facts.is_running]:
        name = running[0].stack.facts.guest_id
        return Reason.MARTIAN_SOURCE, f"{name} does not answer who asks with its own address {wire.asks_as}"
    if heard:
        return Reason.NOT_RUNNING, f"{heard[0].stack.facts.guest_id} has {address} and does not run"
    port = wire.segment.port_of(address)
    if port is not None and not port.plugs:
        return Reason.NOT_ATTACHED, f"{port.spec.nic_id} has {address} and is attached to nothing"
    if holders:
        text = f"{holders[0].port.spec.nic_id} may not answer for {address}, which its guest has"
        return Reason.ANTI_SPOOFING, text
    return Reason.NOBODY_HAS_IT, f"nobody on {wire.segment.spec.subnet_id} has {address}"


def _serves(packet: Packet) -> bool:
    """Return whether a router answers at one of its addresses; an answer that comes back to it is always welcome."""
    if packet.protocol == Protocol.ICMP or packet.direction == Direction.BACK:
        return True
    if packet.target in SERVICE_ADDRESSES:
        return packet.protocol == Protocol.TCP and packet.port == SERVICE_PORT
    return packet.port == DNS_PORT


def check_source(packet: Packet, wire: OnWire, plug: Plug) -> Hop:
    """The port's anti-spoofing: its guest's packets and ARP requests carry addresses that it may speak for."""
    rules = {each: permitting_rule(plug.port, each, plug.mac) for each in (wire.asks_as, packet.source)}
    denied = [address for address, rule in rules.items() if rule is None]
    nic_id = plug.port.spec.nic_id
    address = denied[0] if denied else packet.source
    return Hop(
        direction=packet.direction,
        element=Element.NIC,
        id=nic_id,
        passed=not denied,
        rule=rules[address] or Reason.ANTI_SPOOFING,
        detail=f"{nic_id} may {'not ' if denied else ''}speak for {address} with {plug.mac}",
    )


def check_no_dhcp_server(packet: Packet, wire: OnWire, plug: Plug) -> Hop | None:
    """A guest in a VPC is no DHCP server: what it sends from that port is dropped, answers to questions among it."""
    is_answer = packet.direction == Direction.BACK and packet.protocol == Protocol.UDP
    if not is_answer or packet.port != DHCP_SERVER_PORT or wire.segment.spec.vpc_id is None:
        return None
    nic_id = plug.port.spec.nic_id
    return Hop(
        direction=packet.direction,
        element=Element.NIC,
        id=nic_id,
        passed=False,
        rule=Reason.DHCP_SERVER,
        detail=f"{nic_id} may send nothing from udp port {DHCP_SERVER_PORT}",
    )


LEAVING_PORT: tuple[PortStage, ...] = (check_source, check_no_dhcp_server)
ENTERING_PORT: tuple[PortStage, ...] = ()
ENTERING_ROUTER: tuple[RouterStage, ...] = ()
