"""VPCs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, select

from iaas.db.models import VPCRow
from iaas.db.postgres import lock_row
from iaas.db.repositories.query import Listing, list_rows
from iaas.db.statements import Prepared, delete_rows, insert_row, update_rows
from iaas.db.store import Tx
from iaas.kernel.errors import Failure
from iaas.resources.networks import VPC, Applied, DHCPOptions, Forwarder

_vpcs = VPCRow.__table__
_COLUMNS = [column for column in _vpcs.c if column.name != "applied"]

_APPLIED = Prepared(select(_vpcs.c.generation, _vpcs.c.applied).where(_vpcs.c.id == bindparam("id")))
_BY_NAME = Prepared(
    select(*_COLUMNS)
    .where(_vpcs.c.project_id == bindparam("project_id"), _vpcs.c.name == bindparam("name"))
    .order_by(_vpcs.c.status == "failed", _vpcs.c.created_at.desc())  # one that failed has lost its name
)
_GET = Prepared(select(*_COLUMNS).where(_vpcs.c.id == bindparam("id")))
_OF_ZONE = Prepared(select(*_COLUMNS).where(_vpcs.c.zone == bindparam("zone"), _vpcs.c.project_id.is_(None)))


def add(tx: Tx, **values: Any) -> None:
    """Write a new row; ``applied`` is empty until the first configuration is applied."""
    times = {"created_at": tx.now, "updated_at": tx.now}
    fresh = {"failure_code": None, "failure_message": None, "generation": 1, "revision": 0, "applied_revision": 0}
    insert_row(tx.connection, _vpcs, {"zone": None, "applied": {}, **fresh, **times, **values})


def get(connection: Connection, vpc_id: str, *, project_id: str | None = None) -> VPC | None:
    """Return a VPC by id; None when it is absent or, with ``project_id``, not that project's."""
    row = _GET.first(connection, {"id": vpc_id})
    return _vpc(row) if row is not None and project_id in (None, row.project_id) else None


def system_of(connection: Connection, zone: str) -> VPC | None:
    """Return the hidden VPC behind the zone's basic subnet."""
    row = _OF_ZONE.first(connection, {"zone": zone})
    return _vpc(row) if row else None


def find_by_name(connection: Connection, name: str, *, project_id: str) -> VPC | None:
    row = _BY_NAME.first(connection, {"project_id": project_id, "name": name})
    return _vpc(row) if row else None


def list_page(connection: Connection, listing: Listing, *, project_id: str) -> tuple[list[VPC], str | None]:
    rows, cursor = list_rows(
        connection,
        _vpcs,
        listing,
        columns=_COLUMNS,
        equal={"project_id": project_id},
        sortable=("created_at", "updated_at", "name", "status"),
    )
    return [_vpc(row) for row in rows], cursor


def all_vpcs(connection: Connection) -> list[VPC]:
    """Return every VPC, hidden ones included (start-up and doctor; never on a request)."""
    return [_vpc(row) for row in connection.execute(select(*_COLUMNS).order_by(_vpcs.c.id))]


def change(tx: Tx, vpc_id: str, *, expect: dict[str, Any] | None = None, **changes: Any) -> bool:
    """Update one row if it still is as ``expect`` says; False when it is not. Each change is a new generation."""
    where = {"id": vpc_id, **(expect or {})}
    changes["updated_at"] = tx.now
    return update_rows(tx.connection, _vpcs, where, changes, add={"generation": 1}) == 1


def applied(connection: Connection, vpc_id: str) -> Applied | None:
    """Return what the data plane has to do, and the generation of the row; None without a row."""
    row = _APPLIED.first(connection, {"id": vpc_id})
    return Applied(generation=row.generation, configuration=row.applied) if row else None


def lock(tx: Tx, vpc_id: str) -> None:
    """Keep others from changing the VPC until the commit."""
    lock_row(tx.connection, _vpcs, vpc_id)


def delete(tx: Tx, vpc_id: str) -> bool:
    return delete_rows(tx.connection, _vpcs, {"id": vpc_id}) == 1


def _vpc(row: Any) -> VPC:
    options = row.dhcp_options
    return VPC(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        labels=row.labels,
        status=row.status,
        transition=row.transition,
        failure=Failure(row.failure_code, row.failure_message or "") if row.failure_code else None,
        generation=row.generation,
        cidr=row.cidr,
        dns_domain=row.dns_domain,
        dhcp_options=DHCPOptions(
            dns_servers=tuple(options.get("dns_servers", ())),
            ntp_servers=tuple(options.get("ntp_servers", ())),
            lease_s=options.get("lease_s", 3600),
        ),
        forwarders=tuple(Forwarder(domain=one["domain"], servers=tuple(one["servers"])) for one in row.forwarders),
        revision=row.revision,
        applied_revision=row.applied_revision,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
