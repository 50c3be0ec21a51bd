"""Deleted instances: those that can be recovered, and ghosts, of which only the row is left."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Integer, bindparam, delete, exists, func, or_, select

from iaas.db.models import HostRow, InstanceRow, JobRow
from iaas.db.statements import Prepared
from iaas.db.store import Tx
from iaas.resources.catalog import HostStatus
from iaas.resources.jobs import FINISHED

_instances = InstanceRow.__table__
_hosts = HostRow.__table__
_jobs = JobRow.__table__

_UNFINISHED_JOB = exists().where(
    _jobs.c.resource_id == _instances.c.id, _jobs.c.status.not_in([str(status) for status in FINISHED])
)
_OVERDUE = Prepared(
    select(_instances.c.id)
    .join(_hosts, _hosts.c.id == _instances.c.host_id, isouter=True)
    .where(
        _instances.c.purge_at.is_not(None),
        _instances.c.purge_at <= bindparam("now", type_=_instances.c.purge_at.type),
        _instances.c.deleted_at.is_not(None),
        _instances.c.transition.is_(None),
        or_(_hosts.c.status.is_(None), _hosts.c.status != HostStatus.DOWN.value),
    )
    .order_by(_instances.c.purge_at, _instances.c.id)
    .limit(bindparam("most", type_=Integer()))
)


def overdue(connection: Connection, now: datetime, most: int) -> list[str]:
    """Return ids of retained instances whose time is over and whose host can be asked, oldest first."""
    return [row.id for row in _OVERDUE.rows(connection, {"now": now, "most": most})]


def count_ghosts(connection: Connection) -> int:
    query = select(func.count()).select_from(_instances).where(_instances.c.purged_at.is_not(None))
    return int(connection.execute(query).scalar() or 0)


def drop_ghosts(tx: Tx, *, before: datetime | None, most: int) -> int:
    """Forget ghosts, the oldest first, with their finished jobs; return how many.

    Args:
        before: only those purged before that moment; any when None.
    """
    query = select(_instances.c.id).where(_instances.c.purged_at.is_not(None), ~_UNFINISHED_JOB)
    if before is not None:
        query = query.where(_instances.c.purged_at < before)
    ids = list(tx.connection.execute(query.order_by(_instances.c.purged_at, _instances.c.id).limit(most)).scalars())
    if ids:
        tx.connection.execute(delete(JobRow).where(_jobs.c.resource_id.in_(ids)))
        tx.connection.execute(delete(InstanceRow).where(_instances.c.id.in_(ids)))
    return len(ids)
