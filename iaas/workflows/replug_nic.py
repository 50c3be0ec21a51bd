"""Plug a NIC again whose link died inside its instance, with the namespace that it was handed on to."""

from __future__ import annotations

from iaas.db.store import Tx
from iaas.kernel.errors import Failure
from iaas.workflows.framework import Context, Done, NeverCancel, Outcome, RowStep, Step, Workflow
from iaas.workflows.nic_rows import driver_for, emit, failed_data, instance_of


def replug(ctx: Context) -> Outcome:
    instance = instance_of(ctx)
    return Done({"replugged": driver_for(ctx, instance).replug_nic(instance.id, ctx.job.resource.id)})


def mark_replugged(tx: Tx, ctx: Context) -> None:
    if ctx.memo.get("replugged"):
        emit(tx, ctx, "nic.replugged", {"instance": ctx.input["instance_id"]})


def say_failed(tx: Tx, ctx: Context, failure: Failure) -> None:
    emit(tx, ctx, "nic.replug_failed", failed_data(ctx, failure))


WORKFLOW = Workflow(
    action="nic.replug",
    steps=(Step("replug_nic", do=replug), RowStep("mark_replugged", do=mark_replugged)),
    on_failed=say_failed,
    cancel=NeverCancel(reason="it is what keeps the instance reachable"),
)
