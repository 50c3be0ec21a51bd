"""Row changes that end workflows of VPCs and subnets: the resting state, the event, what was held is given back.

One that is ``failed`` holds nothing: no name, no quota, no address. So whoever counts looks at the status alone.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from iaas.db.repositories import events, quotas, shared, subnets, vpc_entries, vpcs
from iaas.db.store import Tx
from iaas.kernel.errors import Failure, ResourceRef
from iaas.resources.networks import VPC, NetworkStatus, NetworkTransition, Subnet
from iaas.workflows.framework import Context


def leaving_scope(vpc_id: str) -> str:
    """Return the scope in which a subnet that leaves the VPC claims its block until its leg of the router is gone."""
    return f"leaving:{vpc_id}"


def emit(tx: Tx, ctx: Context, event: str, data: dict[str, Any] | None = None) -> None:
    """Tell of the change just made in this transaction to the job's VPC or subnet."""
    resource = ctx.job.resource
    events.add(
        tx,
        type=f"{resource.type}.{event}",
        project_id=ctx.job.project_id,
        resource=resource,
        generation=_generation_of(tx.connection, resource),
        job_id=ctx.job.id,
        request_id=ctx.job.request_id,
        data=data,
    )


def emit_failure(tx: Tx, ctx: Context, failure: Failure) -> None:
    """Tell that the job's action failed, or was called off."""
    action = ctx.job.action.rpartition(".")[2]
    outcome = "cancelled" if failure.code == "cancelled" else "failed"
    emit(tx, ctx, f"{action}_{outcome}", {"code": failure.code, "message": failure.message})


def is_wanted(found: VPC | Subnet | None) -> bool:
    """Return whether the data plane shall have it: it is there and neither going nor failed."""
    return found is not None and found.status != NetworkStatus.FAILED and found.transition != NetworkTransition.DELETING


def failed(failure: Failure) -> dict[str, Any]:
    """Return what the row of one that failed says."""
    return {
        "status": NetworkStatus.FAILED,
        "transition": None,
        "failure_code": failure.code,
        "failure_message": failure.message[:1024],
    }


def release_vpc(tx: Tx, vpc: VPC) -> None:
    """Give back all that a VPC holds, its routes and records included; a failed one holds nothing any more."""
    if vpc.status == NetworkStatus.FAILED or vpc.project_id is None:
        return
    routes, records = vpc_entries.delete_all_of(tx, vpc.id)
    shared.release_scope(tx, f"route:{vpc.id}")
    shared.release_scope(tx, f"dns:{vpc.id}")
    shared.release_all(tx, vpc.id)
    quotas.give(tx, vpc.project_id, {"vpcs": 1, "routes": routes, "dns_records": records})


def release_subnet(tx: Tx, subnet: Subnet) -> None:
    """Give back all that a subnet holds, the claims on its addresses included; a failed one holds nothing any more."""
    if subnet.status == NetworkStatus.FAILED or subnet.project_id is None:
        return
    shared.release_scope(tx, subnets.address_scope(subnet.id))
    shared.release_all(tx, subnet.id)
    quotas.give(tx, subnet.project_id, {"subnets": 1})


def follow_subnet(tx: Tx, ctx: Context, vpc_id: str) -> None:
    """Have the VPC applied again if it has routes: they may lead to a subnet whose state has just changed."""
    if vpc_entries.count_routes(tx.connection, vpc_id) and vpcs.change(tx, vpc_id):
        ctx.add_job(
            tx,
            action="vpc.apply",
            resource=ResourceRef("vpc", vpc_id),
            project_id=ctx.job.project_id,
            request_id=ctx.job.request_id,
        )


def _generation_of(connection: Connection, resource: ResourceRef) -> int | None:
    found = (vpcs.get if resource.type == "vpc" else subnets.get)(connection, resource.id)
    return None if found is None else found.generation
