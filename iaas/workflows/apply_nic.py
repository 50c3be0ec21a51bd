"""Bring what a NIC in an instance may do (addresses, allowed pairs) to its port."""

from __future__ import annotations

from iaas.db.repositories import instances, nics
from iaas.db.store import Tx
from iaas.kernel.errors import Failure
from iaas.workflows.framework import Context, Done, NeverCancel, Outcome, RowStep, Step, Workflow
from iaas.workflows.nic_rows import emit, failed_data
from iaas.workflows.port_steps import ensure_port, take_back_port


def apply(ctx: Context) -> Outcome:
    with ctx.store.read() as connection:
        nic = nics.get(connection, ctx.job.resource.id)
        instance = instances.get(connection, nic.instance_id) if nic is not None and nic.instance_id else None
    # Whoever attaches or detaches it meanwhile makes or removes the port as it is then.
    if nic is not None and instance is not None and nic.transition is None:
        ensure_port(ctx, nic, hostname=instance.hostname)
        take_back_port(ctx, subnet_id=nic.subnet_id, nic_id=nic.id)
    return Done()


def mark_applied(tx: Tx, ctx: Context) -> None:
    emit(tx, ctx, "nic.applied")


def say_failed(tx: Tx, ctx: Context, failure: Failure) -> None:
    emit(tx, ctx, "nic.apply_failed", failed_data(ctx, failure))


WORKFLOW = Workflow(
    action="nic.apply",
    steps=(Step("ensure_port", do=apply), RowStep("mark_applied", do=mark_applied)),
    on_failed=say_failed,
    cancel=NeverCancel(reason="change the NIC back"),
)
