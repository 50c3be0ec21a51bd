"""Routes lead to instances and NICs; when those get or lose an address, the VPC's data plane has to follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from iaas.db.repositories import vpc_entries, vpcs
from iaas.db.store import Tx
from iaas.kernel.errors import ResourceRef


def follow_targets(tx: Tx, *targets: str, add_job: Callable[..., Any], project_id: str, request_id: str | None) -> None:
    """Have the VPCs with routes to these instances or NICs applied again, with the next hops as they are now."""
    if not targets:
        return
    for vpc_id in vpc_entries.vpcs_routing_to(tx.connection, *targets):
        if vpcs.change(tx, vpc_id):  # the generation grows: it orders what drivers are told
            add_job(
                tx,
                action="vpc.apply",
                resource=ResourceRef("vpc", vpc_id),
                project_id=project_id,
                request_id=request_id,
            )
