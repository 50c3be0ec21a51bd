"""Hosts as the scheduler sees them: who has room, who holds whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Integer, bindparam, func, or_, select, update
from sqlalchemy.sql.elements import BindParameter, ColumnElement

from iaas.db.models import HostRow, InstanceRow, ZoneRow
from iaas.db.repositories.query import label_condition
from iaas.db.statements import Prepared
from iaas.db.store import Tx
from iaas.kernel.labels import LabelTerm
from iaas.resources.catalog import Host, HostStatus

_hosts = HostRow.__table__
_instances = InstanceRow.__table__
_zones = ZoneRow.__table__

MAX_CANDIDATES = 8
MAX_SPREAD = 64

_ROOM_COLUMNS = ("id", "vcpus", "vcpus_used", "memory_mib", "memory_mib_used", "disk_gib", "disk_gib_used")


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """What a machine takes of its host."""

    vcpus: int
    memory_mib: int
    disk_gib: int


def _more(name: str) -> BindParameter[int]:
    return bindparam(f"more_{name}", type_=Integer())


def _fits() -> list[ColumnElement[bool]]:
    """What is asked for must be there; asking for nothing always fits, even on a host that is over its measure."""
    return [
        or_(_more(name) <= 0, _hosts.c[f"{name}_used"] + _more(name) <= _hosts.c[name])
        for name in ("vcpus", "memory_mib", "disk_gib")
    ]


def _used_share(name: str) -> ColumnElement[Any]:
    return _hosts.c[f"{name}_used"] * 1.0 / func.nullif(_hosts.c[name], 0)


_CANDIDATES = Prepared(
    select(_hosts.c.id)
    .where(_hosts.c.zone == bindparam("zone"), _hosts.c.status == HostStatus.UP.value, *_fits())
    .order_by(_used_share("memory_mib"), _used_share("vcpus"), _hosts.c.id)
    .limit(MAX_CANDIDATES)
)
_RESERVE = Prepared(
    update(HostRow)
    .where(_hosts.c.id == bindparam("host_id"), _hosts.c.status == HostStatus.UP.value, *_fits())
    .values({f"{name}_used": _hosts.c[f"{name}_used"] + _more(name) for name in ("vcpus", "memory_mib", "disk_gib")})
)
_ROOMIEST = Prepared(
    select(*(_hosts.c[name] for name in _ROOM_COLUMNS))
    .where(_hosts.c.zone == bindparam("zone"), _hosts.c.status == HostStatus.UP.value)
    .order_by(_used_share("memory_mib"), _used_share("vcpus"), _hosts.c.id)
    .limit(MAX_SPREAD)
)
_STATUS = Prepared(select(_hosts.c.name, _hosts.c.status).where(_hosts.c.id == bindparam("host_id")))


def candidates(connection: Connection, zone: str, amounts: Amounts) -> list[str]:
    """Return up to eight ids of hosts of the zone that are up and have room, the least used (memory, vCPUs) first."""
    return [row.id for row in _CANDIDATES.rows(connection, {"zone": zone, **_parameters(amounts)})]


def roomiest(connection: Connection, zone: str) -> list[Any]:
    """Return up to 64 hosts of the zone that are up, the least used first: id, and what each has and has in use."""
    return _ROOMIEST.rows(connection, {"zone": zone})


def reserve_new(tx: Tx, host_id: str, amounts: Amounts) -> bool:
    """Take room for a new machine if the host is up and has it; False when not."""
    return _RESERVE.run(tx.connection, {"host_id": host_id, **_parameters(amounts)}) == 1


def in_zone(connection: Connection, zone: str) -> list[Host]:
    """Return all hosts of the zone, whatever their status."""
    query = select(_hosts).where(_hosts.c.zone == zone).order_by(_hosts.c.name)
    return [Host(**row._mapping) for row in connection.execute(query)]


def name_and_status(connection: Connection, host_id: str) -> tuple[str, str] | None:
    """Return a host's name and status; None when there is no such host."""
    row = _STATUS.first(connection, {"host_id": host_id})
    return (row.name, row.status) if row else None


def lock_zone(tx: Tx, zone: str) -> None:
    """Let others who place by rules in this zone wait for our commit (SQLite's writers do so anyway)."""
    tx.connection.execute(update(ZoneRow).where(_zones.c.id == zone).values(status=_zones.c.status))


def holders(
    connection: Connection, *, project_id: str, instance_ids: Sequence[str] = (), terms: Sequence[LabelTerm] = ()
) -> Mapping[str, int]:
    """Return how many of the project's matching instances each host holds (those with none are left out).

    An instance matches when it is one of ``instance_ids``; without ids, when its labels fit all ``terms``.
    """
    query = select(_instances.c.host_id, func.count().label("count")).where(
        _instances.c.project_id == project_id, _instances.c.deleted_at.is_(None), _instances.c.host_id.is_not(None)
    )
    if instance_ids:
        query = query.where(_instances.c.id.in_(instance_ids))
    for term in () if instance_ids else terms:
        query = query.where(label_condition(_instances.c.id, term))
    return {row[0]: row[1] for row in connection.execute(query.group_by(_instances.c.host_id))}


def _parameters(amounts: Amounts) -> dict[str, int]:
    return {
        "more_vcpus": amounts.vcpus,
        "more_memory_mib": amounts.memory_mib,
        "more_disk_gib": amounts.disk_gib,
    }
