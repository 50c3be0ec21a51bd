"""Bring what is applied of a VPC to the data plane. Late jobs do no harm: each brings the newest there is."""

from __future__ import annotations

from iaas.db.repositories import vpcs
from iaas.db.store import Tx
from iaas.drivers.interface import PermanentError
from iaas.kernel.errors import Failure
from iaas.workflows import network_rows
from iaas.workflows.framework import Context, Done, NeverCancel, Outcome, RowStep, Step, Workflow
from iaas.workflows.network_specs import vpc_spec


def ensure_vpc(ctx: Context) -> Outcome:
    bring_vpc(ctx, ctx.job.resource.id)
    return Done()


def bring_vpc(ctx: Context, vpc_id: str) -> None:
    """Make sure of a VPC as it is applied; of one that is going, that this did not bring it back.

    A delete that is accepted while the driver is at it may remove the VPC before the driver makes it. So the row
    is looked at again afterwards; before that look no delete can have ended unseen.
    """
    with ctx.store.read() as connection:
        is_wanted = network_rows.is_wanted(vpcs.get(connection, vpc_id))
        spec = vpc_spec(connection, vpc_id)
    if is_wanted and spec is not None:
        ctx.backend.networks.ensure_vpc(spec)
        with ctx.store.read() as connection:
            is_wanted = network_rows.is_wanted(vpcs.get(connection, vpc_id))
    if not is_wanted:
        withdraw_vpc(ctx, vpc_id)


def withdraw_vpc(ctx: Context, vpc_id: str) -> None:
    """Remove a VPC that is going or gone, unless subnets are on their way out of it: its own job waits for them."""
    try:
        ctx.backend.networks.remove_vpc(vpc_id)
    except PermanentError:
        return


def mark_applied(tx: Tx, ctx: Context) -> None:
    network_rows.emit(tx, ctx, "applied")


def say_failed(tx: Tx, ctx: Context, failure: Failure) -> None:
    """The rows stay as they are: they say what shall be. The doctor names what the data plane lacks of it."""
    network_rows.emit_failure(tx, ctx, failure)


WORKFLOW = Workflow(
    action="vpc.apply",
    steps=(
        Step("ensure_vpc", do=ensure_vpc),
        RowStep("mark_applied", do=mark_applied),
    ),
    on_failed=say_failed,
    cancel=NeverCancel(reason="the change is made already; change it back"),
)
