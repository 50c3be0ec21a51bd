"""VPCs, subnets, NICs of their own, address reservations, routes, DNS records; the NIC limit of flavors.

A zone's one network becomes its basic subnet, with its id, in a hidden system VPC.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from iaas.db.models.base import UTCDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ID = sa.String(20)
_NAME = sa.String(128)
_CIDR = sa.String(43)
_ADDRESS = sa.String(39)


def _named() -> list[sa.Column[Any]]:
    return [
        sa.Column("id", _ID, nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("updated_at", UTCDateTime(), nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
    ]


def _living() -> list[sa.Column[Any]]:
    return [
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("transition", sa.String(16), nullable=True),
        sa.Column("failure_code", sa.String(64), nullable=True),
        sa.Column("failure_message", sa.String(1024), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("applied_revision", sa.Integer(), nullable=False),
        sa.Column("applied", sa.JSON(), nullable=False),
    ]


def _stamped() -> list[sa.Column[Any]]:
    return [
        sa.Column("id", _ID, nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("updated_at", UTCDateTime(), nullable=False),
        sa.Column("project_id", _ID, nullable=False),
        sa.Column("vpc_id", _ID, nullable=False),
    ]


def upgrade() -> None:
    op.create_table(
        "vpcs",
        *_named(),
        *_living(),
        sa.Column("project_id", _ID, nullable=True),
        sa.Column("zone", _NAME, nullable=True),
        sa.Column("cidr", _CIDR, nullable=False),
        sa.Column("dns_domain", sa.String(253), nullable=False),
        sa.Column("dhcp_options", sa.JSON(), nullable=False),
        sa.Column("forwarders", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vpcs")),
    )
    op.create_index("ix_vpcs_project_id", "vpcs", ["project_id", "created_at", "id"])
    op.create_table(
        "subnets",
        *_named(),
        *_living(),
        sa.Column("project_id", _ID, nullable=True),
        sa.Column("zone", _NAME, nullable=False),
        sa.Column("vpc_id", _ID, nullable=True),
        sa.Column("cidr", _CIDR, nullable=True),
        sa.Column("gateway", _ADDRESS, nullable=True),
        sa.Column("dhcp_first", _ADDRESS, nullable=True),
        sa.Column("dhcp_last", _ADDRESS, nullable=True),
        sa.Column("mtu", sa.Integer(), nullable=False),
        sa.Column("next_offset", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subnets")),
    )
    op.create_index("ix_subnets_project_id", "subnets", ["project_id", "created_at", "id"])
    op.create_index("ix_subnets_zone", "subnets", ["zone"])
    op.create_index("ix_subnets_vpc_id", "subnets", ["vpc_id"])
    _move_networks()
    op.drop_table("networks")
    _change_nics()
    op.create_table(
        "address_reservations",
        *_named(),
        sa.Column("project_id", _ID, nullable=False),
        sa.Column("subnet_id", _ID, nullable=False),
        sa.Column("first", _ADDRESS, nullable=False),
        sa.Column("last", _ADDRESS, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_address_reservations")),
    )
    op.create_index("ix_address_reservations_project_id", "address_reservations", ["project_id", "created_at", "id"])
    op.create_index("ix_address_reservations_subnet_id", "address_reservations", ["subnet_id"])
    op.create_table(
        "routes",
        *_stamped(),
        sa.Column("destination", _CIDR, nullable=False),
        sa.Column("target_type", sa.String(16), nullable=False),
        sa.Column("target", _ADDRESS, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_routes")),
    )
    op.create_index("ix_routes_vpc_id", "routes", ["vpc_id"])
    op.create_index("ix_routes_target", "routes", ["target"])
    op.create_table(
        "dns_records",
        *_stamped(),
        sa.Column("name", sa.String(253), nullable=False),
        sa.Column("type", sa.String(8), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.Column("ttl_s", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dns_records")),
    )
    op.create_index("ix_dns_records_vpc_id", "dns_records", ["vpc_id"])
    with op.batch_alter_table("flavors", recreate="never") as batch:
        batch.add_column(sa.Column("max_nics", sa.Integer(), nullable=False, server_default="8"))
    with op.batch_alter_table("instances", recreate="never") as batch:
        batch.add_column(sa.Column("metadata_labels", sa.Boolean(), nullable=False, server_default=sa.false()))


def _move_networks() -> None:
    connection = op.get_bind()
    networks = sa.table("networks", *map(sa.column, ("id", "zone", "cidr", "gateway", "next_offset")))
    times = (sa.column("created_at", UTCDateTime()), sa.column("updated_at", UTCDateTime()))
    rows = connection.execute(sa.select(*networks.c, *times).select_from(networks)).all()
    tables = sa.MetaData()
    vpcs = sa.Table("vpcs", tables, autoload_with=connection)
    subnets = sa.Table("subnets", tables, autoload_with=connection)
    for table in (vpcs, subnets):  # as they are written by the product: reflected types know no zones
        for name in ("created_at", "updated_at"):
            table.c[name].type = UTCDateTime()
    allocations = sa.table("allocations", *map(sa.column, ("scope", "value", "resource_id")))
    for row in rows:
        claim = {"scope": f"address:{row.id}", "value": row.gateway, "resource_id": row.id}
        held = sa.select(allocations.c.value).where(allocations.c.resource_id == row.id)
        if connection.execute(held).first() is None:  # the way down leaves it
            connection.execute(allocations.insert().values(claim))
        vpc_id = f"vpc-{row.id.rpartition('-')[2]}"
        common: dict[str, Any] = {
            "created_at": row.created_at,
            "updated_at": row.updated_at,
            "labels": {},
            "status": "active",
            "generation": 1,
            "revision": 1,
            "applied_revision": 1,
            "zone": row.zone,
            "cidr": row.cidr,
        }
        options = {"dns_servers": [], "ntp_servers": [], "lease_s": 3600}
        applied_vpc = {
            "cidr": row.cidr,
            "dns_domain": "internal",
            "dhcp_options": options,
            "forwarders": [],
            "records": [],
            "routes": [],
        }
        applied = {"vpc_id": vpc_id, "cidr": row.cidr, "gateway": row.gateway, "mtu": 1500, "reservations": []}
        first = row.cidr.rpartition(".")[0]
        connection.execute(
            vpcs.insert().values(
                **common,
                id=vpc_id,
                name=f"system-{row.zone}"[:128],
                dns_domain="internal",
                dhcp_options=options,
                forwarders=[],
                applied=applied_vpc,
            )
        )
        connection.execute(
            subnets.insert().values(
                **common,
                id=row.id,
                name="basic",
                vpc_id=vpc_id,
                gateway=row.gateway,
                dhcp_first=f"{first}.10",
                dhcp_last=_last_host(row.cidr),
                mtu=1500,
                next_offset=row.next_offset,
                applied=applied,
            )
        )


def _last_host(cidr: str) -> str:
    import ipaddress

    return str(ipaddress.IPv4Network(cidr).broadcast_address - 1)


def _change_nics() -> None:
    with op.batch_alter_table("nics", recreate="never") as batch:
        batch.drop_index("ix_nics_project_id")
        batch.alter_column("network_id", new_column_name="subnet_id")
        batch.add_column(sa.Column("name", _NAME, nullable=False, server_default=""))
        batch.add_column(sa.Column("labels", sa.JSON(), nullable=False, server_default="{}"))
        batch.add_column(sa.Column("zone", _NAME, nullable=False, server_default=""))
        batch.add_column(sa.Column("status", sa.String(16), nullable=False, server_default="in_use"))
        batch.add_column(sa.Column("transition", sa.String(16), nullable=True))
        batch.add_column(sa.Column("generation", sa.Integer(), nullable=False, server_default="1"))
        batch.add_column(sa.Column("vpc_id", _ID, nullable=True))
        batch.add_column(sa.Column("secondary_addresses", sa.JSON(), nullable=False, server_default="[]"))
        batch.add_column(sa.Column("allowed_pairs", sa.JSON(), nullable=False, server_default="[]"))
        batch.add_column(sa.Column("delete_with_instance", sa.Boolean(), nullable=False, server_default=sa.true()))
    with op.batch_alter_table("nics") as batch:  # copied on SQLite, which cannot lift a NOT NULL in place
        batch.alter_column("device_index", existing_type=sa.Integer(), nullable=True)
    op.execute(
        sa.text(
            "UPDATE nics SET name = id,"
            " vpc_id = (SELECT vpc_id FROM subnets WHERE subnets.id = nics.subnet_id),"
            " zone = (SELECT zone FROM subnets WHERE subnets.id = nics.subnet_id)"
        )
    )
    op.create_index("ix_nics_project_id", "nics", ["project_id", "created_at", "id"])
    op.create_index("ix_nics_subnet_id", "nics", ["subnet_id"])


def downgrade() -> None:
    with op.batch_alter_table("instances", recreate="never") as batch:
        batch.drop_column("metadata_labels")
    with op.batch_alter_table("flavors", recreate="never") as batch:
        batch.drop_column("max_nics")
    for name in ("dns_records", "routes", "address_reservations"):
        op.drop_table(name)
    # What the version before cannot hold is lost: NICs of tenants' subnets and those in no instance.
    op.execute(
        sa.text(
            "DELETE FROM nics WHERE instance_id IS NULL OR subnet_id NOT IN"
            " (SELECT id FROM subnets WHERE project_id IS NULL)"
        )
    )
    op.drop_index("ix_nics_subnet_id", table_name="nics")
    op.drop_index("ix_nics_project_id", table_name="nics")
    with op.batch_alter_table("nics") as batch:
        batch.alter_column("device_index", existing_type=sa.Integer(), nullable=False)
    with op.batch_alter_table("nics", recreate="never") as batch:
        for name in (
            "delete_with_instance", "allowed_pairs", "secondary_addresses", "vpc_id", "generation", "transition",
            "status", "zone", "labels", "name",
        ):  # fmt: skip
            batch.drop_column(name)
        batch.alter_column("subnet_id", new_column_name="network_id")
    op.create_index("ix_nics_project_id", "nics", ["project_id"])
    op.create_table(
        "networks",
        sa.Column("zone", _NAME, nullable=False),
        sa.Column("cidr", _CIDR, nullable=False),
        sa.Column("gateway", _ADDRESS, nullable=False),
        sa.Column("next_offset", sa.Integer(), nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("updated_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_networks")),
        sa.UniqueConstraint("zone", name=op.f("uq_networks_zone")),
    )
    op.execute(
        sa.text(
            "INSERT INTO networks (id, zone, cidr, gateway, next_offset, created_at, updated_at)"
            " SELECT id, zone, cidr, gateway, next_offset, created_at, updated_at FROM subnets"
            " WHERE project_id IS NULL"
        )
    )
    op.drop_table("subnets")
    op.drop_table("vpcs")
