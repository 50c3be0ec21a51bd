"""Instances and their NICs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, bindparam, func, select

from iaas.db.models import InstanceRow
from iaas.db.postgres import lock_row
from iaas.db.repositories import nics
from iaas.db.repositories.query import Listing, list_rows
from iaas.db.statements import Prepared, insert_rows, update_rows
from iaas.db.store import Tx
from iaas.kernel.errors import Failure
from iaas.resources.instances import Instance
from iaas.resources.networks import NIC

_instances = InstanceRow.__table__

_SECRET_COLUMNS = {"user_data", "authorized_keys"}
_COLUMNS = [column for column in _instances.c if column.name not in _SECRET_COLUMNS]

_GET = Prepared(select(*_COLUMNS).where(_instances.c.id == bindparam("id")))
_GENERATION = Prepared(select(_instances.c.generation).where(_instances.c.id == bindparam("id")))
_ALIVE, _DELETED = (_instances.c.deleted_at.is_(None),), (_instances.c.deleted_at.is_not(None),)

_MANY = 500


def add_all(tx: Tx, rows: Sequence[dict[str, Any]], nics_of: Mapping[str, Sequence[NIC]]) -> list[Instance]:
    """Write new instances and return them as they would be read, with ``nics_of`` each (by instance id)."""
    times = {"created_at": tx.now, "updated_at": tx.now}
    rows = [row | times for row in rows]
    insert_rows(tx.connection, _instances, rows)
    return [_instance(SimpleNamespace(**row), tuple(nics_of.get(row["id"], ()))) for row in rows]


def change(tx: Tx, instance_id: str, *, expect: dict[str, Any] | None = None, **changes: Any) -> bool:
    """Update one row if it still is as ``expect`` says; False when it is not. Each change is a new generation."""
    where = {"id": instance_id, **(expect or {})}
    changes["updated_at"] = tx.now
    return update_rows(tx.connection, _instances, where, changes, add={"generation": 1}) == 1


def get(
    connection: Connection, instance_id: str, *, project_id: str | None = None, with_deleted: bool = False
) -> Instance | None:
    """Return an instance by id; None when it is absent, another project's, or deleted."""
    row = _GET.first(connection, {"id": instance_id})
    if row is None or project_id not in (None, row.project_id) or not (with_deleted or row.deleted_at is None):
        return None
    return _instance(row, nics.of_instance(connection, row.id))


def lock(tx: Tx, instance_id: str) -> None:
    """Keep others from changing the instance until the commit."""
    lock_row(tx.connection, _instances, instance_id)


def generation_of(connection: Connection, instance_id: str) -> int:
    """Return the generation that the row has now, 0 when there is no row."""
    row = _GENERATION.first(connection, {"id": instance_id})
    return 0 if row is None else int(row.generation)


def find_by_name(connection: Connection, name: str, *, project_id: str) -> Instance | None:
    query = select(*_COLUMNS).where(
        _instances.c.project_id == project_id, _instances.c.name == name, _instances.c.deleted_at.is_(None)
    )
    # One that failed to come is on no host and has lost its name: it is found by it only while nobody else has it.
    row = connection.execute(query.order_by(_instances.c.host_id.is_(None), _instances.c.created_at.desc())).first()
    return _with_nics(connection, [row])[0] if row else None


def list_page(
    connection: Connection, listing: Listing, *, project_id: str, deleted: bool = False
) -> tuple[list[Instance], str | None]:
    rows, cursor = list_rows(
        connection,
        _instances,
        listing,
        columns=_COLUMNS,
        equal={"project_id": project_id},
        where=_DELETED if deleted else _ALIVE,
        sortable=("created_at", "updated_at", "name", "status"),
    )
    return _with_nics(connection, rows), cursor


def guest_secrets(connection: Connection, instance_id: str) -> tuple[bytes | None, list[str]]:
    """Return the user data and the authorised keys, for the instance's own metadata only."""
    row = connection.execute(
        select(_instances.c.user_data, _instances.c.authorized_keys).where(_instances.c.id == instance_id)
    ).first()
    return (row.user_data, row.authorized_keys) if row else (None, [])


def count_in_project(connection: Connection, project_id: str) -> int:
    query = select(func.count()).where(_instances.c.project_id == project_id, _instances.c.deleted_at.is_(None))
    return int(connection.execute(query).scalar() or 0)


def count_alive(connection: Connection) -> int:
    """Return how many instances are not deleted, in all projects."""
    query = select(func.count()).select_from(_instances).where(_instances.c.deleted_at.is_(None))
    return int(connection.execute(query).scalar() or 0)


def all_alive(connection: Connection) -> list[Instance]:
    """Return every instance that is not deleted, of all projects (start-up and doctor; never on a request)."""
    return _with_nics(connection, list(connection.execute(select(*_COLUMNS).where(_instances.c.deleted_at.is_(None)))))


def many(connection: Connection, instance_ids: Sequence[str]) -> list[Instance]:
    """Return those of the instances that there are, in no order; never asked for more at once than a database takes."""
    found: list[Instance] = []
    for start in range(0, len(instance_ids), _MANY):
        some = instance_ids[start : start + _MANY]
        found += _with_nics(connection, connection.execute(select(*_COLUMNS).where(_instances.c.id.in_(some))))
    return found


def all_retained(connection: Connection) -> list[Instance]:
    """Return every deleted instance whose machine is still on its host, of all projects."""
    query = select(*_COLUMNS).where(_instances.c.deleted_at.is_not(None), _instances.c.purged_at.is_(None))
    return _with_nics(connection, list(connection.execute(query)))


def _with_nics(connection: Connection, rows: Iterable[Any]) -> list[Instance]:
    rows = list(rows)
    found = nics.of_instances(connection, [row.id for row in rows])
    return [_instance(row, tuple(found.get(row.id, ()))) for row in rows]


def _instance(row: Any, its_nics: tuple[NIC, ...]) -> Instance:
    return Instance(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        labels=row.labels,
        zone=row.zone,
        kind=row.kind,
        status=row.status,
        transition=row.transition,
        failure=Failure(row.failure_code, row.failure_message or "") if row.failure_code else None,
        generation=row.generation,
        hostname=row.hostname,
        flavor=row.flavor,
        vcpus=row.vcpus,
        memory_mib=row.memory_mib,
        root_disk_gib=row.root_disk_gib,
        image_id=row.image_id,
        image=row.image,
        key_pairs=row.key_pairs,
        nesting=row.nesting,
        privileged=row.privileged,
        host_id=row.host_id,
        disk_generation=row.disk_generation,
        guest_ready_at=row.guest_ready_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
        purge_at=row.purge_at,
        purged_at=row.purged_at,
        placement=row.placement,
        retained=row.retained,
        metadata_labels=row.metadata_labels,
        nics=its_nics,
    )
