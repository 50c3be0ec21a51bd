"""Networks and addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
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


def claim_addresses(tx: Tx, network: Network, nic_ids: Sequence[str]) -> list[str] | None:
    """Claim the next free addresses of the network, one for each NIC; None when there are not as many."""
    first, last = _host_numbers(network.cidr)
    # Two at once take turns here: otherwise each would try the other's addresses one by one, waiting at each.
    number = first + int(_TURN.first(tx.connection, {"id": network.id}).next_offset)
    claimed: list[str] = []
    scope = f"address:{network.id}"
    if number + len(nic_ids) - 1 <= last:  # as a rule the next ones are free, and all go in together
        claimed = [str(ipaddress.IPv4Address(number + nth)) for nth in range(len(nic_ids))]
        if shared.claim_all(tx, scope=scope, wanted=list(zip(claimed, nic_ids, strict=True))):
            number += len(nic_ids)
        else:
            for nic_id in nic_ids:
                shared.release(tx, scope=scope, resource_id=nic_id)
            claimed = []
    tries = 0
    while len(claimed) < len(nic_ids):
        tries += 1
        if tries > min(last - first, _MAX_TRIES):
            return None
        if number > last:
            number = first + _FIRST_OFFSET
        address = str(ipaddress.IPv4Address(number))
        number += 1
        if shared.claim(tx, scope=scope, value=address, resource_id=nic_ids[len(claimed)]):
            claimed.append(address)
    update_rows(tx.connection, _networks, {"id": network.id}, {"next_offset": number - first})
    return claimed


@lru_cache(maxsize=256)
def _host_numbers(cidr: str) -> tuple[int, int]:
    """Return the number of the network address of an IPv4 block, and that of its last host."""
    block = ipaddress.IPv4Network(cidr)
    return int(block.network_address), int(block.broadcast_address) - 1


def _network(row: Any) -> Network:
    return Network(id=row.id, zone=row.zone, cidr=row.cidr, gateway=row.gateway)
