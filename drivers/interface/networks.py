"""Networks on one host: VPCs with their routers, layer-2 segments, and the ports where machines meet them.

Everything is declared: a spec holds all that the object should be, and ensuring it again with another content
changes it, in one go for whoever sends packets meanwhile. ``revision`` keeps late callers from undoing what others
did: a spec older than the one applied is taken as done already.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

DEFAULT_MTU = 1500
METADATA_ADDRESS = "169.254.169.254"
SERVICE_ADDRESS = "169.254.169.250"  # where guests reach the tenant APIs

BLACKHOLE = ""
"""As the next hop of a route: its target is gone, packets for its destination are refused."""


class NetworkCapability(StrEnum):
    DIAL = "dial"  # a TCP connection to a guest's address can be made
    METADATA = "metadata"  # guests reach METADATA_ADDRESS and SERVICE_ADDRESS by real packets
    STATISTICS = "statistics"  # ports count bytes and packets
    PROBE = "probe"  # packets can be followed on their way


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSpec:
    """Packets of the VPC for ``destination`` ("10.244.1.0/24") go to ``next_hop``, an address on one of its subnets."""

    destination: str
    next_hop: str  # or BLACKHOLE


@dataclass(frozen=True, slots=True, kw_only=True)
class DNSRecordSpec:
    """``name`` is fully qualified, without the last dot. ``type`` is A, CNAME or TXT."""

    name: str
    type: str
    values: tuple[str, ...]
    ttl_s: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwarderSpec:
    """Questions about ``domain`` and below go to these DNS servers, addresses inside the VPC."""

    domain: str
    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VPCSpec:
    """An address space with its router: between its subnets packets are routed, to nowhere else.

    Two may have the same CIDR. Subnets' own blocks are routed by being there; ``routes`` are what is more.
    """

    vpc_id: str
    cidr: str  # "10.0.0.0/16"
    dns_domain: str = "internal"
    dns_servers: tuple[str, ...] = ()  # given by DHCP in place of the gateway
    ntp_servers: tuple[str, ...] = ()  # given by DHCP
    lease_s: int = 3600
    records: tuple[DNSRecordSpec, ...] = ()
    forwarders: tuple[ForwarderSpec, ...] = ()
    routes: tuple[RouteSpec, ...] = ()
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationSpec:
    """Addresses ``first`` to ``last`` are out of the pool; any port of ``owner`` on the subnet may speak for them."""

    owner: str
    first: str
    last: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubnetSpec:
    """One layer-2 segment. In a VPC (``vpc_id``) it has a block, a gateway and DHCP; else it is bare.

    ``cidr`` and ``gateway`` are set exactly if ``vpc_id`` is.
    """

    subnet_id: str
    vpc_id: str | None = None
    cidr: str | None = None
    gateway: str | None = None
    mtu: int = DEFAULT_MTU
    reservations: tuple[ReservationSpec, ...] = ()
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedPair:
    """Further sources that a port may use: addresses in ``cidr``, with ``mac`` or (None) the NIC's own."""

    cidr: str
    mac: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PortSpec:
    """What the network must know of one NIC that a machine has, or is about to have.

    DHCP gives the first of ``addresses`` to ``mac`` (nothing when there is none); DNS knows it by ``names``,
    host names without a domain. The port may speak with ``mac`` for ``addresses`` and ``allowed_pairs``, with any
    MAC for what its ``owner`` has reserved on the subnet, and for nothing else. On a bare subnet only MACs are
    checked, and those of reservations' speakers cannot be known: any MAC may speak there for reserved addresses.
    """

    nic_id: str
    subnet_id: str
    mac: str
    owner: str  # the project; whose reservations it may speak for
    addresses: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    allowed_pairs: tuple[AllowedPair, ...] = ()
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VPCState:
    vpc_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubnetState:
    subnet_id: str
    vpc_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PortState:
    nic_id: str
    subnet_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PortStatistics:
    """Counted since the NIC was last plugged, as the machine sees it: received is what came in to it."""

    received_bytes: int
    received_packets: int
    received_dropped: int
    sent_bytes: int
    sent_packets: int
    sent_dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSpec:
    """One packet that a machine might send by a NIC: an echo request, a TCP SYN, or a UDP datagram."""

    subnet_id: str
    nic_id: str
    source_address: str
    target: str
    protocol: str  # "icmp", "tcp" or "udp"
    port: int | None = None
    timeout_s: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """The packet (or, ``is_back``, what answered it) was seen where ``place`` meets its subnet.

    ``place`` is a NIC's id, or a subnet's for the leg of its router. ``leaves``: it went to the NIC's machine or the
    router there; else it came from it.
    """

    place: str
    leaves: bool
    is_back: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """Where the packet went. Without ``next_hop_found`` nobody had the address of the first step: nothing was sent,
    and the sightings are those of the question for it. ``refused_by`` sent an ICMP error about it.
    """

    answered: bool
    next_hop: str
    next_hop_found: bool
    refused_by: str | None = None
    sightings: tuple[Sighting, ...] = ()


