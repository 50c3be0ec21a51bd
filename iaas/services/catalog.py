"""Zones, hosts, flavors, images: what instances are made of and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, FromClause

from iaas.db.models import FlavorRow, HostRow, ImageRow, ZoneRow
from iaas.db.postgres import lock_row
from iaas.db.repositories import catalog, shared
from iaas.db.repositories.query import Listing
from iaas.db.store import Store, Tx
from iaas.kernel import ids as id_prefixes
from iaas.kernel.errors import AlreadyExists, FieldError, InvalidState, NotFound, ResourceRef
from iaas.kernel.ids import IdSource
from iaas.kernel.labels import check_labels
from iaas.resources.catalog import DEFAULT_MAX_NICS, Flavor, Host, HostStatus, Image, Zone
from iaas.resources.common import Principal, Role
from iaas.resources.jobs import OPERATORS
from iaas.services.access import require
from iaas.services.labelling import patched_labels
from iaas.services.telling import tell, tell_of_host

T = TypeVar("T", Zone, Host, Flavor, Image)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sort(Generic[T]):
    """One sort of resource: its word, its rows, how one is found and changed."""

    word: str
    table: FromClause
    get: Callable[[Connection, str], T | None]
    update: Callable[..., object]  # (tx, id, **changes)

    def find(self, connection: Connection, id_or_name: str) -> T:
        """Return the resource.

        Raises:
            NotFound: there is none.
        """
        found = self.get(connection, id_or_name)
        if found is None:
            raise NotFound(f"there is no {self.word} {id_or_name}", resource=ResourceRef(self.word, id_or_name))
        return found


_ZONE: _Sort[Zone] = _Sort(word="zone", table=ZoneRow.__table__, get=catalog.get_zone, update=catalog.update_zone)
_HOST: _Sort[Host] = _Sort(word="host", table=HostRow.__table__, get=catalog.get_host, update=catalog.update_host)
_FLAVOR: _Sort[Flavor] = _Sort(
    word="flavor", table=FlavorRow.__table__, get=catalog.get_flavor, update=catalog.update_flavor
)
_IMAGE: _Sort[Image] = _Sort(word="image", table=ImageRow.__table__, get=catalog.get_image, update=catalog.update_image)


class CatalogService:
    """``reported_hosts`` are the names that the backend reports."""

    def __init__(self, store: Store, ids: IdSource, reported_hosts: frozenset[str]) -> None:
        self._store = store
        self._ids = ids
        self._reported_hosts = reported_hosts

    def list_zones(self, listing: Listing) -> tuple[list[Zone], str | None]:
        with self._store.read() as connection:
            return catalog.list_zones(connection, listing)

    def get_zone(self, zone_id: str) -> Zone:
        return self._get(_ZONE, zone_id)

    def label_zone(self, principal: Principal, zone_id: str, labels: dict[str, str | None]) -> Zone:
        """Change a zone's labels (admins; a merge patch)."""
        return self._label(principal, _ZONE, zone_id, labels)

    def list_hosts(self, principal: Principal, listing: Listing) -> tuple[list[Host], str | None]:
        require(principal, Role.ADMIN)
        with self._store.read() as connection:
            return catalog.list_hosts(connection, listing)

    def get_host(self, principal: Principal, id_or_name: str) -> Host:
        require(principal, Role.ADMIN)
        return self._get(_HOST, id_or_name)

    def update_host(
        self,
        principal: Principal,
        id_or_name: str,
        *,
        labels: dict[str, str | None] | None = None,
        status: str | None = None,
    ) -> Host:
        """Change a host's labels (a merge patch) and status (admins).

        A draining host keeps its machines and gets no new ones; on one that is down nothing more is begun, and
        what its instances were stays written. Both outlive a restart of the server.

        Raises:
            InvalidState: the backend does not report the host, so it stays down.
        """
        host = self.get_host(principal, id_or_name)
        if status not in (None, HostStatus.DOWN) and host.name not in self._reported_hosts:
            raise InvalidState(
                f"host {host.name} is not reported by the backend: it is down until it comes back",
                code="host_down",
                resource=ResourceRef("host", host.id),
            )
        changes: dict[str, Any] = {} if status is None else {"status": status, "wanted_status": status}

        def work(tx: Tx) -> Host:
            lock_row(tx.connection, HostRow.__table__, host.id)
            before = _HOST.find(tx.connection, host.id)
            changed_labels = patched_labels(tx, HostRow.__table__, host.id, labels)
            catalog.update_host(tx, host.name, **changed_labels, **changes)
            if status in (None, before.status):
                tell(tx, principal, "host", "updated", host.id, project_id=OPERATORS)
            else:
                tell_of_host(tx, before, str(status), reason="admin", request_id=principal.request_id)
            return _HOST.find(tx.connection, host.id)

        return self._store.write(work)

    def create_flavor(
        self,
        principal: Principal,
        *,
        name: str,
        vcpus: int,
        memory_mib: int,
        root_disk_gib: int,
        max_nics: int = DEFAULT_MAX_NICS,
        labels: dict[str, str] | None = None,
    ) -> Flavor:
        require(principal, Role.ADMIN)
        check_labels(labels or {})
        flavor_id = self._ids.new(id_prefixes.FLAVOR)
        shape = {"vcpus": vcpus, "memory_mib": memory_mib, "root_disk_gib": root_disk_gib, "max_nics": max_nics}

        def work(tx: Tx) -> Flavor:
            add_flavor(tx, flavor_id, name=name, labels=labels or {}, **shape)
            tell(tx, principal, "flavor", "created", flavor_id)
            return _FLAVOR.find(tx.connection, flavor_id)

        return self._store.write(work)

    def list_flavors(self, listing: Listing) -> tuple[list[Flavor], str | None]:
        with self._store.read() as connection:
            return catalog.list_flavors(connection, listing)

    def get_flavor(self, id_or_name: str) -> Flavor:
        return self._get(_FLAVOR, id_or_name)

    def label_flavor(self, principal: Principal, id_or_name: str, labels: dict[str, str | None]) -> Flavor:
        """Change a flavor's labels (admins; a merge patch). Its shape is fixed: instances were promised it."""
        return self._label(principal, _FLAVOR, id_or_name, labels)

    def delete_flavor(self, principal: Principal, id_or_name: str) -> None:
        """Delete a flavor. Instances made from it keep their shape, which they carry themselves."""
        require(principal, Role.ADMIN)
        flavor = self.get_flavor(id_or_name)

        def work(tx: Tx) -> None:
            catalog.delete_flavor(tx, flavor.id)  # before its labels: one who labels it holds the row until he commits
            shared.release_all(tx, flavor.id)
            shared.set_labels(tx, flavor.id, {})
            tell(tx, principal, "flavor", "deleted", flavor.id)

        self._store.write(work)

    def list_images(self, listing: Listing) -> tuple[list[Image], str | None]:
        with self._store.read() as connection:
            return catalog.list_images(connection, listing)

    def get_image(self, id_or_name: str) -> Image:
        return self._get(_IMAGE, id_or_name)

    def label_image(self, principal: Principal, id_or_name: str, labels: dict[str, str | None]) -> Image:
        """Change an image's labels (admins, since images are everybody's; a merge patch)."""
        return self._label(principal, _IMAGE, id_or_name, labels)

    def _get(self, sort: _Sort[T], id_or_name: str) -> T:
        with self._store.read() as connection:
            return sort.find(connection, id_or_name)

    def _label(self, principal: Principal, sort: _Sort[T], id_or_name: str, labels: dict[str, str | None]) -> T:
        require(principal, Role.ADMIN)
        resource_id = self._get(sort, id_or_name).id

        def work(tx: Tx) -> T:
            sort.update(tx, resource_id, **patched_labels(tx, sort.table, resource_id, labels))
            tell(tx, principal, sort.word, "updated", resource_id)
            return sort.find(tx.connection, resource_id)

        return self._store.write(work)


def add_flavor(
    tx: Tx,
    flavor_id: str,
    *,
    name: str,
    vcpus: int,
    memory_mib: int,
    root_disk_gib: int,
    labels: dict[str, str],
    max_nics: int = DEFAULT_MAX_NICS,
) -> None:
    """Write a flavor into the open transaction."""
    if not shared.claim(tx, scope="name:flavor", value=name, resource_id=flavor_id):
        raise AlreadyExists(f"there is a flavor named {name} already", errors=[FieldError("name", "taken", "is taken")])
    catalog.add_flavor(
        tx,
        id=flavor_id,
        name=name,
        vcpus=vcpus,
        memory_mib=memory_mib,
        root_disk_gib=root_disk_gib,
        max_nics=max_nics,
        labels=labels,
    )
    shared.add_labels(tx, flavor_id, labels)
