"""Looks at both sides, page by page: some rows, what the backends have of them, and the same rows again.

Work goes on meanwhile. So only what stood still is judged: an instance whose row is the same before and after
the backends were asked, and at rest. Machines are made under ids that were written down before, so what has no
row after it was seen never had one, or has none any more.

Never more than a page of rows, machines or ports is held at a time, so a look at a million instances takes longer than
one at a hundred, and no more memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, func, select, union_all

from iaas.db.models import HostRow, ImageRow, InstanceRow, NICRow, SubnetRow, VPCRow
from iaas.db.store import Store
from iaas.drivers.interface import Backend, DriverError, MachineKind, MachineState
from iaas.resources.instances import InstanceStatus
from iaas.resources.networks import NetworkStatus

T = TypeVar("T")

PAGE = 1000

_instances = InstanceRow.__table__
_nics = NICRow.__table__
_hosts = HostRow.__table__
_images = ImageRow.__table__
_vpcs = VPCRow.__table__
_subnets = SubnetRow.__table__

_COLUMNS = [
    _instances.c[name]
    for name in (
        "id", "project_id", "zone", "kind", "status", "transition", "generation", "hostname", "vcpus", "memory_mib",
        "host_id", "disk_generation", "deleted_at", "purge_at", "purged_at",
    )
] + [_instances.c.retained.is_not(None).label("is_recoverable")]  # fmt: skip
_PORT = select(
    _nics.c.id,
    _nics.c.instance_id,
    _nics.c.subnet_id,
    _nics.c.vpc_id,
    _nics.c.generation,
    func.coalesce(_nics.c.transition, _instances.c.transition).label("transition"),
).join_from(_nics, _instances, _nics.c.instance_id == _instances.c.id, isouter=True)

InstanceSeen = Row[Any]
NICSeen = Row[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some instances that stood still, and what the backends have of them.

    A kind or network that did not answer is in neither ``machines`` nor ``ports``.
    """

    instances: Mapping[str, InstanceSeen]
    nics: Collection[NICSeen]  # of the running ones
    machines: Mapping[MachineKind, Mapping[str, MachineState]]
    ports: Mapping[str, Collection[str]]  # ids of NICs by subnet id
    host_zones: Mapping[str, str]


