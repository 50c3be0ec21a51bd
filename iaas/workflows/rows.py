"""Row changes that end a workflow: the resting state, the event, what was held is given back."""

from __future__ import annotations

from typing import Any

from iaas.db.repositories import catalog, events, instances, nics, quotas, shared
from iaas.db.store import Tx
from iaas.drivers.interface import DriverError, MachineKind, PowerState
from iaas.kernel.errors import Failure, ResourceRef
from iaas.resources.instances import InstanceStatus
from iaas.workflows.framework import Context, Done, NotYet, Outcome
from iaas.workflows.route_targets import follow_targets


def rest(tx: Tx, ctx: Context, status: InstanceStatus, *, event: str, **changes: Any) -> None:
    """Let the instance rest in ``status`` with no transition, and tell so."""
    instances.change(tx, ctx.instance.id, status=status, transition=None, **changes)
    emit(tx, ctx, event)


def emit(tx: Tx, ctx: Context, event: str, data: dict[str, Any] | None = None) -> None:
    """Tell of the change just made in this transaction. Its generation is read: others may have come before it."""
    events.add(
        tx,
        type=event,
        project_id=ctx.job.project_id,
        resource=ResourceRef("instance", ctx.instance.id),
        generation=instances.generation_of(tx.connection, ctx.instance.id),
        job_id=ctx.job.id,
        request_id=ctx.job.request_id,
        data=data,
    )


def mark_running(event: str, **changes: Any) -> Any:
    """Return a row step's ``do``: running, and someone watches for the guest's first answer if it is still to come."""

    def do(tx: Tx, ctx: Context) -> None:
        rest(tx, ctx, InstanceStatus.RUNNING, event=event, guest_ready_at=None, **changes)
        if ctx.memo.get("guest_ready"):
            instances.change(tx, ctx.instance.id, guest_ready_at=tx.now)
            emit(tx, ctx, "instance.guest_ready")
        else:
            ctx.add_job(tx, action="instance.watch_guest", instance=ctx.instance, request_id=ctx.job.request_id)

    return do


def release_everything(tx: Tx, ctx: Context, *, keep_disk: bool = False) -> None:
    """Give back name, addresses, MACs and capacity of an instance that is gone or failed to come.

    NICs that live on their own are free for another instance, with all that they have.
    ``keep_disk``: its machine rests on the host, so the disk stays taken.
    """
    instance = ctx.instance
    shared.release_all(tx, instance.id)
    own = [nic for nic in instance.nics if nic.delete_with_instance]
    for nic in own:
        shared.release_all(tx, nic.id)
        if nic.labels:
            shared.set_labels(tx, nic.id, {})
    if len(own) < len(instance.nics):
        nics.release_from(tx, instance.id)
    nics.delete_of(tx, instance.id)
    if own:
        quotas.give(tx, instance.project_id, {"nics": len(own)})
    follow_targets(
        tx,
        instance.id,
        *(nic.id for nic in instance.nics),
        add_job=ctx.add_job,
        project_id=ctx.job.project_id,
        request_id=ctx.job.request_id,
    )
    if instance.host_id is not None:
        amounts = {"instances": 1, "vcpus": instance.vcpus, "memory_mib": instance.memory_mib}
        if not keep_disk:
            amounts["root_disk_gib"] = instance.root_disk_gib
        quotas.give(tx, instance.project_id, amounts)
        catalog.reserve(
            tx,
            instance.host_id,
            vcpus=-instance.vcpus,
            memory_mib=-instance.memory_mib,
            disk_gib=0 if keep_disk else -instance.root_disk_gib,
        )


def emit_failure(tx: Tx, ctx: Context, failure: Failure) -> None:
    """Tell that the job's action failed, or was called off."""
    action = ctx.job.action.rpartition(".")[2]
    outcome = "cancelled" if failure.code == "cancelled" else "failed"
    emit(tx, ctx, f"instance.{action}_{outcome}", {"code": failure.code, "message": failure.message})


def find_status(ctx: Context) -> Outcome:
    """Ask the backend what the machine really is, to rest in that after a failed action."""
    try:
        state = ctx.backend.compute[MachineKind(ctx.instance.kind)].inspect_machine(ctx.instance.id)
    except DriverError:
        return Done()  # nobody knows better than the row while the backend is down
    if state is None:
        return Done({"found_status": InstanceStatus.FAILED.value})
    if state.power is PowerState.STOPPING:
        return NotYet(state.next_change_at, message="waiting for the guest to stop")
    running = state.power in (PowerState.RUNNING, PowerState.STARTING)
    status = InstanceStatus.RUNNING if running else InstanceStatus.STOPPED
    return Done({"found_status": status.value, "found_generation": state.generation})


def rest_as_found(tx: Tx, ctx: Context, failure: Failure, **changes: Any) -> None:
    """After a failed action: rest in what :func:`find_status` saw on the host, and tell why."""
    status = InstanceStatus(ctx.memo.get("found_status", ctx.instance.status))
    if status is InstanceStatus.FAILED:
        changes |= {"failure_code": failure.code, "failure_message": failure.message[:1024]}
    if status is not InstanceStatus.RUNNING:
        changes["guest_ready_at"] = None
    instances.change(tx, ctx.instance.id, status=status, transition=None, **changes)
    emit_failure(tx, ctx, failure)


def rest_after_boot(tx: Tx, ctx: Context, failure: Failure, **changes: Any) -> None:
    """As :func:`rest_as_found`; a machine that runs may have booted anew, so its guest is watched again."""
    rest_as_found(tx, ctx, failure, guest_ready_at=None, **changes)
    if ctx.memo.get("found_status") == InstanceStatus.RUNNING:
        ctx.add_job(tx, action="instance.watch_guest", instance=ctx.instance, request_id=ctx.job.request_id)
