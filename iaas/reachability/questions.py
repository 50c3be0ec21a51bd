"""Questions to the oracle, and its verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from iaas.kernel.errors import InvalidInput


class Protocol(StrEnum):
    ICMP = "icmp"  # an echo request
    TCP = "tcp"
    UDP = "udp"


class Element(StrEnum):
    """What a packet meets on its way; says what ``Hop.id`` is."""

    INSTANCE = "instance"  # the guest's id
    NIC = "nic"  # the NIC's id: what the port lets its guest say
    SUBNET = "subnet"  # the subnet's id: who answers there for the address
    ROUTER = "router"  # the VPC's id
    ROUTE = "route"  # the destination of one of the VPC's routes


class Direction(StrEnum):
    FORWARD = "forward"
    BACK = "back"


class Rule(StrEnum):
    """By what an element let a packet pass. A hop that ended its way has a ``Reason`` in the place of this."""

    OWN_ADDRESS = "own_address"
    ALLOWED_PAIR = "allowed_pair"
    RESERVATION = "reservation"
    BARE_SUBNET = "bare_subnet"  # no addresses are known there, so none are checked
    BRIDGED_INSIDE = "bridged_inside"  # both sit behind one NIC
    LOCAL = "local"
    BEHIND = "behind"  # in a network inside the guest
    CONNECTED = "connected"
    GUEST_ROUTE = "guest_route"
    DEFAULT_ROUTE = "default_route"
    VPC_ROUTE = "vpc_route"
    ADDRESS_FOUND = "address_found"


class Reason(StrEnum):
    """What decided: why a packet, or the answer to it, was lost; or that neither was."""

    DELIVERED = "delivered"
    ANTI_SPOOFING = "anti_spoofing"  # the NIC may not speak for that address
    BLACKHOLE = "blackhole"  # the target of the VPC's route is gone
    BROADCAST = "broadcast"  # the address is nobody's in particular
    CLAIMED_TWICE = "claimed_twice"  # two guests answer for the address; who wins is chance
    DHCP_SERVER = "dhcp_server"  # guests in a VPC are none
    MARTIAN_SOURCE = "martian_source"  # it came to somebody from his own address
    NEXT_HOP_NOT_ON_LINK = "next_hop_not_on_link"
    NO_ADDRESS = "no_address"
    NO_RETURN_PATH = "no_return_path"  # the packet arrives, its answer does not
    NO_ROUTE = "no_route"
    NOBODY_HAS_IT = "nobody_has_it"
    NOT_ATTACHED = "not_attached"
    NOT_FORWARDING = "not_forwarding"
    NOT_RUNNING = "not_running"
    NOT_UNICAST = "not_unicast"
    NOTHING_LISTENS = "nothing_listens"  # at a router, whose services are known
    OTHER_GUEST = "other_guest"  # it reaches somebody with the same address
    OTHER_VPC = "other_vpc"
    ROUTE_LOOP = "route_loop"


@dataclass(frozen=True, slots=True)
class AddressIn:
    """An address, and the VPC in which it is meant: equal ones in two VPCs are different places."""

    vpc_id: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Does a packet from ``source`` reach ``target``, and its answer ``source``?

    A string is a NIC's id. ``source_address`` is the address that the source speaks with: one of its guest's, or one
    that it would take for the purpose (reserved, or foreign: then spoofing shows); its first one when None.
    ``target_address`` chooses among several of a target NIC; its first one when None. ``port`` goes with tcp and udp,
    and counts for routers and firewalls only: whether a guest's program listens is no question of networks.

    Raises:
        InvalidInput: a port with icmp, none with the others, or one out of range.
    """

    source: str | AddressIn
    target: str | AddressIn
    source_address: str | None = None
    target_address: str | None = None
    protocol: Protocol = Protocol.ICMP
    port: int | None = None

    def __post_init__(self) -> None:
        if self.protocol == Protocol.ICMP:
            if self.port is not None:
                raise InvalidInput("icmp has no ports")
        elif self.port is None or not 1 <= self.port <= 65535:
            raise InvalidInput(f"{self.protocol} needs a port from 1 to 65535")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One decision on the way. Where ``passed`` is false the packet was lost, for the reason that is in ``rule``."""

    direction: Direction
    element: Element
    id: str
    passed: bool
    rule: Rule | Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer. ``path`` has all decisions in their order, those on the way back after those on the way there."""

    reachable: bool
    reason: Reason
    message: str
    path: tuple[Hop, ...] = ()

    def explain(self) -> str:
        """Return the verdict and its path as lines of text."""
        lines = [f"{'reachable' if self.reachable else 'unreachable'} ({self.reason}): {self.message}"]
        for hop in self.path:
            arrow = "->" if hop.direction == Direction.FORWARD else "<-"
            lines.append(
                f"  {arrow} {'ok  ' if hop.passed else 'LOST'} {hop.element} {hop.id}: {hop.rule} {hop.detail}"
            )
        return "\n".join(lines)