class Survey:
    """One look at a cloud.

    Args:
        page: how many rows, machines or ports are held at a time.
    """

    def __init__(self, store: Store, backend: Backend, *, page: int = PAGE) -> None:
        self._store = store
        self._backend = backend
        self._page = page
        self.unchecked: dict[str, str] = {}
        """What did not answer, and why: nothing is concluded from its silence."""
        self.checked: Counter[str] = Counter(instances=0, machines=0, networks=0, ports=0, images=0)
        """How many of each were looked at."""

    def pages(self, present: Collection[str]) -> Iterator[Page]:
        """Yield all instances that may have a machine, retained ones included, but for those that are in motion.

        Args:
            present: the VPCs and subnets that the host has; the ports of other subnets are not asked for.
        """
        after = ""
        while True:
            with self._store.read() as connection:
                before = _present(connection, after=after, limit=self._page)
                nics = _nics_of(connection, before)
            if not before:
                return
            after = before[-1].id
            self.checked["instances"] += len(before)
            machines = dict(self._machines_of(before))
            ports = dict(self._ports_of([nic for nic in nics if nic.subnet_id in present]))
            with self._store.read() as connection:
                now = _by_id(connection, [row.id for row in before])
                hosts = {row.host_id for row in before if row.host_id is not None}
                hosts |= {state.host_id for found in machines.values() for state in found.values() if state.host_id}
                zones = select(_hosts.c.id, _hosts.c.zone).where(_hosts.c.id.in_(hosts))
                host_zones = {row.id: row.zone for row in connection.execute(zones)}
            still = {row.id: row for row in before if now.get(row.id) == row and row.transition is None}
            yield Page(
                instances=still,
                nics=[nic for nic in nics if nic.instance_id in still],
                machines=machines,
                ports=ports,
                host_zones=host_zones,
            )

    def stray_machines(self, kind: MachineKind) -> Iterator[MachineState]:
        """Yield the machines of a kind that no row stands for."""
        driver = self._backend.compute[kind]
        after = ""
        while True:
            found = self._asked(kind.value, partial(driver.inventory, after=after, limit=self._page))
            if not found:
                return
            after = found[-1].machine_id
            self.checked["machines"] += len(found)
            suspects = self._without_row(kind, [state.machine_id for state in found])
            if not suspects:
                continue
            # Asked again: between the backend's answer and the look at the rows it may have been removed, row and all.
            again = self._asked(kind.value, partial(driver.inventory, only=suspects))
            if again is None:
                return
            confirmed = self._without_row(kind, list(suspects))
            for state in again:
                if state.machine_id in confirmed and confirmed[state.machine_id] == suspects[state.machine_id]:
                    yield state

    def stray_ports(self, subnet_id: str) -> Iterator[str]:
        """Yield the ids of NICs that have a port in the subnet, and no row there that stands for it."""
        what, after = f"ports of {subnet_id}", ""
        ask = partial(self._backend.networks.ports, subnet_id)
        while True:
            found = self._asked(what, partial(ask, after=after, limit=self._page))
            if not found:
                return
            after = found[-1].nic_id
            self.checked["ports"] += len(found)
            suspects = self._not_in(subnet_id, [port.nic_id for port in found])
            if not suspects:
                continue
            again = self._asked(what, partial(ask, only=suspects))  # as above
            if again is None:
                return
            confirmed = self._not_in(subnet_id, suspects)
            yield from (port.nic_id for port in again if port.nic_id in confirmed)

    def stray_images(self) -> list[str]:
        """Return the ids of images that are on the host and in no row."""
        found = self._asked("images", self._backend.images.inventory) or []
        self.checked["images"] += len(found)
        with self._store.read() as connection:
            known = set(connection.execute(select(_images.c.id)).scalars())
        return sorted({state.image_id for state in found} - known)

    def networks(self) -> frozenset[str] | None:
        """Return the ids of the VPCs and subnets that the host has; None when it does not answer."""
        driver = self._backend.networks
        found_vpcs = self._asked("networks", driver.vpcs)
        found_subnets = self._asked("networks", driver.subnets)
        if found_vpcs is None or found_subnets is None:
            return None
        found = {vpc.vpc_id for vpc in found_vpcs} | {subnet.subnet_id for subnet in found_subnets}
        self.checked["networks"] = len(found)
        return frozenset(found)

    def known_networks(self) -> frozenset[str]:
        """Return the ids of the VPCs and subnets in the database."""
        with self._store.read() as connection:
            return frozenset(connection.execute(union_all(select(_vpcs.c.id), select(_subnets.c.id))).scalars())

    def wanted_networks(self) -> frozenset[str]:
        """Return the ids of the VPCs and subnets that the host must have: tenants' own that rest as active."""
        queries = [
            select(table.c.id).where(
                table.c.status == NetworkStatus.ACTIVE,
                table.c.transition.is_(None),
                table.c.project_id.is_not(None),
            )
            for table in (_vpcs, _subnets)
        ]
        with self._store.read() as connection:
            return frozenset(connection.execute(union_all(*queries)).scalars())

    # -- asking -------------------------------------------------------------------------------------------

    def _machines_of(self, rows: Collection[InstanceSeen]) -> Iterator[tuple[MachineKind, dict[str, MachineState]]]:
        for kind, driver in self._backend.compute.items():
            ids = [row.id for row in rows if row.kind == kind]
            found = self._asked(kind.value, partial(driver.inventory, only=ids)) if ids else []
            if found is not None:
                yield kind, {state.machine_id: state for state in found}

    def _ports_of(self, nics: Collection[NICSeen]) -> Iterator[tuple[str, frozenset[str]]]:
        for subnet_id in sorted({nic.subnet_id for nic in nics}):
            ids = [nic.id for nic in nics if nic.subnet_id == subnet_id]
            ask = partial(self._backend.networks.ports, subnet_id, only=ids)
            found = self._asked(f"ports of {subnet_id}", ask)
            if found is not None:
                yield subnet_id, frozenset(port.nic_id for port in found)

    def _without_row(self, kind: MachineKind, ids: Collection[str]) -> dict[str, InstanceSeen | None]:
        """Return those of the machines that no row stands for, each with the row that says so, if there is one."""
        with self._store.read() as connection:
            rows = _by_id(connection, ids)
        return {each: rows.get(each) for each in ids if not _stands_for(rows.get(each), kind)}

    def _not_in(self, subnet_id: str, ids: Collection[str]) -> list[str]:
        """Return those of the NICs that are not in the subnet or in no instance, and not in motion."""
        with self._store.read() as connection:
            rows = {row.id: row for row in connection.execute(_PORT.where(_nics.c.id.in_(ids)))}
        return [
            each
            for each in ids
            if (row := rows.get(each)) is None
            or ((row.subnet_id != subnet_id or row.instance_id is None) and row.transition is None)
        ]

    def _asked(self, what: str, ask: Callable[[], T]) -> T | None:
        """Return the answer; None when there is none now, or was none before."""
        if what in self.unchecked:
            return None
        try:
            return ask()
        except DriverError as error:
            self.unchecked[what] = str(error)
            return None


def _stands_for(row: InstanceSeen | None, kind: MachineKind) -> bool:
    """Return whether a machine of the kind may be there for the row.

    A failed instance that holds a host may have one (its deletion failed), and so may a retained one.
    """
    if row is None or row.kind != kind:
        return False
    if row.transition is not None:
        return True
    if row.deleted_at is not None:
        return row.purge_at is not None and row.purged_at is None
    return row.status != InstanceStatus.FAILED or row.host_id is not None


def _present(connection: Connection, *, after: str, limit: int) -> list[InstanceSeen]:
    """Return the next instances by id but for those of which nothing is left: deleted, and not retained."""
    gone = _instances.c.deleted_at.is_not(None) & _instances.c.transition.is_(None)
    retained = _instances.c.purge_at.is_not(None) & _instances.c.purged_at.is_(None)
    query = select(*_COLUMNS).where(_instances.c.id > after, ~gone | retained).order_by(_instances.c.id).limit(limit)
    return list(connection.execute(query))


def _by_id(connection: Connection, ids: Collection[str]) -> dict[str, InstanceSeen]:
    return {row.id: row for row in connection.execute(select(*_COLUMNS).where(_instances.c.id.in_(ids)))}


def _nics_of(connection: Connection, rows: Collection[InstanceSeen]) -> list[NICSeen]:
    running = [row.id for row in rows if row.status == InstanceStatus.RUNNING]
    return list(connection.execute(_PORT.where(_nics.c.instance_id.in_(running), _nics.c.transition.is_(None))))
