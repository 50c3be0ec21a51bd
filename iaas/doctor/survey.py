"""Looks at both sides: the rows, what the backends have, and the rows again.

Work goes on meanwhile. So only what stood still is judged: an instance whose row is the same before and after
the backends were asked, and at rest. Machines are made under ids that were written down before, so what has no
row at the second reading never had one, or has none any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, select

from iaas.db.models import HostRow, ImageRow, InstanceRow, NICRow
from iaas.db.repositories import networks
from iaas.db.store import Store
from iaas.drivers.interface import Backend, DriverError, MachineKind, MachineState
from iaas.resources.catalog import Network

T = TypeVar("T")

_instances = InstanceRow.__table__
_nics = NICRow.__table__
_hosts = HostRow.__table__
_images = ImageRow.__table__

_COLUMNS = [
    _instances.c[name]
    for name in (
        "id", "project_id", "zone", "kind", "status", "transition", "generation", "hostname", "vcpus", "memory_mib",
        "host_id", "disk_generation", "deleted_at", "purge_at", "purged_at",
    )
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class NICSeen:
    id: str
    instance_id: str | None
    network_id: str
    mac: str
    address: str | None


@dataclass(frozen=True, slots=True)
class Rows:
    """The database at one moment. ``instances`` holds those that may have a machine, deleted ones included."""

    instances: Mapping[str, Any]
    nics: Mapping[str, NICSeen]
    networks: Mapping[str, Network]
    host_zones: Mapping[str, str]
    images: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Both sides. A kind, network or part that did not answer is in ``unchecked`` and in none of the others."""

    before: Rows
    rows: Rows  # as they were last
    moving: frozenset[str]  # instances that are not to be judged
    machines: Mapping[MachineKind, Mapping[str, MachineState]]
    networks: frozenset[str] | None
    ports: Mapping[str, frozenset[str]]
    images: frozenset[str] | None
    unchecked: Mapping[str, str] = field(default_factory=dict)


def look(store: Store, backend: Backend) -> Survey:
    """Return what both sides say now. Asks the drivers, so it may take as long as they do."""
    before = read_rows(store)
    unchecked: dict[str, str] = {}
    machines = {}
    for kind, driver in backend.compute.items():
        found = _asked(kind.value, driver.inventory, unchecked)
        if found is not None:
            machines[kind] = {state.machine_id: state for state in found}
    present = _asked("networks", backend.networks.networks, unchecked)
    ports: dict[str, frozenset[str]] = {}
    for network_id in sorted({state.network_id for state in present or ()}):
        held = _asked(f"ports of {network_id}", lambda at=network_id: backend.networks.ports(at), unchecked)  # type: ignore[misc]  # bound now: the loop goes on
        if held is not None:
            ports[network_id] = frozenset(port.nic_id for port in held)
    images = _asked("images", backend.images.inventory, unchecked)
    after = read_rows(store)
    return Survey(
        before=before,
        rows=after,
        moving=_moving(before, after),
        machines=machines,
        networks=None if present is None else frozenset(state.network_id for state in present),
        ports=ports,
        images=None if images is None else frozenset(state.image_id for state in images),
        unchecked=unchecked,
    )


def read_rows(store: Store) -> Rows:
    """Return the rows as they are at one moment."""
    with store.read() as connection:
        return Rows(
            instances={row.id: row for row in _present(connection)},
            nics={
                row.id: NICSeen(row.id, row.instance_id, row.network_id, row.mac, row.address)
                for row in connection.execute(select(_nics))
            },
            networks={network.id: network for network in networks.list_all(connection)},
            host_zones={row.id: row.zone for row in connection.execute(select(_hosts.c.id, _hosts.c.zone))},
            images=frozenset(connection.execute(select(_images.c.id)).scalars()),
        )


def _present(connection: Connection) -> Iterable[Any]:
    """Yield all instances but those of which nothing is left: deleted, and not retained."""
    gone = _instances.c.deleted_at.is_not(None) & _instances.c.transition.is_(None)
    retained = _instances.c.purge_at.is_not(None) & _instances.c.purged_at.is_(None)
    return connection.execute(select(*_COLUMNS).where(~gone | retained))


def _moving(before: Rows, after: Rows) -> frozenset[str]:
    ids = before.instances.keys() | after.instances.keys()
    return frozenset(each for each in ids if _is_moving(before.instances.get(each), after.instances.get(each)))


def _is_moving(before: Any, after: Any) -> bool:
    if before is None or after is None:
        return True
    return before != after or after.transition is not None


def _asked(what: str, ask: Callable[[], T], unchecked: dict[str, str]) -> T | None:
    """Return the answer; None and a note in ``unchecked`` when there is none."""
    try:
        return ask()
    except DriverError as error:
        unchecked[what] = str(error)
        return None
