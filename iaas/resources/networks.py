"""VPCs, subnets, NICs, and what belongs to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from iaas.kernel.errors import Failure


class NetworkStatus(StrEnum):
    """Of VPCs and subnets."""

    PENDING = "pending"
    ACTIVE = "active"
    FAILED = "failed"
    DELETED = "deleted"


class NetworkTransition(StrEnum):
    CREATING = "creating"
    UPDATING = "updating"
    DELETING = "deleting"


class NICStatus(StrEnum):
    AVAILABLE = "available"
    IN_USE = "in_use"
    DELETED = "deleted"


class NICTransition(StrEnum):
    ATTACHING = "attaching"
    DETACHING = "detaching"


@dataclass(frozen=True, slots=True, kw_only=True)
class DHCPOptions:
    """What DHCP gives beside the address. Without ``dns_servers`` guests ask their gateway."""

    dns_servers: tuple[str, ...] = ()
    ntp_servers: tuple[str, ...] = ()
    lease_s: int = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarder:
    """Questions about ``domain`` go to these DNS servers inside the VPC."""

    domain: str
    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VPC:
    """An isolated address space with its router. ``project_id`` is None for a zone's hidden system VPC."""

    id: str
    project_id: str | None
    name: str
    labels: dict[str, str]
    status: str
    transition: str | None
    failure: Failure | None
    generation: int
    cidr: str
    dns_domain: str
    dhcp_options: DHCPOptions
    forwarders: tuple[Forwarder, ...]
    revision: int
    applied_revision: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """One layer-2 segment in one zone. In a VPC it has ``cidr`` and ``gateway``, else neither.

    New addresses are taken from ``dhcp_first`` to ``dhcp_last``. ``project_id`` is None for a zone's basic subnet,
    which all projects share.
    """

    id: str
    project_id: str | None
    name: str
    labels: dict[str, str]
    zone: str
    status: str
    transition: str | None
    failure: Failure | None
    generation: int
    vpc_id: str | None
    cidr: str | None
    gateway: str | None
    dhcp_first: str | None
    dhcp_last: str | None
    mtu: int
    next_offset: int
    revision: int
    applied_revision: int
    created_at: datetime
    updated_at: datetime

    @property
    def is_shared(self) -> bool:
        """Whether every project may put NICs here."""
        return self.project_id is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Further sources that a NIC may use: addresses in ``cidr``, with ``mac`` or (None) the NIC's own."""

    cidr: str
    mac: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NIC:
    """A network interface. It lives on its own, or (``delete_with_instance``) as long as its instance."""

    id: str
    project_id: str
    name: str
    labels: dict[str, str]
    zone: str
    status: str
    transition: str | None
    generation: int
    subnet_id: str
    vpc_id: str | None
    mac: str
    address: str | None
    secondary_addresses: tuple[str, ...] = ()
    allowed_pairs: tuple[Pair, ...] = ()
    instance_id: str | None = None
    device_index: int | None = None
    delete_with_instance: bool = False
    created_at: datetime
    updated_at: datetime

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of its addresses, the one that DHCP gives first."""
        return (*([self.address] if self.address is not None else []), *self.secondary_addresses)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressReservation:
    """Addresses ``first`` to ``last`` of a subnet, out of the pool: for virtual IPs and pods."""

    id: str
    project_id: str
    name: str
    labels: dict[str, str]
    subnet_id: str
    first: str
    last: str
    created_at: datetime
    updated_at: datetime


class RouteTarget(StrEnum):
    INSTANCE = "instance"
    NIC = "nic"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Packets for ``destination`` go to an instance's first NIC in the VPC, to a NIC, or to an address.

    ``next_hop`` is the address that this means now; None while there is none: packets are refused then.
    """

    id: str
    project_id: str
    vpc_id: str
    destination: str
    target_type: str
    target: str
    next_hop: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRoute:
    """A wish for a route, not checked yet. Exactly one target: ids or names of the first two."""

    destination: str
    instance: str | None = None
    nic: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DNSRecord:
    """``name`` is relative to the VPC's domain unless it ends with a dot. ``type`` is A, CNAME or TXT."""

    id: str
    project_id: str
    vpc_id: str
    name: str
    type: str
    values: tuple[str, ...]
    ttl_s: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNIC:
    """A wish for a NIC, checked for form only.

    ``nic`` names one that exists (for an instance that is created with it); else it is made on ``subnet`` (the
    zone's basic one when None). ``address``: one of the pool when None, a given one, or ``"none"`` for none.
    """

    nic: str | None = None
    subnet: str | None = None
    address: str | None = None
    mac: str | None = None
    name: str | None = None
    secondary_addresses: tuple[str, ...] = ()
    allowed_pairs: tuple[Pair, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The configuration of a VPC or subnet that is applied, and the generation that orders such configurations."""

    generation: int
    configuration: dict[str, Any]
