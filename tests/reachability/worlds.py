"""Random clouds, full of what goes wrong: spoofers, stopped guests, loops, equal addresses, routes to nowhere.

A seed gives the same world again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from random import Random

from iaas.drivers.interface import (
    BLACKHOLE,
    METADATA_ADDRESS,
    SERVICE_ADDRESS,
    AllowedPair,
    PortSpec,
    ReservationSpec,
    RouteSpec,
    SubnetSpec,
    VPCSpec,
)
from iaas.kernel.ids import INSTANCE, NIC, SUBNET, VPC, IdSource
from iaas.reachability import AddressIn, Guest, Interface, Protocol, Question, Topology

OWNERS = ("proj-aaaaaaaa", "proj-bbbbbbbb")
CIDRS = ("10.0.0.0/16", "10.0.0.0/16", "10.0.0.0/16", "172.20.0.0/16")  # mostly equal ones: they must not mix
POD_RANGES = tuple(f"10.244.{number}.0/24" for number in range(3))
PORTS = (80, 7007)  # at these every guest listens
UDP_PORTS = (*PORTS, 67)  # and at this one too, from which nobody in a VPC may answer
DNS_PORT = 53  # at this only routers do
NOWHERE = "192.0.2.1"
BARE_BLOCK = IPv4Network("192.168.7.0/24")  # what guests on subnets without a VPC agreed on among themselves


@dataclass(frozen=True, slots=True)
class World:
    """A cloud, and what may be asked about it."""

    topology: Topology
    questions: tuple[Question, ...]


@dataclass
class _Draft:
    vpcs: list[VPCSpec] = field(default_factory=list)
    subnets: list[SubnetSpec] = field(default_factory=list)
    ports: list[PortSpec] = field(default_factory=list)
    guests: list[Guest] = field(default_factory=list)

    def subnets_of(self, vpc: VPCSpec) -> list[SubnetSpec]:
        return [subnet for subnet in self.subnets if subnet.vpc_id == vpc.vpc_id]

    def ports_of(self, vpc: VPCSpec) -> list[PortSpec]:
        ids = {subnet.subnet_id for subnet in self.subnets_of(vpc)}
        return [port for port in self.ports if port.subnet_id in ids]

    def topology(self) -> Topology:
        return Topology(
            vpcs=tuple(self.vpcs), subnets=tuple(self.subnets), ports=tuple(self.ports), guests=tuple(self.guests)
        )


class _Maker:
    def __init__(self, random: Random) -> None:
        self.random = random
        self.ids = IdSource(random.getrandbits(32))
        self.draft = _Draft()
        self._free: dict[str, Iterator[str]] = {}

    def chance(self, of_100: int) -> bool:
        return self.random.randrange(100) < of_100

    def vpc(self) -> VPCSpec:
        spec = VPCSpec(vpc_id=self.ids.new(VPC), cidr=self.random.choice(CIDRS))
        self.draft.vpcs.append(spec)
        blocks = list(IPv4Network(spec.cidr).subnets(new_prefix=24))[:6]
        for block in self.random.sample(blocks, self.random.randint(1, 3)):
            self._subnet(spec, block)
        for _ in range(self.random.randint(2, 4)):
            self._guest(spec)
        return spec

    def _subnet(self, vpc: VPCSpec, block: IPv4Network) -> None:
        reservations = []
        for owner, first in ((OWNERS[0], 100), (OWNERS[1], 120)):
            if self.chance(70):
                last = first + self.random.randint(0, 9)
                reservations.append(ReservationSpec(owner=owner, first=str(block[first]), last=str(block[last])))
        spec = SubnetSpec(
            subnet_id=self.ids.new(SUBNET),
            vpc_id=vpc.vpc_id,
            cidr=str(block),
            gateway=str(self.random.choice((block[1], block[254]))),
            reservations=tuple(reservations),
        )
        self.draft.subnets.append(spec)
        self._free[spec.subnet_id] = (str(block[number]) for number in range(10, 99))

    def bare_subnet(self) -> None:
        """Add a subnet in no VPC, with guests."""
        reservations = (ReservationSpec(owner=OWNERS[0], first=str(BARE_BLOCK[100]), last=str(BARE_BLOCK[104])),)
        spec = SubnetSpec(subnet_id=self.ids.new(SUBNET), reservations=reservations)
        self.draft.subnets.append(spec)
        self._free[spec.subnet_id] = (str(BARE_BLOCK[number]) for number in range(98, 110))
        for _ in range(3):
            interfaces = [self._bare_interface(spec)]
            if self.chance(30):
                subnet = self.random.choice(self.draft.subnets_of(self.random.choice(self.draft.vpcs)))
                interfaces.append(self._interface(self._port(subnet, forwards=True), subnet, forwards=True))
            self.random.shuffle(interfaces)
            guest_id = self.ids.new(INSTANCE)
            self.draft.guests.append(Guest(guest_id=guest_id, interfaces=tuple(interfaces), forwards=self.chance(50)))

    def _bare_interface(self, subnet: SubnetSpec) -> Interface:
        port = PortSpec(
            nic_id=self.ids.new(NIC), subnet_id=subnet.subnet_id, mac=self.ids.mac(), owner=OWNERS[self.chance(25)]
        )
        self.draft.ports.append(port)
        address = f"{next(self._free[subnet.subnet_id])}/{BARE_BLOCK.prefixlen}"
        return Interface(nic_id=port.nic_id, addresses=(address,))

    def _guest(self, vpc: VPCSpec) -> None:
        forwards, is_running = self.chance(40), not self.chance(7)
        interfaces = []
        bridged: str | None = None  # the NIC that has a bridge of pods behind it
        for number in range(self.random.choice((1, 1, 1, 1, 2, 3))):
            home = self.random.choice(self.draft.vpcs) if number and self.chance(15) else vpc
            subnet = self.random.choice(self.draft.subnets_of(home))
            port = self._port(subnet, forwards=forwards)
            if bridged is None and not port.addresses and self.chance(50):
                bridged = port.nic_id
                interfaces.append(Interface(nic_id=port.nic_id, addresses=()))
                self._pods(port, subnet, is_running=is_running)
            else:
                interfaces.append(self._interface(port, subnet, forwards=forwards))
        if interfaces[-1].nic_id != bridged and self.chance(8):
            interfaces.pop()  # a NIC that is attached to nothing
        guest = Guest(
            guest_id=self.ids.new(INSTANCE), interfaces=tuple(interfaces), forwards=forwards, is_running=is_running
        )
        self.draft.guests.append(guest)

    def _port(self, subnet: SubnetSpec, *, forwards: bool) -> PortSpec:
        count = self.random.choice((0, 1, 1, 1, 1, 1, 2))
        pairs = []
        whole = str(IPv4Network(subnet.cidr or "").supernet(new_prefix=16))
        if self.chance(60 if forwards else 20):
            cidr = self.random.choice((whole, whole, "0.0.0.0/0", *POD_RANGES) if forwards else (whole, *POD_RANGES))
            pairs.append(AllowedPair(cidr=cidr, mac=self.ids.mac() if self.chance(10) else None))
        spec = PortSpec(
            nic_id=self.ids.new(NIC),
            subnet_id=subnet.subnet_id,
            mac=self.ids.mac(),
            owner=OWNERS[self.chance(25)],
            addresses=tuple(next(self._free[subnet.subnet_id]) for _ in range(count)),
            allowed_pairs=tuple(pairs),
        )
        self.draft.ports.append(spec)
        return spec

    def _interface(self, port: PortSpec, subnet: SubnetSpec, *, forwards: bool) -> Interface:
        """Return an interface that has, sometimes, addresses that it should not, or may, have."""
        extra: list[str] = []
        block = IPv4Network(subnet.cidr or "")
        if self.chance(25):
            extra.append(str(block[self.random.choice((100, 101, 102, 120, 121, 122))]))  # reserved for someone, or not
        if self.chance(20):
            extra.append(str(IPv4Network(self.random.choice(POD_RANGES))[self.random.randint(1, 3)]))
        # One that forwards asks for MACs with its first address; from caches it may know them without asking.
        if self.chance(15) and (port.addresses or not forwards):
            others = [address for other in self.draft.ports for address in other.addresses]
            extra.append(self.random.choice([*others, str(block[200])]))
        fresh = [address for address in dict.fromkeys(extra) if address not in port.addresses]
        if not fresh:
            return Interface(nic_id=port.nic_id)
        return Interface(nic_id=port.nic_id, addresses=(*port.addresses, *fresh))

    def _pods(self, port: PortSpec, subnet: SubnetSpec, *, is_running: bool) -> None:
        block = IPv4Network(subnet.cidr or "")
        for number in self.random.sample((103, 104, 105, 106, 123), self.random.randint(1, 3)):
            pod = Interface(nic_id=port.nic_id, addresses=(str(block[number]),), mac=self.ids.mac())
            if self.chance(30):
                pair = AllowedPair(cidr=f"{block[number]}/{self.random.choice((32, 32, 28))}", mac=pod.mac)
                pair = replace(pair, cidr=str(IPv4Network(pair.cidr, strict=False)))
                place = next(i for i, each in enumerate(self.draft.ports) if each.nic_id == port.nic_id)
                before = self.draft.ports[place]
                self.draft.ports[place] = replace(before, allowed_pairs=(*before.allowed_pairs, pair))
            guest_id = self.ids.new(INSTANCE)
            self.draft.guests.append(Guest(guest_id=guest_id, interfaces=(pod,), is_running=is_running))

    def routes(self) -> None:
        """Give VPCs and guests routes, once all ports are known."""
        for index, vpc in enumerate(self.draft.vpcs):
            addresses = [address for port in self.draft.ports_of(vpc) for address in port.addresses]
            gateways = {subnet.gateway for subnet in self.draft.subnets_of(vpc)}
            forwarding = self._forwarding(vpc)
            choices: list[str] = [*addresses, *forwarding, *forwarding, BLACKHOLE, NOWHERE]
            destinations = [*POD_RANGES, *(f"{address}/32" for address in addresses), "10.244.0.0/16", "0.0.0.0/0"]
            destinations.append(str(IPv4Network(vpc.cidr).supernet()))
            count = self.random.randint(0, 5)
            chosen = self.random.sample(destinations, min(count, len(destinations)))
            routes = [RouteSpec(destination=each, next_hop=self.random.choice(choices)) for each in chosen]
            assert gateways.isdisjoint(choices)
            self.draft.vpcs[index] = replace(vpc, routes=tuple(routes))
        for index, guest in enumerate(self.draft.guests):
            if self.chance(20) and (route := self._guest_route(guest)) is not None:
                self.draft.guests[index] = replace(guest, routes=(route,))

    def _forwarding(self, vpc: VPCSpec) -> list[str]:
        """Return the addresses in the VPC of guests that forward."""
        forwarders = [guest for guest in self.draft.guests if guest.forwards]
        nics = {each.nic_id for guest in forwarders for each in guest.interfaces}
        return [address for port in self.draft.ports_of(vpc) if port.nic_id in nics for address in port.addresses]

    def _guest_route(self, guest: Guest) -> RouteSpec | None:
        """Return a route to pods by a neighbour: one subnet only, that it may be on-link beyond doubt."""
        ports = {port.nic_id: port for port in self.draft.ports}
        if len(guest.interfaces) != 1 or not ports[guest.interfaces[0].nic_id].addresses:
            return None
        own = ports[guest.interfaces[0].nic_id]
        held = guest.interfaces[0].addresses or own.addresses
        neighbours = [
            address
            for port in self.draft.ports
            if port.subnet_id == own.subnet_id
            for address in port.addresses
            if address not in held
        ]
        if not neighbours:
            return None
        return RouteSpec(destination=self.random.choice(POD_RANGES), next_hop=self.random.choice(neighbours))


def held(interface: Interface, port: PortSpec) -> tuple[str, ...]:
    """Return the addresses that the guest has on the interface, without their prefix lengths."""
    texts = port.addresses if interface.addresses is None else interface.addresses
    return tuple(text.partition("/")[0] for text in texts)


class _Asker:
    def __init__(self, random: Random, topology: Topology) -> None:
        self.random = random
        self.ports = {port.nic_id: port for port in topology.ports}
        self.subnets = {subnet.subnet_id: subnet for subnet in topology.subnets}
        self.gateways = {subnet.gateway for subnet in topology.subnets}
        self.speakers = [
            (interface, address)
            for guest in topology.guests
            if guest.is_running
            for interface in guest.interfaces
            for address in self._held(interface)
        ]
        self.honest = [
            (interface, address)
            for interface, address in self.speakers
            if address in self.ports[interface.nic_id].addresses or interface.mac is not None
        ] or self.speakers
        self.held = [
            (interface, address)
            for guest in topology.guests
            for interface in guest.interfaces
            for address in self._held(interface)
        ]

    def _held(self, interface: Interface) -> tuple[str, ...]:
        return held(interface, self.ports[interface.nic_id])

    def _subnet_of(self, nic_id: str) -> SubnetSpec:
        return self.subnets[self.ports[nic_id].subnet_id]

    def question(self) -> Question:
        speaker, source_address = self.random.choice(self.honest if self.random.randrange(3) else self.speakers)
        subnet = self._subnet_of(speaker.nic_id)
        target, target_address = self._target(subnet)
        protocol = self.random.choice(tuple(Protocol))
        is_gateway = isinstance(target, AddressIn) and target.address in self.gateways
        if is_gateway and protocol == Protocol.UDP:
            protocol = Protocol.ICMP  # what a name server makes of other things than questions is no matter of ours
        ports = (*PORTS, DNS_PORT) if is_gateway else UDP_PORTS if protocol == Protocol.UDP else PORTS
        return Question(
            source=speaker.nic_id,
            source_address=source_address,
            target=target,
            target_address=target_address,
            protocol=protocol,
            port=None if protocol == Protocol.ICMP else self.random.choice(ports),
        )

    def _target(self, subnet: SubnetSpec) -> tuple[str | AddressIn, str | None]:
        """Return whom to ask for: mostly somebody of the same VPC."""
        vpc_id, kind = subnet.vpc_id, self.random.randrange(100)
        if kind < 70 or vpc_id is None:
            near = [
                (interface.nic_id, address)
                for interface, address in self.held
                if self._subnet_of(interface.nic_id).vpc_id == vpc_id
            ]
            return self.random.choice(near)
        if kind < 80:
            interface, address = self.random.choice(self.held)
            return interface.nic_id, address
        if kind < 85:
            port = self.random.choice(list(self.ports.values()))
            return port.nic_id, next(iter(port.addresses), None)
        # A place, not a NIC: the router's, or one that nobody may have.
        blocks = [each for each in self.subnets.values() if each.vpc_id == vpc_id]
        if kind < 91:
            gateways = [each.gateway or "" for each in blocks]
            return AddressIn(vpc_id, self.random.choice((*gateways, METADATA_ADDRESS, SERVICE_ADDRESS))), None
        block = IPv4Network(self.random.choice(blocks).cidr or "")
        strange = [
            block[0],
            block[-1],
            block[99],
            block[100],
            IPv4Address(NOWHERE),
            *(IPv4Network(each)[2] for each in POD_RANGES),
        ]
        return AddressIn(vpc_id, str(self.random.choice(strange))), None


def random_world(seed: int, *, vpcs: int, questions: int) -> World:
    """Return a world of so many VPCs, and so many different questions about it (fewer when there are not so many)."""
    random = Random(seed)  # noqa: S311 - a seed asks for what can be had again, this is no secret
    maker = _Maker(random)
    for _ in range(vpcs):
        maker.vpc()
    if maker.chance(50):
        maker.bare_subnet()
    maker.routes()
    topology = maker.draft.topology()
    asker = _Asker(random, topology)
    asked: dict[Question, None] = {}
    for _ in range(questions * 4 if asker.speakers else 0):
        asked[asker.question()] = None
        if len(asked) == questions:
            break
    return World(topology, tuple(asked))
