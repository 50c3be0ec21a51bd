"""Holds the database against itself: counters, the label index, claims, jobs.

Each part is one statement, or one page of rows beside what belongs to them, in one consistent view. What is wrong is
searched for by the database, so no more is held here than a page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Row,
    Select,
    Table,
    and_,
    case,
    exists,
    func,
    literal,
    or_,
    select,
)

from iaas.db.models import (
    AllocationRow,
    Base,
    HostRow,
    InstanceRow,
    JobRow,
    LabelRow,
    NICRow,
    SubnetRow,
    VPCRow,
)
from iaas.db.store import Store
from iaas.doctor.findings import Drift, Finding
from iaas.kernel.errors import ResourceRef
from iaas.resources.jobs import JobStatus
from iaas.resources.networks import NetworkStatus
from iaas.services.instances import name_scope
from iaas.services.quotas import recount

_instances = InstanceRow.__table__
_nics = NICRow.__table__
_vpcs = VPCRow.__table__
_subnets = SubnetRow.__table__
_hosts = HostRow.__table__
_allocations = AllocationRow.__table__
_labels = LabelRow.__table__
_jobs = JobRow.__table__

UNFINISHED = (JobStatus.QUEUED, JobStatus.RUNNING)
RESOURCES = ("vcpus", "memory_mib", "disk_gib")

# Tables whose ids hold claims or labels, and which word they go by.
HOLDERS = {
    "instances": "instance",
    "nics": "nic",
    "vpcs": "vpc",
    "subnets": "subnet",
    "address_reservations": "address_reservation",
    "routes": "route",
    "dns_records": "dns_record",
    "images": "image",
    "flavors": "flavor",
    "key_pairs": "key_pair",
    "projects": "project",
    "api_tokens": "api_token",
    "access_keys": "access_key",
    "hosts": "host",
    "zones": "zone",
}
LABELLED = {word: name for name, word in HOLDERS.items() if "labels" in Base.metadata.tables[name].c}


def check_books(store: Store, *, is_known_job: Callable[[str], bool], page: int) -> Iterator[Finding]:
    """Yield every way in which one table contradicts another. Whoever takes them must not use the store meanwhile.

    Args:
        is_known_job: whether the executor has the job on its agenda or at hand.
        page: how many rows are held at a time.
    """
    for check in (_host_counters, _quota_counters):
        with store.read() as connection:
            yield from check(connection)
    for word, name in LABELLED.items():
        yield from _label_index(store, word, Base.metadata.tables[name], page)
    for query, describe in (
        (_unlabelled(), lambda row: _label_finding("resource", row.resource_id)),
        (_unclaimed(), _orphan_claim),
        *((lost, _lost_claim) for lost in _unheld()),
        (_unfinished(), lambda row: None if is_known_job(row.id) else _stuck_job(row)),
        *((stranded, _stranded_transition) for stranded in _stranded()),
    ):
        yield from _described(store, query, describe, page)


def _described(
    store: Store, query: Select[Any], describe: Callable[[Row[Any]], Finding | None], page: int
) -> Iterator[Finding]:
    """Yield what ``describe`` makes of each row; the rows come as they are taken."""
    with store.read() as connection:
        for row in connection.execute(query.execution_options(yield_per=page)):
            if (finding := describe(row)) is not None:
                yield finding


def held(name: str) -> ColumnElement[int]:
    """Return the sum over instances of what they hold of their host.

    The living hold all of their shape; a retained one, deleted, only its disk.
    """
    column: ColumnElement[int] = _instances.c["root_disk_gib" if name == "disk_gib" else name]
    if name != "disk_gib":
        column = case((_instances.c.deleted_at.is_(None), column), else_=0)
    return func.coalesce(func.sum(column), 0, type_=Integer)


def _host_counters(connection: Connection) -> Iterator[Finding]:
    sums = (
        select(_instances.c.host_id, *(held(name).label(name) for name in RESOURCES))
        .where(_instances.c.host_id.is_not(None))
        .group_by(_instances.c.host_id)
    )
    really = {row.host_id: row for row in connection.execute(sums)}
    # A resize holds the larger of two shapes while it is under way: such hosts are looked at another time.
    busy_hosts = select(_instances.c.host_id).where(_instances.c.transition.is_not(None)).distinct()
    busy = set(connection.execute(busy_hosts).scalars())
    for host in connection.execute(select(_hosts)):
        if host.id in busy:
            continue
        counted = {name: getattr(host, f"{name}_used") for name in RESOURCES}
        right = {name: int(getattr(really[host.id], name)) if host.id in really else 0 for name in RESOURCES}
        if counted != right:
            wrong = ", ".join(
                f"{name} {counted[name]} instead of {right[name]}" for name in RESOURCES if counted[name] != right[name]
            )
            yield Finding(
                drift=Drift.HOST_COUNTERS,
                resource=ResourceRef("host", host.id),
                message=f"what {host.name} counts as used is not what its instances hold: {wrong}",
                repair="the counters are made anew from the instances",
                found=wrong,
            )


def _quota_counters(connection: Connection) -> Iterator[Finding]:
    for drift in recount(connection):
        yield Finding(
            drift=Drift.QUOTA_COUNTERS,
            resource=ResourceRef("project", drift.project_id),
            message=f"it counts {drift.used} {drift.resource} as used, and has {drift.held}",
            repair="the counter is made anew from what the project has",
            project_id=drift.project_id,
            scope=drift.resource,
            found=f"{drift.used} instead of {drift.held}",
        )


def _label_index(store: Store, word: str, table: Table, page: int) -> Iterator[Finding]:
    columns = [table.c.id, table.c.labels, *([table.c.deleted_at] if "deleted_at" in table.c else [])]
    after = ""
    while True:
        with store.read() as connection:
            rows = connection.execute(select(*columns).where(table.c.id > after).order_by(table.c.id).limit(page)).all()
            indexed: dict[str, dict[str, str]] = {row.id: {} for row in rows}
            for label in connection.execute(select(_labels).where(_labels.c.resource_id.in_(indexed))):
                indexed[label.resource_id][label.key] = label.value
        for row in rows:
            is_deleted = getattr(row, "deleted_at", None) is not None
            if indexed[row.id] != ({} if is_deleted else row.labels):
                yield _label_finding(word, row.id)
        if len(rows) < page:
            return
        after = rows[-1].id


def _unlabelled() -> Select[Any]:
    """Entries of the label index that belong to nothing."""
    nobody = [~_row_of(name, _labels.c.resource_id) for name in LABELLED.values()]
    return select(_labels.c.resource_id).where(*nobody).distinct()


def _label_finding(word: str, resource_id: str) -> Finding:
    return Finding(
        drift=Drift.LABEL_INDEX,
        resource=ResourceRef(word, resource_id),
        message="the index that label selectors use is not what the resource has",
        repair="the index is made anew from the resource",
    )


def _unclaimed() -> Select[Any]:
    """Claims of what does not exist, or is deleted or failed to come and so holds nothing."""
    return select(_allocations).where(*(~_row_of(name, _allocations.c.resource_id, alive=True) for name in HOLDERS))


def _row_of(table_name: str, resource_id: ColumnElement[Any], *, alive: bool = False) -> ColumnElement[bool]:
    table = Base.metadata.tables[table_name]
    found = exists().where(table.c.id == resource_id)
    return found.where(table.c.deleted_at.is_(None)) if alive and "deleted_at" in table.c else found


def _orphan_claim(row: Row[Any]) -> Finding:
    return Finding(
        drift=Drift.ORPHAN_CLAIM,
        resource=ResourceRef("claim", row.resource_id),
        message=f"{row.value} ({row.scope}) is held by {row.resource_id}, which does not exist",
        repair="the claim is given back",
        scope=row.scope,
        found=row.value,
    )


def _unheld() -> Iterator[Select[Any]]:
    """Names of instances on a host, MACs and addresses of NICs, gateways of subnets: not claimed, or by another."""
    placed = and_(_instances.c.deleted_at.is_(None), _instances.c.host_id.is_not(None))
    yield _without_claim(
        "instance", _instances, _instances, literal(name_scope("")) + _instances.c.project_id, _instances.c.name
    ).where(placed)
    yield _without_claim("nic", _nics, _nics, literal("mac:") + _nics.c.zone, _nics.c.mac)
    yield _without_claim("nic", _nics, _nics, literal("address:") + _nics.c.subnet_id, _nics.c.address).where(
        _nics.c.address.is_not(None)
    )
    yield _without_claim("subnet", _subnets, _subnets, literal("address:") + _subnets.c.id, _subnets.c.gateway).where(
        _subnets.c.gateway.is_not(None), _subnets.c.status != NetworkStatus.FAILED
    )


def _without_claim(
    word: str, holder: FromClause, source: FromClause, scope: ColumnElement[Any], value: ColumnElement[Any]
) -> Select[Any]:
    owner = _allocations.c.resource_id
    claim = and_(_allocations.c.scope == scope, _allocations.c.value == value)
    return (
        select(
            literal(word).label("word"),
            holder.c.id,
            holder.c.project_id,
            scope.label("scope"),
            value.label("value"),
            owner.label("owner"),
        )
        .select_from(source.outerjoin(_allocations, claim))
        .where(or_(owner.is_(None), owner != holder.c.id))
    )


def _lost_claim(row: Row[Any]) -> Finding:
    taken = f"; {row.owner} holds it" if row.owner else ""
    return Finding(
        drift=Drift.LOST_CLAIM,
        resource=ResourceRef(row.word, row.id),
        message=f"it uses {row.value} ({row.scope}) without a claim on it{taken}",
        repair=None if row.owner else "the claim is written",
        project_id=row.project_id,
        scope=row.scope,
        found=row.value,
    )


def _unfinished() -> Select[Any]:
    columns = (_jobs.c[name] for name in ("id", "project_id", "action", "resource_id", "status", "step_name"))
    return select(*columns).where(_jobs.c.status.in_(UNFINISHED))


def _stuck_job(row: Row[Any]) -> Finding:
    return Finding(
        drift=Drift.STUCK_JOB,
        resource=ResourceRef("job", row.id),
        message=f"{row.action} of {row.resource_id} is {row.status} at {row.step_name}, and nobody works on it",
        repair="the job is put onto the agenda again",
        project_id=row.project_id,
    )


def _stranded() -> Iterator[Select[Any]]:
    """Instances, VPCs, subnets and NICs in a transition that no job would end."""
    for word, table in (("instance", _instances), ("vpc", _vpcs), ("subnet", _subnets), ("nic", _nics)):
        columns = (table.c[name] for name in ("id", "project_id", "transition", "generation"))
        # The job of an instance moves its NICs along.
        works = [table.c.id, table.c.instance_id] if word == "nic" else [table.c.id]
        job = exists().where(or_(*(_jobs.c.resource_id == each for each in works)), _jobs.c.status.in_(UNFINISHED))
        yield select(literal(word).label("word"), *columns).where(table.c.transition.is_not(None), ~job)


_REST = {
    "instance": "it comes to rest in the state that its machine is in, or as failed without one",
    "vpc": "it comes to rest: as it is declared, or as failed when it was being made or deleted",
    "subnet": "it comes to rest: as it is declared, or as failed when it was being made or deleted",
    "nic": "it comes to rest in its instance if the machine has it, or as available",
}


def _stranded_transition(row: Row[Any]) -> Finding:
    return Finding(
        drift=Drift.STRANDED_TRANSITION,
        resource=ResourceRef(row.word, row.id),
        message=f"it is {row.transition}, but no job would end that",
        repair=_REST[row.word],
        project_id=row.project_id,
        generation=row.generation,
        found=row.transition,
    )
