"""Rows of resources whose changes may wait to be applied (:class:`iaas.db.models.base.Revised`), of any table."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table, select

from iaas.db.statements import update_rows
from iaas.db.store import Tx
from iaas.resources.common import AppliedConfiguration


def bump(tx: Tx, table: Table, resource_id: str) -> int | None:
    """Begin the next revision and return its number; None when there is no such row.

    The row is held until the commit, so revisions of one resource follow each other on every database.
    """
    if update_rows(tx.connection, table, {"id": resource_id}, {}, add={"revision": 1}) != 1:
        return None
    return revision_of(tx.connection, table, resource_id)


def revision_of(connection: Connection, table: Table, resource_id: str) -> int | None:
    return connection.execute(select(table.c.revision).where(table.c.id == resource_id)).scalar()


def put_applied(tx: Tx, table: Table, resource_id: str, revision: int, configuration: dict[str, Any]) -> bool:
    """Make ``configuration`` the applied one; False when ``revision`` is not the newest any more."""
    changes = {"applied_revision": revision, "applied": configuration}
    return update_rows(tx.connection, table, {"id": resource_id, "revision": revision}, changes) == 1


def get_applied(connection: Connection, table: Table, resource_id: str) -> AppliedConfiguration | None:
    row = connection.execute(select(table.c.applied_revision, table.c.applied).where(table.c.id == resource_id)).first()
    return None if row is None else AppliedConfiguration(revision=row.applied_revision, configuration=row.applied)


def all_applied(connection: Connection, table: Table) -> dict[str, AppliedConfiguration]:
    query = select(table.c.id, table.c.applied_revision, table.c.applied)
    return {
        row.id: AppliedConfiguration(revision=row.applied_revision, configuration=row.applied)
        for row in connection.execute(query)
    }


def pending(connection: Connection, table: Table) -> list[str]:
    """Return ids of resources that have changes which are not applied, in order."""
    query = select(table.c.id).where(table.c.applied_revision < table.c.revision).order_by(table.c.id)
    return list(connection.execute(query).scalars())
