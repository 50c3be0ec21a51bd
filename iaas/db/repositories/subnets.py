"""Subnets, and the pool of addresses of each."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select

from iaas.db.models import SubnetRow, VPCRow
from iaas.db.postgres import lock_row
from iaas.db.repositories import shared
from iaas.db.repositories.query import Listing, list_rows
from iaas.db.statements import Prepared, delete_rows, insert_row, update_rows
from iaas.db.store import Tx
from iaas.kernel.errors import Failure
from iaas.resources.networks import Applied, Subnet

_subnets = SubnetRow.__table__
_vpcs = VPCRow.__table__
_COLUMNS = [column for column in _subnets.c if column.name != "applied"]

_APPLIED = Prepared(select(_subnets.c.generation, _subnets.c.applied).where(_subnets.c.id == bindparam("id")))
_BY_NAME = Prepared(
    select(*_COLUMNS)
    .where(_subnets.c.project_id == bindparam("project_id"), _subnets.c.name == bindparam("name"))
    .order_by(_subnets.c.status == "failed", _subnets.c.created_at.desc())  # one that failed has lost its name
)
_GENERATIONS = Prepared(
    select(_subnets.c.generation, _vpcs.c.generation.label("vpc_generation"))
    .join_from(_subnets, _vpcs, _subnets.c.vpc_id == _vpcs.c.id, isouter=True)
    .where(_subnets.c.id == bindparam("id"))
)
_GET = Prepared(select(*_COLUMNS).where(_subnets.c.id == bindparam("id")))
_TURN = Prepared(select(_subnets.c.next_offset).where(_subnets.c.id == bindparam("id")).with_for_update())
_BASIC = Prepared(select(*_COLUMNS).where(_subnets.c.zone == bindparam("zone"), _subnets.c.project_id.is_(None)))
_OF_VPC = Prepared(select(*_COLUMNS).where(_subnets.c.vpc_id == bindparam("vpc_id")).order_by(_subnets.c.id))

_MAX_TRIES = 70_000  # more than the hosts of a /16


def address_scope(subnet_id: str) -> str:
    """Return the scope of claims on addresses of the subnet; its gateway is claimed by the subnet itself."""
    return f"address:{subnet_id}"


def add(tx: Tx, **values: Any) -> None:
    """Write a new row; ``applied`` is empty until the first configuration is applied."""
    times = {"created_at": tx.now, "updated_at": tx.now}
    fresh = {"failure_code": None, "failure_message": None, "generation": 1, "revision": 0, "applied_revision": 0}
    insert_row(tx.connection, _subnets, {"next_offset": 0, "applied": {}, **fresh, **times, **values})


def get(connection: Connection, subnet_id: str, *, project_id: str | None = None) -> Subnet | None:
    """Return a subnet by id; with ``project_id`` only that project's and those that all share."""
    row = _GET.first(connection, {"id": subnet_id})
    if row is None or (project_id is not None and row.project_id not in (None, project_id)):
        return None
    return _subnet(row)


def find_by_name(connection: Connection, name: str, *, project_id: str) -> Subnet | None:
    row = _BY_NAME.first(connection, {"project_id": project_id, "name": name})
    return _subnet(row) if row else None


def basic_of(connection: Connection, zone: str) -> Subnet | None:
    """Return the zone's basic subnet, which all projects share."""
    row = _BASIC.first(connection, {"zone": zone})
    return _subnet(row) if row else None


def of_vpc(connection: Connection, vpc_id: str) -> list[Subnet]:
    return [_subnet(row) for row in _OF_VPC.rows(connection, {"vpc_id": vpc_id})]


def shared_ones(connection: Connection) -> list[Subnet]:
    """Return the basic subnets of all zones."""
    query = select(*_COLUMNS).where(_subnets.c.project_id.is_(None)).order_by(_subnets.c.zone)
    return [_subnet(row) for row in connection.execute(query)]


def all_subnets(connection: Connection) -> list[Subnet]:
    """Return every subnet (start-up and doctor; never on a request)."""
    return [_subnet(row) for row in connection.execute(select(*_COLUMNS).order_by(_subnets.c.id))]


