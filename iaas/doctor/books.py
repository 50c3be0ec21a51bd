"""Holds the database against itself: counters, the label index, claims, jobs. One consistent view."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, case, func, select

from iaas.db.models import (
    AllocationRow,
    Base,
    HostRow,
    InstanceRow,
    JobRow,
    LabelRow,
    NICRow,
)
from iaas.doctor.findings import Drift, Finding
from iaas.kernel.errors import ResourceRef
from iaas.resources.jobs import JobStatus
from iaas.services.instances import name_scope
from iaas.services.quotas import recount

_instances = InstanceRow.__table__
_nics = NICRow.__table__
_hosts = HostRow.__table__
_allocations = AllocationRow.__table__
_labels = LabelRow.__table__
_jobs = JobRow.__table__

UNFINISHED = (JobStatus.QUEUED, JobStatus.RUNNING)
RESOURCES = ("vcpus", "memory_mib", "disk_gib")

# Tables whose ids hold claims or labels, and which word they go by.
_HOLDERS = {
    "instances": "instance",
    "nics": "nic",
    "images": "image",
    "flavors": "flavor",
    "key_pairs": "key_pair",
    "projects": "project",
    "api_tokens": "api_token",
    "access_keys": "access_key",
    "hosts": "host",
    "zones": "zone",
}


def check_books(connection: Connection, *, is_known_job: Callable[[str], bool]) -> Iterator[Finding]:
    """Yield every way in which one table contradicts another.

    Args:
        is_known_job: whether the executor has the job on its agenda or at hand.
    """
    yield from _host_counters(connection)
    yield from _quota_counters(connection)
    yield from _label_index(connection)
    yield from _orphan_claims(connection)
    yield from _lost_claims(connection)
    yield from _jobs_and_transitions(connection, is_known_job)


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
            wrong = ", ".join(f"{name} {counted[name]} instead of {right[name]}" for name in RESOURCES)
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


def _label_index(connection: Connection) -> Iterator[Finding]:
    indexed: dict[str, dict[str, str]] = {}
    for row in connection.execute(select(_labels)):
        indexed.setdefault(row.resource_id, {})[row.key] = row.value
    for table_name, word in _HOLDERS.items():
        table = Base.metadata.tables[table_name]
        if "labels" not in table.c:
            continue
        columns = [table.c.id, table.c.labels, *([table.c.deleted_at] if "deleted_at" in table.c else [])]
        for row in connection.execute(select(*columns)):
            is_deleted = getattr(row, "deleted_at", None) is not None
            listed = indexed.pop(row.id, {})
            if listed != ({} if is_deleted else row.labels):
                yield _label_finding(word, row.id)
    for resource_id in sorted(indexed):
        yield _label_finding("resource", resource_id)


def _label_finding(word: str, resource_id: str) -> Finding:
    return Finding(
        drift=Drift.LABEL_INDEX,
        resource=ResourceRef(word, resource_id),
        message="the index that label selectors use is not what the resource has",
        repair="the index is made anew from the resource",
    )


def _orphan_claims(connection: Connection) -> Iterator[Finding]:
    """Claims of what does not exist, or is deleted or failed to come and so holds nothing."""
    alive: set[str] = set()
    for table_name in _HOLDERS:
        table = Base.metadata.tables[table_name]
        query = select(table.c.id)
        if "deleted_at" in table.c:
            query = query.where(table.c.deleted_at.is_(None))
        alive.update(connection.execute(query).scalars())
    for row in connection.execute(select(_allocations)):
        if row.resource_id not in alive:
            yield Finding(
                drift=Drift.ORPHAN_CLAIM,
                resource=ResourceRef("claim", row.resource_id),
                message=f"{row.value} ({row.scope}) is held by {row.resource_id}, which does not exist",
                repair="the claim is given back",
                scope=row.scope,
                found=row.value,
            )


def _lost_claims(connection: Connection) -> Iterator[Finding]:
    claims = {(row.scope, row.value): row.resource_id for row in connection.execute(select(_allocations))}
    columns = ("id", "project_id", "name", "zone", "host_id")
    zones: dict[str, str] = {}
    query = select(*(_instances.c[name] for name in columns)).where(
        _instances.c.deleted_at.is_(None), _instances.c.host_id.is_not(None)
    )
    for row in connection.execute(query):
        zones[row.id] = row.zone
        yield from _lost(claims, name_scope(row.project_id), row.name, ResourceRef("instance", row.id), row.project_id)
    for nic in connection.execute(select(_nics)):
        zone = zones.get(nic.instance_id)
        if zone is None:
            continue
        holder = ResourceRef("nic", nic.id)
        yield from _lost(claims, f"mac:{zone}", nic.mac, holder, nic.project_id)
        if nic.address is not None:
            yield from _lost(claims, f"address:{nic.network_id}", nic.address, holder, nic.project_id)


def _lost(
    claims: dict[tuple[str, str], Any], scope: str, value: str, holder: ResourceRef, project_id: str
) -> Iterator[Finding]:
    owner = claims.get((scope, value))
    if owner == holder.id:
        return
    taken = f"; {owner} holds it" if owner else ""
    yield Finding(
        drift=Drift.LOST_CLAIM,
        resource=holder,
        message=f"it uses {value} ({scope}) without a claim on it{taken}",
        repair=None if owner else "the claim is written",
        project_id=project_id,
        scope=scope,
        found=value,
    )


def _jobs_and_transitions(connection: Connection, is_known_job: Callable[[str], bool]) -> Iterator[Finding]:
    unfinished = select(_jobs).where(_jobs.c.status.in_(UNFINISHED))
    working: set[str] = set()
    for job in connection.execute(unfinished):
        working.add(job.resource_id)
        if not is_known_job(job.id):
            yield Finding(
                drift=Drift.STUCK_JOB,
                resource=ResourceRef("job", job.id),
                message=f"{job.action} of {job.resource_id} is {job.status} at {job.step_name}, and nobody works on it",
                repair="the job is put onto the agenda again",
                project_id=job.project_id,
            )
    columns = ("id", "project_id", "transition", "generation")
    query = select(*(_instances.c[name] for name in columns)).where(_instances.c.transition.is_not(None))
    for row in connection.execute(query):
        if row.id not in working:
            yield Finding(
                drift=Drift.STRANDED_TRANSITION,
                resource=ResourceRef("instance", row.id),
                message=f"it is {row.transition}, but no job would end that",
                repair="it comes to rest in the state that its machine is in, or as failed without one",
                project_id=row.project_id,
                generation=row.generation,
                found=row.transition,
            )
