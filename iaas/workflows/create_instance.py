"""Create an instance: image to the host, port in the network, machine, power."""

from __future__ import annotations

from iaas.db.repositories import instances
from iaas.db.store import Tx
from iaas.kernel.errors import Failure
from iaas.resources.instances import InstanceStatus
from iaas.workflows import machine_steps as steps
from iaas.workflows.framework import CancelUntil, Context, RowStep, Step, Workflow
from iaas.workflows.rows import emit_failure, mark_running, release_everything


def rest_as_failed(tx: Tx, ctx: Context, failure: Failure) -> None:
    """The row stays as ``failed`` and holds nothing: no name, no address, no capacity."""
    release_everything(tx, ctx)
    instances.change(
        tx,
        ctx.instance.id,
        status=InstanceStatus.FAILED,
        transition=None,
        failure_code=failure.code,
        failure_message=failure.message[:1024],
        host_id=None,
    )
    emit_failure(tx, ctx, failure)


WORKFLOW = Workflow(
    action="instance.create",
    steps=(
        Step("ensure_image", do=steps.ensure_image),
        Step("ensure_network", do=steps.ensure_first_network, undo=steps.remove_ports),
        Step("ensure_machine", do=steps.ensure_machine, undo=steps.remove_machine),
        Step("start_machine", do=steps.start_machine, undo=steps.force_stop),
        Step("await_running", do=steps.await_running),
        RowStep("mark_running", do=mark_running("instance.created")),
    ),
    on_failed=rest_as_failed,
    cancel=CancelUntil(step="await_running", reason="the instance is made"),
)
