"""VPCs, subnets, NICs, address reservations, routes, DNS records.

Who holds which address and MAC is in the table of allocations; here is what they are.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from iaas.db.models.base import ID, NAME, Base, Identified, Named, Revised, Stamped

CIDR = String(43)
ADDRESS = String(39)
MAC = String(17)


class _Living:
    """The columns of what is made and removed by jobs."""

    status: Mapped[str] = mapped_column(String(16))
    transition: Mapped[str | None] = mapped_column(String(16))
    failure_code: Mapped[str | None] = mapped_column(String(64))
    failure_message: Mapped[str | None] = mapped_column(String(1024))
    generation: Mapped[int]


class VPCRow(Named, _Living, Revised, Base):
    """``project_id`` and ``zone``: a tenant's VPC has the first, a zone's hidden system VPC the second."""

    __tablename__ = "vpcs"
    __table_args__ = (Index("ix_vpcs_project_id", "project_id", "created_at", "id"),)

    project_id: Mapped[str | None] = mapped_column(ID)
    zone: Mapped[str | None] = mapped_column(NAME)
    cidr: Mapped[str] = mapped_column(CIDR)
    dns_domain: Mapped[str] = mapped_column(String(253))
    dhcp_options: Mapped[dict[str, Any]]
    forwarders: Mapped[list[dict[str, Any]]] = mapped_column(JSON)


class SubnetRow(Named, _Living, Revised, Base):
    """``next_offset``: where the search for a free address goes on (round robin, so addresses rest before reuse)."""

    __tablename__ = "subnets"
    __table_args__ = (Index("ix_subnets_project_id", "project_id", "created_at", "id"),)

    project_id: Mapped[str | None] = mapped_column(ID)
    zone: Mapped[str] = mapped_column(NAME, index=True)
    vpc_id: Mapped[str | None] = mapped_column(ID, index=True)
    cidr: Mapped[str | None] = mapped_column(CIDR)
    gateway: Mapped[str | None] = mapped_column(ADDRESS)
    dhcp_first: Mapped[str | None] = mapped_column(ADDRESS)
    dhcp_last: Mapped[str | None] = mapped_column(ADDRESS)
    mtu: Mapped[int]
    next_offset: Mapped[int]


class NICRow(Named, Base):
    """``vpc_id`` is its subnet's, kept here too because whoever reads a NIC wants it."""

    __tablename__ = "nics"
    __table_args__ = (Index("ix_nics_project_id", "project_id", "created_at", "id"),)

    project_id: Mapped[str] = mapped_column(ID)
    zone: Mapped[str] = mapped_column(NAME)
    status: Mapped[str] = mapped_column(String(16))
    transition: Mapped[str | None] = mapped_column(String(16))
    generation: Mapped[int]
    subnet_id: Mapped[str] = mapped_column(ID, index=True)
    vpc_id: Mapped[str | None] = mapped_column(ID)
    mac: Mapped[str] = mapped_column(MAC)
    address: Mapped[str | None] = mapped_column(ADDRESS)
    secondary_addresses: Mapped[list[str]]
    allowed_pairs: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    instance_id: Mapped[str | None] = mapped_column(ID, index=True)
    device_index: Mapped[int | None]
    delete_with_instance: Mapped[bool]


class AddressReservationRow(Named, Base):
    __tablename__ = "address_reservations"
    __table_args__ = (Index("ix_address_reservations_project_id", "project_id", "created_at", "id"),)

    project_id: Mapped[str] = mapped_column(ID)
    subnet_id: Mapped[str] = mapped_column(ID, index=True)
    first: Mapped[str] = mapped_column(ADDRESS)
    last: Mapped[str] = mapped_column(ADDRESS)


class RouteRow(Identified, Stamped, Base):
    """One destination once per VPC: a claim (scope ``route:<vpc id>``)."""

    __tablename__ = "routes"

    project_id: Mapped[str] = mapped_column(ID)
    vpc_id: Mapped[str] = mapped_column(ID, index=True)
    destination: Mapped[str] = mapped_column(CIDR)
    target_type: Mapped[str] = mapped_column(String(16))
    target: Mapped[str] = mapped_column(ADDRESS, index=True)


class DNSRecordRow(Identified, Stamped, Base):
    """One name and type once per VPC: a claim (scope ``dns:<vpc id>``)."""

    __tablename__ = "dns_records"

    project_id: Mapped[str] = mapped_column(ID)
    vpc_id: Mapped[str] = mapped_column(ID, index=True)
    name: Mapped[str] = mapped_column(String(253))
    type: Mapped[str] = mapped_column(String(8))
    values: Mapped[list[str]]
    ttl_s: Mapped[int]
