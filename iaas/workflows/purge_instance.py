"""Purge a retained instance: its machine with the disk goes, the row stays as a ghost. Nothing is undone."""

from __future__ import annotations

from datetime import timedelta

from iaas.db.repositories import catalog, instances, quotas
from iaas.db.store import Tx
from iaas.kernel.errors import Failure
from iaas.resources.instances import InstanceStatus
from iaas.workflows import machine_steps as steps
from iaas.workflows.framework import Context, Done, NeverCancel, Outcome, RowStep, Step, Workflow
from iaas.workflows.rows import emit_failure, rest

TRY_AGAIN_S = 300.0


def remove_machine(ctx: Context) -> Outcome:
    steps.remove_machine(ctx)
    return Done()


def mark_purged(tx: Tx, ctx: Context) -> None:
    if ctx.instance.host_id is not None:
        quotas.give(tx, ctx.instance.project_id, {"root_disk_gib": ctx.instance.root_disk_gib})
        catalog.reserve(tx, ctx.instance.host_id, vcpus=0, memory_mib=0, disk_gib=-ctx.instance.root_disk_gib)
    rest(
        tx,
        ctx,
        InstanceStatus.DELETED,
        event="instance.purged",
        host_id=None,
        purge_at=None,
        retained=None,
        purged_at=tx.now,
    )


def come_round_again(tx: Tx, ctx: Context, failure: Failure) -> None:
    """Half purged is not recoverable any more; it holds its disk until a later try succeeds."""
    again_at = tx.now + timedelta(seconds=TRY_AGAIN_S)
    instances.change(tx, ctx.instance.id, transition=None, purge_at=again_at, retained=None)
    emit_failure(tx, ctx, failure)


WORKFLOW = Workflow(
    action="instance.purge",
    steps=(
        Step("remove_machine", do=remove_machine),
        RowStep("mark_purged", do=mark_purged),
    ),
    on_failed=come_round_again,
    cancel=NeverCancel(reason="what is purged already does not come back"),
)
