"""Events: written with the change they tell of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select

from iaas.db.models import EventRow
from iaas.db.postgres import take_lock
from iaas.db.repositories import shared
from iaas.db.statements import insert_rows
from iaas.db.store import Tx
from iaas.kernel.errors import ResourceRef
from iaas.resources.jobs import Event, EventFilter

_events = EventRow.__table__

_PURGED_THROUGH = "events_purged_through"
_TURN = "event ids"


NO_DATA: dict[str, Any] = {}  # one for all: nobody changes what an event says


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event before it has its id and its time."""

    type: str
    project_id: str
    resource: ResourceRef
    generation: int | None = None
    job_id: str | None = None
    request_id: str | None = None
    data: dict[str, Any] = field(default_factory=lambda: NO_DATA)


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
    """Write one event into the open transaction; followers are told after its commit."""
    new = NewEvent(
        type=type,
        project_id=project_id,
        resource=resource,
        generation=generation,
        job_id=job_id,
        request_id=request_id,
        data=data or NO_DATA,
    )
    add_all(tx, [new])


def add_all(tx: Tx, new: Sequence[NewEvent]) -> None:
    """As :func:`add`, for several in this order."""
    is_first = not tx.has_events
    tx.has_events = True
    rows = [
        {
            "type": event.type,
            "project_id": event.project_id,
            "resource_type": event.resource.type,
            "resource_id": event.resource.id,
            "generation": event.generation,
            "job_id": event.job_id,
            "request_id": event.request_id,
            "data": event.data,
            "created_at": tx.now,
        }
        for event in new
    ]
    if tx.connection.dialect.name == "sqlite":
        insert_rows(tx.connection, _events, rows)  # the only writer: ids are in the order of commits
        return
    # Who has seen an id must have seen all smaller ones, so ids are given out in turn, from here to the commit.
    # That is last of all: nobody waits for anything else while it is his turn. See ADR 0007.
    if is_first:
        tx.before_commit.append(lambda: take_lock(tx.connection, _TURN))
    tx.before_commit.append(lambda: insert_rows(tx.connection, _events, rows))


def list_after(
    connection: Connection, *, project_id: str, after: int, limit: int, only: EventFilter | None = None
) -> list[Event]:
    """Return up to ``limit`` events of the project with a greater id, oldest first."""
    only = only or EventFilter()
    columns = _events.c
    query = select(_events).where(columns.project_id == project_id, columns.id > after)
    if only.resource_id is not None:
        query = query.where(columns.resource_id == only.resource_id)
    if only.resource_type is not None:
        query = query.where(columns.resource_type == only.resource_type)
    if only.type_prefix is not None:
        query = query.where(columns.type.startswith(only.type_prefix, autoescape=True))
    return [_event(row) for row in connection.execute(query.order_by(columns.id).limit(limit))]


def purged_through(connection: Connection) -> int:
    """Return the id of the newest event that was purged, 0 when all are still there."""
    return int(shared.get_setting(connection, _PURGED_THROUGH) or 0)


def purge(tx: Tx, *, before: datetime, keep: int, limit: int) -> int:
    """Delete the oldest events: those from before ``before`` and those beyond the newest ``keep``.

    At most ``limit`` in one transaction. Returns how many that were.
    """
    surplus_through = last_id(tx.connection) - keep
    oldest = select(_events.c.id, _events.c.created_at).order_by(_events.c.id).limit(limit)
    through, count = 0, 0
    for row in tx.connection.execute(oldest):
        if row.created_at >= before and row.id > surplus_through:
            break  # ids grow with time: all that follow are to be kept as well
        through, count = row.id, count + 1
    if count:
        tx.connection.execute(delete(EventRow).where(_events.c.id <= through))
        shared.put_setting(tx, _PURGED_THROUGH, str(through))
    return count


def last_id(connection: Connection) -> int:
    """Return the id of the newest event, 0 when there is none."""
    return int(connection.execute(select(func.max(_events.c.id))).scalar() or 0)


def newest_id(connection: Connection) -> int:
    """Return the greatest id that an event has had, kept or purged."""
    return max(last_id(connection), purged_through(connection))


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