def list_page(connection: Connection, listing: Listing, *, project_id: str) -> tuple[list[Subnet], str | None]:
    """Return a page of the project's own subnets; those that all share come by :func:`shared_ones`."""
    rows, cursor = list_rows(
        connection,
        _subnets,
        listing,
        columns=_COLUMNS,
        equal={"project_id": project_id},
        sortable=("created_at", "updated_at", "name", "status"),
    )
    return [_subnet(row) for row in rows], cursor


def change(tx: Tx, subnet_id: str, *, expect: dict[str, Any] | None = None, **changes: Any) -> bool:
    """Update one row if it still is as ``expect`` says; False when it is not. Each change is a new generation."""
    where = {"id": subnet_id, **(expect or {})}
    changes["updated_at"] = tx.now
    return update_rows(tx.connection, _subnets, where, changes, add={"generation": 1}) == 1


def applied(connection: Connection, subnet_id: str) -> Applied | None:
    """Return what the data plane has to do, and the generation of the row; None without a row."""
    row = _APPLIED.first(connection, {"id": subnet_id})
    return Applied(generation=row.generation, configuration=row.applied) if row else None


def generations(connection: Connection, subnet_id: str) -> tuple[int, int] | None:
    """Return the generation of a subnet and that of its VPC (0 without one); None without a row."""
    row = _GENERATIONS.first(connection, {"id": subnet_id})
    return (row.generation, row.vpc_generation or 0) if row else None


def lock(tx: Tx, subnet_id: str) -> None:
    """Keep others from changing the subnet until the commit."""
    lock_row(tx.connection, _subnets, subnet_id)


def delete(tx: Tx, subnet_id: str) -> bool:
    return delete_rows(tx.connection, _subnets, {"id": subnet_id}) == 1


def claim_addresses(tx: Tx, subnet: Subnet, nic_ids: Sequence[str]) -> list[str] | None:
    """Claim the next free addresses of the subnet's pool, one for each NIC; None when there are not as many.

    The subnet must be in a VPC: a bare one has no addresses to give.
    """
    assert subnet.cidr is not None and subnet.dhcp_first is not None and subnet.dhcp_last is not None  # noqa: S101, PT018 - the caller has looked; for the type checker
    base = int(ipaddress.IPv4Network(subnet.cidr).network_address)
    first, last = int(ipaddress.IPv4Address(subnet.dhcp_first)), int(ipaddress.IPv4Address(subnet.dhcp_last))
    # Two at once take turns here: otherwise each would try the other's addresses one by one, waiting at each.
    number = base + int(_TURN.first(tx.connection, {"id": subnet.id}).next_offset)
    if not first <= number <= last:
        number = first
    claimed: list[str] = []
    scope = address_scope(subnet.id)
    if number + len(nic_ids) - 1 <= last:  # as a rule the next ones are free, and all go in together
        claimed = [str(ipaddress.IPv4Address(number + nth)) for nth in range(len(nic_ids))]
        wanted = list(zip(claimed, nic_ids, strict=True))
        if shared.claim_all(tx, scope=scope, wanted=wanted):
            number += len(nic_ids)
        else:
            shared.unclaim(tx, scope=scope, wanted=wanted)
            claimed = []
    tries = 0
    while len(claimed) < len(nic_ids):
        tries += 1
        if tries > min(last - first + 1, _MAX_TRIES):
            return None
        if number > last:
            number = first
        address = str(ipaddress.IPv4Address(number))
        number += 1
        if shared.claim(tx, scope=scope, value=address, resource_id=nic_ids[len(claimed)]):
            claimed.append(address)
    update_rows(tx.connection, _subnets, {"id": subnet.id}, {"next_offset": number - base})
    return claimed


def _subnet(row: Any) -> Subnet:
    return Subnet(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        labels=row.labels,
        zone=row.zone,
        status=row.status,
        transition=row.transition,
        failure=Failure(row.failure_code, row.failure_message or "") if row.failure_code else None,
        generation=row.generation,
        vpc_id=row.vpc_id,
        cidr=row.cidr,
        gateway=row.gateway,
        dhcp_first=row.dhcp_first,
        dhcp_last=row.dhcp_last,
        mtu=row.mtu,
        next_offset=row.next_offset,
        revision=row.revision,
        applied_revision=row.applied_revision,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
