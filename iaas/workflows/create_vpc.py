"""Create a VPC: its router, with DHCP and DNS for the subnets to come."""

from __future__ import annotations

from iaas.db.repositories import vpcs
from iaas.db.store import Tx
from iaas.drivers.interface import PermanentError
from iaas.kernel.errors import Failure
from iaas.resources.networks import NetworkStatus
from iaas.workflows import network_rows
from iaas.workflows.framework import CancelUntil, Context, Done, Outcome, RowStep, Step, Workflow
from iaas.workflows.network_specs import vpc_spec


def ensure_vpc(ctx: Context) -> Outcome:
    with ctx.store.read() as connection:
        spec = vpc_spec(connection, ctx.job.resource.id)
    if spec is None:
        raise PermanentError(f"VPC {ctx.job.resource.id} is gone")
    ctx.backend.networks.ensure_vpc(spec)
    return Done()


def remove_vpc(ctx: Context) -> None:
    ctx.backend.networks.remove_vpc(ctx.job.resource.id)


def mark_active(tx: Tx, ctx: Context) -> None:
    vpcs.change(tx, ctx.job.resource.id, status=NetworkStatus.ACTIVE, transition=None)
    network_rows.emit(tx, ctx, "created")


def rest_as_failed(tx: Tx, ctx: Context, failure: Failure) -> None:
    """The row stays as ``failed``, to be deleted, and holds nothing."""
    vpc = vpcs.get(tx.connection, ctx.job.resource.id)
    if vpc is None:
        return
    network_rows.release_vpc(tx, vpc)
    vpcs.change(tx, vpc.id, **network_rows.failed(failure))
    network_rows.emit_failure(tx, ctx, failure)


WORKFLOW = Workflow(
    action="vpc.create",
    steps=(
        Step("ensure_vpc", do=ensure_vpc, undo=remove_vpc),
        RowStep("mark_active", do=mark_active),
    ),
    on_failed=rest_as_failed,
    cancel=CancelUntil(step="ensure_vpc", reason="the VPC is made"),
)
