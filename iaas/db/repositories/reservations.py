"""Address reservations. The addresses themselves are claims in the scope of their subnet."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from iaas.db.models import AddressReservationRow
from iaas.db.repositories.query import Listing, list_rows
from iaas.db.statements import delete_rows, insert_row, update_rows
from iaas.db.store import Tx
from iaas.resources.networks import AddressReservation

_reservations = AddressReservationRow.__table__


def add(tx: Tx, **values: Any) -> None:
    insert_row(tx.connection, _reservations, {**values, "created_at": tx.now, "updated_at": tx.now})


def get(connection: Connection, reservation_id: str, *, project_id: str) -> AddressReservation | None:
    query = select(_reservations).where(_reservations.c.id == reservation_id, _reservations.c.project_id == project_id)
    row = connection.execute(query).first()
    return _reservation(row) if row else None


def find_by_name(connection: Connection, name: str, *, project_id: str) -> AddressReservation | None:
    query = select(_reservations).where(_reservations.c.project_id == project_id, _reservations.c.name == name)
    row = connection.execute(query).first()
    return _reservation(row) if row else None


def list_page(
    connection: Connection, listing: Listing, *, project_id: str
) -> tuple[list[AddressReservation], str | None]:
    rows, cursor = list_rows(connection, _reservations, listing, equal={"project_id": project_id})
    return [_reservation(row) for row in rows], cursor


def of_subnet(connection: Connection, subnet_id: str) -> list[AddressReservation]:
    query = select(_reservations).where(_reservations.c.subnet_id == subnet_id).order_by(_reservations.c.id)
    return [_reservation(row) for row in connection.execute(query)]


def update(tx: Tx, reservation_id: str, **changes: Any) -> bool:
    return update_rows(tx.connection, _reservations, {"id": reservation_id}, {**changes, "updated_at": tx.now}) == 1


def delete(tx: Tx, reservation_id: str) -> bool:
    return delete_rows(tx.connection, _reservations, {"id": reservation_id}) == 1


def _reservation(row: Any) -> AddressReservation:
    return AddressReservation(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        labels=row.labels,
        subnet_id=row.subnet_id,
        first=row.first,
        last=row.last,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
