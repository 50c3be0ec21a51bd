"""Filters of lists that name another resource: by its id or, as everywhere else, by its name."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection

from iaas.db.repositories import instances, subnets, vpcs
from iaas.db.repositories.query import Listing
from iaas.resources.common import Principal
from iaas.resources.networks import Subnet
from iaas.services.nic_wishes import BASIC


def by_id(connection: Connection, principal: Principal, listing: Listing) -> Listing:
    """Return the listing with ids in place of names. What nobody is called is left as it is, and finds nothing."""
    filters = dict(listing.filters or {})
    project_id = principal.project_id
    if (wanted := filters.get("instance_id")) is not None:
        instance = instances.find_by_name(connection, wanted, project_id=project_id)
        filters["instance_id"] = wanted if instance is None else instance.id
    if (wanted := filters.get("vpc_id")) is not None:
        vpc = vpcs.find_by_name(connection, wanted, project_id=project_id)
        filters["vpc_id"] = wanted if vpc is None else vpc.id
    if (wanted := filters.get("subnet_id")) is not None:
        subnet = subnets.find_by_name(connection, wanted, project_id=project_id)
        if subnet is None and wanted.startswith(BASIC):
            subnet = _basic(connection, wanted)
        filters["subnet_id"] = wanted if subnet is None else subnet.id
    return replace(listing, filters=filters)


def _basic(connection: Connection, wanted: str) -> Subnet | None:
    shared = subnets.shared_ones(connection)
    return next((one for one in shared if wanted in (BASIC, f"{BASIC}-{one.zone}")), None)
