"""Recover a retained instance: ports for its NICs, and its machine is found stopped as it was left.

Name, addresses, MACs, vCPUs and memory were claimed when the job was accepted. A MAC that somebody else had by then
was replaced by another, which the machine gets here.
"""

from __future__ import annotations

from datetime import datetime

from iaas.db.repositories import instances, shared
from iaas.db.store import Tx
from iaas.drivers.interface import PermanentError, PowerState
from iaas.kernel.errors import Failure
from iaas.resources.instances import InstanceStatus
from iaas.workflows import machine_steps as steps
from iaas.workflows.framework import Context, Done, NeverCancel, NotYet, Outcome, RowStep, Step, Workflow
from iaas.workflows.rows import emit_failure, release_everything, rest


def find_machine(ctx: Context) -> Outcome:
    driver = steps.driver_of(ctx)
    state = driver.inspect_machine(ctx.instance.id)
    if state is None:
        raise PermanentError("the machine is not on its host any more")
    if state.power not in (PowerState.STOPPED, PowerState.CRASHED):  # somebody started it behind our back
        state = driver.stop_machine(ctx.instance.id, force=True)
        if state.power not in (PowerState.STOPPED, PowerState.CRASHED):
            return NotYet(state.next_change_at, message="waiting for the machine to stop")
    return Done({"nic_ids": list(state.nic_ids)})


def set_macs(ctx: Context) -> Outcome:
    """Let the machine have the MACs of its NICs, and no NICs whose subnets have gone meanwhile.

    No undo: whoever recovers it the next time sets them again.
    """
    driver = steps.driver_of(ctx)
    for nic_id in sorted(set(ctx.memo.get("nic_ids", ())) - {nic.id for nic in ctx.instance.nics}):
        driver.detach_nic(ctx.instance.id, nic_id)
    driver.set_macs(ctx.instance.id, {nic.id: nic.mac for nic in ctx.instance.nics})
    return Done()


def mark_recovered(tx: Tx, ctx: Context) -> None:
    rest(tx, ctx, InstanceStatus.STOPPED, event="instance.recovered", purge_at=None, retained=None)


def rest_as_retained(tx: Tx, ctx: Context, failure: Failure) -> None:
    """Deleted as before, until the same moment as before."""
    release_everything(tx, ctx, keep_disk=True)
    shared.set_labels(tx, ctx.instance.id, {})
    deleted_at = datetime.fromisoformat(ctx.input["deleted_at"])
    instances.change(tx, ctx.instance.id, transition=None, deleted_at=deleted_at, name=ctx.input["old_name"])
    emit_failure(tx, ctx, failure)


WORKFLOW = Workflow(
    action="instance.recover",
    steps=(
        Step("ensure_network", do=steps.ensure_network, undo=steps.remove_ports),
        Step("find_machine", do=find_machine),
        Step("set_macs", do=set_macs),
        RowStep("mark_recovered", do=mark_recovered),
    ),
    on_failed=rest_as_retained,
    cancel=NeverCancel(reason="delete the instance when it is back"),
)
