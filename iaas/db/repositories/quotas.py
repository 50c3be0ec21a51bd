"""The counters of what projects hold, and what the rows say that they hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from ipaddress import IPv4Address
from typing import Any

from sqlalchemy import BigInteger, Connection, String, Update, bindparam, case, func, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from iaas.db.models import (
    AddressReservationRow,
    Base,
    DNSRecordRow,
    InstanceRow,
    JobRow,
    KeyPairRow,
    NICRow,
    ProjectRow,
    QuotaRow,
    RouteRow,
    SubnetRow,
    VPCRow,
)
from iaas.db.statements import Prepared, delete_rows, insert_rows, update_rows
from iaas.db.store import Tx
from iaas.resources.jobs import FINISHED

_quotas = QuotaRow.__table__
_instances = InstanceRow.__table__.c
_jobs = JobRow.__table__.c

Held = Mapping[str, Mapping[str, int]]
"""Amounts by resource, by project id. Projects that hold nothing may be absent."""


def take(tx: Tx, project_id: str, amounts: Mapping[str, int], defaults: Mapping[str, int]) -> set[str]:
    """Add the amounts to the project's counters and return the resources that have no room for theirs.

    One conditional statement, so of two who want the last one only one gets it. When the answer is not empty
    some counters have changed and some have not: the transaction must be given up.

    Args:
        defaults: the limit of each resource for a project that has none of its own.
    """
    wanted = {resource: amount for resource, amount in sorted(amounts.items()) if amount > 0}
    if not wanted:
        return set()
    values: dict[str, Any] = {"project_id": project_id}
    for index, (resource, amount) in enumerate(wanted.items()):
        values |= {f"resource_{index}": resource, f"amount_{index}": amount, f"default_{index}": defaults[resource]}
    compiled = _take_statement(len(wanted)).on(tx.connection)
    cursor = compiled.execute(tx.connection, compiled.arguments(values))
    return wanted.keys() - {row[0] for row in cursor.fetchall()}


def give(tx: Tx, project_id: str, amounts: Mapping[str, int]) -> None:
    """Take the amounts off the project's counters again."""
    wanted = {resource: amount for resource, amount in sorted(amounts.items()) if amount > 0}
    if not wanted:
        return
    values: dict[str, Any] = {"project_id": project_id}
    for index, (resource, amount) in enumerate(wanted.items()):
        values |= {f"resource_{index}": resource, f"amount_{index}": amount}
    _give_statement(len(wanted)).run(tx.connection, values)


@cache
def _take_statement(count: int) -> Prepared:
    amount, default = _chosen("amount", count), _chosen("default", count)
    fits = _quotas.c.used + amount <= func.coalesce(_quotas.c.max_used, default)
    return Prepared(_change(count).where(fits).values(used=_quotas.c.used + amount).returning(_quotas.c.resource))


@cache
def _give_statement(count: int) -> Prepared:
    return Prepared(_change(count).values(used=_quotas.c.used - _chosen("amount", count)))


def _change(count: int) -> Update:
    resources = [_resource(index) for index in range(count)]
    return update(QuotaRow).where(
        _quotas.c.project_id == bindparam("project_id", type_=String()),
        or_(*(_quotas.c.resource == resource for resource in resources)),
    )


def _chosen(what: str, count: int) -> ColumnElement[int]:
    return case(
        *((_quotas.c.resource == _resource(index), _amount(f"{what}_{index}")) for index in range(count)),
        else_=_quotas.c.used,  # never reached: the statement names its resources
    )


def _resource(index: int) -> ColumnElement[str]:
    return bindparam(f"resource_{index}", type_=String())


def _amount(name: str) -> ColumnElement[int]:
    return bindparam(name, type_=BigInteger())


def of_project(connection: Connection, project_id: str) -> dict[str, tuple[int, int | None]]:
    """Return used and limit (None for the default) by resource."""
    query = select(_quotas).where(_quotas.c.project_id == project_id)
    return {row.resource: (row.used, row.max_used) for row in connection.execute(query)}


def all_used(connection: Connection) -> dict[tuple[str, str], int]:
    """Return every counter by project id and resource."""
    query = select(_quotas.c.project_id, _quotas.c.resource, _quotas.c.used)
    return {(row.project_id, row.resource): row.used for row in connection.execute(query)}


def project_ids(connection: Connection) -> list[str]:
    return list(connection.execute(select(ProjectRow.__table__.c.id)).scalars())


