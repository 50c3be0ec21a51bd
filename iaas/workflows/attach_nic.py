"""Attach a NIC to an instance, running or stopped: its port first, so that no packet meets an open door."""

from __future__ import annotations

from iaas.db.store import Tx
from iaas.kernel.errors import Failure
from iaas.resources.networks import NICStatus
from iaas.workflows.framework import CancelUntil, Context, Done, Outcome, RowStep, Step, Workflow
from iaas.workflows.nic_rows import driver_for, failed_data, instance_of, nic_of, outcome_word, rest
from iaas.workflows.port_steps import ensure_port, nic_spec


def let_in(ctx: Context) -> Outcome:
    ensure_port(ctx, nic_of(ctx), hostname=instance_of(ctx).hostname)
    return Done()


def put_out(ctx: Context) -> None:
    ctx.backend.networks.remove_port(nic_of(ctx).subnet_id, ctx.job.resource.id)


def plug(ctx: Context) -> Outcome:
    nic, instance = nic_of(ctx), instance_of(ctx)
    driver_for(ctx, instance).attach_nic(instance.id, nic_spec(nic, mtu=ctx.input["mtu"]))
    return Done()


def unplug(ctx: Context) -> None:
    instance = instance_of(ctx)
    driver_for(ctx, instance).detach_nic(instance.id, ctx.job.resource.id)


def mark_attached(tx: Tx, ctx: Context) -> None:
    rest(tx, ctx, event="nic.attached", data={"instance": ctx.input["instance_id"]}, status=NICStatus.IN_USE)


def rest_as_free(tx: Tx, ctx: Context, failure: Failure) -> None:
    rest(
        tx,
        ctx,
        event=f"nic.attach_{outcome_word(failure)}",
        data=failed_data(ctx, failure),
        status=NICStatus.AVAILABLE,
        instance_id=None,
        device_index=None,
    )


WORKFLOW = Workflow(
    action="nic.attach",
    steps=(
        Step("ensure_port", do=let_in, undo=put_out),
        Step("attach_nic", do=plug, undo=unplug),
        RowStep("mark_attached", do=mark_attached),
    ),
    on_failed=rest_as_free,
    cancel=CancelUntil(step="attach_nic", reason="the NIC is in the instance; detach it"),
)
