"""Zones, hosts, flavors, images, key pairs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, insert, or_, select, update

from iaas.db.models import FlavorRow, HostRow, ImageRow, InstanceRow, KeyPairRow, ZoneRow
from iaas.db.repositories.query import Listing, list_rows
from iaas.db.store import Tx
from iaas.resources.catalog import Flavor, Host, Image, KeyPair, Zone

_zones = ZoneRow.__table__
_hosts = HostRow.__table__
_flavors = FlavorRow.__table__
_images = ImageRow.__table__
_key_pairs = KeyPairRow.__table__
_instances = InstanceRow.__table__


def add_zone(tx: Tx, name: str) -> None:
    tx.connection.execute(insert(ZoneRow).values(id=name, name=name, labels={}, status="available", created_at=tx.now))


def update_zone(tx: Tx, zone_id: str, **changes: Any) -> None:
    tx.connection.execute(update(ZoneRow).where(_zones.c.id == zone_id).values(**changes))


def list_zones(connection: Connection, listing: Listing) -> tuple[list[Zone], str | None]:
    rows, cursor = list_rows(connection, _zones, listing, sortable=("created_at", "name"))
    return [Zone(**row._mapping) for row in rows], cursor


def get_zone(connection: Connection, zone_id: str) -> Zone | None:
    row = connection.execute(select(_zones).where(_zones.c.id == zone_id)).first()
    return Zone(**row._mapping) if row else None


def zone_names(connection: Connection) -> list[str]:
    return list(connection.execute(select(_zones.c.name).order_by(_zones.c.name)).scalars())


def add_host(tx: Tx, **values: Any) -> None:
    used = {"vcpus_used": 0, "memory_mib_used": 0, "disk_gib_used": 0}
    tx.connection.execute(insert(HostRow).values(labels={}, **used, **values, created_at=tx.now, updated_at=tx.now))


def update_host(tx: Tx, name: str, **changes: Any) -> bool:
    query = update(HostRow).where(_hosts.c.name == name).values(**changes, updated_at=tx.now)
    return tx.connection.execute(query).rowcount == 1


def list_hosts(connection: Connection, listing: Listing) -> tuple[list[Host], str | None]:
    rows, cursor = list_rows(connection, _hosts, listing)
    return [Host(**row._mapping) for row in rows], cursor


def get_host(connection: Connection, id_or_name: str) -> Host | None:
    query = select(_hosts).where(or_(_hosts.c.id == id_or_name, _hosts.c.name == id_or_name))
    row = connection.execute(query).first()
    return Host(**row._mapping) if row else None


def hosts_in_zone(connection: Connection, zone: str) -> list[Host]:
    """Return the zone's hosts that take machines, the emptiest first."""
    query = select(_hosts).where(_hosts.c.zone == zone, _hosts.c.status == "up")
    return [Host(**row._mapping) for row in connection.execute(query.order_by(_hosts.c.memory_mib_used, _hosts.c.id))]


def reserve(tx: Tx, host_id: str, *, vcpus: int, memory_mib: int, disk_gib: int) -> bool:
    """Take capacity from a host if it has it; False when not. Negative amounts give back."""
    hosts = _hosts.c
    query = (
        update(HostRow)
        .where(
            hosts.id == host_id,
            hosts.vcpus_used + vcpus <= hosts.vcpus if vcpus > 0 else hosts.id == host_id,
            hosts.memory_mib_used + memory_mib <= hosts.memory_mib if memory_mib > 0 else hosts.id == host_id,
            hosts.disk_gib_used + disk_gib <= hosts.disk_gib if disk_gib > 0 else hosts.id == host_id,
        )
        .values(
            vcpus_used=hosts.vcpus_used + vcpus,
            memory_mib_used=hosts.memory_mib_used + memory_mib,
            disk_gib_used=hosts.disk_gib_used + disk_gib,
        )
    )
    return tx.connection.execute(query).rowcount == 1


def add_flavor(tx: Tx, **values: Any) -> None:
    tx.connection.execute(insert(FlavorRow).values(**values, created_at=tx.now, updated_at=tx.now))


def list_flavors(connection: Connection, listing: Listing) -> tuple[list[Flavor], str | None]:
    rows, cursor = list_rows(
        connection, _flavors, listing, sortable=("created_at", "updated_at", "name", "vcpus", "memory_mib")
    )
    return [Flavor(**row._mapping) for row in rows], cursor


def get_flavor(connection: Connection, id_or_name: str) -> Flavor | None:
    query = select(_flavors).where(or_(_flavors.c.id == id_or_name, _flavors.c.name == id_or_name))
    row = connection.execute(query).first()
    return Flavor(**row._mapping) if row else None


def update_flavor(tx: Tx, flavor_id: str, **changes: Any) -> None:
    tx.connection.execute(update(FlavorRow).where(_flavors.c.id == flavor_id).values(**changes, updated_at=tx.now))


def delete_flavor(tx: Tx, flavor_id: str) -> None:
    tx.connection.execute(delete(FlavorRow).where(_flavors.c.id == flavor_id))


def add_image(tx: Tx, **values: Any) -> None:
    tx.connection.execute(insert(ImageRow).values(**values, created_at=tx.now, updated_at=tx.now))


def update_image(tx: Tx, image_id: str, **changes: Any) -> None:
    tx.connection.execute(update(ImageRow).where(_images.c.id == image_id).values(**changes, updated_at=tx.now))


def list_images(connection: Connection, listing: Listing) -> tuple[list[Image], str | None]:
    rows, cursor = list_rows(connection, _images, listing)
    return [Image(**row._mapping) for row in rows], cursor


def get_image(connection: Connection, id_or_name: str) -> Image | None:
    query = select(_images).where(or_(_images.c.id == id_or_name, _images.c.name == id_or_name))
    row = connection.execute(query).first()
    return Image(**row._mapping) if row else None


def add_key_pair(tx: Tx, **values: Any) -> None:
    tx.connection.execute(insert(KeyPairRow).values(**values, created_at=tx.now, updated_at=tx.now))


def list_key_pairs(connection: Connection, listing: Listing, *, project_id: str) -> tuple[list[KeyPair], str | None]:
    rows, cursor = list_rows(connection, _key_pairs, listing, where=[_key_pairs.c.project_id == project_id])
    return [KeyPair(**row._mapping) for row in rows], cursor


def get_key_pair(connection: Connection, id_or_name: str, *, project_id: str) -> KeyPair | None:
    query = select(_key_pairs).where(
        _key_pairs.c.project_id == project_id, or_(_key_pairs.c.id == id_or_name, _key_pairs.c.name == id_or_name)
    )
    row = connection.execute(query).first()
    return KeyPair(**row._mapping) if row else None


def update_key_pair(tx: Tx, key_pair_id: str, **changes: Any) -> None:
    query = update(KeyPairRow).where(_key_pairs.c.id == key_pair_id).values(**changes, updated_at=tx.now)
    tx.connection.execute(query)


def delete_key_pair(tx: Tx, key_pair_id: str) -> None:
    tx.connection.execute(delete(KeyPairRow).where(_key_pairs.c.id == key_pair_id))
