"""What hangs on a VPC and cannot live alone: routes and DNS records."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select

from iaas.db.models import DNSRecordRow, RouteRow
from iaas.db.repositories.query import Listing, list_rows
from iaas.db.statements import Prepared, delete_rows, insert_rows
from iaas.db.store import Tx

_routes = RouteRow.__table__
_records = DNSRecordRow.__table__

_ROUTES_OF = Prepared(select(_routes).where(_routes.c.vpc_id == bindparam("vpc_id")).order_by(_routes.c.id))
_LEADS_OF = Prepared(
    select(_routes.c.destination, _routes.c.target_type, _routes.c.target)
    .where(_routes.c.vpc_id == bindparam("vpc_id"))
    .order_by(_routes.c.id)
)
_ROUTE = Prepared(select(_routes).where(_routes.c.id == bindparam("id"), _routes.c.vpc_id == bindparam("vpc_id")))
_COUNT_ROUTES = Prepared(select(func.count().label("found")).where(_routes.c.vpc_id == bindparam("vpc_id")))
_RECORDS_OF = Prepared(select(_records).where(_records.c.vpc_id == bindparam("vpc_id")).order_by(_records.c.id))
_DELETE_ROUTE = Prepared(delete(RouteRow).where(_routes.c.id == bindparam("id")))


def add_routes(tx: Tx, rows: list[dict[str, Any]]) -> list[Any]:
    """Write new routes and return their rows as they would be read."""
    full = [{**row, "created_at": tx.now, "updated_at": tx.now} for row in rows]
    insert_rows(tx.connection, _routes, full)
    return [SimpleNamespace(**row) for row in full]


def routes_of(connection: Connection, vpc_id: str) -> list[Any]:
    """Return the rows of all routes of a VPC, in the order of their ids."""
    return _ROUTES_OF.rows(connection, {"vpc_id": vpc_id})


def leads_of(connection: Connection, vpc_id: str) -> list[Any]:
    """Return of all routes of a VPC, in the same order, what the data plane needs: destination and target."""
    return _LEADS_OF.rows(connection, {"vpc_id": vpc_id})


def route(connection: Connection, vpc_id: str, route_id: str) -> Any | None:
    return _ROUTE.first(connection, {"id": route_id, "vpc_id": vpc_id})


def list_routes(connection: Connection, listing: Listing, *, vpc_id: str) -> tuple[list[Any], str | None]:
    return list_rows(connection, _routes, listing, equal={"vpc_id": vpc_id}, sortable=("created_at", "destination"))


def vpcs_routing_to(connection: Connection, *targets: str) -> list[str]:
    """Return the ids of VPCs that have a route whose target is one of these (instances, NICs, addresses)."""
    query = select(_routes.c.vpc_id).where(_routes.c.target.in_(targets)).distinct().order_by(_routes.c.vpc_id)
    return list(connection.execute(query).scalars())


def delete_route(tx: Tx, route_id: str) -> bool:
    return delete_rows(tx.connection, _routes, {"id": route_id}) == 1


def delete_routes(tx: Tx, route_ids: Sequence[str]) -> None:
    """Delete many routes."""
    _DELETE_ROUTE.run_many(tx.connection, [{"id": route_id} for route_id in route_ids])


def count_routes(connection: Connection, vpc_id: str) -> int:
    return int(_COUNT_ROUTES.first(connection, {"vpc_id": vpc_id}).found)


def add_record(tx: Tx, **values: Any) -> None:
    insert_rows(tx.connection, _records, [{**values, "created_at": tx.now, "updated_at": tx.now}])


def records_of(connection: Connection, vpc_id: str) -> list[Any]:
    """Return the rows of all DNS records of a VPC, in the order of their ids."""
    return _RECORDS_OF.rows(connection, {"vpc_id": vpc_id})


def record(connection: Connection, vpc_id: str, record_id: str) -> Any | None:
    return connection.execute(select(_records).where(_records.c.id == record_id, _records.c.vpc_id == vpc_id)).first()


def list_records(connection: Connection, listing: Listing, *, vpc_id: str) -> tuple[list[Any], str | None]:
    return list_rows(connection, _records, listing, equal={"vpc_id": vpc_id}, sortable=("created_at", "name"))


def delete_record(tx: Tx, record_id: str) -> bool:
    return delete_rows(tx.connection, _records, {"id": record_id}) == 1


def delete_all_of(tx: Tx, vpc_id: str) -> tuple[int, int]:
    """Delete the routes and records of a VPC that is going; return how many of each there were."""
    routes = delete_rows(tx.connection, _routes, {"vpc_id": vpc_id})
    return routes, delete_rows(tx.connection, _records, {"vpc_id": vpc_id})
