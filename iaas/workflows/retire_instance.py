"""Delete an instance and keep it recoverable: its machine rests on the host, stopped; all else is given back."""

from __future__ import annotations

from datetime import timedelta

from iaas.db.repositories import shared
from iaas.db.store import Tx
from iaas.drivers.interface import MachineKind, PowerState
from iaas.resources.instances import InstanceStatus
from iaas.workflows import machine_steps as steps
from iaas.workflows.framework import Context, Done, NeverCancel, NotYet, Outcome, RowStep, Step, Workflow
from iaas.workflows.port_steps import nic_spec
from iaas.workflows.rows import find_status, release_everything, rest, rest_as_found


def cut_power(ctx: Context) -> Outcome:
    """Whoever deletes does not wait for a guest's good will."""
    driver = ctx.backend.compute[MachineKind(ctx.instance.kind)]
    state = driver.stop_machine(ctx.instance.id, force=True)
    if state.power in (PowerState.STOPPED, PowerState.CRASHED):
        return Done()
    return NotYet(state.next_change_at, message="waiting for the machine to stop")


def remove_ports(ctx: Context) -> Outcome:
    steps.remove_ports(ctx)
    return Done()


def let_nics_go(ctx: Context) -> Outcome:
    """NICs that live on their own are for others now: the machine that rests must not have them when it comes back."""
    driver = ctx.backend.compute[MachineKind(ctx.instance.kind)]
    for nic in ctx.instance.nics:
        if not nic.delete_with_instance:
            driver.detach_nic(ctx.instance.id, nic.id)
    return Done()


def give_nics_back(ctx: Context) -> None:
    driver = ctx.backend.compute[MachineKind(ctx.instance.kind)]
    for nic in ctx.instance.nics:
        if not nic.delete_with_instance:
            driver.attach_nic(ctx.instance.id, nic_spec(nic))


def restore_ports(ctx: Context) -> None:
    steps.ensure_network(ctx)


def mark_retained(tx: Tx, ctx: Context) -> None:
    nics = [
        {
            "id": nic.id,
            "subnet_id": nic.subnet_id,
            "mac": nic.mac,
            "address": nic.address,
            "device_index": nic.device_index,
        }
        for nic in ctx.instance.nics
        if nic.delete_with_instance
    ]
    release_everything(tx, ctx, keep_disk=True)
    shared.set_labels(tx, ctx.instance.id, {})
    rest(
        tx,
        ctx,
        InstanceStatus.DELETED,
        event="instance.deleted",
        guest_ready_at=None,
        deleted_at=tx.now,
        purge_at=tx.now + timedelta(seconds=ctx.input["retention_s"]),
        retained={"nics": nics},
    )


WORKFLOW = Workflow(
    action="instance.retire",
    steps=(
        Step("cut_power", do=cut_power),
        Step("let_nics_go", do=let_nics_go, undo=give_nics_back),
        Step("remove_ports", do=remove_ports, undo=restore_ports),
        RowStep("mark_retained", do=mark_retained),
    ),
    on_failed=rest_as_found,
    look=find_status,
    cancel=NeverCancel(reason="recover the instance when it is deleted"),
)
