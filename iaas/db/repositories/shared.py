"""Claims on unique things, labels, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select

from iaas.db.models import AllocationRow, LabelRow, SettingRow
from iaas.db.statements import Prepared, delete_rows, insert_if_free, insert_many_if_free, insert_rows
from iaas.db.store import Tx

_allocations = AllocationRow.__table__
_labels = LabelRow.__table__
_settings = SettingRow.__table__

_HOLDER = Prepared(
    select(_allocations.c.resource_id).where(
        _allocations.c.scope == bindparam("scope"), _allocations.c.value == bindparam("value")
    )
)

_IN_SCOPE = Prepared(
    select(_allocations.c.value, _allocations.c.resource_id).where(_allocations.c.scope == bindparam("scope"))
)
_RELEASE = Prepared(delete(AllocationRow).where(_allocations.c.resource_id == bindparam("id")))


def claim(tx: Tx, *, scope: str, value: str, resource_id: str) -> bool:
    """Claim ``value`` for the resource; False when another holds it. The primary key decides, not a look before."""
    return insert_if_free(tx.connection, _allocations, {"scope": scope, "value": value, "resource_id": resource_id})


def claim_all(tx: Tx, *, scope: str, wanted: Sequence[tuple[str, str]]) -> bool:
    """Claim many values, each for a resource; ``wanted`` holds (value, resource id).

    False when others hold some of them; then the rest is claimed all the same. Values are asked for in their
    order, so that two who want the same ones do not wait for each other; of equal ones the first in ``wanted`` gets it.
    """
    in_order = sorted(wanted, key=lambda each: each[0])
    rows = [{"scope": scope, "value": value, "resource_id": resource_id} for value, resource_id in in_order]
    return insert_many_if_free(tx.connection, _allocations, rows) == len(rows)


def holder_of(connection: Connection, *, scope: str, value: str) -> str | None:
    """Return the id of the resource that holds the value, None when nobody does."""
    row = _HOLDER.first(connection, {"scope": scope, "value": value})
    return None if row is None else str(row.resource_id)


def release(tx: Tx, *, scope: str, resource_id: str) -> None:
    """Give back what the resource holds in ``scope``."""
    delete_rows(tx.connection, _allocations, {"scope": scope, "resource_id": resource_id})


def unclaim(tx: Tx, *, scope: str, wanted: Sequence[tuple[str, str]]) -> None:
    """Give back just these values where these resources hold them; the opposite of :func:`claim_all`."""
    for value, resource_id in wanted:
        delete_rows(tx.connection, _allocations, {"scope": scope, "value": value, "resource_id": resource_id})


def release_scope(tx: Tx, scope: str) -> None:
    """Give back whatever anybody holds in ``scope``."""
    delete_rows(tx.connection, _allocations, {"scope": scope})


def release_each(tx: Tx, resource_ids: Sequence[str]) -> None:
    """Give back all that each of many resources holds."""
    _RELEASE.run_many(tx.connection, [{"id": resource_id} for resource_id in resource_ids])


def holders_in(connection: Connection, scope: str) -> dict[str, str]:
    """Return the ids of all who hold something in ``scope``, by what it is."""
    return {row.value: row.resource_id for row in _IN_SCOPE.rows(connection, {"scope": scope})}


def release_all(tx: Tx, resource_id: str) -> None:
    """Give back all that the resource holds."""
    delete_rows(tx.connection, _allocations, {"resource_id": resource_id})


def set_labels(tx: Tx, resource_id: str, labels: Mapping[str, str]) -> None:
    """Replace the resource's labels."""
    delete_rows(tx.connection, _labels, {"resource_id": resource_id})
    add_labels(tx, resource_id, labels)


def add_labels(tx: Tx, resource_id: str, labels: Mapping[str, str]) -> None:
    """Add the labels of a resource that has none yet."""
    if labels:
        rows = [{"resource_id": resource_id, "key": key, "value": value} for key, value in labels.items()]
        insert_rows(tx.connection, _labels, rows)


def get_setting(connection: Connection, key: str) -> str | None:
    return connection.execute(select(_settings.c.value).where(_settings.c.key == key)).scalar()


def put_setting(tx: Tx, key: str, value: str) -> None:
    tx.connection.execute(delete(SettingRow).where(_settings.c.key == key))
    tx.connection.execute(insert(SettingRow).values(key=key, value=value))
