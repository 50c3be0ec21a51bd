"""Detach a NIC from its instance, running or stopped. It keeps its address and MAC, for the next one."""

from __future__ import annotations

from iaas.db.store import Tx
from iaas.kernel.errors import Failure
from iaas.resources.networks import NICStatus
from iaas.workflows.framework import CancelUntil, Context, Done, Outcome, RowStep, Step, Workflow
from iaas.workflows.nic_rows import driver_for, failed_data, instance_of, nic_of, outcome_word, rest
from iaas.workflows.port_steps import ensure_port, nic_spec


def unplug(ctx: Context) -> Outcome:
    instance = instance_of(ctx)
    driver_for(ctx, instance).detach_nic(instance.id, ctx.job.resource.id)
    return Done()


def plug_again(ctx: Context) -> None:
    instance = instance_of(ctx)
    driver_for(ctx, instance).attach_nic(instance.id, nic_spec(nic_of(ctx), mtu=ctx.input["mtu"]))


def put_out(ctx: Context) -> Outcome:
    ctx.backend.networks.remove_port(nic_of(ctx).subnet_id, ctx.job.resource.id)
    return Done()


def let_in_again(ctx: Context) -> None:
    ensure_port(ctx, nic_of(ctx), hostname=instance_of(ctx).hostname)


def mark_detached(tx: Tx, ctx: Context) -> None:
    rest(
        tx,
        ctx,
        event="nic.detached",
        data={"instance": ctx.input["instance_id"]},
        status=NICStatus.AVAILABLE,
        instance_id=None,
        device_index=None,
        delete_with_instance=False,  # whoever takes a NIC out means to keep it
    )


def rest_as_attached(tx: Tx, ctx: Context, failure: Failure) -> None:
    rest(
        tx,
        ctx,
        event=f"nic.detach_{outcome_word(failure)}",
        data=failed_data(ctx, failure),
        status=NICStatus.IN_USE,
    )


WORKFLOW = Workflow(
    action="nic.detach",
    steps=(
        Step("detach_nic", do=unplug, undo=plug_again),
        Step("remove_port", do=put_out, undo=let_in_again),
        RowStep("mark_detached", do=mark_detached),
    ),
    on_failed=rest_as_attached,
    cancel=CancelUntil(step="remove_port", reason="the NIC is out of the instance"),
)
