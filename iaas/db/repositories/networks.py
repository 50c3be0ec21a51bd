"""Networks and addresses."""

from __future__ import annotations

import ipaddress
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from iaas.db.models import NetworkRow
from iaas.db.repositories import shared
from iaas.db.statements import Prepared, update_rows
from iaas.db.store import Tx
from iaas.resources.catalog import Network

_networks = NetworkRow.__table__

_GET = Prepared(select(_networks).where(_networks.c.id == bindparam("id")))
_TURN = Prepared(select(_networks.c.next_offset).where(_networks.c.id == bindparam("id")).with_for_update())
_OF_ZONE = Prepared(select(_networks).where(_networks.c.zone == bindparam("zone")))

_FIRST_OFFSET = 10  # below: the gateway, and room for services of ours
_MAX_TRIES = 70_000  # more than the hosts of a /16


def add(tx: Tx, network: Network) -> None:
    tx.connection.execute(
        insert(NetworkRow).values(
            id=network.id,
            zone=network.zone,
            cidr=network.cidr,
            gateway=network.gateway,
            next_offset=_FIRST_OFFSET,
            created_at=tx.now,
            updated_at=tx.now,
        )
    )


def get(connection: Connection, network_id: str) -> Network | None:
    row = _GET.first(connection, {"id": network_id})
    return _network(row) if row else None


def of_zone(connection: Connection, zone: str) -> Network | None:
    row = _OF_ZONE.first(connection, {"zone": zone})
    return _network(row) if row else None


def list_all(connection: Connection) -> list[Network]:
    return [_network(row) for row in connection.execute(select(_networks).order_by(_networks.c.zone))]


def claim_address(tx: Tx, network: Network, *, nic_id: str) -> str | None:
    """Claim the next free address of the network for a NIC; None when all are taken."""
    block = ipaddress.ip_network(network.cidr)
    last = block.num_addresses - 2
    # Two at once take turns here: otherwise each would try the other's addresses one by one, waiting at each.
    offset = int(_TURN.first(tx.connection, {"id": network.id}).next_offset)
    for _ in range(min(last, _MAX_TRIES)):
        if offset > last:
            offset = _FIRST_OFFSET
        address = str(block[offset])
        offset += 1
        if shared.claim(tx, scope=f"address:{network.id}", value=address, resource_id=nic_id):
            update_rows(tx.connection, _networks, {"id": network.id}, {"next_offset": offset})
            return address
    return None


def _network(row: Any) -> Network:
    return Network(id=row.id, zone=row.zone, cidr=row.cidr, gateway=row.gateway)
