"""Delete a VPC: its router, then its row with all that hangs on it. There is no way back, so nothing is undone."""

from __future__ import annotations

from iaas.db.repositories import shared, vpcs
from iaas.db.store import Tx
from iaas.drivers.interface import PermanentError
from iaas.kernel.errors import Failure
from iaas.workflows import network_rows
from iaas.workflows.framework import Context, Done, NeverCancel, NotYet, Outcome, RowStep, Step, Workflow


def remove_vpc(ctx: Context) -> Outcome:
    """Remove the router. A subnet that has left by its row, and is still there, is waited for."""
    vpc_id = ctx.job.resource.id
    try:
        ctx.backend.networks.remove_vpc(vpc_id)
    except PermanentError:
        if any(subnet.vpc_id == vpc_id for subnet in ctx.backend.networks.subnets()):
            return NotYet(message="waiting for a subnet to leave")
        raise
    return Done()


def mark_deleted(tx: Tx, ctx: Context) -> None:
    vpc = vpcs.get(tx.connection, ctx.job.resource.id)
    if vpc is None:
        return
    network_rows.release_vpc(tx, vpc)
    shared.set_labels(tx, vpc.id, {})
    network_rows.emit(tx, ctx, "deleted")
    vpcs.delete(tx, vpc.id)


def rest_as_failed(tx: Tx, ctx: Context, failure: Failure) -> None:
    """Half deleted is not a state to work in: ``failed``, holding nothing, and to be deleted again."""
    vpc = vpcs.get(tx.connection, ctx.job.resource.id)
    if vpc is None:
        return
    network_rows.release_vpc(tx, vpc)
    vpcs.change(tx, vpc.id, **network_rows.failed(failure))
    network_rows.emit_failure(tx, ctx, failure)


WORKFLOW = Workflow(
    action="vpc.delete",
    steps=(
        Step("remove_vpc", do=remove_vpc),
        RowStep("mark_deleted", do=mark_deleted),
    ),
    on_failed=rest_as_failed,
    cancel=NeverCancel(reason="what is deleted already does not come back"),
)
