"""Stop a running instance: ask the guest, cut the power after the time-out."""

from __future__ import annotations

from iaas.db.store import Tx
from iaas.resources.instances import InstanceStatus
from iaas.workflows import machine_steps as steps
from iaas.workflows.framework import CancelUntil, Context, RowStep, Step, Workflow
from iaas.workflows.rows import find_status, rest, rest_as_found


def mark_stopped(tx: Tx, ctx: Context) -> None:
    rest(tx, ctx, InstanceStatus.STOPPED, event="instance.stopped", guest_ready_at=None)


WORKFLOW = Workflow(
    action="instance.stop",
    steps=(
        Step("ask_guest", do=steps.stop_gracefully),
        RowStep("mark_stopped", do=mark_stopped),
    ),
    on_failed=rest_as_found,
    cancel=CancelUntil(step="ask_guest", reason="the guest has stopped"),
    look=find_status,
)
