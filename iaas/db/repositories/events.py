"""Events: written with the change they tell of."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from iaas.db.models import EventRow
from iaas.db.store import Tx
from iaas.kernel.errors import ResourceRef
from iaas.resources.jobs import Event

_events = EventRow.__table__


def add(
    tx: Tx,
    *,
    type: str,
    project_id: str,
    resource: ResourceRef,
    generation: int | None = None,
    job_id: str | None = None,
    request_id: str | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Write one event into the open transaction."""
    tx.connection.execute(
        insert(EventRow).values(
            type=type,
            project_id=project_id,
            resource_type=resource.type,
            resource_id=resource.id,
            generation=generation,
            job_id=job_id,
            request_id=request_id,
            data=data or {},
            created_at=tx.now,
        )
    )


def list_after(
    connection: Connection, *, project_id: str, after: int, limit: int, resource_id: str | None = None
) -> list[Event]:
    """Return up to ``limit`` events of the project with a greater id, oldest first."""
    query = select(_events).where(_events.c.project_id == project_id, _events.c.id > after)
    if resource_id is not None:
        query = query.where(_events.c.resource_id == resource_id)
    return [_event(row) for row in connection.execute(query.order_by(_events.c.id).limit(limit))]


def last_id(connection: Connection) -> int:
    """Return the id of the newest event, 0 when there is none."""
    return int(connection.execute(select(func.max(_events.c.id))).scalar() or 0)


def _event(row: Row[Any]) -> Event:
    return Event(
        id=row.id,
        type=row.type,
        project_id=row.project_id,
        resource=ResourceRef(row.resource_type, row.resource_id),
        generation=row.generation,
        job_id=row.job_id,
        request_id=row.request_id,
        created_at=row.created_at,
        data=row.data,
    )
