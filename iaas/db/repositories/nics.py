"""NICs."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select

from iaas.db.models import NICRow
from iaas.db.postgres import lock_row
from iaas.db.repositories import shared, subnets
from iaas.db.repositories.query import Listing, list_rows
from iaas.db.statements import Prepared, delete_rows, insert_rows, update_rows
from iaas.db.store import Tx
from iaas.resources.networks import NIC, NICStatus, Pair

_nics = NICRow.__table__

_GET = Prepared(select(_nics).where(_nics.c.id == bindparam("id")))
_OF_INSTANCE = Prepared(select(_nics).where(_nics.c.instance_id == bindparam("id")).order_by(_nics.c.device_index))
_MANY = 100
_OF_EACH = Prepared(
    select(_nics)
    .where(_nics.c.instance_id.in_([bindparam(f"id_{nth}", type_=_nics.c.instance_id.type) for nth in range(_MANY)]))
    .order_by(_nics.c.device_index)
)

NEW: dict[str, Any] = {
    "labels": {},
    "transition": None,
    "generation": 1,
    "secondary_addresses": [],
    "allowed_pairs": [],
    "instance_id": None,
    "device_index": None,
    "delete_with_instance": False,
}
"""What a row has when nothing else is said."""


def add_all(tx: Tx, rows: Sequence[dict[str, Any]]) -> list[NIC]:
    """Write new rows and return them as they would be read; what they leave out is as in :data:`NEW`."""
    times = {"created_at": tx.now, "updated_at": tx.now}
    full = [NEW | times | row for row in rows]
    insert_rows(tx.connection, _nics, full)
    return [nic_from_dict(row) for row in full]


def get(connection: Connection, nic_id: str, *, project_id: str | None = None) -> NIC | None:
    row = _GET.first(connection, {"id": nic_id})
    return nic_from(row) if row is not None and project_id in (None, row.project_id) else None


def find_by_name(connection: Connection, name: str, *, project_id: str) -> NIC | None:
    row = connection.execute(select(_nics).where(_nics.c.project_id == project_id, _nics.c.name == name)).first()
    return nic_from(row) if row else None


def find_by_mac(connection: Connection, mac: str, *, project_id: str) -> NIC | None:
    row = connection.execute(select(_nics).where(_nics.c.project_id == project_id, _nics.c.mac == mac)).first()
    return nic_from(row) if row else None


def list_page(connection: Connection, listing: Listing, *, project_id: str) -> tuple[list[NIC], str | None]:
    rows, cursor = list_rows(
        connection,
        _nics,
        listing,
        equal={"project_id": project_id},
        sortable=("created_at", "updated_at", "name", "status"),
    )
    return [nic_from(row) for row in rows], cursor


def of_instance(connection: Connection, instance_id: str) -> tuple[NIC, ...]:
    """Return the instance's NICs in the order of their device indexes."""
    return tuple(nic_from(row) for row in _OF_INSTANCE.rows(connection, {"id": instance_id}))


def of_instances(connection: Connection, instance_ids: Sequence[str]) -> dict[str, list[NIC]]:
    """Return the NICs of each of many instances."""
    found: dict[str, list[NIC]] = {}
    for start in range(0, len(instance_ids), _MANY):
        some = list(instance_ids[start : start + _MANY])
        some += some[-1:] * (_MANY - len(some))  # one prepared query for any number
        for row in _OF_EACH.rows(connection, {f"id_{nth}": each for nth, each in enumerate(some)}):
            found.setdefault(row.instance_id, []).append(nic_from(row))
    return found


def on_subnet(connection: Connection, subnet_id: str) -> list[NIC]:
    query = select(_nics).where(_nics.c.subnet_id == subnet_id).order_by(_nics.c.id)
    return [nic_from(row) for row in connection.execute(query)]


def nic_at(connection: Connection, vpc_id: str, address: str) -> NIC | None:
    """Return the NIC that has ``address``, as any of its own, in the VPC."""
    try:
        wanted = ipaddress.IPv4Address(address)
    except ValueError:
        return None
    for subnet in subnets.of_vpc(connection, vpc_id):
        if subnet.cidr is not None and wanted in ipaddress.IPv4Network(subnet.cidr):
            holder = shared.holder_of(connection, scope=subnets.address_scope(subnet.id), value=str(wanted))
            return get(connection, holder) if holder is not None else None
    return None


def change(tx: Tx, nic_id: str, *, expect: dict[str, Any] | None = None, **changes: Any) -> bool:
    """Update one row if it still is as ``expect`` says; False when it is not. Each change is a new generation."""
    where = {"id": nic_id, **(expect or {})}
    changes["updated_at"] = tx.now
    return update_rows(tx.connection, _nics, where, changes, add={"generation": 1}) == 1


def release_from(tx: Tx, instance_id: str) -> None:
    """Let the NICs that outlive their instance be free for another."""
    changes = {"instance_id": None, "device_index": None, "status": NICStatus.AVAILABLE, "transition": None}
    where = {"instance_id": instance_id, "delete_with_instance": False}
    update_rows(tx.connection, _nics, where, changes | {"updated_at": tx.now}, add={"generation": 1})


def leave_vpc(tx: Tx, subnet_id: str) -> None:
    """Take the addresses of all NICs of a subnet that is in no VPC any more. Their claims are the caller's."""
    changes: dict[str, Any] = {"vpc_id": None, "address": None, "secondary_addresses": [], "updated_at": tx.now}
    update_rows(tx.connection, _nics, {"subnet_id": subnet_id}, changes, add={"generation": 1})


def lock(tx: Tx, nic_id: str) -> None:
    """Keep others from changing the NIC until the commit."""
    lock_row(tx.connection, _nics, nic_id)


def delete(tx: Tx, nic_id: str) -> bool:
    return delete_rows(tx.connection, _nics, {"id": nic_id}) == 1


def delete_of(tx: Tx, instance_id: str) -> None:
    """Delete the rows of NICs that live as long as their instance."""
    delete_rows(tx.connection, _nics, {"instance_id": instance_id, "delete_with_instance": True})


def pairs_from(stored: Iterable[dict[str, Any]]) -> tuple[Pair, ...]:
    return tuple(Pair(cidr=one["cidr"], mac=one.get("mac")) for one in stored)


def nic_from(row: Any) -> NIC:
    return NIC(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        labels=row.labels,
        zone=row.zone,
        status=row.status,
        transition=row.transition,
        generation=row.generation,
        subnet_id=row.subnet_id,
        vpc_id=row.vpc_id,
        mac=row.mac,
        address=row.address,
        secondary_addresses=tuple(row.secondary_addresses),
        allowed_pairs=pairs_from(row.allowed_pairs),
        instance_id=row.instance_id,
        device_index=row.device_index,
        delete_with_instance=row.delete_with_instance,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def nic_from_dict(row: dict[str, Any]) -> NIC:
    """As :func:`nic_from`, of the values that were just written."""
    values = dict(row)
    values["secondary_addresses"] = tuple(values["secondary_addresses"])
    values["allowed_pairs"] = pairs_from(values["allowed_pairs"])
    return NIC(**values)
