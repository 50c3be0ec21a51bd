"""Row changes that end a workflow of a NIC: where it rests, and the events."""

from __future__ import annotations

from typing import Any

from iaas.db.repositories import events, instances, nics
from iaas.db.store import Tx
from iaas.drivers.interface import ComputeDriver, MachineKind, PermanentError
from iaas.kernel.errors import Failure, ResourceRef
from iaas.resources.instances import Instance
from iaas.resources.networks import NIC
from iaas.workflows.framework import Context
from iaas.workflows.route_targets import follow_targets


def nic_of(ctx: Context) -> NIC:
    """Return the job's NIC as its row is now.

    Raises:
        PermanentError: it is gone.
    """
    with ctx.store.read() as connection:
        nic = nics.get(connection, ctx.job.resource.id)
    if nic is None:
        raise PermanentError(f"NIC {ctx.job.resource.id} is gone")
    return nic


def instance_of(ctx: Context) -> Instance:
    """Return the instance that the job was told of.

    Raises:
        PermanentError: it is gone.
    """
    with ctx.store.read() as connection:
        instance = instances.get(connection, ctx.input["instance_id"])
    if instance is None:
        raise PermanentError(f"instance {ctx.input['instance_id']} is gone")
    return instance


def driver_for(ctx: Context, instance: Instance) -> ComputeDriver:
    return ctx.backend.compute[MachineKind(instance.kind)]


def rest(tx: Tx, ctx: Context, *, event: str, data: dict[str, Any] | None = None, **changes: Any) -> None:
    """Let the NIC rest with no transition, and tell so; routes that lead to it or its instance follow."""
    nics.change(tx, ctx.job.resource.id, transition=None, **changes)
    emit(tx, ctx, event, data)
    follow_targets(
        tx,
        ctx.job.resource.id,
        *([ctx.input["instance_id"]] if "instance_id" in ctx.input else []),
        add_job=ctx.add_job,
        project_id=ctx.job.project_id,
        request_id=ctx.job.request_id,
    )


def emit(tx: Tx, ctx: Context, event: str, data: dict[str, Any] | None = None) -> None:
    """Tell of the change just made in this transaction."""
    nic = nics.get(tx.connection, ctx.job.resource.id)
    events.add(
        tx,
        type=event,
        project_id=ctx.job.project_id,
        resource=ResourceRef("nic", ctx.job.resource.id),
        generation=nic.generation if nic is not None else None,
        job_id=ctx.job.id,
        request_id=ctx.job.request_id,
        data=data or {},
    )


def failed_data(ctx: Context, failure: Failure) -> dict[str, Any]:
    """Return what the event of a failed action says."""
    instance_id = ctx.input.get("instance_id")
    return {"code": failure.code, "message": failure.message} | ({"instance": instance_id} if instance_id else {})


def outcome_word(failure: Failure) -> str:
    return "cancelled" if failure.code == "cancelled" else "failed"