LinkLostListener = Callable[[str], None]
"""Called with a NIC's id when its link is gone though nobody took it away; from any thread; must not block."""


class NetworkDriver(Protocol):
    """Networks on one host. Must survive its own restart: what was ensured stays, or is rebuilt by ensuring again."""

    capabilities: frozenset[NetworkCapability]

    def check_available(self) -> None:
        """Return when networks can be made; raises BackendDownError otherwise."""
        ...

    def ensure_vpc(self, spec: VPCSpec) -> VPCState:
        """Make the VPC's router with its DHCP, DNS and routes, or bring the one that is there to the spec.

        Routes change all at once. Whatever has died (DHCP server, namespace) is made again, with its subnets' legs.

        Raises:
            PermanentError: the spec makes no sense, or the VPC is there with another CIDR.
        """
        ...

    def remove_vpc(self, vpc_id: str) -> None:
        """Remove the router. Already absent is success.

        Raises:
            PermanentError: subnets of it are still there.
        """
        ...

    def ensure_subnet(self, spec: SubnetSpec) -> SubnetState:
        """Make the segment, or bring the one that is there to the spec: it may join a VPC or leave it meanwhile.

        Raises:
            NotFoundError: the VPC was not ensured.
            PermanentError: the spec makes no sense, or the subnet is there with another block in the same VPC.
        """
        ...

    def remove_subnet(self, subnet_id: str) -> None:
        """Remove the segment and its ports. Already absent is success."""
        ...

    def ensure_port(self, spec: PortSpec) -> PortState:
        """Let the NIC in: DHCP, DNS, and what it may send; or bring a port that is there to the spec.

        Raises:
            NotFoundError: the subnet was not ensured.
            PermanentError: another port of the subnet has the MAC or one of the addresses, or the port is there
                with another MAC.
        """
        ...

    def remove_port(self, subnet_id: str, nic_id: str) -> None:
        """Forget the port. Already absent is success."""
        ...

    def vpcs(self) -> list[VPCState]:
        """Return all VPCs of this deployment, in the order of their ids."""
        ...

    def subnets(self) -> list[SubnetState]:
        """Return all subnets of this deployment, in the order of their ids."""
        ...

    def ports(
        self, subnet_id: str, *, only: Collection[str] | None = None, after: str = "", limit: int | None = None
    ) -> list[PortState]:
        """Return the ports of one subnet in the order of their NICs' ids; empty when the subnet is absent.

        ``only``, ``after`` and ``limit`` are as for ``ComputeDriver.inventory``.
        """
        ...

    def statistics(self, subnet_id: str, nic_id: str) -> PortStatistics | None:
        """Return what the NIC's link has counted; None while no machine has it plugged.

        Raises:
            UnsupportedError: STATISTICS is not in ``capabilities``.
        """
        ...

    def probe(self, spec: ProbeSpec) -> ProbeReport | None:
        """Send one packet as if the NIC's machine did, and return where it was seen; None while it is not plugged.

        Raises:
            NotFoundError: the NIC has no port.
            UnsupportedError: PROBE is not in ``capabilities``.
        """
        ...

    def on_link_lost(self, listener: LinkLostListener) -> None:
        """Tell ``listener`` of NICs whose link died inside their machine (with a namespace it was handed on to)."""
        ...

    def dial(self, vpc_id: str, address: str, port: int, *, timeout_s: float) -> socket.socket:
        """Return a connected TCP socket to an address inside the VPC, made from its router.

        Raises:
            NotFoundError: no such VPC.
            PermanentError: the address is none of the VPC's (its CIDR and its routes' destinations), or the router's.
            TransientError: refused or timed out.
            UnsupportedError: not in ``capabilities``.
        """
        ...

    def listen(self, vpc_id: str, address: str, port: int) -> socket.socket:
        """Return a listening TCP socket inside the VPC's router (the metadata service's).

        Raises:
            NotFoundError: no such VPC.
            UnsupportedError: METADATA is not in ``capabilities``.
        """
        ...

    def close(self) -> None:
        """Let go of handles and threads; networks are left as they are."""
        ...
