"""Quotas: how much of each resource a project may have.

What is limited is a table, :data:`COUNTED`: a new resource adds its names, their defaults and how its rows are
counted. The counters change in the commit of what they count, and :func:`recount` proves them from the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from iaas.db.repositories import identity, quotas
from iaas.db.store import Store, Tx
from iaas.kernel.errors import FieldError, InvalidInput, NotFound, QuotaExceeded, ResourceRef, Unauthenticated
from iaas.resources.common import Principal, Role
from iaas.resources.quotas import Quota, QuotaDrift
from iaas.services.access import require
from iaas.services.telling import tell

MAX_LIMIT = 10**15


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Some quotas whose amounts come from the same rows.

    ``defaults``: limit by name, wide enough for whoever does not think of quotas. ``held``: what projects hold.
    """

    defaults: Mapping[str, int]
    held: Callable[[Connection], quotas.Held]


COUNTED: tuple[Counted, ...] = (
    Counted(
        defaults={
            "instances": 1_000_000,
            "vcpus": 10_000_000,
            "memory_mib": 20_000_000_000,
            "root_disk_gib": 100_000_000,
        },
        held=quotas.held_by_instances,
    ),
    Counted(defaults={"key_pairs": 100_000}, held=quotas.held_by_key_pairs),
    Counted(defaults={"vpcs": 100_000}, held=quotas.held_by_vpcs),
    Counted(defaults={"subnets": 100_000}, held=quotas.held_by_subnets),
    Counted(defaults={"nics": 4_000_000}, held=quotas.held_by_nics),
    Counted(defaults={"reserved_addresses": 1_000_000}, held=quotas.held_by_reservations),
    Counted(defaults={"routes": 10_000}, held=quotas.held_by_routes),
    Counted(defaults={"dns_records": 10_000}, held=quotas.held_by_dns_records),
)
DEFAULTS: Mapping[str, int] = {name: limit for counted in COUNTED for name, limit in counted.defaults.items()}
UNKNOWN = f"unknown quota; there are {', '.join(DEFAULTS)}"


class Quotas:
    """The quotas of one cloud.

    Args:
        limits: for projects without a limit of their own, in place of :data:`DEFAULTS`.

    Raises:
        ValueError: ``limits`` has a name that is no quota, or a number that is no limit.
    """

    def __init__(self, store: Store, limits: Mapping[str, int]) -> None:
        for name, limit in limits.items():
            if name not in DEFAULTS or not 0 <= limit <= MAX_LIMIT:
                raise ValueError(f"{name}={limit} is no quota; there are {', '.join(DEFAULTS)}, from 0 to {MAX_LIMIT}")
        self._store = store
        self._defaults = {**DEFAULTS, **limits}

    # -- inside the transactions of others ----------------------------------------------------------------

    def take(self, tx: Tx, project_id: str, amounts: Mapping[str, int]) -> None:
        """Count ``amounts`` as used by the project. Comes before host capacity is taken (order of locks).

        Raises:
            QuotaExceeded: one is not there; the transaction must be given up.
        """
        refused = quotas.take(tx, project_id, amounts, self._defaults)
        if not refused:
            return
        rows = quotas.of_project(tx.connection, project_id)
        name = min(refused)
        if name not in rows:  # deleted while this request was on its way
            raise Unauthenticated("the credential's project is gone")
        used, own_limit = rows[name]
        limit = self._defaults[name] if own_limit is None else own_limit
        message = f"the project's quota of {name} is {limit}: {used} in use, {amounts[name]} more asked for"
        raise QuotaExceeded(message, errors=[FieldError(name, "quota_exceeded", message)])

    # -- for tenants and the operator ---------------------------------------------------------------------

    def own(self, principal: Principal) -> list[Quota]:
        """Return the quotas of the principal's own project, in the order of their table."""
        return self._of(principal.project_id)

    def of_project(self, principal: Principal, id_or_name: str) -> list[Quota]:
        """Return the quotas of a project; to others than admins only their own exists."""
        return self._of(self._project_id(principal, id_or_name))

    def update(self, principal: Principal, id_or_name: str, limits: Mapping[str, int | None]) -> list[Quota]:
        """Set limits of a project (admins); None goes back to the default. What is in use already may be more.

        Raises:
            InvalidInput: a name that is no quota, or a number that is no limit.
        """
        require(principal, Role.ADMIN)
        for name, limit in limits.items():
            if name not in DEFAULTS:
                raise _invalid(name, "unknown", UNKNOWN)
            if limit is not None and not 0 <= limit <= MAX_LIMIT:
                raise _invalid(name, "out_of_range", f"must be from 0 to {MAX_LIMIT}")
        project_id = self._project_id(principal, id_or_name)

        def work(tx: Tx) -> list[Quota]:
            for name, limit in limits.items():
                quotas.set_limit(tx, project_id, name, limit)
            if limits:  # told to whose limits they are; null says that it is the default again
                data = {"limits": dict(limits)}
                tell(tx, principal, "quota", "updated", project_id, project_id=project_id, data=data)
            return self._read(tx.connection, project_id)

        return self._store.write(work)

    def _project_id(self, principal: Principal, id_or_name: str) -> str:
        with self._store.read() as connection:
            found = identity.get_project(connection, id_or_name)
        if found is None or (principal.role is not Role.ADMIN and found.id != principal.project_id):
            raise NotFound(f"there is no project {id_or_name}", resource=ResourceRef("project", id_or_name))
        return found.id

    def _of(self, project_id: str) -> list[Quota]:
        with self._store.read() as connection:
            return self._read(connection, project_id)

    def _read(self, connection: Connection, project_id: str) -> list[Quota]:
        rows = quotas.of_project(connection, project_id)
        found = []
        for name, default in self._defaults.items():
            used, own_limit = rows.get(name, (0, None))
            found.append(Quota(resource=name, limit=default if own_limit is None else own_limit, used=used))
        return found


def open_project(tx: Tx, project_id: str) -> None:
    """Begin to count for a new project."""
    quotas.add_counters(tx, {(project_id, name): 0 for name in DEFAULTS})


def add_missing(tx: Tx) -> None:
    """Make the counters that a database of an earlier version lacks, from what its rows hold."""
    known = quotas.all_used(tx.connection)
    missing = [
        (project_id, name)
        for project_id in quotas.project_ids(tx.connection)
        for name in DEFAULTS
        if (project_id, name) not in known
    ]
    if missing:
        held = _held(tx.connection)
        quotas.add_counters(tx, {key: held.get(key, 0) for key in missing})


def recount(connection: Connection) -> list[QuotaDrift]:
    """Return the counters that are not what the rows hold; none, unless the cloud has a fault."""
    held = _held(connection)
    return [
        QuotaDrift(project_id=key[0], resource=key[1], used=used, held=held.get(key, 0))
        for key, used in sorted(quotas.all_used(connection).items())
        if used != held.get(key, 0)
    ]


def repair(tx: Tx) -> list[QuotaDrift]:
    """Set every counter to what the rows hold and return those that were wrong."""
    drifts = recount(tx.connection)
    for drift in drifts:
        quotas.set_used(tx, drift.project_id, drift.resource, drift.held)
    return drifts


def _held(connection: Connection) -> dict[tuple[str, str], int]:
    return quotas.merged(counted.held(connection) for counted in COUNTED)


def _invalid(field: str, code: str, message: str) -> InvalidInput:
    return InvalidInput(f"{field}: {message}", errors=[FieldError(field, code, message)])
