"""Delete a subnet: its segment, then its row. There is no way back, so nothing is undone."""

from __future__ import annotations

from iaas.db.repositories import shared, subnets
from iaas.db.store import Tx
from iaas.kernel.errors import Failure
from iaas.workflows import network_rows
from iaas.workflows.framework import Context, Done, NeverCancel, Outcome, RowStep, Step, Workflow


def remove_subnet(ctx: Context) -> Outcome:
    ctx.backend.networks.remove_subnet(ctx.job.resource.id)
    return Done()


def mark_deleted(tx: Tx, ctx: Context) -> None:
    subnet = subnets.get(tx.connection, ctx.job.resource.id)
    if subnet is None:
        return
    network_rows.release_subnet(tx, subnet)
    shared.set_labels(tx, subnet.id, {})
    network_rows.emit(tx, ctx, "deleted")
    subnets.delete(tx, subnet.id)


def rest_as_failed(tx: Tx, ctx: Context, failure: Failure) -> None:
    """Half deleted is not a state to work in: ``failed``, and to be deleted again.

    It holds nothing, but keeps its place in its VPC: there may still be something of it.
    """
    subnet = subnets.get(tx.connection, ctx.job.resource.id)
    if subnet is None:
        return
    network_rows.release_subnet(tx, subnet)
    subnets.change(tx, subnet.id, **network_rows.failed(failure))
    network_rows.emit_failure(tx, ctx, failure)


WORKFLOW = Workflow(
    action="subnet.delete",
    steps=(
        Step("remove_subnet", do=remove_subnet),
        RowStep("mark_deleted", do=mark_deleted),
    ),
    on_failed=rest_as_failed,
    cancel=NeverCancel(reason="what is deleted already does not come back"),
)
