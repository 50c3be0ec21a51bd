"""Zones, hosts, flavors, images: what instances are made of and where."""

from __future__ import annotations

from typing import Any

from iaas.db.models import FlavorRow, HostRow, ImageRow, ZoneRow
from iaas.db.repositories import catalog, shared
from iaas.db.repositories.query import Listing
from iaas.db.store import Store, Tx
from iaas.kernel import ids as id_prefixes
from iaas.kernel.errors import AlreadyExists, FieldError, InvalidState, NotFound, ResourceRef
from iaas.kernel.ids import IdSource
from iaas.kernel.labels import check_labels
from iaas.resources.catalog import Flavor, Host, HostStatus, Image, Zone
from iaas.resources.common import Principal, Role
from iaas.services.access import require
from iaas.services.labelling import patched_labels
from iaas.services.telling import tell


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
        with self._store.read() as connection:
            found = catalog.get_zone(connection, zone_id)
        if found is None:
            raise NotFound(f"there is no zone {zone_id}", resource=ResourceRef("zone", zone_id))
        return found

    def label_zone(self, principal: Principal, zone_id: str, labels: dict[str, str | None]) -> Zone:
        """Change a zone's labels (admins; a merge patch)."""
        require(principal, Role.ADMIN)
        zone = self.get_zone(zone_id)

        def work(tx: Tx) -> None:
            catalog.update_zone(tx, zone.id, **patched_labels(tx, ZoneRow.__table__, zone.id, labels))
            tell(tx, principal, "zone", "updated", zone.id)

        self._store.write(work)
        return self.get_zone(zone.id)

    def list_hosts(self, principal: Principal, listing: Listing) -> tuple[list[Host], str | None]:
        require(principal, Role.ADMIN)
        with self._store.read() as connection:
            return catalog.list_hosts(connection, listing)

    def get_host(self, principal: Principal, id_or_name: str) -> Host:
        require(principal, Role.ADMIN)
        with self._store.read() as connection:
            found = catalog.get_host(connection, id_or_name)
        if found is None:
            raise NotFound(f"there is no host {id_or_name}", resource=ResourceRef("host", id_or_name))
        return found

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

        def work(tx: Tx) -> None:
            changed_labels = patched_labels(tx, HostRow.__table__, host.id, labels)
            catalog.update_host(tx, host.name, **changed_labels, **changes)
            tell(tx, principal, "host", "updated", host.id)

        self._store.write(work)
        return self.get_host(principal, host.id)

    def create_flavor(
        self,
        principal: Principal,
        *,
        name: str,
        vcpus: int,
        memory_mib: int,
        root_disk_gib: int,
        labels: dict[str, str] | None = None,
    ) -> Flavor:
        require(principal, Role.ADMIN)
        check_labels(labels or {})
        flavor_id = self._ids.new(id_prefixes.FLAVOR)
        shape = {"vcpus": vcpus, "memory_mib": memory_mib, "root_disk_gib": root_disk_gib}

        def work(tx: Tx) -> Flavor:
            add_flavor(tx, flavor_id, name=name, labels=labels or {}, **shape)
            tell(tx, principal, "flavor", "created", flavor_id)
            made = catalog.get_flavor(tx.connection, flavor_id)
            assert made is not None  # noqa: S101 - written above, in this transaction
            return made

        return self._store.write(work)

    def list_flavors(self, listing: Listing) -> tuple[list[Flavor], str | None]:
        with self._store.read() as connection:
            return catalog.list_flavors(connection, listing)

    def get_flavor(self, id_or_name: str) -> Flavor:
        with self._store.read() as connection:
            found = catalog.get_flavor(connection, id_or_name)
        if found is None:
            raise NotFound(f"there is no flavor {id_or_name}", resource=ResourceRef("flavor", id_or_name))
        return found

    def label_flavor(self, principal: Principal, id_or_name: str, labels: dict[str, str | None]) -> Flavor:
        """Change a flavor's labels (admins; a merge patch). Its shape is fixed: instances were promised it."""
        require(principal, Role.ADMIN)
        flavor = self.get_flavor(id_or_name)

        def work(tx: Tx) -> None:
            catalog.update_flavor(tx, flavor.id, **patched_labels(tx, FlavorRow.__table__, flavor.id, labels))
            tell(tx, principal, "flavor", "updated", flavor.id)

        self._store.write(work)
        return self.get_flavor(flavor.id)

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
        with self._store.read() as connection:
            found = catalog.get_image(connection, id_or_name)
        if found is None:
            raise NotFound(f"there is no image {id_or_name}", resource=ResourceRef("image", id_or_name))
        return found

    def label_image(self, principal: Principal, id_or_name: str, labels: dict[str, str | None]) -> Image:
        """Change an image's labels (admins, since images are everybody's; a merge patch)."""
        require(principal, Role.ADMIN)
        image = self.get_image(id_or_name)

        def work(tx: Tx) -> None:
            catalog.update_image(tx, image.id, **patched_labels(tx, ImageRow.__table__, image.id, labels))
            tell(tx, principal, "image", "updated", image.id)

        self._store.write(work)
        return self.get_image(image.id)


def add_flavor(
    tx: Tx, flavor_id: str, *, name: str, vcpus: int, memory_mib: int, root_disk_gib: int, labels: dict[str, str]
) -> None:
    """Write a flavor into the open transaction."""
    if not shared.claim(tx, scope="name:flavor", value=name, resource_id=flavor_id):
        raise AlreadyExists(f"there is a flavor named {name} already", errors=[FieldError("name", "taken", "is taken")])
    catalog.add_flavor(
        tx, id=flavor_id, name=name, vcpus=vcpus, memory_mib=memory_mib, root_disk_gib=root_disk_gib, labels=labels
    )
    shared.add_labels(tx, flavor_id, labels)
