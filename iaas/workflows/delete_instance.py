"""Delete an instance: the machine, its ports, its claims. There is no way back, so nothing is undone."""

from __future__ import annotations

from iaas.db.repositories import instances, shared
from iaas.db.store import Tx
from iaas.kernel.errors import Failure
from iaas.resources.instances import InstanceStatus
from iaas.workflows import machine_steps as steps
from iaas.workflows.framework import Context, Done, NeverCancel, Outcome, RowStep, Step, Workflow
from iaas.workflows.rows import emit_failure, release_everything, rest


def remove_machine(ctx: Context) -> Outcome:
    steps.remove_machine(ctx)
    return Done()


def remove_ports(ctx: Context) -> Outcome:
    steps.remove_ports(ctx)
    return Done()


def mark_deleted(tx: Tx, ctx: Context) -> None:
    release_everything(tx, ctx)
    shared.set_labels(tx, ctx.instance.id, {})
    rest(tx, ctx, InstanceStatus.DELETED, event="instance.deleted", deleted_at=tx.now, purged_at=tx.now, host_id=None)


def rest_as_failed(tx: Tx, ctx: Context, failure: Failure) -> None:
    """Half deleted is not a state to work in: ``failed``, and to be deleted again."""
    instances.change(
        tx,
        ctx.instance.id,
        status=InstanceStatus.FAILED,
        transition=None,
        failure_code=failure.code,
        failure_message=failure.message[:1024],
    )
    emit_failure(tx, ctx, failure)


WORKFLOW = Workflow(
    action="instance.delete",
    steps=(
        Step("remove_machine", do=remove_machine),
        Step("remove_ports", do=remove_ports),
        RowStep("mark_deleted", do=mark_deleted),
    ),
    on_failed=rest_as_failed,
    cancel=NeverCancel(reason="what is deleted already does not come back"),
)
