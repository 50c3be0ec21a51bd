"""Zones, hosts, flavors, images, key pairs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, FromClause, Integer, String, bindparam, delete, insert, or_, select, update
from sqlalchemy.sql.elements import BindParameter, ColumnElement

from iaas.db.models import FlavorRow, HostRow, ImageRow, InstanceRow, KeyPairRow, ZoneRow
from iaas.db.repositories.query import Listing, list_rows
from iaas.db.statements import Prepared
from iaas.db.store import Tx
from iaas.resources.catalog import Flavor, Host, Image, KeyPair, Zone

_zones = ZoneRow.__table__
_hosts = HostRow.__table__
_flavors = FlavorRow.__table__
_images = ImageRow.__table__
_key_pairs = KeyPairRow.__table__
_instances = InstanceRow.__table__

_ZONE_NAMES = Prepared(select(_zones.c.name).order_by(_zones.c.name))
_HOSTS_IN_ZONE = Prepared(
    select(_hosts)
    .where(_hosts.c.zone == bindparam("zone"), _hosts.c.status == "up")
    .order_by(_hosts.c.memory_mib_used, _hosts.c.id)
)


def _by_id_or_name(table: FromClause) -> Prepared:
    wanted = bindparam("wanted", type_=String())
    return Prepared(select(table).where(or_(table.c.id == wanted, table.c.name == wanted)))


_FLAVOR = _by_id_or_name(_flavors)
_IMAGE = _by_id_or_name(_images)


def _reservation() -> Prepared:
    """Amounts that are taken must be there; what is given back always fits."""
    changes: dict[str, ColumnElement[Any]] = {}
    fits: list[ColumnElement[bool]] = []
    for name in ("vcpus", "memory_mib", "disk_gib"):
        more: BindParameter[int] = bindparam(f"more_{name}", type_=Integer())
        used = _hosts.c[f"{name}_used"]
        changes[used.name] = used + more
        fits.append(or_(more <= 0, used + more <= _hosts.c[name]))
    return Prepared(update(HostRow).where(_hosts.c.id == bindparam("host_id"), *fits).values(changes))


_RESERVE = _reservation()


def add_zone(tx: Tx, name: str) -> None:
    tx.connection.execute(insert(ZoneRow).values(id=name, name=name, labels={}, status="available", created_at=tx.now))


def update_zone(tx: Tx, zone_id: str, **changes: Any) -> None:
    tx.connection.execute(update(ZoneRow).where(_zones.c.id == zone_id).values(**changes))


def list_zones(connection: Connection, listing: Listing) -> tuple[list[Zone], str | None]:
    rows, cursor = list_rows(connection, _zones, listing, sortable=("created_at", "name"))
    return [Zone(**row._asdict()) for row in rows], cursor


def get_zone(connection: Connection, zone_id: str) -> Zone | None:
    row = connection.execute(select(_zones).where(_zones.c.id == zone_id)).first()
    return Zone(**row._mapping) if row else None


def zone_names(connection: Connection) -> list[str]:
    return [row.name for row in _ZONE_NAMES.rows(connection, {})]


def add_host(tx: Tx, **values: Any) -> None:
    used = {"vcpus_used": 0, "memory_mib_used": 0, "disk_gib_used": 0}
    tx.connection.execute(insert(HostRow).values(labels={}, **used, **values, created_at=tx.now, updated_at=tx.now))


def update_host(tx: Tx, name: str, **changes: Any) -> bool:
    query = update(HostRow).where(_hosts.c.name == name).values(**changes, updated_at=tx.now)
    return tx.connection.execute(query).rowcount == 1


def list_hosts(connection: Connection, listing: Listing) -> tuple[list[Host], str | None]:
    rows, cursor = list_rows(connection, _hosts, listing)
    return [Host(**row._asdict()) for row in rows], cursor


def all_hosts(connection: Connection) -> list[Host]:
    return [Host(**row._mapping) for row in connection.execute(select(_hosts).order_by(_hosts.c.name))]


def get_host(connection: Connection, id_or_name: str) -> Host | None:
    query = select(_hosts).where(or_(_hosts.c.id == id_or_name, _hosts.c.name == id_or_name))
    row = connection.execute(query).first()
    return Host(**row._mapping) if row else None


def hosts_in_zone(connection: Connection, zone: str) -> list[Host]:
    """Return the zone's hosts that take machines, the emptiest first."""
    return [Host(**row._asdict()) for row in _HOSTS_IN_ZONE.rows(connection, {"zone": zone})]


def reserve(tx: Tx, host_id: str, *, vcpus: int, memory_mib: int, disk_gib: int) -> bool:
    """Take capacity from a host if it has it; False when not. Negative amounts give back."""
    amounts = {"more_vcpus": vcpus, "more_memory_mib": memory_mib, "more_disk_gib": disk_gib}
    return _RESERVE.run(tx.connection, {"host_id": host_id, **amounts}) == 1


def add_flavor(tx: Tx, **values: Any) -> None:
    tx.connection.execute(insert(FlavorRow).values(**values, created_at=tx.now, updated_at=tx.now))


def list_flavors(connection: Connection, listing: Listing) -> tuple[list[Flavor], str | None]:
    rows, cursor = list_rows(
        connection, _flavors, listing, sortable=("created_at", "updated_at", "name", "vcpus", "memory_mib")
    )
    return [Flavor(**row._asdict()) for row in rows], cursor


def get_flavor(connection: Connection, id_or_name: str) -> Flavor | None:
    row = _FLAVOR.first(connection, {"wanted": id_or_name})
    return Flavor(**row._asdict()) if row else None


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
    return [Image(**row._asdict()) for row in rows], cursor


def get_image(connection: Connection, id_or_name: str) -> Image | None:
    row = _IMAGE.first(connection, {"wanted": id_or_name})
    return Image(**row._asdict()) if row else None


def add_key_pair(tx: Tx, **values: Any) -> None:
    tx.connection.execute(insert(KeyPairRow).values(**values, created_at=tx.now, updated_at=tx.now))


def list_key_pairs(connection: Connection, listing: Listing, *, project_id: str) -> tuple[list[KeyPair], str | None]:
    rows, cursor = list_rows(connection, _key_pairs, listing, equal={"project_id": project_id})
    return [KeyPair(**row._asdict()) for row in rows], cursor


def get_key_pair(connection: Connection, id_or_name: str, *, project_id: str) -> KeyPair | None:
    query = select(_key_pairs).where(
        _key_pairs.c.project_id == project_id, or_(_key_pairs.c.id == id_or_name, _key_pairs.c.name == id_or_name)
    )
    row = connection.execute(query).first()
    return KeyPair(**row._mapping) if row else None


def update_key_pair(tx: Tx, key_pair_id: str, **changes: Any) -> None:
    query = update(KeyPairRow).where(_key_pairs.c.id == key_pair_id).values(**changes, updated_at=tx.now)
    tx.connection.execute(query)


def delete_key_pair(tx: Tx, key_pair_id: str) -> bool:
    """Delete the key pair; False when there is none any more."""
    return tx.connection.execute(delete(KeyPairRow).where(_key_pairs.c.id == key_pair_id)).rowcount == 1
