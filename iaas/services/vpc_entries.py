"""Routes and DNS records of VPCs. Each change is one revision of its VPC and one job that applies it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from iaas.db.repositories import quotas, shared, vpc_entries
from iaas.db.repositories.query import Listing
from iaas.db.store import Store, Tx
from iaas.kernel import ids as id_prefixes
from iaas.kernel.errors import AlreadyExists, FieldError, NotFound, QuotaExceeded, ResourceRef
from iaas.kernel.ids import IdSource
from iaas.resources.common import Principal, Role
from iaas.resources.jobs import Job
from iaas.resources.networks import VPC, DNSRecord, NewRoute, Route
from iaas.services.access import require
from iaas.services.cidrs import invalid
from iaas.services.dns_names import check_name, check_ttl, check_type, check_values
from iaas.services.network_changes import again_vpc, changed_vpc, emit, find_vpc
from iaas.services.quotas import Quotas
from iaas.services.record_rules import check_beside
from iaas.services.route_wishes import RoutePlan, RoutePlanner
from iaas.workflows.network_specs import NextHops

MAX_ROUTES = 1000  # of one VPC, and of one request
MAX_RECORDS = 1000  # of one VPC
_LONGEST_CLAIM = 160


class VPCEntries:
    def __init__(self, store: Store, ids: IdSource, add_job: Callable[..., Job], quotas: Quotas) -> None:
        self._store = store
        self._ids = ids
        self._add_job = add_job
        self._quotas = quotas

    # -- routes -------------------------------------------------------------------------------------------

    def list_routes(self, principal: Principal, vpc: str, listing: Listing) -> tuple[list[Route], str | None]:
        with self._store.read() as connection:
            found = find_vpc(connection, principal, vpc)
            rows, cursor = vpc_entries.list_routes(connection, listing, vpc_id=found.id)
            hops = NextHops(connection, found.id)
            return [_route(row, hops) for row in rows], cursor

    def get_route(self, principal: Principal, vpc: str, route_id: str) -> Route:
        with self._store.read() as connection:
            found = find_vpc(connection, principal, vpc)
            row = vpc_entries.route(connection, found.id, route_id)
            if row is None:
                raise _no_route(route_id)
            return _route(row, NextHops(connection, found.id))

    def add_routes(
        self, principal: Principal, vpc: str, wishes: Sequence[NewRoute], *, is_batch: bool = False
    ) -> tuple[list[Route], Job]:
        """Add routes, all or none, at most :data:`MAX_ROUTES`; they are returned in the order of the wishes.

        Args:
            is_batch: the fields of errors begin with ``routes.<index>.``, as they do for more than one wish.

        Raises:
            InvalidInput: a destination or target that makes no sense.
            AlreadyExists: a destination has a route.
            QuotaExceeded: the project, or the VPC, may have no more.
            InTransition, InvalidState: the VPC is not active.
        """
        require(principal, Role.MEMBER)
        found = self._vpc(principal, vpc)
        _check_number(wishes, least=1)
        prefixes = _prefixes(wishes, is_batch=is_batch or len(wishes) > 1)

        def work(tx: Tx) -> tuple[list[Route], Job]:
            self._quotas.take(tx, principal.project_id, {"routes": len(wishes)})
            with changed_vpc(tx, found.id, "adding a route"):
                if vpc_entries.count_routes(tx.connection, found.id) + len(wishes) > MAX_ROUTES:
                    raise _too_many("routes", MAX_ROUTES)
                plans = _planned(tx, principal, found, wishes, prefixes)
                rows = self._write_routes(tx, principal, found, plans, prefixes)
            job = self._apply(tx, principal, found.id, {"routes_added": len(rows)})
            return _shown(tx, found.id, rows), job

        return self._store.write(work)

    def replace_routes(self, principal: Principal, vpc: str, wishes: Sequence[NewRoute]) -> tuple[list[Route], Job]:
        """Make ``wishes`` all the routes that there are, at once; those that are as wished already keep their ids.

        Raises:
            InvalidInput, QuotaExceeded, InTransition, InvalidState: as for :meth:`add_routes`.
        """
        require(principal, Role.MEMBER)
        found = self._vpc(principal, vpc)
        _check_number(wishes, least=0)
        prefixes = _prefixes(wishes, is_batch=True)

        def work(tx: Tx) -> tuple[list[Route], Job]:
            with changed_vpc(tx, found.id, "replacing its routes"):
                plans = _planned(tx, principal, found, wishes, prefixes)
                old = {_key(row): row for row in vpc_entries.routes_of(tx.connection, found.id)}
                kept = {key: old.pop(key) for key in [_key(plan) for plan in plans] if key in old}
                new = [index for index, plan in enumerate(plans) if _key(plan) not in kept]
                more = len(new) - len(old)
                self._quotas.take(tx, principal.project_id, {"routes": more})
                quotas.give(tx, principal.project_id, {"routes": -more})
                gone = [row.id for row in old.values()]
                vpc_entries.delete_routes(tx, gone)
                shared.release_each(tx, gone)
                made = self._write_routes(
                    tx, principal, found, [plans[index] for index in new], [prefixes[index] for index in new]
                )
            job = self._apply(tx, principal, found.id, {"routes_added": len(new), "routes_removed": len(old)})
            fresh = dict(zip(new, made, strict=True))
            rows = [fresh.get(index) or kept[_key(plan)] for index, plan in enumerate(plans)]
            return _shown(tx, found.id, rows), job

        return self._store.write(work)

    def delete_route(self, principal: Principal, vpc: str, route_id: str) -> Job:
        require(principal, Role.MEMBER)
        found = self._vpc(principal, vpc)

        def work(tx: Tx) -> Job:
            with changed_vpc(tx, found.id, "removing a route"):
                if vpc_entries.route(tx.connection, found.id, route_id) is None:
                    raise _no_route(route_id)
                vpc_entries.delete_route(tx, route_id)
                shared.release_all(tx, route_id)
                quotas.give(tx, principal.project_id, {"routes": 1})
            return self._apply(tx, principal, found.id, {"routes_removed": 1})

        return self._store.write(work)

    def _write_routes(
        self, tx: Tx, principal: Principal, vpc: VPC, plans: Sequence[RoutePlan], prefixes: Sequence[str]
    ) -> list[Any]:
        ids = [self._ids.new(id_prefixes.ROUTE) for _ in plans]
        scope = f"route:{vpc.id}"
        wanted = [(plan.destination, route_id) for plan, route_id in zip(plans, ids, strict=True)]
        if not shared.claim_all(tx, scope=scope, wanted=wanted):
            holders = shared.holders_in(tx.connection, scope)
            for (destination, route_id), prefix in zip(wanted, prefixes, strict=True):
                if holders.get(destination) != route_id:
                    message = f"there is a route for {destination} in VPC {vpc.id} already"
                    raise AlreadyExists(message, errors=[FieldError(prefix + "destination", "taken", message)])
        rows = [
            {
                "id": route_id,
                "project_id": principal.project_id,
                "vpc_id": vpc.id,
                "destination": plan.destination,
                "target_type": plan.target_type.value,
                "target": plan.target,
            }
            for plan, route_id in zip(plans, ids, strict=True)
        ]
        return vpc_entries.add_routes(tx, rows)

    # -- DNS records --------------------------------------------------------------------------------------

    def list_records(self, principal: Principal, vpc: str, listing: Listing) -> tuple[list[DNSRecord], str | None]:
        with self._store.read() as connection:
            found = find_vpc(connection, principal, vpc)
            rows, cursor = vpc_entries.list_records(connection, listing, vpc_id=found.id)
        return [_record(row) for row in rows], cursor

    def get_record(self, principal: Principal, vpc: str, record_id: str) -> DNSRecord:
        with self._store.read() as connection:
            found = find_vpc(connection, principal, vpc)
            row = vpc_entries.record(connection, found.id, record_id)
        if row is None:
            raise _no_record(record_id)
        return _record(row)

    def add_record(
        self, principal: Principal, vpc: str, *, name: str, type: str, values: Sequence[str], ttl_s: int = 60
    ) -> tuple[DNSRecord, Job]:
        """Add a record. Names, a CNAME's value too, are relative to the VPC's domain unless a dot ends them.

        Raises:
            InvalidInput: names each wrong field.
            AlreadyExists: there is such a record, or one that cannot stand beside this one.
            QuotaExceeded: the project, or the VPC, may have no more.
            InTransition, InvalidState: the VPC is not active.
        """
        require(principal, Role.MEMBER)
        found = self._vpc(principal, vpc)
        record_type = check_type(type)
        ttl_s = check_ttl(ttl_s)

        def work(tx: Tx) -> tuple[DNSRecord, Job]:
            record_id = self._ids.new(id_prefixes.DNS_RECORD)
            self._quotas.take(tx, principal.project_id, {"dns_records": 1})
            with changed_vpc(tx, found.id, "adding a DNS record") as current:
                # Here and not before: the VPC may have another domain by now.
                domain = current.dns_domain
                checked_name = check_name(name, domain, "name", service_labels=record_type != "A")
                checked = check_values(record_type, values, domain)
                rows = vpc_entries.records_of(tx.connection, found.id)
                if len(rows) >= MAX_RECORDS:
                    raise _too_many("dns_records", MAX_RECORDS)
                check_beside(rows, domain, name=checked_name, record_type=record_type, values=checked)
                claimed = _claim_value(checked_name, record_type)
                if not shared.claim(tx, scope=f"dns:{found.id}", value=claimed, resource_id=record_id):
                    message = f"there is a record {checked_name} of the type {record_type} already"
                    raise AlreadyExists(message, errors=[FieldError("name", "taken", message)])
                vpc_entries.add_record(
                    tx,
                    id=record_id,
                    project_id=principal.project_id,
                    vpc_id=found.id,
                    name=checked_name,
                    type=record_type,
                    values=checked,
                    ttl_s=ttl_s,
                )
            job = self._apply(tx, principal, found.id, {"dns_records_added": 1})
            return _record(vpc_entries.record(tx.connection, found.id, record_id)), job

        return self._store.write(work)

    def delete_record(self, principal: Principal, vpc: str, record_id: str) -> Job:
        require(principal, Role.MEMBER)
        found = self._vpc(principal, vpc)

        def work(tx: Tx) -> Job:
            with changed_vpc(tx, found.id, "removing a DNS record"):
                if vpc_entries.record(tx.connection, found.id, record_id) is None:
                    raise _no_record(record_id)
                vpc_entries.delete_record(tx, record_id)
                shared.release_all(tx, record_id)
                quotas.give(tx, principal.project_id, {"dns_records": 1})
            return self._apply(tx, principal, found.id, {"dns_records_removed": 1})

        return self._store.write(work)

    # -- both ---------------------------------------------------------------------------------------------

    def _vpc(self, principal: Principal, id_or_name: str) -> VPC:
        with self._store.read() as connection:
            return find_vpc(connection, principal, id_or_name)

    def _apply(self, tx: Tx, principal: Principal, vpc_id: str, what: dict[str, Any]) -> Job:
        job = self._add_job(
            tx,
            action="vpc.apply",
            resource=ResourceRef("vpc", vpc_id),
            project_id=principal.project_id,
            request_id=principal.request_id,
        )
        emit(tx, principal, again_vpc(tx, vpc_id), "updated", job_id=job.id, data=what)
        return job


def _planned(
    tx: Tx, principal: Principal, vpc: VPC, wishes: Sequence[NewRoute], prefixes: Sequence[str]
) -> list[RoutePlan]:
    planner = RoutePlanner(tx.connection, principal.project_id, vpc)
    plans: list[RoutePlan] = []
    seen: set[str] = set()
    for wish, prefix in zip(wishes, prefixes, strict=True):
        plan = planner.plan(wish, prefix)
        if plan.destination in seen:
            raise invalid(prefix + "destination", "twice", f"{plan.destination} is given twice")
        seen.add(plan.destination)
        plans.append(plan)
    return plans


def _shown(tx: Tx, vpc_id: str, rows: Sequence[Any]) -> list[Route]:
    hops = NextHops(tx.connection, vpc_id)
    return [_route(row, hops) for row in rows]


def _check_number(wishes: Sequence[NewRoute], *, least: int) -> None:
    if len(wishes) < least:
        raise invalid("routes", "required", "at least one route is needed")
    if len(wishes) > MAX_ROUTES:
        raise invalid("routes", "too_many", f"at most {MAX_ROUTES} routes")


def _prefixes(wishes: Sequence[NewRoute], *, is_batch: bool) -> list[str]:
    return [f"routes.{index}." if is_batch else "" for index, _ in enumerate(wishes)]


def _key(route: Any) -> tuple[str, str, str]:
    return route.destination, str(route.target_type), route.target


def _claim_value(name: str, record_type: str) -> str:
    """Return what is claimed for a record; names that are too long for a claim are claimed by their digest."""
    value = f"{name}/{record_type}"
    return value if len(value) <= _LONGEST_CLAIM else f"{hashlib.sha256(name.encode()).hexdigest()}/{record_type}"


def _too_many(what: str, most: int) -> QuotaExceeded:
    message = f"a VPC has at most {most} {what}"
    return QuotaExceeded(message, errors=[FieldError(what, "quota_exceeded", message)])


def _no_route(route_id: str) -> NotFound:
    return NotFound(f"there is no route {route_id} in this VPC", resource=ResourceRef("route", route_id))


def _no_record(record_id: str) -> NotFound:
    return NotFound(f"there is no DNS record {record_id} in this VPC", resource=ResourceRef("dns_record", record_id))


def _route(row: Any, hops: NextHops) -> Route:
    return Route(
        id=row.id,
        project_id=row.project_id,
        vpc_id=row.vpc_id,
        destination=row.destination,
        target_type=row.target_type,
        target=row.target,
        next_hop=hops.of(row.target_type, row.target),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _record(row: Any) -> DNSRecord:
    return DNSRecord(
        id=row.id,
        project_id=row.project_id,
        vpc_id=row.vpc_id,
        name=row.name,
        type=row.type,
        values=tuple(row.values),
        ttl_s=row.ttl_s,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
