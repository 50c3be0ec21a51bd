"""Claims on unique things, labels, settings."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from iaas.db.models import AllocationRow, LabelRow, SettingRow
from iaas.db.store import Tx

_allocations = AllocationRow.__table__
_labels = LabelRow.__table__
_settings = SettingRow.__table__


def claim(tx: Tx, *, scope: str, value: str, resource_id: str) -> bool:
    """Claim ``value`` for the resource; False when another holds it. The primary key decides, not a look before."""
    try:
        with tx.connection.begin_nested():
            tx.connection.execute(insert(AllocationRow).values(scope=scope, value=value, resource_id=resource_id))
    except IntegrityError:
        return False
    return True


def release(tx: Tx, *, scope: str, resource_id: str) -> None:
    """Give back what the resource holds in ``scope``."""
    tx.connection.execute(
        delete(AllocationRow).where(_allocations.c.scope == scope, _allocations.c.resource_id == resource_id)
    )


def release_all(tx: Tx, resource_id: str) -> None:
    """Give back all that the resource holds."""
    tx.connection.execute(delete(AllocationRow).where(_allocations.c.resource_id == resource_id))


def set_labels(tx: Tx, resource_id: str, labels: Mapping[str, str]) -> None:
    """Replace the resource's labels."""
    tx.connection.execute(delete(LabelRow).where(_labels.c.resource_id == resource_id))
    add_labels(tx, resource_id, labels)


def add_labels(tx: Tx, resource_id: str, labels: Mapping[str, str]) -> None:
    """Add the labels of a resource that has none yet."""
    if labels:
        rows = [{"resource_id": resource_id, "key": key, "value": value} for key, value in labels.items()]
        tx.connection.execute(insert(LabelRow), rows)


def get_setting(connection: Connection, key: str) -> str | None:
    return connection.execute(select(_settings.c.value).where(_settings.c.key == key)).scalar()


def put_setting(tx: Tx, key: str, value: str) -> None:
    tx.connection.execute(delete(SettingRow).where(_settings.c.key == key))
    tx.connection.execute(insert(SettingRow).values(key=key, value=value))