def add_counters(tx: Tx, counters: Mapping[tuple[str, str], int]) -> None:
    """Write new counters: used by project id and resource."""
    rows = [
        {"project_id": project_id, "resource": resource, "used": used, "max_used": None}
        for (project_id, resource), used in counters.items()
    ]
    insert_rows(tx.connection, _quotas, rows)


def set_used(tx: Tx, project_id: str, resource: str, used: int) -> None:
    update_rows(tx.connection, _quotas, {"project_id": project_id, "resource": resource}, {"used": used})


def set_limit(tx: Tx, project_id: str, resource: str, limit: int | None) -> None:
    update_rows(tx.connection, _quotas, {"project_id": project_id, "resource": resource}, {"max_used": limit})


def remove_project(tx: Tx, project_id: str) -> None:
    delete_rows(tx.connection, _quotas, {"project_id": project_id})


def held_by_instances(connection: Connection) -> Held:
    """Count what instances hold: all that are on a host; of a retained one only the disk.

    A resize holds its growth from its acceptance on, while the instance's row still has the old shape.
    """
    alive = _instances.deleted_at.is_(None)
    query = (
        select(
            _instances.project_id,
            func.sum(case((alive, 1), else_=0)).label("instances"),
            func.sum(case((alive, _instances.vcpus), else_=0)).label("vcpus"),
            func.sum(case((alive, _instances.memory_mib), else_=0)).label("memory_mib"),
            func.sum(_instances.root_disk_gib).label("root_disk_gib"),
        )
        .where(_instances.host_id.is_not(None))
        .group_by(_instances.project_id)
    )
    held: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in connection.execute(query):
        held[row.project_id].update(
            {
                name: int(value) for name, value in row._mapping.items() if name != "project_id"
            }  # PostgreSQL sums decimals
        )
    resizes = (
        select(_instances.project_id, _instances.vcpus, _instances.memory_mib, _jobs.input)
        .join(InstanceRow.__table__, _instances.id == _jobs.resource_id)
        .where(
            _jobs.action == "instance.resize",
            _jobs.status.not_in([str(status) for status in FINISHED]),
            _instances.host_id.is_not(None),
        )
    )
    for resize in connection.execute(resizes):
        held[resize.project_id]["vcpus"] += max(0, resize.input["vcpus"] - resize.vcpus)
        held[resize.project_id]["memory_mib"] += max(0, resize.input["memory_mib"] - resize.memory_mib)
    return held


def held_by_key_pairs(connection: Connection) -> Held:
    return _rows_of(connection, KeyPairRow, "key_pairs")


def held_by_vpcs(connection: Connection) -> Held:
    """Count VPCs, but neither hidden ones nor those that have failed: they hold nothing."""
    columns = VPCRow.__table__.c
    return _rows_of(connection, VPCRow, "vpcs", columns.project_id.is_not(None), columns.status != "failed")


def held_by_subnets(connection: Connection) -> Held:
    """Count subnets, but neither those that all share nor those that have failed: they hold nothing."""
    columns = SubnetRow.__table__.c
    return _rows_of(connection, SubnetRow, "subnets", columns.project_id.is_not(None), columns.status != "failed")


def held_by_nics(connection: Connection) -> Held:
    return _rows_of(connection, NICRow, "nics")


def held_by_routes(connection: Connection) -> Held:
    return _rows_of(connection, RouteRow, "routes")


def held_by_dns_records(connection: Connection) -> Held:
    return _rows_of(connection, DNSRecordRow, "dns_records")


def held_by_reservations(connection: Connection) -> Held:
    """Count the addresses that are reserved, whatever the number of reservations."""
    columns = AddressReservationRow.__table__.c
    held: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in connection.execute(select(columns.project_id, columns.first, columns.last)):
        held[row.project_id]["reserved_addresses"] += int(IPv4Address(row.last)) - int(IPv4Address(row.first)) + 1
    return held


def _rows_of(connection: Connection, model: type[Base], resource: str, *where: ColumnElement[bool]) -> Held:
    """Count the rows of each project."""
    project_id = model.__table__.c.project_id
    query = select(project_id, func.count().label("amount")).where(*where).group_by(project_id)
    return {row.project_id: {resource: row.amount} for row in connection.execute(query)}


def merged(parts: Iterable[Held]) -> dict[tuple[str, str], int]:
    """Return all amounts by project id and resource."""
    return {
        (project_id, resource): amount
        for held in parts
        for project_id, amounts in held.items()
        for resource, amount in amounts.items()
    }
