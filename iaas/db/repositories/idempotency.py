"""Answers kept under an idempotency key."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select, tuple_

from iaas.db.models import IdempotencyRow
from iaas.db.statements import Prepared, delete_rows, insert_if_free, update_rows
from iaas.db.store import Tx

_records = IdempotencyRow.__table__
_FIND = Prepared(
    select(_records).where(_records.c.project_id == bindparam("project_id"), _records.c.key == bindparam("key"))
)


def find(connection: Connection, project_id: str, key: str) -> Any:
    """Return the record as a row of its columns; None when there is none. It may have expired."""
    return _FIND.first(connection, {"project_id": project_id, "key": key})


def add(tx: Tx, **values: Any) -> bool:
    """Write a record; False when the key has one already."""
    return insert_if_free(tx.connection, _records, {**values, "created_at": tx.now})


def finish(tx: Tx, project_id: str, key: str, *, owner: str, **changes: Any) -> bool:
    """Write the answer into a record that waits for it; False when it is no longer there."""
    where = {"project_id": project_id, "key": key, "owner": owner, "status": None}
    return update_rows(tx.connection, _records, where, changes) == 1


def remove(tx: Tx, project_id: str, key: str) -> None:
    delete_rows(tx.connection, _records, {"project_id": project_id, "key": key})


def remove_expired(tx: Tx, *, now: datetime, limit: int) -> int:
    """Remove at most ``limit`` records whose time is over and return how many went."""
    key = tuple_(_records.c.project_id, _records.c.key)
    old = select(_records.c.project_id, _records.c.key).where(_records.c.expires_at <= now).limit(limit)
    return tx.connection.execute(delete(IdempotencyRow).where(key.in_(old))).rowcount


def remove_project(tx: Tx, project_id: str) -> None:
    delete_rows(tx.connection, _records, {"project_id": project_id})
