"""Resize a stopped instance. Growth was reserved when the job was accepted; what is left over goes back here."""

from __future__ import annotations

from iaas.db.repositories import catalog, quotas
from iaas.db.store import Tx
from iaas.drivers.interface import NotFoundError
from iaas.kernel.errors import Failure
from iaas.resources.instances import InstanceStatus
from iaas.workflows import machine_steps as steps
from iaas.workflows.framework import CancelUntil, Context, Done, Outcome, RowStep, Step, Workflow
from iaas.workflows.rows import find_status, rest, rest_as_found


def resize_machine(ctx: Context) -> Outcome:
    steps.driver_of(ctx).resize_machine(ctx.instance.id, vcpus=ctx.input["vcpus"], memory_mib=ctx.input["memory_mib"])
    return Done()


def restore_shape(ctx: Context) -> None:
    try:
        steps.driver_of(ctx).resize_machine(
            ctx.instance.id, vcpus=ctx.instance.vcpus, memory_mib=ctx.instance.memory_mib
        )
    except NotFoundError:
        return


def mark_resized(tx: Tx, ctx: Context) -> None:
    _give_back(tx, ctx, shrunk=True)
    rest(
        tx,
        ctx,
        InstanceStatus.STOPPED,
        event="instance.resized",
        vcpus=ctx.input["vcpus"],
        memory_mib=ctx.input["memory_mib"],
        flavor=ctx.input["flavor"],
    )


def rest_unchanged(tx: Tx, ctx: Context, failure: Failure) -> None:
    _give_back(tx, ctx, shrunk=False)
    rest_as_found(tx, ctx, failure)


def _give_back(tx: Tx, ctx: Context, *, shrunk: bool) -> None:
    """After success give back what became less; after a failure what had been reserved for growth."""
    if ctx.instance.host_id is None:
        return
    sign = -1 if shrunk else 1
    vcpus = max(0, sign * (ctx.input["vcpus"] - ctx.instance.vcpus))
    memory_mib = max(0, sign * (ctx.input["memory_mib"] - ctx.instance.memory_mib))
    quotas.give(tx, ctx.instance.project_id, {"vcpus": vcpus, "memory_mib": memory_mib})
    catalog.reserve(tx, ctx.instance.host_id, vcpus=-vcpus, memory_mib=-memory_mib, disk_gib=0)


WORKFLOW = Workflow(
    action="instance.resize",
    steps=(
        Step("resize_machine", do=resize_machine, undo=restore_shape),
        RowStep("mark_resized", do=mark_resized),
    ),
    on_failed=rest_unchanged,
    cancel=CancelUntil(step="resize_machine", reason="the instance has its new shape"),
    look=find_status,
)
