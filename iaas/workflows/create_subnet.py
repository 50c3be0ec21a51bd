"""Create a subnet: its segment, and in a VPC its leg of the router."""

from __future__ import annotations

from iaas.db.repositories import subnets
from iaas.db.store import Tx
from iaas.kernel.errors import Failure
from iaas.resources.networks import NetworkStatus
from iaas.workflows import network_rows
from iaas.workflows.framework import CancelUntil, Context, Done, Outcome, RowStep, Step, Workflow
from iaas.workflows.port_steps import ensure_subnet


def ensure(ctx: Context) -> Outcome:
    ensure_subnet(ctx, ctx.job.resource.id)
    return Done()


def remove_subnet(ctx: Context) -> None:
    ctx.backend.networks.remove_subnet(ctx.job.resource.id)


def mark_active(tx: Tx, ctx: Context) -> None:
    subnet_id = ctx.job.resource.id
    subnets.change(tx, subnet_id, status=NetworkStatus.ACTIVE, transition=None)
    network_rows.emit(tx, ctx, "created")
    subnet = subnets.get(tx.connection, subnet_id)
    if subnet is not None and subnet.vpc_id is not None:
        network_rows.follow_subnet(tx, ctx, subnet.vpc_id)


def rest_as_failed(tx: Tx, ctx: Context, failure: Failure) -> None:
    """The row stays as ``failed``, to be deleted, and holds nothing: no place in a VPC either."""
    subnet = subnets.get(tx.connection, ctx.job.resource.id)
    if subnet is None:
        return
    network_rows.release_subnet(tx, subnet)
    nowhere = dict.fromkeys(("vpc_id", "cidr", "gateway", "dhcp_first", "dhcp_last"))
    subnets.change(tx, subnet.id, **nowhere, **network_rows.failed(failure))
    network_rows.emit_failure(tx, ctx, failure)


WORKFLOW = Workflow(
    action="subnet.create",
    steps=(
        Step("ensure_subnet", do=ensure, undo=remove_subnet),
        RowStep("mark_active", do=mark_active),
    ),
    on_failed=rest_as_failed,
    cancel=CancelUntil(step="ensure_subnet", reason="the subnet is made"),
)
