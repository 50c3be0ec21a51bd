"""Changing labels."""

from __future__ import annotations

from sqlalchemy import FromClause, select

from iaas.db.postgres import lock_row
from iaas.db.repositories import shared
from iaas.db.store import Tx
from iaas.kernel.errors import NotFound
from iaas.kernel.labels import check_labels


def merged_labels(labels: dict[str, str], patch: dict[str, str | None] | None) -> dict[str, str]:
    """Return ``labels`` after a merge patch (a null removes). Source: RFC 7396."""
    merged = dict(labels)
    for key, value in (patch or {}).items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    check_labels(merged)
    return merged


def patched_labels(
    tx: Tx, table: FromClause, resource_id: str, patch: dict[str, str | None] | None
) -> dict[str, dict[str, str]]:
    """Merge ``patch`` into the labels that the row has now, write their index, and return the change of the row.

    Read and written in one transaction with the row held, so that of two patches neither loses the other's.

    Raises:
        NotFound: the row is gone meanwhile.
    """
    if patch is None:
        return {}
    lock_row(tx.connection, table, resource_id)
    row = tx.connection.execute(select(table.c.labels).where(table.c.id == resource_id)).first()
    if row is None:
        raise NotFound(f"{resource_id} is gone")
    merged = merged_labels(row.labels, patch)
    shared.set_labels(tx, resource_id, merged)
    return {"labels": merged}
